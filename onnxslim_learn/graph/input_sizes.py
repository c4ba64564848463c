"""Which sizes to try for the dimensions that a file leaves open."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import onnx_ir as ir

Shape = tuple[int, ...]

# Sizes tried for open dimensions, small ones first, until one gives consistent shapes: (nominal, analysis, third).
Triple = tuple[int, int, int]
BATCH: Triple = (1, 2, 3)
SIZES: tuple[dict[str, Triple], ...] = (
    {"batch": BATCH, "height": (224, 128, 192), "width": (224, 128, 192), "length": (128, 16, 24)},
    {"batch": BATCH, "height": (32, 64, 96), "width": (32, 64, 96), "length": (16, 64, 96)},
    {"batch": BATCH, "height": (48, 96, 144), "width": (320, 160, 240), "length": (512, 256, 128)},
    {"batch": BATCH, "height": (32, 64, 96), "width": (320, 160, 240), "length": (1024, 1280, 1536)},
    {"batch": BATCH, "height": (299, 331, 363), "width": (299, 331, 363), "length": (3000, 1500, 2000)},
    {"batch": (64, 32, 48), "height": (224, 128, 192), "width": (224, 128, 192), "length": (128, 64, 96)},
    {"batch": BATCH, "height": (640, 320, 960), "width": (640, 320, 960), "length": (16000, 19200, 22400)},
)
HINTS = {
    "batch": ("batch",),
    "length": ("seq", "len", "time", "frame", "token"),
    "height": ("height",),
    "width": ("width",),
}
"""What the name of an open dimension says about its kind."""
APART = 4
"""Dimensions beside each other are tried at sizes that differ by about this part of them."""
EXTRA = (0, 1, 2, 5)
"""How many tokens may stand beside those of an image's patches."""


@dataclass(frozen=True)
class Symbol:
    """An open dimension of a file: one size, wherever it stands.

    Attributes:
        kind: ``batch``, ``height``, ``width`` or ``length``: which sizes are tried.
        given: The size that the user gives it.
        parts: The open dimensions whose sum it is: a mask has former positions and new ones.
    """

    kind: str
    given: int | None = None
    parts: tuple[str, ...] = ()


def open_axes(value: ir.Value) -> list[int]:
    """Axes of a graph input whose size the file leaves open.

    Raises:
        InputError: If not even the rank is known.
    """
    if value.shape is None:
        raise InputError(f"input {value.name}: its rank is unknown. Declare a shape for it in the file.")
    empty = len(value.shape) == 1  # a vector of no elements is a setting; no image or batch has none
    return [a for a, dim in enumerate(value.shape) if not isinstance(dim, int) or dim < (0 if empty else 1)]


def fixed(value: ir.Value, sizes: Mapping[int, int]) -> Shape:
    """The shape of a graph input, open axes filled in."""
    assert value.shape is not None
    return tuple(sizes[a] if a in sizes else int(d) for a, d in enumerate(value.shape))  # type: ignore[arg-type]


def symbols(module: ir.Model, overrides: Mapping[str, Sequence[int]]) -> dict[str, Symbol]:
    """The open dimensions of a model by name (see :func:`dim_key`), with the sizes that are given for inputs.

    Raises:
        InputError: If one is given two sizes.
    """
    places: dict[str, list[tuple[ir.Value, int]]] = {}
    for value in module.graph.inputs:
        for axis in open_axes(value):
            places.setdefault(dim_key(value, axis), []).append((value, axis))
    named: dict[str, Symbol] = {}
    batched = any(axis == 0 for where in places.values() for _, axis in where)
    for key, where in places.items():
        given = {str(v.name): overrides[str(v.name)][axis] for v, axis in where if v.name in overrides}
        if len(set(given.values())) > 1:
            told = ", ".join(f"{size} by {name}" for name, size in given.items())
            raise InputError(f"⟨input⟩: dimension {key} has one size, but is given {told}. Give one.")
        named[key] = Symbol(_kind(key, where, batched), next(iter(given.values()), None))
    grown = _grown(module, named)
    sums = _sums(places, grown[0] if grown else ())
    for part in {part for parts in (*sums.values(), *grown) for part in parts}:
        named[part] = named[part] if named[part].kind == "batch" else replace(named[part], kind="length")
    return named | {k: replace(named[k], parts=parts) for k, parts in sums.items() if named[k].given is None}


def _grown(module: ir.Model, known: Collection[str]) -> list[tuple[str, ...]]:
    """The sums of open dimensions that outputs have along an axis: former positions and new ones."""
    dims = [str(getattr(dim, "value", "")) for v in module.graph.outputs for dim in v.shape or ()]
    return [parts for dim in dims if (parts := _parts(dim, known))]


def _sums(places: Mapping[str, Sequence[tuple[ir.Value, int]]], grown: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Open dimensions that are sums of others.

    One says so itself (``past_length + length``), is called ``total_length`` beside ``past_length`` and ``length``, or
    is the length of a mask where the model puts out what has ``grown`` so long, and nothing else ties it.
    """
    sums = {key: parts for key in places if (parts := _parts(key, places))}
    totals = {key: key.removeprefix("total_") for key in places if key.startswith("total_")}
    sums |= {k: (f"past_{rest}", rest) for k, rest in totals.items() if {f"past_{rest}", rest} <= places.keys()}
    for key, where in places.items():
        (value, axis), *others = where
        if grown and not others and axis == 1 and "mask" in str(value.name) and key not in (*sums, *grown):
            sums[key] = grown
    return sums


def _parts(text: str, known: Collection[str]) -> tuple[str, ...]:
    """The terms of a sum of open dimensions, or nothing."""
    parts = tuple(part.strip() for part in text.split("+"))
    return parts if len(parts) > 1 and all(part in known for part in parts) else ()


def summed(sizes: Mapping[str, int], symbols: Mapping[str, Symbol]) -> dict[str, int]:
    """Sizes of open dimensions, in which those that are sums of others are."""
    return {k: sum(sizes[part] for part in symbols[k].parts) if symbols[k].parts else n for k, n in sizes.items()}


def shapes_at(module: ir.Model, sizes: Mapping[str, int]) -> dict[str, Shape]:
    """The shapes of all graph inputs with the open dimensions of these sizes."""
    return {str(v.name): fixed(v, {a: sizes[dim_key(v, a)] for a in open_axes(v)}) for v in module.graph.inputs}


def _kind(key: str, places: Sequence[tuple[ir.Value, int]], batched: bool) -> str:
    """What an open dimension most likely is, by its name, or else by its place in every input that has it.

    ``batched`` says whether the first axis of some input is open.
    """
    for kind, words in HINTS.items():
        if "." not in key and any(word in key.lower() for word in words):
            return kind
    value, axis = places[0]
    if any(one is other for (one, _), (other, _) in itertools.combinations(places, 2)):
        return "length"  # a square: of places in a graph, never of samples
    if any(axis == 0 for _, axis in places):
        return "batch"
    assert value.shape is not None
    if batched and "." in key and len(value.shape) == 3 and open_axes(value) == [1]:
        return "batch"  # a state: layers x batch x units
    return "length" if len(value.shape) < 4 else ("height", "width")[axis == len(value.shape) - 1]


def usual(image: tuple[int, int] | None) -> tuple[dict[str, Triple], ...]:
    """Sizes to try for open dimensions, those first that the file says its images have: height and width."""
    if image is None:
        return SIZES
    triples: list[Triple] = [(size, max(size // 2, 1), max(size * 3 // 2, 2)) for size in image]
    return ({**SIZES[0], "height": triples[0], "width": triples[1]}, *SIZES)


def within(triple: Triple, largest: int | None) -> Triple:
    """Sizes of which none is larger than what fits."""
    if largest is None or max(triple) <= largest:
        return triple
    return largest, max(largest // 2, 1), max(largest // 3, 1)


def variations(size: int, triple: Triple, place: int = 0) -> list[tuple[int, ...]]:
    """Other sizes that an open dimension of a size may have together, the first choice first.

    What a file pads to a multiple must be seen at no multiple of it, strided or not: the first choice has sizes of
    which halves, rounded up or down, are odd. The last one has smaller sizes, for what a table of positions bounds.
    ``place`` sets dimensions apart that stand beside each other, so far that they differ also where strides have made
    them sixteen times smaller.
    """
    others = [other for other in dict.fromkeys((*triple[1:], 2 * size, 3 * size)) if other != size]
    plain, doubled = (others[0], others[1]), (2 * size, 3 * size)
    apart = others[1] // APART // 8 * 8
    base = others[1] - 8 * (place + 1) - place % 3 * apart
    less = _smaller(size, place)
    if base <= 0:
        return [(*plain, others[1] + 2), plain, doubled, *less]
    odd = [n for n in (base // 8 * 8 + 1, base // 8 * 8 + 7) if n not in (size, others[0])]
    return [(others[0], *(odd[::-1] if place % 2 else odd)), plain, doubled, *less]


def _smaller(size: int, place: int) -> list[tuple[int, ...]]:
    """Two odd sizes between a half of a size and itself, where none divides it, if there are two.

    The first is no multiple of four below it: what is padded to whole windows would be padded alike at all of them.
    """
    odd = range(size // 2 + 1 | 1, size, 2)
    if len(odd) < 2:
        return []
    more, less = odd[len(odd) * 3 // 4 - place % 2], odd[len(odd) // 4 - place % 2]
    return [(more + 2 * ((size - more) % 4 == 0), less)]


def remedies(
    sizes: Mapping[str, int], kinds: Mapping[str, str], pairs: Sequence[tuple[int, int]]
) -> list[dict[str, int]]:
    """Other sizes of open dimensions at which sizes that do not fit might.

    Args:
        sizes: The sizes of the open dimensions that may change.
        kinds: What they are.
        pairs: What does not fit, and what would (:class:`onnxslim_learn.errors.MisfitError`).

    Returns:
        Changes to try, the likeliest first: of a dimension, of height and width together, whose product counts (beside
        a few tokens that are always there; the nearest first; or of whole patches) or which are alike, of the batch, of
        a dimension in proportion, or beside such tokens or windows that overlap.
    """
    equal = [(key, want) for have, want in pairs for key, size in sizes.items() if size == have]
    direct, batch = ([{k: n} for k, n in equal if (kinds[k] == "batch") == wanted] for wanted in (False, True))
    scaled = [
        {key: size * want // have} for have, want in pairs for key, size in sizes.items() if size * want % have == 0
    ]
    image = [key for key in sizes if kinds[key] in ("height", "width")]
    beside = [(have - extra, want - extra) for have, want in pairs for extra in EXTRA if min(have, want) > extra]
    ratios = {math.sqrt(want / have): None for have, want in beside}
    both = [
        {key: round(sizes[key] * ratio) for key in image}
        for ratio in sorted(ratios, key=lambda ratio: max(ratio, 1 / ratio))
        if image and all((sizes[key] * ratio).is_integer() for key in image)
    ]
    patched = [change for have, want in beside for change in _patched({k: sizes[k] for k in image}, have, want)]
    alike = [
        {key: sizes[key] * want // have for key in image}
        for have, want in pairs
        if len(image) > 1 and all(sizes[key] * want % have == 0 for key in image)
    ]
    parts = {key: size for key, size in sizes.items() if kinds[key] != "batch"}
    shifted = [{k: size + (want - have) * max(size // have, 1)} for have, want in pairs for k, size in parts.items()]
    likeliest = (*direct, *both, *patched, *alike, *batch, *scaled, *shifted)
    listed = [change for change in likeliest if all(size > 0 for size in change.values())]
    return [change for k, change in enumerate(listed) if change not in listed[:k]]


def _patched(image: Mapping[str, int], have: int, want: int) -> Iterator[dict[str, int]]:
    """Sizes of an image that has ``want`` whole patches, where it has ``have``, and what is left over at its edges."""
    for side in range(1, 1 + min(image.values(), default=0)):
        grid = {key: size // side for key, size in image.items()}
        ratio = math.sqrt(want / have)
        if math.prod(grid.values()) == have and all((count * ratio).is_integer() for count in grid.values()):
            yield {key: round(count * ratio) * side for key, count in grid.items()}


def dim_key(value: ir.Value, axis: int) -> str:
    """Identity of an open dimension: its name, or its place where the name says nothing."""
    assert value.shape is not None
    named = getattr(value.shape[axis], "value", None)
    return str(named) if named and named not in ("?", "None", "-1") else f"{value.name}.{axis}"
