"""Shape arithmetic: the few operators exporters use to compute shapes, as numpy functions.

Only small integer tensors, and small tensors that descend from ``Shape``, are evaluated here.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import MisfitError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from onnxslim_learn.graph.shape_info import Sample, Shapes


LARGEST = 4096  # elements; larger integer tensors are data, not shapes
DTYPES = frozenset(
    (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
)


LOOKUPS = frozenset(("Gather", "GatherElements"))  # what picks entries along an axis by their places


def is_small(shape: Sequence[int]) -> bool:
    """Whether a tensor is small enough to be evaluated."""
    return math.prod(shape) <= LARGEST


def _axes(node: ir.Node, args: Sequence[Array | None]) -> tuple[int, ...] | None:
    """The axes of Squeeze, Unsqueeze or Reduce: second input or attribute."""
    if len(args) > 1 and args[1] is not None:
        return tuple(int(a) for a in args[1].reshape(-1))
    axes = node.attributes.get_ints("axes", None)
    return None if axes is None else tuple(axes)


def _unsqueeze(node: ir.Node, x: Array, *rest: Array) -> Array:
    return np.expand_dims(x, _axes(node, (x, *rest)) or ())


def _squeeze(node: ir.Node, x: Array, *rest: Array) -> Array:
    return np.squeeze(x, _axes(node, (x, *rest)))


def _cast(node: ir.Node, x: Array) -> Array:
    return x.astype(onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"].as_int()))


def _div(node: ir.Node, a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):
        return np.asarray(np.trunc(a.astype(np.float64) / b), a.dtype)
    return np.asarray(a / b)


def _reshape(node: ir.Node, x: Array, shape: Array) -> Array:
    return x.reshape([x.shape[i] if s == 0 else int(s) for i, s in enumerate(shape)])


def slice_arguments(node: ir.Node, args: Sequence[Array | None], rank: int) -> list[slice]:
    """The Python slice of every axis for a Slice node, from inputs (opset 10) or attributes (before)."""
    if "starts" in node.attributes:
        starts, ends = list(node.attributes["starts"].as_ints()), list(node.attributes["ends"].as_ints())
        listed = node.attributes.get("axes")
        axes: Sequence[int] = range(len(starts)) if listed is None else listed.as_ints()
        steps = [1] * len(starts)
    else:
        starts, ends = [int(v) for v in args[0].reshape(-1)], [int(v) for v in args[1].reshape(-1)]  # type: ignore[union-attr]
        given = args[2] if len(args) > 2 else None
        axes = range(len(starts)) if given is None else [int(v) for v in given.reshape(-1)]
        strides = args[3] if len(args) > 3 else None
        steps = [1] * len(starts) if strides is None else [int(v) for v in strides.reshape(-1)]
    slices = [slice(None)] * rank
    for start, end, axis, stride in zip(starts, ends, axes, steps, strict=True):
        stop = None if stride < 0 and end <= -(2**31) else end
        slices[axis % rank] = slice(start, stop, stride)
    return slices


def _slice(node: ir.Node, x: Array, *args: Array) -> Array:
    return x[tuple(slice_arguments(node, args, x.ndim))]


def split_sizes(node: ir.Node, size: int, given: Array | None) -> list[int]:
    """The sizes of a Split's outputs along its axis."""
    listed = [int(v) for v in given.reshape(-1)] if given is not None else node.attributes.get_ints("split", None)
    if listed:
        return list(listed)
    parts = node.attributes.get_int("num_outputs", len(node.outputs)) or len(node.outputs)
    chunk = -(-size // parts)
    return [min(chunk, size - chunk * k) for k in range(parts)]


def _reduce(fold: Callable[..., Any]) -> Callable[..., Array]:
    def run(node: ir.Node, x: Array, *rest: Array) -> Array:
        keep = bool(node.attributes.get_int("keepdims", 1))
        return np.asarray(fold(x, axis=_axes(node, (x, *rest)), keepdims=keep), x.dtype)

    return run


def _clip(node: ir.Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    ends = (node.attributes.get_float("min", low), node.attributes.get_float("max", high))  # inputs since opset 11
    return np.asarray(np.clip(x, *ends), x.dtype) if any(end is not None for end in ends) else x


def _bounded(shape: Iterable[int]) -> list[int]:
    """A shape that is small enough to be computed with."""
    sizes = [int(size) for size in shape]
    if not is_small(sizes):
        raise ValueError(shape)
    return sizes


def _range(start: Array, end: Array, step: Array) -> Array:
    _bounded([max(math.ceil((end - start) / step), 0)])
    return np.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _fill(node: ir.Node, shape: Array) -> Array:
    given = node.attributes.get("value")
    fill = given.as_tensor().numpy().reshape(-1)[0] if given is not None else np.float32(0)
    return np.full(_bounded(shape), fill)


def _plain(function: Callable[..., Any]) -> Callable[..., Array]:
    return lambda node, *args: np.asarray(function(*args))


def _one_hot(node: ir.Node, places: Array, depth: Array, values: Array) -> Array:
    axis, count = node.attributes.get_int("axis", -1), int(depth.reshape(-1)[0])
    hit = np.arange(_bounded([count])[0]) == (places % count)[..., None]
    return np.moveaxis(np.where(hit, values[1], values[0]), -1, axis)


EVALUATE: dict[str, Callable[..., Array]] = {
    "Identity": _plain(lambda x: x),
    "Cast": _cast,
    "Add": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "Div": _div,
    "Mod": _plain(np.mod),
    "Neg": _plain(np.negative),
    "Abs": _plain(np.abs),
    "Sqrt": _plain(np.sqrt),
    "Reciprocal": _plain(lambda x: 1 / x),
    "Pow": _plain(lambda x, y: np.power(x, y).astype(x.dtype)),
    "Floor": _plain(np.floor),
    "Ceil": _plain(np.ceil),
    "Clip": _clip,
    "Min": _plain(lambda *x: np.minimum.reduce(x)),
    "Max": _plain(lambda *x: np.maximum.reduce(x)),
    "Equal": _plain(np.equal),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "And": _plain(np.logical_and),
    "Or": _plain(np.logical_or),
    "Not": _plain(np.logical_not),
    "Where": _plain(np.where),
    "Range": _plain(_range),
    "NonZero": _plain(lambda x: np.stack(np.nonzero(x)).astype(np.int64)),
    "Concat": lambda node, *args: np.concatenate(args, node.attributes["axis"].as_int()),
    "Gather": lambda node, x, i: np.take(x, i, node.attributes.get_int("axis", 0)),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Slice": _slice,
    "OneHot": _one_hot,
    "Transpose": lambda node, x: np.transpose(x, node.attributes.get_ints("perm", None)),
    "Expand": _plain(lambda x, s: np.broadcast_to(x, _bounded(np.broadcast_shapes(x.shape, tuple(int(v) for v in s))))),
    "Tile": _plain(lambda x, times: np.tile(x, _bounded(times)) if _bounded([x.size, *times]) else x),
    "ConstantOfShape": _fill,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
}


def evaluate(node: ir.Node, sample: Sample) -> bool:
    """Evaluate a node if it is shape arithmetic; stores its outputs in the sample and says whether it did."""
    names = [None if value is None else str(value.name) for value in node.inputs]
    if node.domain not in ("", "ai.onnx") or not names:
        return False
    if node.op_type in ("Shape", "Size"):
        shape = sample.shape.get(str(names[0]))
        return (
            shape is not None
            and (sample.traced or names[0] not in sample.loose)
            and _store(sample, node, [_shape(node, shape)], derived=True)
        )
    if any(name is not None and name not in sample.value for name in names):
        return False
    arrays = [None if name is None else sample.value[name] for name in names]
    derived = any(name in sample.derived for name in names)
    for name, array in zip(names, arrays, strict=True):
        given = array is not None and array.dtype.kind not in "iub" and name not in sample.derived
        if given and array.size > 1:  # type: ignore[union-attr]
            return False  # real numbers that do not come from a shape are data, but for single ones
    results = _compute(node, arrays)
    largest = LARGEST if derived or all(array is None or array.dtype.kind in "iub" for array in arrays) else 1
    if results is None or any(result.size > largest for result in results):
        return False
    if not sample.told.isdisjoint(names):
        sample.told.update(str(output.name) for output in node.outputs)
        sample.loose.update(str(o.name) for o, array in zip(node.outputs, results, strict=True) if array.size > 1)
    return _store(sample, node, results, derived=derived)


def _shape(node: ir.Node, shape: tuple[int, ...]) -> Array:
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return np.array(shape[start:end] if node.op_type == "Shape" else math.prod(shape), np.int64)


def _compute(node: ir.Node, arrays: list[Array | None]) -> list[Array] | None:
    if node.op_type == "Split" and arrays[0] is not None:
        axis = node.attributes.get_int("axis", 0) or 0
        sizes = split_sizes(node, arrays[0].shape[axis], arrays[1] if len(arrays) > 1 else None)
        return list(np.split(arrays[0], np.cumsum(sizes)[:-1], axis))
    function = EVALUATE.get(node.op_type)
    if function is None:
        return None
    try:
        with np.errstate(all="ignore"):
            return [function(node, *arrays)]
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, ZeroDivisionError):
        return None


def _store(sample: Sample, node: ir.Node, arrays: list[Array], *, derived: bool) -> bool:
    for output, array in zip(node.outputs, arrays, strict=True):
        name = str(output.name)
        sample.value[name], sample.shape[name] = array, array.shape
        sample.dtype[name] = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        if derived:
            sample.derived.add(name)
        if any(value is not None and value.name in sample.loose for value in node.inputs):
            sample.loose.add(name)
    return True


def check_view(node: ir.Node, sample: Sample) -> None:
    """See that the target of a Reshape has as many elements as its input, which shape inference need not.

    Raises:
        MisfitError: If it has not: the file bakes the sizes of other inputs in.
    """
    if TARGETS.get(node.op_type) is not _reshape_target or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
        return
    names = [str(value.name) for value in node.inputs if value is not None]
    before, target = sample.shape.get(names[0]), sample.value.get(names[1])
    if before is None or target is None or 0 in before:
        return
    copied = not node.attributes.get_int("allowzero", 0)
    wanted = [before[a] if n == 0 and copied and a < len(before) else int(n) for a, n in enumerate(target)]
    here, there = math.prod(before), math.prod(n for n in wanted if n >= 0)
    if there and (here % there == 0 if -1 in wanted else here == there):
        return
    pairs = [*zip(before, wanted, strict=False), *zip(before[::-1], wanted[::-1], strict=False), (here, there)]
    baked, given = ("x".join(map(str, shape)) or "one number" for shape in (wanted, before))
    why = f"it makes {baked} of {given} at input sizes {sample.sizes}: other sizes of its inputs are baked in."
    raise MisfitError(f"node {node.name} (Reshape): {why}", pairs)


def check_places(node: ir.Node, sample: Sample) -> None:
    """See that places that are known, as those counted from sizes alone are, lie in the table they are looked up in.

    Raises:
        MisfitError: If they do not: the table was made for other sizes of the inputs.
    """
    if node.op_type not in LOOKUPS or node.domain not in ("", "ai.onnx"):
        return
    table, index = (str(value.name) for value in node.inputs if value is not None)
    shape, places = sample.shape.get(table), sample.value.get(index)
    if not shape or places is None or not places.size:
        return
    length = shape[node.attributes.get_int("axis", 0)]
    far = max(int(places.max()), -int(places.min()) - 1)
    if far >= length:
        why = f"place {far} is looked up in a table of {length} at input sizes {sample.sizes}, made for other sizes."
        larger = [] if table in sample.constant else [(length, -(-(far + 1) // length) * length)]
        raise MisfitError(f"node {node.name} ({node.op_type}): {why}", [(far + 1, length), *larger])


def unlike(node: ir.Node, sample: Sample) -> list[tuple[int, int]]:
    """Sizes of a node's inputs that may have to be alike but are not: of axes that face each other in some operator.

    Those of weights stay as they are.
    """
    names = [str(value.name) for value in node.inputs if value is not None]
    firm = [name in sample.constant for name in names]
    numbers = {name: sample.value[name] for name in names[1:] if name in sample.value}
    stated = {name for name, value in numbers.items() if value.ndim == 1 and value.dtype == np.int64}
    shapes = [tuple(map(int, sample.value[n])) if n in stated else sample.shape.get(n, ()) for n in names]
    pairs: list[tuple[int, int]] = []
    for (k, one), (n, other) in itertools.combinations(enumerate(shapes), 2):
        facing = [*zip(one[::-1], other[::-1], strict=False)]
        facing += [(one[-1], size) for size in (*other[-2:-1], *other[:1]) if one]
        unlike = [(x, y) for x, y in facing if x != y and min(x, y) > 1]
        pairs += [pair for x, y in unlike for pair, stays in (((x, y), firm[k]), ((y, x), firm[n])) if not stays]
    return pairs


def escapes(node: ir.Node, axis: int, sample: Sample, sizes_of: Callable[[ir.Node], Container[int]]) -> bool:
    """Whether the size of an input's axis gets from a Shape or Size into numbers, beyond sizes of other tensors.

    ``sizes_of`` tells which inputs of a node say how large its result is.
    """
    name = str(node.inputs[0].name)  # type: ignore[union-attr]
    sizes = list(sample.shape[name])
    sizes[axis] *= 2
    trial = replace(sample, shape={**sample.shape, name: tuple(sizes)}, value=dict(sample.value), dtype={})
    changed = [node]
    while changed:
        current = changed.pop()
        if not evaluate(current, trial):
            return True
        for output in current.outputs:
            if _equal(trial.value.get(str(output.name)), sample.value.get(str(output.name))):
                continue
            if output.is_graph_output():
                return True
            changed += [user for user, slot in output.uses() if slot not in sizes_of(user)]
    return False


def _equal(a: Array | None, b: Array | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and np.array_equal(a, b)


def _reshape_target(node: ir.Node, shapes: Shapes) -> list[int] | None:
    """A constant that means the same as a computed Reshape target at every size, or ``None``."""
    if node.attributes.get_int("allowzero", 0) or shapes.known(str(node.inputs[1].name)) is None:  # type: ignore[union-attr]
        return None
    before = [sample.shape[str(node.inputs[0].name)] for sample in shapes.samples]  # type: ignore[union-attr]
    after = [sample.shape[str(node.outputs[0].name)] for sample in shapes.samples]
    target = []
    for axis, sizes in enumerate(zip(*after, strict=True)):
        if len(set(sizes)) == 1:
            target.append(sizes[0])
        elif all(axis < len(b) and b[axis] == s for b, s in zip(before, sizes, strict=True)):
            target.append(0)
        else:
            target.append(-1)
    return None if target.count(-1) > 1 else target


def _expand_target(node: ir.Node, shapes: Shapes) -> list[int] | None:
    """A constant that means the same as a computed Expand target at every size, or ``None``."""
    before = [sample.shape[str(node.inputs[0].name)] for sample in shapes.samples]  # type: ignore[union-attr]
    after = [sample.shape[str(node.outputs[0].name)] for sample in shapes.samples]
    target = []
    for back in range(len(after[0]), 0, -1):
        sizes = [shape[-back] for shape in after]
        if all(len(b) >= back and b[-back] == s for b, s in zip(before, sizes, strict=True)):
            target.append(1)
        elif len(set(sizes)) == 1:
            target.append(sizes[0])
        else:
            return None
    return target


TARGETS: dict[str, Callable[[ir.Node, Shapes], list[int] | None]] = {
    "Reshape": _reshape_target,
    "Expand": _expand_target,
}


def constant_target(node: ir.Node, shapes: Shapes) -> list[int] | None:
    """A constant that means the same at every size as the shape that a node computes with, if there is one."""
    known = TARGETS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    of_data = any(value is not None and value.name in shapes.nominal.loose for value in node.inputs[1:])
    return None if known is None or of_data else known(node, shapes)
