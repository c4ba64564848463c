"""The axis probe: hold what the rules of the operator table state against what the operators do.

* What goes reaches only what goes: other values at removed positions of the inputs, behind the masks at contractions,
  move no output position that stays, not by a bit.
* Slim = mask: the operator with inputs cut and attributes patched gives the cut of the masked one's outputs.

Every axis of every input is labelled: inputs become initializers, read through an ``Identity`` ("computed") or, all but
the first, directly ("weights", so that they adopt labels); the outputs may be cut. Axes that a rule pins promise
nothing; those that the operator keeps apart all the same are counted.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.coupling.solver import Coupling, couple
from onnxslim_learn.errors import InputError
from onnxslim_learn.rewrite.mask import OPEN, kept_parts, mask
from onnxslim_learn.rewrite.slim import cut, slim

Array = np.ndarray[Any, Any]
Run = Callable[[onnx.ModelProto], dict[str, Array]]

MODES = ("computed", "weights")
RELATIVE = {"float16": 1e-2, "bfloat16": 1e-1}  # of an output's largest magnitude: another order of summation
WHOLE = "given.whole."  # initializers that stand for whole numbers begin so
SETTINGS = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}  # float inputs that say how, not what
UNCUT = {"Bernoulli", "Dropout", "Multinomial", "RandomNormalLike", "RandomUniformLike", "Shape", "Size"}
"""Operators that read sizes: other sizes, other draws or results. Static shapes are folded at load."""


@dataclass(frozen=True)
class Case:
    """A model, mostly of one node, and inputs for it."""

    name: str
    model: onnx.ModelProto
    feeds: Mapping[str, Any]

    @property
    def operators(self) -> set[str]:
        """Operators of the model, with their domain unless it is the standard one."""
        return {f"{node.domain}.{node.op_type}".lstrip(".") for node in self.model.graph.node}


@dataclass
class Finding:
    """What a probe saw.

    Attributes:
        removals: Removals tried.
        breaches: Laws broken, in words.
        apart: Input axes whose positions the operator keeps apart.
        pinned: Those of them that the rule pins.
        skipped: Why nothing was tried.
    """

    removals: int = 0
    breaches: list[str] = field(default_factory=list)
    apart: int = 0
    pinned: int = 0
    skipped: str = ""


# --- models to probe --------------------------------------------------------------------------------------------------


def embedded(case: Case, mode: str) -> onnx.ModelProto:
    """Return the model with its inputs as initializers, computed by an Identity where they are data."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.input[:]
    listed = {tensor.name for tensor in model.graph.initializer}
    nodes = []
    for name, given in case.feeds.items():
        if name in listed:
            continue
        array = prepared(case, given)
        if is_data(case, name, array) and (mode == "computed" or not nodes):
            nodes.append(computed(array, name, version_of(model)))
            array = array.astype(np.float64) if nodes[-1].op_type == "Cast" else array
            name = nodes[-1].input[0]  # noqa: PLW2901
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    body = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *body])
    return model


def computed(array: Array, name: str, version: int) -> onnx.NodeProto:
    """Return the node that reads data: integers come from floats, or the normal form would evaluate them."""
    if is_float(array) or array.dtype.kind not in "iub" or version < 6:
        return onnx.helper.make_node("Identity", [f"given.{name}"], [name], name=f"read.{name}")
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_node("Cast", [f"{WHOLE}{name}"], [name], name=f"read.{name}", to=kind)


def version_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set."""
    return next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 1)


def prepared(case: Case, given: Any) -> Array:
    """Return an input as the probe needs it: an array, and 0 or 1 for a Bernoulli draw to be certain."""
    array = numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.asarray(given)
    return np.round(array).astype(array.dtype) if "Bernoulli" in case.operators else array


def is_data(case: Case, name: str, array: Array) -> bool:
    """Tell whether an input is data, not a setting: no scalar, no vector of integers, no list of scales."""
    if array.ndim == 0 or array.size == 0 or (array.ndim == 1 and array.dtype.kind in "iub"):
        return False
    uses = [(node.op_type, slot) for node in case.model.graph.node for slot, n in enumerate(node.input) if n == name]
    return not any(use in SETTINGS for use in uses)


def runner(model: onnx.ModelProto) -> Run:
    """Return a way to run models like this one: onnxruntime, or the onnx reference where it cannot."""
    for run in (in_onnxruntime, in_reference):
        try:
            run(model)
        except Exception as error:  # whatever a runtime raises
            why = error
        else:
            return run
    raise InputError(f"no runtime: {str(why).splitlines()[0][:90]}")


def in_onnxruntime(model: onnx.ModelProto) -> dict[str, Array]:
    """Run a model without inputs in onnxruntime, with graph optimisations off and one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([info.name for info in session.get_outputs()], session.run(None, {}), strict=True))


def in_reference(model: onnx.ModelProto) -> dict[str, Array]:
    """Run a model without inputs in the onnx reference."""
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(model).run(None, {})
    return dict(zip([info.name for info in model.graph.output], map(np.asarray, results), strict=True))


# --- removals ---------------------------------------------------------------------------------------------------------


def inside(graph: Any) -> Coupling:
    """Couple a graph of which the outputs may be cut."""
    found = couple(graph)
    found.relations.pins[:] = [pin for pin in found.relations.pins if pin.node >= 0]
    return found


def labelled(found: Coupling) -> list[tuple[str, int, Array]]:
    """Return every labelled digit of an initializer: its name, the axis, the columns of its positions."""
    values = {name: found.values[name] for name in found.graph.initializers if name in found.values}
    return [
        (name, axis, found.column[found.strong[digit.labels]])
        for name, value in values.items()
        for axis, digits in enumerate(value.axes)
        for digit in digits
        if digit.labels is not None
    ]


def removals(found: Coupling) -> Iterator[Removal]:
    """Yield removals of what no rule pins: single columns, one per row, and half of a digit."""
    wanted: list[Array] = []
    for _, _, columns in labelled(found):
        ends = columns.reshape(-1)
        wanted += [ends[:1], ends[-1:], ends[len(ends) // 2 :][:1], np.unique(columns[..., ::2])]
    for grid in found.relations.grids:
        columns = found.column[found.strong[grid.cells]]
        wanted += [columns[:, 0], columns[:, -1], np.unique(columns[:, ::2]), columns[0]]
    seen = set()
    for columns in wanted:
        chosen = np.zeros(found.columns, bool)
        chosen[columns] = True
        gone = found.close(chosen)
        if gone.tobytes() not in seen and not (held(found, gone) or empties(found, gone)):
            seen.add(gone.tobytes())
            yield Removal(found, gone)


def empties(found: Coupling, gone: Array) -> bool:
    """Tell whether nothing would be left of what must keep something."""
    return any(bool(gone[found.strong[atoms]].all()) for _, atoms in found.relations.some)


def held(found: Coupling, gone: Array) -> bool:
    """Tell whether a removal touches what is pinned; a whole row may go where its columns may not."""
    classes, columns = found.pinned
    by_row = (found.membership @ (gone & found.is_row).astype(np.int32)) > 0
    return bool((gone & ((classes >= 0) | ((columns[found.column] >= 0) & ~by_row))).any())


def stays(removal: Removal, name: str) -> Array:
    """Return which elements of a value a removal keeps, in its shape."""
    layout = removal.coupling.values[name]
    keep, spoken = kept_parts(layout, range(len(layout.axes)), removal)
    return np.broadcast_to(spoken.laid(keep), layout.shape)


# --- the laws ---------------------------------------------------------------------------------------------------------


def probe(case: Case, mode: str = "computed", most: int = 40) -> Finding:
    """Hold the rules of a model's operators against what they do, in about ``most`` cuts."""
    if any(np.size(a) == 0 or a.dtype.kind in "OSU" for a in case.feeds.values() if isinstance(a, np.ndarray)):
        return Finding(skipped="an input is empty or of strings")
    try:
        graph = load(embedded(case, mode))
        found = inside(graph)
        source = ir.to_proto(graph.model)
        run = runner(source)
    except InputError as error:
        return Finding(skipped=str(error).splitlines()[0])
    first, second = run(source), run(source)
    if not all(same(first[name], second[name]) for name in first):
        return Finding(skipped="draws at random")
    tried = list(removals(found))
    finding = Finding(breaches=list(misfits(found, source, first)))
    for removal in tried[:: 1 + len(tried) // most]:
        if finding.breaches:
            break
        finding.removals += 1
        finding.breaches += breaches(removal, run, case)
    finding.breaches = [f"{case.name} ({mode}): {text}" for text in finding.breaches]
    if len(case.model.graph.node) == 1:
        finding.apart, finding.pinned = precision(found, source, run)
    return finding


def misfits(found: Coupling, source: onnx.ModelProto, results: Mapping[str, Array]) -> Iterator[str]:
    """Yield the tensors that have another shape than their layout."""
    values = {tensor.name: tuple(tensor.dims) for tensor in source.graph.initializer}
    for name, shape in (values | {name: np.shape(array) for name, array in results.items()}).items():
        if name in found.values and found.values[name].shape != shape:
            yield f"{name} {shape} has a layout of {found.values[name].shape}"


def breaches(removal: Removal, run: Run, case: Case) -> Iterator[str]:
    """Yield the law that a removal breaks first; where too few are left to compete, there is none."""
    contests = [(one, d) for one in removal.coupling.records.contests for a in one.axes for d in one.value.axes[a]]
    if any(d.labels is not None and (removal.kept(d).sum(axis=-1) < one.least).any() for one, d in contests):
        return
    results = [str(value.name) for value in removal.coupling.graph.model.graph.outputs]
    names = [name for name in results if name in removal.coupling.values]
    quiet = masked(removal)
    before = run(quiet)
    for draw in (drawn, shifted):
        after = run(noisy(quiet, removal, draw))
        for name in names:
            keep = stays(removal, name)
            if not same(before[name][keep], after[name][keep]):
                yield f"{gone_in_words(removal)} moves positions of {name} that stay"
                return
    if removal.coupling.faults(removal.gone) or case.operators & UNCUT:
        return
    try:
        found = run(unshaped(ir.to_proto(slim(removal))))
    except Exception as error:  # whatever a runtime raises
        yield f"{gone_in_words(removal)}: the cut model does not run: {str(error).splitlines()[0][:160]}"
        return
    for name in names:
        layout = removal.coupling.values[name]
        if name in removal.coupling.records.places:  # they count what is left
            continue
        wanted = cut(before[name], layout, removal) if layout.axes else before[name]
        if not close(found[name], wanted):
            yield f"{gone_in_words(removal)}: {name} {found[name].shape} is not the masked one's cut {wanted.shape}"
            return


def gone_in_words(removal: Removal) -> str:
    """Say which positions of which inputs go."""
    found = []
    for name, axis, columns in labelled(removal.coupling):
        digits = [d for d in removal.coupling.values[name].axes[axis] if d.labels is not None]
        gone = [np.flatnonzero(~removal.kept(d)).tolist() for d in digits]
        if any(gone) and columns.size:
            found.append(f"{name.removeprefix('given.')}:{axis} {gone[0] if len(gone) == 1 else gone}")
    return "cutting " + ", ".join(dict.fromkeys(found))


def masked(removal: Removal) -> onnx.ModelProto:
    """Return the original with removed positions zeroed where they are summed over."""
    model = ir.to_proto(mask(removal))
    (switch,) = [info for info in model.graph.input if info.name == OPEN]
    model.graph.input.remove(switch)
    model.graph.initializer.append(numpy_helper.from_array(np.array(False), OPEN))
    return model


def unshaped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the declared shapes of outputs: here they may be cut."""
    for info in model.graph.output:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    return model


def noisy(model: onnx.ModelProto, removal: Removal, draw: Callable[[Array], Array]) -> onnx.ModelProto:
    """Return a model with other values at removed positions of its initializers."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in removal.coupling.values:
            keep = stays(removal, tensor.name)
            if not keep.all():
                values = numpy_helper.to_array(tensor)
                other = drawn(values) if tensor.name.startswith(WHOLE) else draw(values)
                tensor.CopyFrom(numpy_helper.from_array(np.where(keep, values, other), tensor.name))
    return result


def drawn(values: Array) -> Array:
    """Return values that the array has elsewhere."""
    order = np.random.default_rng(0).permutation(values.size)
    return values.reshape(-1)[order].reshape(values.shape)


def shifted(values: Array) -> Array:
    """Return other values than the array has, in floats; zeros and ones, which may be probabilities, change places."""
    if not is_float(values):
        return drawn(values)
    binary = bool(((values == 0) | (values == 1)).all())
    return (1 - values if binary else values * 3 + 1).astype(values.dtype)


def is_float(values: Array) -> bool:
    """Tell whether numbers are real (the small formats are of kind V)."""
    return values.dtype.kind in "fV"


def same(a: Any, b: Any) -> bool:
    """Tell whether two results are equal to the bit."""
    if not isinstance(a, np.ndarray):
        return str(a) == str(b)
    return a.shape == b.shape and (a.dtype.kind == "O" or a.tobytes() == b.tobytes())


def close(a: Array, b: Array) -> bool:
    """Tell whether two tensors have one shape and type and agree to rounding."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not is_float(a):
        return bool((a == b).all())
    one, other = a.astype(np.float64), b.astype(np.float64)
    scale = max(float(np.abs(other[np.isfinite(other)]).max(initial=0)), 1e-3)
    return np.allclose(one, other, rtol=0, atol=RELATIVE.get(a.dtype.name, 1e-5) * scale, equal_nan=True)


def precision(found: Coupling, source: onnx.ModelProto, run: Run) -> tuple[int, int]:
    """Count the input axes whose positions the operator keeps apart, and those of them that are pinned."""
    classes, columns = found.pinned
    apart = pinned = 0
    for tensor in source.graph.initializer:
        if not tensor.name.startswith("given.") or tensor.name.startswith(WHOLE):
            continue
        for axis, size in enumerate(tensor.dims):
            if size > 1 and keeps_apart(source, tensor.name, axis, run):
                digits = found.values[tensor.name].axes[axis] if tensor.name in found.values else ()
                atoms = [found.strong[d.labels] for d in digits if d.labels is not None]
                apart += 1
                pinned += all(((classes[a] >= 0) | (columns[found.column[a]] >= 0)).all() for a in atoms)
    return apart, pinned


def keeps_apart(source: onnx.ModelProto, name: str, axis: int, run: Run) -> bool:
    """Tell whether positions along an input axis move positions of their own along one output axis."""
    base = run(source)
    moved: dict[tuple[str, int], list[Array]] = defaultdict(list)
    (values,) = [numpy_helper.to_array(tensor) for tensor in source.graph.initializer if tensor.name == name]
    for place in sorted({0, 1, values.shape[axis] // 2, values.shape[axis] - 1}):
        other = values.copy()
        here = (*[slice(None)] * axis, place)
        other[here] = shifted(values[here])
        changed = onnx.ModelProto()
        changed.CopyFrom(source)
        for tensor in changed.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(other, name))
        for output, array in run(changed).items():
            if isinstance(array, np.ndarray) and array.shape == base[output].shape and array.dtype.kind != "O":
                differ = array != base[output]
                for a in range(array.ndim):
                    moved[output, a].append(differ.any(axis=tuple(b for b in range(array.ndim) if b != a)))
    pairs = [list(itertools.combinations(found, 2)) for found in moved.values() if all(m.any() for m in found)]
    return any(found and not any((a & b).any() for a, b in found) for found in pairs)
