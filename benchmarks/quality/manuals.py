"""English manual pages as plain text and as tokens, for a small model of language: what a Debian machine has at hand.

Pages that ``man`` reads lie compressed in ``/usr/share/man``; ``apt-get install manpages manpages-dev`` brings some
thousand. What differs between machines is which pages there are; the tokens are learnt from those.
"""

import gzip
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path("/usr/share/man")
TOKENS = 1024  # in the vocabulary
MOST = 10_000_000  # characters read
LEAST = 1_000_000
HELD_BACK = 16  # one page of so many is never trained on

_COMMENT = re.compile(r"(?m)^['.]\s*\\?\".*$")
_MACRO = re.compile(r"(?m)^['.]\s*[A-Za-z]*\s*")
_ESCAPES = ((r"\\f(\(..|\[.*?\]|.)", ""), (r"\\[&/,|^:]", ""), (r"\\s[+-]?\d", ""), (r"\\\((.)q", r"'"))
_SIGNS = ((r"\\[*(]..", ""), (r"\\\[.*?\]", ""), (r"\\-", "-"), (r"\\e", r"\\"), (r"\\(.)", r"\1"), (r"\n\s*\n+", "\n"))


def plain(source: str) -> str:
    """The words of a page, without what is meant for a typesetter."""
    text = _MACRO.sub("", _COMMENT.sub("", source))
    for pattern, put in (*_ESCAPES, *_SIGNS):
        text = re.sub(pattern, put, text)
    return text.encode("ascii", "ignore").decode()


def pages(folder: Path = FOLDER) -> list[str]:
    """Plain text of pages in an order of chance that is the same every time, none twice.

    Raises:
        SystemExit: If there are too few.
    """
    paths = [path for path in folder.glob("man[1-8]/*.gz") if path.is_file() and not path.is_symlink()]
    paths.sort(key=lambda path: hashlib.sha256(path.name.encode()).digest())
    found: dict[bytes, str] = {}
    total = 0
    for path in paths:
        text = plain(gzip.decompress(path.read_bytes()).decode("utf-8", "ignore"))
        total += 0 if found.setdefault(hashlib.sha256(text.encode()).digest(), text) is not text else len(text)
        if total >= MOST:
            break
    if total < LEAST:
        raise SystemExit(f"{folder}: {total} characters of pages, too few. {' '.join((__doc__ or '').split())}")
    return list(found.values())


def tokens(texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], Any]:
    """Tokens to train on and held-back ones, pages one after the other, and what made them of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    maker = Tokenizer(models.BPE())
    maker.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    maker.decoder = decoders.ByteLevel()
    told = texts[: len(texts) // 4]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    ends = ["<page>"]
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS, special_tokens=ends, initial_alphabet=alphabet, show_progress=False
    )
    maker.train_from_iterator(told, trainer)
    parts: tuple[list[int], list[int]] = ([], [])
    for number, page in enumerate(maker.encode_batch(texts)):
        parts[number % HELD_BACK == 0].extend([0, *page.ids])
    trained, held_back = (np.array(part, np.int64) for part in parts)
    return trained, held_back, maker
