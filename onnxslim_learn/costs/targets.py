"""What is said in one word: bounds on costs, and shapes of inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

from onnxslim_learn.errors import InputError
from onnxslim_learn.readers import pattern
from onnxslim_learn.registry import COSTS, MICROSECONDS
from onnxslim_learn.runtime.functions import is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnxslim_learn.registry import CostRow

Bound: TypeAlias = "float | str"
"""At most 1, a fraction; more is absolute, times in milliseconds; or a text such as ``0.5ms`` or ``300M``."""

TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}  # milliseconds
PER_MILLISECOND = 1e3  # microseconds
SWITCHES = {"true": 1.0, "false": 0.0}
UNITS = {"": 1.0, "%": 0.01, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}


LARGEST = 1000.0  # shares of a model end here; no budget in single multiply-accumulates or bytes is as small


class Share(float):
    """A bound that is a share of a model, above 1, too."""


def is_share(bound: Bound) -> bool:
    """Whether a bound is a share of a model, not an amount."""
    return not isinstance(bound, str) and (bound <= 1 or isinstance(bound, Share))


class Boundable:
    """The names of the costs that may be bounded, those that users added included."""

    def __contains__(self, name: object) -> bool:
        row = COSTS.find(str(name))
        return row is not None and row.bounded

    def __iter__(self) -> Iterator[str]:
        return (row.name for row in COSTS.values() if row.bounded)


def each(texts: Sequence[str]) -> dict[str, dict[str, Bound]]:
    """Read ``cost=number`` texts, one of which may list several numbers: a target for each, named by the number.

    Raises:
        InputError: If one cannot be read.
    """
    several = [text for text in texts if "," in text.partition("=")[2]]
    if not several:
        return {"": targets(texts)}
    if len(several) > 1:
        raise InputError(f"{_told(several[1])}: only one may list several numbers. Bound others by one number.")
    cost, _, numbers = several[0].partition("=")
    rest = [text for text in texts if text is not several[0]]
    return {number: targets([f"{cost}={number}", *rest]) for number in numbers.split(",")}


def budgets(texts: Sequence[str]) -> dict[str, Bound]:
    """Read ``cost=number`` texts of what may grow: 1.5 and 150% are shares, too.

    Raises:
        InputError: If one cannot be read.
    """
    return targets(texts, largest=LARGEST)


def targets(texts: Sequence[str], *, largest: float = 1.0) -> dict[str, Bound]:
    """Read ``cost=number`` texts; numbers may end in k, M, G or T. A time stays a text, in milliseconds.

    Args:
        texts: Of each cost at most one.
        largest: The largest share of a model; numbers up to it that have no unit are shares.

    Raises:
        InputError: If one cannot be read.
    """
    bounds: dict[str, Bound] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        row = _cost(text, name) if equals else None
        if row is None or not row.bounded:
            listed = ", ".join(f"{row.name}=" for row in COSTS.values() if row.bounded)
            raise InputError(f"⟨target⟩ {text}: expected one of {listed} and a number. For example macs=0.5.")
        if "," in number:
            raise InputError(f"{_told(text)}: expected one number here.")
        name = row.name if name in COSTS else name
        if name in bounds:
            several = f"for several models, slim takes all their numbers in one: {name}=0.7,0.5"
            raise InputError(f"{_told(text)}: {name} is bounded twice. Give one bound for each cost; {several}.")
        bounds[name] = (_time if row.unit == MICROSECONDS else _number)(text, number, largest)
    return bounds


def _cost(text: str, name: str) -> CostRow:
    """The cost that a target names."""
    try:
        return COSTS.row(name, "⟨target⟩")
    except InputError as error:
        if is_name(name):
            raise
        said = error.message.partition(": ")[2]
        raise InputError(f"⟨target⟩ {text}: {said} For example macs=0.5.") from error


def _told(text: str) -> str:
    """A bound in an error."""
    name, _, number = text.partition("=")
    return f"⟨target.{name}⟩={number}"


def entry(cost: str | Callable[..., Any], bound: Any) -> str:
    """The text of a bound that Python gives as a number, or as several; a latency above 1 is in milliseconds."""
    cost = COSTS.row(cost, "⟨target⟩").name if callable(cost) else cost
    numbers = bound if isinstance(bound, list | tuple) else [bound]
    row = COSTS.find(cost)
    unit = "ms" if row is not None and row.unit == MICROSECONDS else ""
    texts = [one if isinstance(one, str) else f"{one}{unit if one > 1 else ''}" for one in numbers]
    return f"{cost}={','.join(texts)}"


def amount(row: CostRow, bound: Bound, whole: float) -> float:
    """A bound in the unit that a cost is counted in, which is microseconds for times; ``whole`` is what 1 stands for.

    Raises:
        InputError: If it is a text that cannot be read.
    """
    known = read(row, bound)
    if isinstance(known, str):
        return float(known.removesuffix("ms")) * PER_MILLISECOND
    return known * whole if is_share(known) else known


def read(row: CostRow, bound: Bound) -> Bound:
    """A bound as plans tell it: a number, or for a time a text in milliseconds.

    Raises:
        InputError: If it is a text that cannot be read.
    """
    if isinstance(bound, str):
        return targets([f"{row.name}={bound}"])[row.name]
    return _milliseconds(bound) if row.unit == MICROSECONDS and not is_share(bound) else bound


def stated(row: CostRow | None, amount: float) -> Bound:
    """An amount in the unit that a cost is counted in as a bound: a time as text."""
    return _milliseconds(amount / PER_MILLISECOND) if row is not None and row.unit == MICROSECONDS else amount


def shown(bound: Bound, row: CostRow | None = None) -> str:
    """A bound as it was asked for."""
    if isinstance(bound, str):
        return bound
    return f"{bound:.4g}ms" if row is not None and row.unit == MICROSECONDS and not is_share(bound) else f"{bound:g}"


def dated(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds of a plan; those of former plans have times as numbers of microseconds."""
    times = {row.name for row in COSTS.values() if row.unit == MICROSECONDS}
    former = {n: b for n, b in bounds.items() if n in times and isinstance(b, int | float) and b > 1}
    return {**bounds, **{name: _milliseconds(bound / PER_MILLISECOND) for name, bound in former.items()}}


def _milliseconds(time: float) -> str:
    return f"{time:.12g}ms"


def _time(text: str, number: str, largest: float) -> Bound:
    """A share, or a time."""
    unit = next((unit for unit in TIMES if number.endswith(unit)), "")
    value = _number(text, number.removesuffix(unit) if unit else number, 0.0 if unit else largest)
    if not unit and not is_share(value):
        raise InputError(f"{_told(text)}: above 1 it is a time, which needs a unit. For example latency=4ms.")
    return _milliseconds(value * TIMES[unit]) if unit else value


def _number(text: str, number: str, largest: float) -> float:
    """A share of at most ``largest``, or an amount."""
    unit = number[-1:] if number[-1:] in UNITS else ""
    try:
        value = float(number[: len(number) - len(unit)]) * UNITS[unit]
    except ValueError as error:
        raise InputError(f"{_told(text)}: {number!r} is no number. For example macs=0.5 or params=2M.") from error
    if unit == "%" and value > largest:
        raise InputError(f"{_told(text)}: expected at most {100 * largest:g} %. For example macs=50%.")
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{_told(text)}: expected a positive number. For example macs=0.5 or params=2M.")
    return Share(value) if unit in ("", "%") and 1 < value <= largest else value


def marks(several: Mapping[str, Any]) -> list[str]:
    """What names of files end with where there is one for each of several targets (:func:`each`)."""
    return [f"-{name}" for name in several if name]


def many(text: str) -> float:
    """Read a number from zero, which may end in k, M, G or T."""
    unit = text[-1:] if text[-1:] in UNITS and text[-1:] != "%" else ""
    try:
        value = float(text[: len(text) - len(unit)]) * UNITS[unit]
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"expected a number from 0 as in 500G or 2T, but got {text!r}")
    return value


def given(texts: Sequence[str]) -> dict[str, list[float] | float]:
    """Read ``NAME=16000`` texts; several numbers have commas between them.

    Raises:
        InputError: If one cannot be read.
    """
    values: dict[str, list[float] | float] = {}
    for text in texts:
        name, _, listed = text.rpartition("=")
        try:
            numbers = [
                SWITCHES[p] if (p := part.strip().lower()) in SWITCHES else float(p) for part in listed.split(",")
            ]
        except ValueError:
            numbers = []
        if not name or not numbers or not all(map(math.isfinite, numbers)):
            raise InputError(f"⟨value⟩ {text}: expected NAME=NUMBER. For example sr=16000.")
        values[name] = numbers if len(numbers) > 1 else numbers[0]
    return values


def shares(texts: Sequence[str]) -> dict[str, float]:
    """Read ``REGEX=0.7`` texts.

    Raises:
        InputError: If one cannot be read.
    """
    shares_by_pattern = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number if name else "")
        except ValueError:
            raise InputError(f"⟨keep⟩ {text}: expected REGEX=SHARE. For example heads=0.7.") from None
        try:
            shares_by_pattern[pattern(name)] = value
        except ValueError as error:
            raise InputError(f"⟨keep⟩ {text}: {error}. Change it.") from error
    return shares_by_pattern


def shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read ``NAME:1x3x224x224`` texts.

    Raises:
        InputError: If one cannot be read.
    """
    sizes_by_name = {}
    for text in texts:
        name, colon, dims = text.rpartition(":")
        sizes = dims.split("x")
        if not colon or not all(s.isascii() and s.isdecimal() and int(s) > 0 for s in sizes):
            raise InputError(f"⟨input⟩ {text}: expected NAME:1x3x224x224 with positive sizes.")
        sizes_by_name[name] = tuple(int(s) for s in sizes)
    return sizes_by_name


def value(name: str, given: Any) -> str:
    """The text of an input's value."""
    numbers = given if isinstance(given, list | tuple) else [given]
    return f"{name}={','.join(str(number) for number in numbers)}"


def shape(name: str, sizes: Any) -> str:
    """The text of an input's shape."""
    return f"{name}:{sizes if isinstance(sizes, str) else 'x'.join(map(str, sizes))}"
