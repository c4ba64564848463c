"""Numbers as people read them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxslim_learn.registry import BYTES, FILE, MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOTHING = 1e-6
"""Losses of single precision are no nearer to zero."""


def count(number: float) -> str:
    """A number in three digits and a unit: 1.81 G."""
    for scale, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes in a readable unit."""
    for scale, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return f"{number:.0f} B"


def amount(number: float, unit: str) -> str:
    """So much of a cost, in what it is counted in."""
    if unit == BYTES:
        return size(number)
    if unit == MICROSECONDS:
        return ms(number / 1e3)
    return f"{count(number) if number >= 1e3 else f'{number:.4g}'} {unit}".strip()


def before_and_after(data: Mapping[str, Any], size_of: str) -> list[tuple[str, str, str, str]]:
    """What is told of costs before and after, and their ratios; the bytes counted are ``size_of`` what."""
    rows, before, after = [], data["before"], data["after"]
    for one in (*data["counted"], {"name": FILE, "title": size_of, "unit": BYTES}):
        old, new = before[one["name"]], after[one["name"]]
        ratio = f"{new / old:.3f}" if old else "-"
        rows.append((one["title"], amount(old, one["unit"]), amount(new, one["unit"]), ratio))
    return rows


def percent(part: float) -> str:
    """A fraction as a whole percentage."""
    return f"{100 * part:.0f} %"


def share(part: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * part:.1f} %"


def at_least(part: float) -> str:
    """A fraction as a percentage that it is not less than: all but everything is no 100 %."""
    return share(math.floor(1000 * max(part, 0.0) + NOTHING) / 1000)


def ms(milliseconds: float) -> str:
    """A time in three digits."""
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"


def times(ratio: float, low: float, high: float) -> str:
    """A ratio of times with its interval."""
    return f"{ratio:.3f} ({low:.3f} to {high:.3f})"


def rate(number: float) -> str:
    """How often, per second."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


STEP = {
    "loss": "loss {:.3g}",
    "held": "on samples held back {:.3g}",
    "right": "right {:.1%}",
    "metric": "metric {:.4g}",
    "cost": "cost left {:.1%}",
    "alive": "units left {:.1%}",
    "sparsity": "zeros {:.1%}",
    "time": "time {:.3g} of the original's",
}
"""A number of a step -> how it is told where there is room for a few."""


def step(numbers: Mapping[str, float]) -> str:
    """What a step tells in words: the loss first, then what is left."""
    return ", ".join(said.format(numbers[name]) for name, said in STEP.items() if name in numbers)


def loss(number: float) -> str:
    """A loss in four digits; what rounding leaves of nothing is 0."""
    return "0" if abs(number) < NOTHING else f"{number:.4g}"


def plural(number: int, one: str) -> str:
    """A count with its noun."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def held_back(samples: Mapping[str, Any]) -> str:
    """The samples that outputs were compared on; of a single batch none can be held back."""
    source = samples["data"]
    return (
        f"held-back samples of {source}"
        if samples["held_back"]
        else f"the same samples that it was fitted to, of {source}"
    )


def shapes(inputs: Mapping[str, Sequence[int]]) -> str:
    """Input shapes: image 1x3x224x224."""
    return ", ".join(f"{name} {'x'.join(map(str, dims))}" for name, dims in inputs.items())


def provider(name: str) -> str:
    """An execution provider without what all their names end in."""
    return name.removesuffix("ExecutionProvider")
