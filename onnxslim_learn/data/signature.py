"""What a model declares about its inputs, and whether arrays fit that."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxslim_learn.array_types import Array
from onnxslim_learn.data.batch import Batch
from onnxslim_learn.errors import InputError, OtherSizesError
from onnxslim_learn.graph.input_sizes import dim_key, open_axes
from onnxslim_learn.labels import ADVICE, numeric
from onnxslim_learn.labels import rows as each

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from onnxslim_learn.graph.load import Graph


LABELS = "labels"
UNNAMED = "arr_0"  # what numpy.savez calls an array that got no name

# Kind of the declared type -> kinds of arrays that can be turned into it without losing their meaning: numbers become
# floats as they are (a pixel 255 becomes 255.0), integers become others if the values fit.
CASTS = {"f": "fiub", "V": "fiub", "i": "iub", "u": "iub", "b": "b", "O": "OSU"}

LAYOUTS = {"nchw": (1, 2, 3), "nhwc": (3, 1, 2)}  # layout -> axes of channels, height and width
COLOURS = (1, 3)  # numbers of channels that images have


@dataclass(frozen=True)
class Input:
    """One graph input.

    Attributes:
        name: Its name.
        dtype: Type of its elements.
        dims: Sizes; a name where the file leaves one open.
        axis: Along which samples lie, or ``None`` if every batch gets the same array.
        choices: Axes that the file leaves open, of which only some sizes work.
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | str, ...]
    axis: int | None
    choices: tuple[int, ...] = ()

    @property
    def picture(self) -> str:
        """Type and sizes in words, for example ``float32 batch x 3 x 224 x 224``."""
        return f"{self.dtype.name} {' x '.join(map(str, self.dims)) or 'scalar'}"


@dataclass(frozen=True)
class Declared:
    """All inputs of a model.

    Attributes:
        inputs: By name, in the model's order.
        batch: Number of samples the model takes at a time (1 where no axis is theirs), or ``None`` if any.
    """

    inputs: dict[str, Input]
    batch: int | None


def declared(graph: Graph) -> Declared:
    """Read what a model declares; an axis counts as open if its size can really vary."""
    values = list(graph.model.graph.inputs)
    dims = {str(v.name): _dims(graph, v) for v in values}
    key = _batch_key(dims)
    sizes = [d[0] for d in dims.values() if d]
    size = None if key is not None or not sizes else sizes[0] if isinstance(sizes[0], int) else 1
    inner = {d for shape in dims.values() for d in shape[1:] if isinstance(d, str)}
    inputs = {}
    for value in values:
        name = str(value.name)
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(graph.shapes.nominal.dtype[name]))
        choices = tuple(axis for axis in open_axes(value) if isinstance(dims[name][axis], int))
        axis = _batch_axis(name, dims[name], key, size)
        apart = axis == 0 and dims[name][0] != key and dims[name][0] in inner  # of edges, listed in pairs elsewhere
        inputs[name] = Input(name, dtype, dims[name], None if apart else axis, choices)
    return Declared(inputs, size)


def _dims(graph: Graph, value: ir.Value) -> tuple[int | str, ...]:
    name = str(value.name)
    return tuple(
        dim_key(value, axis) if graph.shapes.is_open(name, axis) else size
        for axis, size in enumerate(graph.shapes.nominal.inputs[name])
    )


def _batch_key(dims: Mapping[str, tuple[int | str, ...]]) -> str | None:
    """Name of the open dimension along which samples lie: one called so, else a first axis that is of no square.

    One that all inputs with open axes have comes before others.
    """
    squares = {d for shape in dims.values() for d in shape if shape.count(d) > 1}
    opened = [[d for d in shape if isinstance(d, str) and d not in squares] for shape in dims.values()]
    first = [shape[0] for shape in dims.values() if shape and isinstance(shape[0], str) and shape[0] not in squares]
    called = [d for names in opened for d in names if "batch" in d.lower()]
    shared = [d for d in first if all(d in names for names in opened if names)]
    return next(iter((*called, *shared, *first)), None)


def _batch_axis(name: str, dims: tuple[int | str, ...], key: str | None, size: int | str | None) -> int | None:
    wanted = size if key is None else key
    if key is not None and key in dims:
        return dims.index(key)
    if key is not None and len(dims) == 3 and [d for d in dims if isinstance(d, str)] == [f"{name}.1"]:
        return 1  # a state without names: layers x batch x units
    if dims and (dims[0] == wanted or (key is not None and isinstance(dims[0], str))):
        return 0
    return None


def layout_of(one: Input) -> str:
    """``nhwc`` where only the last axis can hold the channels of an image, else ``nchw``."""
    return "nhwc" if len(one.dims) == 4 and one.dims[3] in COLOURS and one.dims[1] not in COLOURS else "nchw"


def accept(where: str, arrays: Mapping[str, Any], declared: Declared, labels: Any = None) -> Batch:
    """Check arrays against what the model declares, and cast them to its types.

    Args:
        where: The source, for errors.
        arrays: Graph input -> array; one unnamed array goes to the only input.
        declared: What the model declares.
        labels: See :func:`onnxslim_learn.labels.rows`.

    Raises:
        InputError: If a name, a rank, a size, a type or a value does not fit.
    """
    inputs = named(where, arrays, declared)
    rows = each(where, labels)
    count = check(where, inputs, declared, rows)
    return Batch({name: _cast(where, inputs[name], one) for name, one in declared.inputs.items()}, rows, count)


def named(where: str, arrays: Mapping[str, Any], declared: Declared) -> dict[str, Array]:
    """Arrays by graph input.

    Raises:
        InputError: If there are others, or fewer.
    """
    if list(arrays) == [UNNAMED] and len(declared.inputs) == 1:
        arrays = dict(zip(declared.inputs, arrays.values(), strict=True))
    if not declared.inputs:
        raise InputError(f"{where}: the model has no inputs that samples could feed. Leave the data out.")
    if set(arrays) != set(declared.inputs):
        raise InputError(
            f"{where}: its arrays are {', '.join(map(str, arrays)) or 'none'}, but the model's inputs are "
            f"{', '.join(declared.inputs)}. Name each array after its input."
        )
    return {name: np.asanyarray(arrays[name]) for name in declared.inputs}


def check(where: str, inputs: Mapping[str, Array], declared: Declared, labels: Array | None) -> int:
    """Check all that can be told without reading the numbers; returns how many samples there are.

    Raises:
        InputError: If a rank, a size or a type does not fit.
    """
    shapes = {name: _single(inputs[name].shape, one) for name, one in declared.inputs.items()}
    for name, one in declared.inputs.items():
        _check_one(where, inputs[name], one, shapes)
    _check_open(where, inputs, declared)
    counts = {name: inputs[name].shape[one.axis] for name, one in declared.inputs.items() if one.axis is not None}
    if labels is not None:
        if not numeric(labels):
            raise InputError(f"{where}: {LABELS} are {_picture(labels)}. {ADVICE}.")
        counts[LABELS] = len(labels)
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"{where}: arrays disagree on the number of samples ({said}). Give as many of each.")
    return next(iter(counts.values()), 1)


def _picture(array: Array) -> str:
    return f"{array.dtype.name} {' x '.join(map(str, array.shape)) or 'scalar'}"


def _single(shape: tuple[int, ...], one: Input) -> tuple[int, ...]:
    """The shape of one sample, with as many along its axis as the model takes."""
    dims = one.dims if len(one.dims) == len(shape) else shape
    least = tuple(dim if isinstance(dim, int) else 1 for dim in dims)
    return tuple(least[k] if k == one.axis else size for k, size in enumerate(shape))


def _check_one(where: str, array: Array, one: Input, shapes: Mapping[str, tuple[int, ...]]) -> None:
    complaint = f"{where}: array {one.name} is {_picture(array)}, but the model takes {one.picture}"
    if array.ndim != len(one.dims):
        advice = "Add the batch axis in front: array[None]" if array.ndim == len(one.dims) - 1 else "Reshape it"
        raise InputError(f"{complaint}. {advice}.")
    if (order := _other_order(array, one)) is not None:
        raise InputError(f"{complaint}. Store array.transpose{order}.")
    for axis, (size, dim) in enumerate(zip(array.shape, one.dims, strict=True)):
        if size == 0 or (isinstance(dim, int) and size != dim and axis != one.axis):
            advice = f"{complaint}. Give axis {axis} a length of {dim if isinstance(dim, int) else 'at least 1'}"
            if size and axis in one.choices:
                shape = "x".join(map(str, shapes[one.name]))
                raise OtherSizesError(f"{advice}, or give ⟨input⟩ {one.name}:{shape}.", shapes)
            raise InputError(f"{advice}.")
    if array.dtype.kind not in CASTS.get(one.dtype.kind, ""):
        raise InputError(f"{complaint}. Store it as {one.dtype.name}.")


def _other_order(array: Array, one: Input) -> tuple[int, ...] | None:
    """The order in which axes fit, if that is another layout of images and they do not as they are."""

    def fits(shape: tuple[int, ...]) -> bool:
        pairs = zip(shape, one.dims, strict=True)
        return all(not isinstance(dim, int) or size == dim or k == one.axis for k, (size, dim) in enumerate(pairs))

    orders = ((0, 3, 1, 2), (0, 2, 3, 1)) if array.ndim == len(one.dims) == 4 and not fits(array.shape) else ()
    return next((order for order in orders if fits(tuple(array.shape[k] for k in order))), None)


def _cast(where: str, array: Array, one: Input) -> Array:
    kind = one.dtype.kind
    if kind == "O":
        return array.astype(object)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{where}: array {one.name} holds NaN or infinity. Remove those samples.")
    if kind in "iu" and array.dtype != one.dtype:
        limits = np.iinfo(one.dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(
                f"{where}: array {one.name} goes from {array.min()} to {array.max()}, outside {one.dtype.name}. "
                f"Store values that fit."
            )
    with np.errstate(over="ignore"):
        cast = array.astype(one.dtype, copy=False)
    if kind in "fV" and array.dtype != one.dtype and not np.isfinite(cast.astype(np.float32)).all():
        raise InputError(f"{where}: array {one.name} has values beyond {one.dtype.name}. Scale them down.")
    return cast


def _check_open(where: str, inputs: Mapping[str, Array], declared: Declared) -> None:
    """An open dimension that inputs share by name has one size."""
    sizes: Counter[str] = Counter()
    for name, one in declared.inputs.items():
        for axis, dim in enumerate(one.dims):
            size = inputs[name].shape[axis]
            if not isinstance(dim, str) or axis == one.axis:
                continue
            if sizes[dim] not in (0, size):
                raise InputError(f"{where}: dimension {dim} is {sizes[dim]} and, in {name}, {size}. Make them equal.")
            sizes[dim] = size
