"""Gates: one number per unit of a group, in front of everything that consumes the unit.

A unit is multiplied by its gate where it is summed over, so that with gates of 0 and 1 the module computes what
:mod:`onnxslim_learn.rewrite.mask` builds for the plan that removes the units at 0, and with all gates at 1 what the
file computes. A unit whose removal takes another group's cells along (an attention head and the channels in it) gates
these too: what several units carry is multiplied by all their gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor, fx, nn

from onnxslim_learn.array_types import Array
from onnxslim_learn.bridge import initializers
from onnxslim_learn.coupling.carriers import carriers
from onnxslim_learn.coupling.records import Contest
from onnxslim_learn.coupling.relations import parts
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.records import Contraction
    from onnxslim_learn.coupling.relations import Parts, Value
    from onnxslim_learn.coupling.solver import Coupling


HOLDER = "onnxslim_gates"
"""The submodule with the gates, and with the indices that spread them over tensors."""


def attach(
    module: fx.GraphModule, analysis: Analysis, groups: Sequence[Group] | None = None
) -> dict[str, nn.Parameter]:
    """Put gates into a bridged module, all open.

    Args:
        module: What :func:`onnxslim_learn.bridge.module.bridge` made of the analysis; it is changed in place.
        analysis: The analysis.
        groups: Which groups; all that can lose units by default.

    Returns:
        Group name -> gates, ``[units]`` in the order of the group's units; they are parameters of the module.

    Raises:
        InputError: If the module has gates already.
    """
    if hasattr(module, HOLDER):
        raise InputError("module: it has gates already. Bridge the graph again for others.")
    chosen = [g for g in analysis.groups if g.pin is None] if groups is None else list(groups)
    _register(module, chosen)
    carried = carriers(analysis.coupling, chosen)
    calls = {node.meta["onnx"]: node for node in module.graph.nodes if "onnx" in node.meta}
    first = next(node for node in module.graph.nodes if node.op != "placeholder")
    with module.graph.inserting_before(first):
        parts = tuple(module.graph.get_attr(path) for path in module.meta["gates"].values())
        vector = module.graph.call_function(together, parts)
    for number, (contraction, factors) in enumerate(_once(analysis, carried)):
        if contraction.node in calls:
            _insert(module, calls[contraction.node], contraction, factors, (vector, number))
    module.graph.lint()
    module.recompile()
    return gates(module)


def _once(analysis: Analysis, carried: Array) -> Iterator[tuple[Contraction | Contest, list[Factor]]]:
    """Contests and contractions with their gates, activations first: by what one input is gated, others are not."""
    nodes, seen = analysis.coupling.nodes, dict[int, set[int]]()

    def fixed(contraction: Contraction | Contest) -> bool:
        source = nodes[contraction.node].inputs[contraction.slot]
        return source is not None and source.is_initializer()

    for contraction in sorted(analysis.coupling.records.consumed, key=fixed):
        source = nodes[contraction.node].inputs[contraction.slot]
        varying = analysis.graph.shapes.varying(str(source.name)) if source is not None else ()
        factors = spread(contraction.value, contraction.axes, analysis.coupling, carried, varying)
        if factors is None:
            continue
        units = set(np.unique(np.concatenate([f.places.reshape(-1) for f in factors])).tolist())
        before = seen.setdefault(contraction.node, {0})
        if not units <= before:
            before |= units
            yield contraction, factors


def _register(module: fx.GraphModule, groups: Sequence[Group]) -> None:
    """Add open gates to a module, under the names of their groups with slashes for dots."""
    holder = nn.Module()
    module.add_module(HOLDER, holder)
    stored = initializers.paths([group.name.replace(".", "/") for group in groups])
    module.meta["gates"] = {}
    for group in groups:
        path = stored[group.name.replace(".", "/")]
        holder.register_parameter(path, nn.Parameter(torch.ones(group.width)))
        module.meta["gates"][group.name] = f"{HOLDER}.{path}"


def gates(module: fx.GraphModule) -> dict[str, nn.Parameter]:
    """The gates of a module by group name; none if none were attached."""
    parameters = {name: initializers.look_up(module, path) for name, path in module.meta.get("gates", {}).items()}
    return {name: value for name, value in parameters.items() if isinstance(value, nn.Parameter)}


# --- which units carry what -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Factor:
    """Indices into ``[1, gates…]`` over parts of a tensor's axes.

    Attributes:
        places: The indices, one axis per part.
        parts: What the parts are.
    """

    places: Array
    parts: Parts

    @property
    def buffer(self) -> Array:
        """The indices as they are kept: laid out to broadcast against the tensor, where no open axis has a say."""
        return self.places if any(self.parts.open_parts()) else self.parts.laid(self.places)

    @property
    def asked(self) -> list[tuple[int, int, bool]] | None:
        """Axis, size (or what divides the axis's size) and whether it is open, per part; ``None`` if none is open."""
        if not any(self.parts.open_parts()):
            return None
        listed = zip(self.parts.parts, self.parts.open_parts(), strict=True)
        return [(part.axis, self.parts.fixed(part.axis) if is_open else part.size, is_open) for part, is_open in listed]


def spread(
    value: Value, axes: Sequence[int], coupling: Coupling, carried: Array, varying: Iterable[int] = ()
) -> list[Factor] | None:
    """What a tensor of a layout is multiplied by, factor by factor; ``None`` for no gate.

    Of a row and its cells along the same axes, the cells speak for the row.
    """
    digits = [d for axis in axes for d in value.axes[axis] if d.labels is not None]
    spoken = {key for d in digits for key in d.deps}
    indices = []
    for digit in digits:
        if digit.key in spoken:
            continue
        assert digit.labels is not None
        places = np.where((digit.labels > 0)[..., None], carried[coupling.strong[digit.labels]], 0)
        keys = [*digit.deps, digit.key]
        kept = parts(value, set(keys), varying)
        kept = parts(value, {k for d in digits for k in (d.key, *d.deps)}, varying) if kept.undecided else kept
        over = [kept.over(places[..., k], keys) for k in range(places.shape[-1]) if places[..., k].any()]
        indices += [Factor(laid, kept) for laid in over]
    return indices or None


# --- what the module computes -----------------------------------------------------------------------------------------


def together(*parts: Tensor) -> Tensor:
    """All gates behind a one, which stands for what has no gate."""
    return torch.cat([parts[0].new_ones(1), *parts])


def laid(x: Tensor, index: Tensor, asked: Sequence[tuple[int, int, bool]]) -> Tensor:
    """Indices over parts of axes as indices that broadcast against a tensor, its open parts as long as they are."""
    sizes = [x.shape[axis] // size if is_open else size for axis, size, is_open in asked]
    axes = {axis for axis, *_ in asked}
    return index.expand(sizes).reshape([size if axis in axes else 1 for axis, size in enumerate(x.shape)])


Asked: TypeAlias = "Sequence[Sequence[tuple[int, int, bool]] | None]"


def product(x: Tensor, vector: Tensor, indices: Sequence[Tensor], asked: Asked) -> Tensor:
    """The product of all gates of every entry of a tensor."""
    at_hand = [index if how is None else laid(x, index, how) for index, how in zip(indices, asked, strict=True)]
    factor = vector[at_hand[0]]
    for index in at_hand[1:]:
        factor = factor * vector[index]
    return factor


def weighed(x: Tensor, vector: Tensor, *indices: Tensor, asked: Asked = ()) -> Tensor:
    """Multiply the chances of what competes by gates: their logarithms are added, minus infinity for none."""
    factor = product(x, vector, indices, asked)
    chance = torch.where(factor > 0, factor, 1).log()
    return x + torch.where(factor > 0, chance, -torch.inf).to(x.dtype)


def gated(
    x: Tensor,
    vector: Tensor,
    *indices: Tensor,
    zero: Tensor | None = None,
    asked: Asked = (),
) -> Tensor:
    """Multiply a tensor by its gates; integers are let through or replaced by what stands for zero."""
    factor = product(x, vector, indices, asked)
    if x.is_floating_point():
        return x * factor.to(x.dtype)
    return torch.where(factor != 0, x, torch.zeros_like(x) if zero is None else zero)


def _insert(
    module: fx.GraphModule,
    call: fx.Node,
    contraction: Contraction | Contest,
    factors: list[Factor],
    source: tuple[fx.Node, int],
) -> None:
    """Put gates in front of an input of a call."""
    vector, number = source
    given = call.args[contraction.slot]
    if not isinstance(given, fx.Node):
        return
    holder = module.get_submodule(HOLDER)
    with module.graph.inserting_before(call):
        indices = []
        for k, factor in enumerate(factors):
            holder.register_buffer(f"index_{number}_{k}", torch.from_numpy(factor.buffer.copy()), persistent=False)
            indices.append(module.graph.get_attr(f"{HOLDER}.index_{number}_{k}"))
        asked = [factor.asked for factor in factors]
        if isinstance(contraction, Contest):
            gate = module.graph.call_function(weighed, (given, vector, *indices), {"asked": asked})
        else:
            zero = None if contraction.zero is None else call.args[contraction.zero]
            gate = module.graph.call_function(gated, (given, vector, *indices), {"zero": zero, "asked": asked})
    call.update_arg(contraction.slot, gate)
