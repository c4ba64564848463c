"""Shapes of all values at several input sizes, and the shape arithmetic folded away.

A model with open dimensions is evaluated at three sizes: the *nominal* one (costs, latency), the *analysis* one
(batch 2, so that a batch axis is never mistaken for a broadcast one) and a third. What is the same at all three is
static; what differs is dynamic. No float is computed: only integer tensors and what descends from ``Shape``.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxslim_learn.errors import InputError, MisfitError, reason
from onnxslim_learn.graph import bodies, inlining, schemas, shape_arithmetic, texts
from onnxslim_learn.graph.shape_info import Sample, Shapes
from onnxslim_learn.runtime.bounded import bounded
from onnxslim_learn.runtime.node import output_types, run
from onnxslim_learn.runtime.session import CPU, session_options, session_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from onnxslim_learn.array_types import Array

logger = logging.getLogger(__name__)

LONGEST = 2**28  # positions of an axis: more cannot be told apart in memory

PLAIN = {getattr(ir.AttributeType, kind + end) for kind in ("INT", "FLOAT", "STRING") for end in ("", "S")}
LARGEST_RUN = 1 << 28  # elements of all tensors whose shapes are known: a model that has more is not run for others
ROOM = 16 * LARGEST_RUN  # bytes that such a run may take, whatever sizes it makes of its inputs
HEAVY = 100_000_000  # bytes of weights from which on a model is not run as a whole, but node by node without them


class UndeclaredError(InputError):
    """Raised for an operator nobody knows whose outputs the file does not declare: other sizes would not help."""


def complete(module: ir.Model, sample: Sample) -> Sample:
    """Fill in a sample: every shape of the main graph, by inference, else by running the model once.

    Raises:
        InputError: If the shapes at these sizes are inconsistent or cannot be found.
    """
    missing = walk(module, sample)
    if missing and _take_declared(module, sample, set(missing), lambda node: not _known(node)):
        missing = walk(module, sample)
    if missing and sum(tensor.nbytes for tensor in _weights(module)) > HEAVY:
        missing = [name for node in _begun(module, sample) for name in _by_itself(node, module, sample)]
    if missing:
        logger.debug("shapes of %d values come from a run", len(missing))
        try:
            _run_for_shapes(module, sample, missing)
        except InputError:  # onnxruntime here may lack what its other builds have, and ones may be no sizes
            fixed = all(isinstance(size, int) for value in module.graph.inputs for size in value.shape or ())
            taken = _take_declared(module, sample, set(missing), lambda n: fixed or n.domain not in ("", "ai.onnx"))
            if not taken or walk(module, sample):
                raise
        missing = walk(module, sample)
    if missing:
        raise InputError(f"value {missing[0]}: its shape cannot be found at input sizes {sample.sizes}.")
    for value in module.graph.outputs:
        if 0 in sample.shape[str(value.name)] and value.name not in sample.loose:
            raise InputError(f"output {value.name}: it would be empty at input sizes {sample.sizes}.")
    return sample


def _known(node: ir.Node) -> bool:
    return schemas.latest(node) is not None or node.domain == "com.microsoft"


def _take_declared(module: ir.Model, sample: Sample, missing: set[str], doubtful: Callable[[ir.Node], bool]) -> bool:
    """Believe the shapes that the file declares for outputs of such nodes; says whether there were any."""
    taken = False
    for node in module.graph:
        if not doubtful(node):
            continue
        for value in node.outputs:
            dims = () if value.shape is None else tuple(value.shape)
            if (
                value.name in missing
                and value.dtype
                and value.shape is not None
                and all(isinstance(d, int) for d in dims)
            ):
                sample.shape[str(value.name)] = tuple(int(d) for d in dims)  # type: ignore[arg-type]
                sample.dtype[str(value.name)] = int(value.dtype)
                taken = True
    return taken


Dims = tuple[int | None, ...]  # a shape as far as it is known


def walk(module: ir.Model, sample: Sample) -> list[str]:
    """Evaluate shapes and small integer values node by node; returns the names whose shape stays unknown.

    Raises:
        InputError: If an operator's input shapes do not fit each other.
    """
    return [name for node in _begun(module, sample) for name in step(node, module, sample)]


def _begun(module: ir.Model, sample: Sample) -> ir.Graph:
    """Note the shapes of inputs and initializers, and small values; returns the nodes that follow."""
    for value in module.graph.inputs:
        sample.shape[str(value.name)] = sample.inputs[str(value.name)]
        sample.dtype[str(value.name)] = int(value.dtype or onnx.TensorProto.UNDEFINED)
    for name, value in module.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            raise InputError(f"initializer {name}: it has no value.")
        sample.constant.add(name)
        sample.shape[name] = tuple(int(d) for d in tensor.shape)  # type: ignore[arg-type]
        sample.dtype[name] = int(tensor.dtype)
        if (
            shape_arithmetic.is_small(sample.shape[name])
            and name not in sample.value
            and tensor.dtype in shape_arithmetic.DTYPES
        ):
            sample.value[name] = np.array(tensor.numpy())  # a copy: mapped files may be closed
    return module.graph


def step(node: ir.Node, module: ir.Model, sample: Sample) -> dict[str, Dims | None]:
    """Evaluate one node in a sample; returns its outputs whose shape stays unknown, with what is known of it."""
    outputs = [str(value.name) for value in node.outputs if value.name]
    given = [str(value.name) for value in node.inputs if value is not None and value.name]
    if given and all(name in sample.constant for name in given):
        sample.constant.update(outputs)
    bodies.check_rounds(node, sample)
    if shape_arithmetic.evaluate(node, sample):
        return {}
    if any(name in sample.loose for name in given) or inlining.CHOSEN in node.metadata_props:
        sample.loose.update(outputs)
    _take_passed(node, sample)
    if all(name in sample.shape and name in sample.dtype for name in outputs):
        return {}
    shape_arithmetic.check_view(node, sample)
    shape_arithmetic.check_places(node, sample)
    try:
        inferred = _infer(node, module, sample)
    except onnx.shape_inference.InferenceError as error:
        where = f"node {node.name} ({node.op_type})"
        pairs = shape_arithmetic.unlike(node, sample)
        shapes = " and ".join("x".join(map(str, sample.shape[name])) or "a number" for name in given)
        raise MisfitError(f"{where}: {shapes} do not fit at {sample.sizes}: {reason(error)}.", pairs) from error
    except (onnx.defs.SchemaError, onnx.checker.ValidationError, RuntimeError, ValueError, TypeError, KeyError):
        inferred = {}
    dims = {name: _note(name, inferred.get(name), sample) for name in outputs}
    if outputs and schemas.has_attribute(node, "kernel_shape") and not _window_fits(node, sample):
        raise InputError(f"node {node.name} ({node.op_type}): its output would be empty at input sizes {sample.sizes}.")
    if _vanishes(node, sample):
        # as where what was padded to a multiple is cut off again, and nothing had to be padded
        pairs = [(size, size - 1) for shape in sample.inputs.values() for size in shape]
        where = f"node {node.name} ({node.op_type})"
        raise MisfitError(f"{where}: an input is empty, another not, at {sample.sizes}.", pairs)
    missing = {name: known for name, known in dims.items() if name not in sample.shape}
    if inferred and (len(given) < 2 or any(name not in sample.constant for name in given[1:])):
        sample.loose.update(missing)  # the operator is known and its inputs are: what is missing depends on data
    sample.loose.update(_sized_by_told(node, module, sample))
    return missing


def _sized_by_told(node: ir.Node, module: ir.Model, sample: Sample) -> list[str]:
    """Outputs whose shape depends on a value that was given for a graph input."""
    told = {str(value.name) for value in node.inputs if value is not None and value.name in sample.told}
    if not told:
        return []
    blind = replace(sample, value={name: value for name, value in sample.value.items() if name not in told})
    inferred, apart = _infer(node, module, blind), Sample({})
    return [
        str(v.name) for v in node.outputs if v.name and _incomplete(_note(str(v.name), inferred.get(v.name), apart))
    ]


def _incomplete(dims: Dims | None) -> bool:
    return dims is None or None in dims


def _take_passed(node: ir.Node, sample: Sample) -> None:
    """Results of an If of which a branch is in the main graph have the shapes that it has there."""
    for name, source in inlining.passed(node).items():
        if source in sample.shape:
            sample.shape[name], sample.dtype[name] = sample.shape[source], sample.dtype[source]


def with_other_data(module: ir.Model, shapes: Shapes) -> Shapes:
    """Samples with one more, in which what depends on data has other sizes: that tells which of its axes are fixed.

    What was empty, by the inputs that the model was run on, is not. Where such sizes do not fit each other, what
    depends on data stays open along all its axes.
    """
    chosen = shapes.analysis.told or any(inlining.CHOSEN in node.metadata_props for node in module.graph)
    if not shapes.analysis.loose or chosen:  # by values of inputs: what others would choose is not known
        return shapes
    try:
        again = {id(sample): _refilled(module, sample, lambda size: size or 2) for sample in shapes.samples}
        other = _refilled(module, again[id(shapes.analysis)], _unlike)
    except InputError as error:
        logger.debug("what depends on data is open along all axes: %s", error)
        return shapes
    nominal, analysis, third = (again[id(sample)] for sample in (shapes.nominal, shapes.analysis, shapes.third))
    return Shapes(nominal, analysis, third, (*(again[id(sample)] for sample in shapes.more), other))


def _unlike(size: int) -> int:
    """Another size that is fit for what a size is fit for: smaller, but neither nothing nor one, which broadcasts."""
    return size // 2 if size > 3 else size + 1


def _refilled(module: ir.Model, reference: Sample, fill: Callable[[int], int]) -> Sample:
    """A sample at the same input sizes, with other sizes in place of those that data decides, and what follows.

    Raises:
        InputError: If they do not fit each other, or an operator does not tell how its shape follows.
    """
    sample = Sample(dict(reference.inputs), traced=True)
    for node in _begun(module, sample):
        for name, known in step(node, module, sample).items():
            before, sample.dtype[name] = reference.shape[name], reference.dtype[name]
            inputs = [str(value.name) for value in node.inputs if value is not None and value.name]
            stating = [read for read in inputs if tuple(reference.value.get(read, np.zeros(())).flat) == before]
            if stating and before and stating[0] in sample.value:
                sample.shape[name] = tuple(int(n) for n in sample.value[stating[0]].flat)
            elif name in reference.loose:
                told = _as_onnxruntime_infers(node, sample).get(name, (0, ()))[1] if known is None else known
                told = told if len(told) == len(before) else (None,) * len(before)
                sample.shape[name] = tuple(fill(n) if k is None else k for k, n in zip(told, before, strict=True))
            elif any(reference.shape[read] != sample.shape[read] for read in inputs):
                raise InputError(f"node {node.name} ({node.op_type}): no rule tells how its shape depends on data.")
            else:
                sample.shape[name] = before
    return sample


def _window_fits(node: ir.Node, sample: Sample) -> bool:
    """Whether the window of a convolution or pooling lies inside the padded input: shape inference rounds to one."""
    if _empty_inputs(node, sample):
        return True  # an empty tensor is meant
    sizes = sample.shape.get(str(node.inputs[0].name), ())[2:]  # type: ignore[union-attr]
    kernel = node.attributes.get_ints("kernel_shape", None) or _weight_shape(node, sample)[2:]
    if 0 in sample.shape.get(str(node.outputs[0].name), ()):
        return False
    if not kernel or len(kernel) != len(sizes) or schemas.has_attribute(node, "output_padding"):
        return True
    padded = (node.attributes.get_string("auto_pad", None) or "NOTSET") not in ("NOTSET", "VALID")
    pads = node.attributes.get_ints("pads", None) or [0] * 2 * len(kernel)
    spread = node.attributes.get_ints("dilations", None) or [1] * len(kernel)
    ends = [size + sum(pads[k :: len(kernel)]) for k, size in enumerate(sizes)]
    strides = node.attributes.get_ints("strides", None) or [1] * len(kernel)
    ceiled = node.attributes.get_int("ceil_mode", 0)
    beyond = [step - 1 if ceiled else 0 for step in strides]  # how far it may reach out
    return padded or all(end + out > (k - 1) * d for end, out, k, d in zip(ends, beyond, kernel, spread, strict=True))


def _weight_shape(node: ir.Node, sample: Sample) -> tuple[int, ...]:
    """Shape of the second input, which says what a convolution's window is where no attribute does."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return () if weight is None else sample.shape.get(str(weight.name), ())


def _vanishes(node: ir.Node, sample: Sample) -> bool:
    """Whether broadcasting makes nothing of something: a part of no length meets one of length one."""
    names = [str(value.name) for value in node.inputs if value is not None]
    sides = [sample.shape.get(name, ()) for name in names if name not in sample.constant]
    if len(sides) < 2 or len({len(side) for side in sides}) > 1 or not any(0 in side for side in sides):
        return False
    result = tuple(0 if 0 in sizes else max(sizes) for sizes in zip(*sides, strict=True))
    return sample.shape.get(str(node.outputs[0].name)) == result and not all(0 in side for side in sides)


def _empty_inputs(node: ir.Node, sample: Sample) -> bool:
    return any(0 in sample.shape.get(str(value.name), ()) for value in node.inputs if value is not None)


def _note(name: str, declared: onnx.TypeProto | None, sample: Sample) -> Dims | None:
    if declared is None or not declared.HasField("tensor_type"):
        return None
    sample.dtype.setdefault(name, declared.tensor_type.elem_type)
    if not declared.tensor_type.HasField("shape"):
        return None
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in declared.tensor_type.shape.dim)
    known = tuple(size for size in dims if size is not None)
    if any(size < 0 for size in known):
        raise InputError(f"value {name}: its shape would be negative at input sizes {sample.sizes}.")
    if any(size > LONGEST for size in known):
        raise InputError(f"value {name}: has an axis of {max(known)}, longer than can be analysed ({LONGEST}).")
    if len(known) == len(dims):
        sample.shape.setdefault(name, known)
    return dims


def _infer(node: ir.Node, module: ir.Model, sample: Sample) -> dict[str, onnx.TypeProto]:
    """Shape inference of a single node by the onnx package, with the small values it needs.

    What it said of a node is kept with the model: blocks repeat, and so do the sizes within them.
    """
    given: list[tuple[Any, ...] | None] = []
    for value in node.inputs:
        if value is None or not value.name:
            given.append(None)
            continue
        if value.name not in sample.shape:
            return {}
        data = _read(sample, value.name)
        stated = None if data is None else (data.dtype.str, data.shape, data.tobytes())
        given.append((sample.dtype[value.name], sample.shape[value.name], stated))
    kind = _kind(node)
    if kind is None:
        return _infer_now(node, module, sample)
    known = module.meta.setdefault("inferred shapes", {})
    key = (kind, tuple(given), tuple(bool(value.name) for value in node.outputs))
    if key not in known:
        types = _infer_now(node, module, sample)
        known[key] = [types.get(str(value.name)) for value in node.outputs]
    return {str(v.name): told for v, told in zip(node.outputs, known[key], strict=True) if told is not None}


def _read(sample: Sample, name: str) -> Array | None:
    """The value of an input that may say something about shapes: numbers and vectors do, weights do not."""
    value = sample.value.get(name)
    return value if value is not None and value.ndim <= 1 else None


def _kind(node: ir.Node) -> tuple[Any, ...] | None:
    """What tells a node's operator and attributes from others, or ``None`` where they are no plain numbers and text."""
    told: list[Any] = [node.domain, node.op_type, node.version, node.overload]
    for name, attribute in node.attributes.items():
        if attribute.is_ref() or attribute.type not in PLAIN:
            return None
        value = attribute.value
        told.append((name, attribute.type, value if isinstance(value, int | float | str) else tuple(value)))
    return tuple(told)


def _infer_now(node: ir.Node, module: ir.Model, sample: Sample) -> dict[str, onnx.TypeProto]:
    schema = schemas.at(node, module.opset_imports.get(node.domain, 1))
    types, data = {}, {}
    for value in node.inputs:
        if value is None or not value.name:
            continue
        kind = sample.dtype[value.name]
        types[value.name] = onnx.helper.make_tensor_type_proto(kind, sample.shape[value.name])
        told = _read(sample, value.name)
        if told is not None:
            data[value.name] = onnx.numpy_helper.from_array(told, value.name)
    inferred: dict[str, onnx.TypeProto] = onnx.shape_inference.infer_node_outputs(
        schema,
        ir.serde.serialize_node(node),
        types,
        data,
        opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in module.opset_imports.items()],
        ir_version=module.ir_version,
    )
    return inferred


def _as_onnxruntime_infers(node: ir.Node, sample: Sample) -> dict[str, tuple[int, Dims]]:
    """Element types and shapes of a single node by onnxruntime, which knows operators of its own."""
    names = [str(value.name) for value in node.inputs if value is not None and value.name]
    assert node.graph is not None
    return output_types(
        ir.serde.serialize_node(node), {n: (sample.dtype[n], sample.shape[n]) for n in names}, node.graph.opset_imports
    )


def _run_for_shapes(module: ir.Model, sample: Sample, missing: Sequence[str]) -> None:
    """Run the model once with stand-in inputs and read the missing shapes.

    Raises:
        InputError: If it cannot be run, or is too large to be run at these sizes.
    """
    elements = sum(math.prod(shape) for name, shape in sample.shape.items() if name not in module.graph.initializers)
    if elements > LARGEST_RUN:
        raise InputError(f"value {missing[0]}: its shape is told by a run alone, too large at sizes {sample.sizes}.")
    proto = ir.to_proto(module)
    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing if name not in present)
    options = session_options(optimize=False)
    if folder := next(
        (str(tensor.base_dir) for tensor in _weights(module) if isinstance(tensor, ir.ExternalTensor)), ""
    ):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    feeds = {}
    for name, shape in sample.inputs.items():
        kind = onnx.helper.tensor_dtype_to_np_dtype(sample.dtype[name])
        one = texts.known(module.graph, name) if sample.dtype[name] == onnx.TensorProto.STRING else 1
        feeds[name] = sample.value.get(name, np.full(shape, one, kind))
    try:
        session = session_type()(proto.SerializeToString(), options, providers=[CPU])
        with bounded(ROOM):
            results = session.run(list(missing), feeds)
    except Exception as error:
        if "is not a registered" in str(error) or "No Op registered" in str(error):
            raise _undeclared(module, missing) from error
        whole = [name for name in feeds if feeds[name].dtype.kind in "iu" and name not in sample.value]
        told = f" with ones as {', '.join(whole)}, for which ⟨value⟩ NAME=2,3 gives others" if whole else ""
        raise InputError(f"onnxruntime cannot run it at {sample.sizes}{told}: {reason(error)}.") from error
    for name, result in zip(missing, results, strict=True):
        if isinstance(result, np.ndarray):
            sample.shape[name] = result.shape
            sample.dtype[name] = onnx.helper.np_dtype_to_tensor_dtype(result.dtype)
        else:
            sample.shape[name], sample.dtype[name] = (), onnx.TensorProto.UNDEFINED


def _weights(module: ir.Model) -> Iterator[ir.TensorProtocol]:
    """The tensors of initializers."""
    return (value.const_value for value in module.graph.initializers.values() if value.const_value is not None)


def _by_itself(node: ir.Node, module: ir.Model, sample: Sample) -> list[str]:
    """Evaluate one node as :func:`step` does, else as onnxruntime infers it or runs it; returns what stays unknown.

    Inputs that are not known are ones. What came of a node is kept with the model: blocks repeat.
    """
    missing, kind = list(step(node, module, sample)), _kind(node)
    names = [str(value.name) if value is not None and value.name else "" for value in node.inputs]
    if not missing or kind is None or any(name and name not in sample.shape for name in names):
        return missing
    given = [(sample.dtype[name], sample.shape[name]) if name else None for name in names]
    told = [(array.dtype.str, array.tobytes()) if (array := sample.value.get(n)) is not None else None for n in names]
    known = module.meta.setdefault("types by themselves", {})
    key = (kind, tuple(given), tuple(told), tuple(bool(value.name) for value in node.outputs))
    if key not in known:
        types = _as_onnxruntime_infers(node, sample)
        if _incomplete(types.get(missing[0], (0, None))[1]):
            feeds = {
                name: sample.value.get(name, np.ones(one[1], onnx.helper.tensor_dtype_to_np_dtype(one[0])))
                for name, one in zip(names, given, strict=True)
                if one is not None
            }
            results = run(ir.serde.serialize_node(node), feeds, module.opset_imports).items()
            types = {n: (onnx.helper.np_dtype_to_tensor_dtype(out.dtype), out.shape) for n, out in results}
        known[key] = [types.get(str(value.name)) for value in node.outputs]
    for value, like in zip(node.outputs, known[key], strict=True):
        if like is not None and value.name in missing and not _incomplete(like[1]):
            sample.dtype[str(value.name)], sample.shape[str(value.name)] = like
    return [name for name in missing if name not in sample.shape]


def _undeclared(module: ir.Model, missing: Sequence[str]) -> UndeclaredError:
    node = next(n for n in module.graph if not _known(n) and any(v.name in missing for v in n.outputs))
    first = next(v.name for v in node.outputs if v.name in missing)
    return UndeclaredError(
        f"node {node.name} ({':'.join(filter(None, (node.domain, node.op_type)))}): no such operator is known, so the"
        f" shape of {first} cannot be found. Declare that shape in the file (value_info), or correct the operator."
    )
