"""How the texts of options become values: each reader takes one, or says what was expected."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Reader = Callable[[str], Any]

AUTO = "auto"
"""Of widths: multiples of the steps of this machine's kernels."""


def no_file(path: str | Path) -> str:
    """Why a path is no file to be read, in words; empty where it is one. Pipes and devices may never end."""
    place = Path(path)
    if place.is_dir():
        return "is a folder"
    if place.is_file():
        return ""
    return "is no regular file" if place.exists() else "no such file"


DIGITS = 18  # of a whole number: more than there is of anything, and few enough for 64 bits


def _is_whole(text: str) -> bool:
    """Whether a text is a whole number that is not negative."""
    return text.isascii() and text.isdecimal() and len(text) <= DIGITS


def whole(text: str) -> int:
    """Read a whole number."""
    if not _is_whole(text):
        raise ValueError(f"expected a whole number, but got {text!r}")
    return int(text)


PORTS = 1 << 16


def port(text: str) -> int:
    """Read the number of a port."""
    if not (_is_whole(text) and 0 < int(text) < PORTS):
        raise ValueError(f"expected a port from 1 to {PORTS - 1}, but got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Read a whole number above zero."""
    if not (_is_whole(text) and int(text) > 0):
        raise ValueError(f"expected a positive whole number, but got {text!r}")
    return int(text)


def multiple_of(text: str) -> int | str:
    """Read what widths are multiples of: a whole number above zero, or ``auto``."""
    if text != AUTO and not (_is_whole(text) and int(text) > 0):
        raise ValueError(f"expected a positive whole number or {AUTO}, but got {text!r}")
    return text if text == AUTO else int(text)


def number_or_auto(text: str) -> int | str:
    """Read a whole number that is not negative, or ``auto``."""
    if text != AUTO and not _is_whole(text):
        raise ValueError(f"expected a whole number or {AUTO}, but got {text!r}")
    return text if text == AUTO else int(text)


def threads(text: str) -> int:
    """Read a number of threads that this machine may run."""
    most = 4 * (os.cpu_count() or 1)
    if positive(text) > most:
        raise ValueError(f"expected at most {most} on this machine, but got {text}")
    return int(text)


def place(text: str) -> int | str:
    """Read a number of processes, or the address of a scheduler."""
    return text if "://" in text else threads(text)


def any_whole(text: str) -> int:
    """Read a whole number, which may be negative."""
    if not _is_whole(text.removeprefix("-")):
        raise ValueError(f"expected a whole number, but got {text!r}")
    return int(text)


def any_number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"expected a number, but got {text!r}") from error


def number(text: str) -> float:
    """Read a number above zero."""
    if not (0 < _float(text) < math.inf):
        raise ValueError(f"expected a positive number, but got {text!r}")
    return float(text)


def bound(text: str) -> float:
    """Read a number above zero, or zero for none."""
    return 0.0 if text in ("0", "0.0") else number(text)


def share(text: str) -> float:
    """Read a number between 0 and 1."""
    if not 0 <= _float(text) <= 1:
        raise ValueError(f"expected a number between 0 and 1, but got {text!r}")
    return float(text)


def seconds(text: str) -> float:
    """Read seconds above zero."""
    if not 0 < _float(text) <= 3600:
        raise ValueError(f"expected seconds above 0 and up to 3600, but got {text!r}")
    return float(text)


def some_seconds(text: str) -> float:
    """Read seconds, from zero."""
    if not 0 <= _float(text) <= 3600:
        raise ValueError(f"expected seconds from 0 and up to 3600, but got {text!r}")
    return float(text)


def _float(text: str) -> float:
    """A number; one that is none compares false with all."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers with commas between them."""
    read = tuple(_float(one) for one in text.split(","))
    if not all(map(math.isfinite, read)):
        raise ValueError(f"expected numbers as in 0.485,0.456,0.406, but got {text!r}")
    return read


def pair(text: str) -> tuple[float, ...]:
    """Read a smaller and a larger number."""
    read = numbers(text)
    if len(read) != 2 or not read[0] < read[1]:
        raise ValueError(f"expected a smaller and a larger number as in 0,1, but got {text!r}")
    return read


def size(text: str) -> tuple[int, ...]:
    """Read a height and a width, or one number for both."""
    read = tuple(positive(one) for one in text.split("x"))
    if len(read) > 2:
        raise ValueError(f"expected HxW or one number, but got {text!r}")
    return read * 2 if len(read) == 1 else read


def listed(one: Reader) -> Reader:
    """A reader of values with commas between them."""

    def each(text: str) -> tuple[Any, ...]:
        return tuple(one(part) for part in text.split(","))

    return each


def provider(text: str) -> str:
    """Read an execution provider, in short or in full."""
    return f"{text.upper()}ExecutionProvider" if text.lower() in ("cpu", "cuda") else text


def pattern(text: str) -> str:
    """Read a regular expression."""
    if not text:
        raise ValueError("expected a regular expression, but got an empty one, which would match all")
    try:
        re.compile(text)
        tree = re._parser.parse(text)  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"not a regular expression ({error})") from error
    if _explodes(tree):
        raise ValueError("expected a regular expression without a repeat or a choice within a repeat")
    return text


FEW = 16  # repeats that take no time, whatever is repeated


def _explodes(tree: Any, repeated: bool = False) -> bool:
    """Whether a search may take time that doubles with every character: what is repeated may be met in two ways."""
    for kind, about in tree:
        name = str(kind)
        if name == "BRANCH" and repeated:
            return True
        repeats = name.endswith("REPEAT") and about[1] > FEW
        if repeated and name.endswith("REPEAT") and about[0] != about[1]:
            return True
        if any(_explodes(part, repeated or repeats) for part in _parts(about)):
            return True
    return False


def _parts(about: Any) -> Iterator[Any]:
    """The expressions within what a token of an expression holds."""
    for one in about if isinstance(about, tuple | list) else ():
        if hasattr(one, "pattern") or hasattr(one, "state"):
            yield one
        else:
            yield from _parts(one)


def printable(text: str) -> str:
    """Read a name."""
    if not text or not text.isprintable():
        raise ValueError(f"expected a name, but got {text!r}")
    return text
