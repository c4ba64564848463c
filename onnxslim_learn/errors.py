"""Every exception this package raises on purpose, under one base.

A message reads *where: what holds, but what was found. What to do.* Parameters in it stand in ⟨brackets⟩: shown in
Python they are keywords, the command line makes flags of them (:meth:`SlimError.told`).
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed: ?|\[\w+Error\] ?|^/\S+:\d+ [^()]*\([^()]*\) ?"
)


# What onnxruntime says at length, in a few words.
_SHORTER = (
    (
        re.compile(r".*Current official support for domain (\S+) is till opset (\d+).*"),
        r"operator sets of \1 are supported only up to \2",
    ),
    (
        re.compile(r".*while running (\S+) node.*Failed to allocate memory for requested buffer of size (\d+).*"),
        r"a node (\1) needs \2 bytes at once, more memory than there is",
    ),
    (
        re.compile(r".*Unsupported model IR version: (\d+), max supported IR version: (\d+).*"),
        r"format \1 is newer than \2, the newest it supports",
    ),
)


def reason(error: BaseException) -> str:
    """What another library's error says, in one line without its codes and paths."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0]
    for pattern, short in _SHORTER:
        if pattern.match(text):
            return pattern.sub(short, text)
    while (shorter := _NOISE.sub("", text)) != text:
        text = shorter
    return re.sub(r"[.!?]\s+(?=\S)", "; ", " ".join(text.split()))[:300].rstrip(".")


def first(error: BaseException) -> BaseException:
    """The error that led to another."""
    return error if error.__cause__ is None else first(error.__cause__)


_ENDLESS = re.compile(r"\S{1000,}")  # longer than any path of a system


def printable(text: str, keep: str = "") -> str:
    """A text without control characters, which names in files may have: what does not print is written as an escape.

    Of a word that never ends, its ends are shown.

    Args:
        text: The text.
        keep: Characters that stay as they are.
    """
    shown = "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
    return _ENDLESS.sub(lambda word: f"{word[0][:100]}…{word[0][-100:]}", shown)


def meant(word: str, known: Iterable[str], shown: str = "{}") -> str:
    """Ask whether the name that is nearest to a word was meant; empty where none is near.

    Args:
        word: What was given.
        known: The names there are.
        shown: How the name is written.
    """
    near = difflib.get_close_matches(word, list(known), 1)
    return f"Did you mean {shown.format(near[0])}?" if near else ""


_PARAMETER = re.compile("⟨([^⟩]*)⟩")


class SlimError(Exception):
    """Base of all errors a caller may want to catch; the command line turns it into one sentence."""

    exit_code = 2

    @property
    def message(self) -> str:
        """What holds, with parameters in ⟨brackets⟩."""
        return str(self.args[0]) if self.args else ""

    @property
    def parameter(self) -> str:
        """The keyword at fault, or an empty text where none is."""
        first = _PARAMETER.match(self.message)
        return _keyword(first.group(1)) if first else ""

    def told(self, parameter: Callable[[str], str]) -> str:
        """The message with parameters as they are called where it is shown."""
        return _PARAMETER.sub(lambda mark: parameter(mark.group(1)), self.message)

    def __str__(self) -> str:
        return self.told(_keyword)


def with_flags(text: str) -> str:
    """A text with parameters in ⟨brackets⟩ as the command line calls them."""
    return _PARAMETER.sub(lambda mark: "--" + mark.group(1).replace("_", "-"), text)


def _keyword(parameter: str) -> str:
    """A parameter in Python; the bound of a cost (``target.macs``) is a keyword of its own."""
    return parameter.rpartition(".")[2]


class InputError(SlimError):
    """Raised for a file, option or array that cannot be used as given (exit code 2)."""


class MisfitError(InputError):
    """Raised where sizes do not fit each other; other sizes of open dimensions may.

    Attributes:
        pairs: Sizes that are here, with what they would have to be; the likeliest first.
    """

    def __init__(self, message: str, pairs: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(message)
        self.pairs = tuple(dict.fromkeys((have, want) for have, want in pairs if have != want and min(have, want) > 0))


class TooLargeError(InputError):
    """Raised where something ends before open dimensions do.

    Attributes:
        longest: Open dimension -> the largest size that fits.
    """

    def __init__(self, message: str, longest: Mapping[str, int]) -> None:
        super().__init__(message)
        self.longest = dict(longest)


class OtherSizesError(InputError):
    """Raised for samples of other sizes than those at which a model is looked at, where its file leaves them open.

    Attributes:
        shapes: Graph input -> the shape of one sample, with as many along its axis as the model takes.
    """

    def __init__(self, message: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(message)
        self.shapes = dict(shapes)


class PlanError(SlimError):
    """Raised for a plan that does not fit the model or breaks a constraint (exit code 2)."""


class TargetError(SlimError):
    """Raised when a cost target cannot be reached; says the best that can (exit code 1).

    Attributes:
        missed: Cost -> its least value in reach, and the bound; latency in milliseconds.
        changes: Options that would make it reachable, with what they would have to be.
        next: A command line with those; empty where there are none.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        missed: Mapping[str, tuple[float, float]] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.missed, self.changes, self.next = dict(missed or {}), dict(changes or {}), ""


class VerifyError(SlimError):
    """Raised when a written result would not compute what was promised (exit code 1)."""

    exit_code = 1


class TrainError(SlimError):
    """Raised when training cannot go on: its loss is no longer finite (exit code 1)."""

    exit_code = 1
