"""Which sizes to try for the dimensions that a file leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

Shape = tuple[int, ...]

# Sizes tried for open dimensions, in order, until one gives consistent shapes: (nominal, analysis, third).
Triple = tuple[int, int, int]
BATCH: Triple = (1, 2, 3)
SIZES: tuple[dict[str, Triple], ...] = (
    {"height": (224, 128, 192), "width": (224, 128, 192), "length": (128, 16, 24)},
    {"height": (640, 320, 960), "width": (640, 320, 960), "length": (16, 64, 96)},
    {"height": (48, 96, 144), "width": (320, 160, 240), "length": (512, 256, 128)},
    {"height": (32, 64, 96), "width": (32, 64, 96), "length": (1024, 2048, 4096)},
    {"height": (32, 64, 96), "width": (320, 160, 240), "length": (16000, 24000, 32000)},
    {"height": (299, 331, 363), "width": (299, 331, 363), "length": (3000, 1500, 2000)},
)
# Kinds that are open in the file but turn out to be fixed, in the order tried.
FROZEN: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"height"}),
    frozenset({"height", "width", "length"}),
    frozenset({"batch", "height", "width", "length"}),
)


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


def assign(
    module: ir.Model, overrides: Mapping[str, Sequence[int]], sizes: Mapping[str, Triple], frozen: frozenset[str]
) -> list[dict[str, Shape]]:
    """Three assignments of the open dimensions; dimensions with one name get one size, frozen kinds do not vary."""
    chosen: dict[str, Triple] = {}
    for value in module.graph.inputs:
        for axis in open_axes(value):
            kind = _kind(value, axis)
            triple = BATCH if kind == "batch" else sizes[kind]
            key = dim_key(value, axis)
            if value.name in overrides:
                triple = _around(overrides[str(value.name)][axis], triple)
            elif key in chosen:
                continue
            chosen[key] = (triple[0],) * 3 if kind in frozen else triple
    return [
        {str(v.name): fixed(v, {a: chosen[dim_key(v, a)][k] for a in open_axes(v)}) for v in module.graph.inputs}
        for k in range(3)
    ]


def _kind(value: ir.Value, axis: int) -> str:
    """What an open axis most likely is, by its place."""
    assert value.shape is not None
    if axis == 0:
        return "batch"
    return "length" if len(value.shape) < 4 else ("height", "width")[axis == len(value.shape) - 1]


def _around(nominal: int, triple: Triple) -> Triple:
    """A triple that starts with a given size and differs from it afterwards."""
    left = [size for size in dict.fromkeys((*triple[1:], 2 * nominal, 3 * nominal)) if size != nominal]
    return nominal, left[0], left[1]


def dim_key(value: ir.Value, axis: int) -> str:
    """Identity of an open dimension: its name, or its place where the name says nothing."""
    assert value.shape is not None
    named = getattr(value.shape[axis], "value", None)
    return str(named) if named and named not in ("?", "None", "-1") else f"{value.name}.{axis}"
