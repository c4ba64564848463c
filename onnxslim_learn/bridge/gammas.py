"""Scales per unit: those of a normalisation where a layer has one, else a virtual gamma.

A *virtual gamma* is a factor per unit on the rows of a weight, ``y = gamma · (W x) + b``: it acts before the bias, as
the scale of a batch norm that was folded into the layer did. It is folded back exactly on export, as ``gamma · W``.
Recurrent units and weights that are computed have none: gates (:mod:`onnxslim_learn.bridge.gates`) serve all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn

from onnxslim_learn.array_types import Array
from onnxslim_learn.bridge import initializers
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.carriers import carriers
from onnxslim_learn.coupling.layout import over

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.solver import Coupling

Where = tuple[str, str, int]
"""A parameter, the copy of it whose layout counts, and its axis."""

HOLDER = "onnxslim_scales"
"""The submodule with the virtual gammas, and with what spreads them over weights."""


@dataclass(frozen=True)
class Scale:
    """A scale for the units of a group.

    Attributes:
        group: Name of the group.
        initializer: The scale of a normalisation, or the weight that a virtual gamma acts on.
        parameter: The factors: one per position of the normalised axis, or (virtual) one per unit of the group.
        places: For every position of the axis that they scale 1 + the unit that it carries, 0 for none.
        virtual: Whether it is a virtual gamma.
    """

    group: str
    initializer: str
    parameter: nn.Parameter
    places: Array
    virtual: bool


def attach(
    module: fx.GraphModule,
    analysis: Analysis,
    groups: Sequence[Group] | None = None,
    *,
    carry_norm: bool = False,
) -> list[Scale]:
    """Find a scale for every layer that makes units of a group; layers without a normalisation get a virtual gamma.

    Args:
        module: What :func:`onnxslim_learn.bridge.module.bridge` made of the analysis; it is changed in place.
        analysis: The analysis.
        groups: Which groups; all that can lose units by default.
        carry_norm: Whether a virtual gamma starts as the norm of its filters, which are divided by it (the product is
            the weight but for rounding), or as one (the product is the weight, bit for bit).
    """
    chosen = [g for g in analysis.groups if g.pin is None] if groups is None else list(groups)
    coupling = analysis.coupling
    trained = initializers.parameters(module)
    if not hasattr(module, HOLDER):
        module.add_module(HOLDER, nn.Module())
        module.meta["scales"] = {}
    scales = []
    for name, axis, group, places in _scaled(module, coupling, chosen):
        if trained[name].ndim == 1:
            scales.append(Scale(group.name, name, trained[name], places, virtual=False))
        else:
            scales.append(_virtual(module, group, (name, axis), places, carry_norm=carry_norm))
    module.recompile()
    order = {group.name: number for number, group in enumerate(chosen)}
    return sorted(scales, key=lambda scale: order[scale.group])


def without(module: fx.GraphModule, analysis: Analysis, groups: Sequence[Group]) -> list[str]:
    """Names of the groups that have units which no scale, virtual or not, would act on; nothing is changed."""
    scaled_units = {group.name: np.zeros(group.width + 1, bool) for group in groups}
    for _, _, group, places in _scaled(module, analysis.coupling, groups):
        scaled_units[group.name][places] = True
    return [name for name, units in scaled_units.items() if not units[1:].all()]


def producers(module: fx.GraphModule, analysis: Analysis, groups: Sequence[Group]) -> list[tuple[str, int, str, Array]]:
    """Weights that make units: parameter, axis, group, and for every position of the axis 1 + its unit, 0 for none."""
    trained, coupling = initializers.parameters(module), analysis.coupling
    carried, ends = carriers(coupling, groups), np.cumsum([0, *(group.width for group in groups)])
    return [
        (name, axis, groups[number].name, places)
        for name, parameter, axis in _producers(coupling, trained, normalised=True)
        for number, places in _split(_units(coupling, carried, parameter, axis), ends)
    ]


def _scaled(
    module: fx.GraphModule, coupling: Coupling, groups: Sequence[Group]
) -> Iterator[tuple[str, int, Group, Array]]:
    """Parameters that scales are or act on: their axis, the group, and for every position of it 1 + its unit."""
    trained = initializers.parameters(module)
    carried, ends = carriers(coupling, groups), np.cumsum([0, *(group.width for group in groups)])
    for name, parameter, axis in [
        *_normalising(coupling, module.meta["tied"], trained),
        *_producers(coupling, trained),
    ]:
        for number, places in _split(_units(coupling, carried, parameter, axis), ends):
            yield name, axis, groups[number], places


def _split(units: Array, ends: Array) -> list[tuple[int, Array]]:
    """Units of all groups in a row as those of every group that occurs."""
    return [
        (int(k), np.where((units > ends[k]) & (units <= ends[k + 1]), units - ends[k], 0).max(axis=1))
        for k in np.unique(np.searchsorted(ends, units[units > 0]) - 1)
    ]


def fold(module: fx.GraphModule, name: str) -> Tensor:
    """A weight times all virtual gammas that act on it; the weight itself where none does."""
    value = initializers.look_up(module, module.meta["initializers"][name])
    for gamma, index in module.meta.get("scales", {}).get(name, ()):
        value = scaled(value, initializers.look_up(module, gamma), initializers.look_up(module, index))
    return value


def scaled(weight: Tensor, gamma: Tensor, index: Tensor) -> Tensor:
    """A weight times what its positions find in ``[1, gamma…]``."""
    return weight * torch.cat([gamma.new_ones(1), gamma])[index]


# --- which weights make which units -----------------------------------------------------------------------------------


def _normalising(coupling: Coupling, tied: Mapping[str, str], trained: Container[str]) -> list[Where]:
    """Scales of normalisations."""
    places = []
    for affine in coupling.records.affines:
        value = coupling.nodes[affine.node].inputs[affine.scale]
        scale = "" if value is None else str(value.name)
        name = tied.get(scale, scale)
        if name in trained and scale in coupling.values:
            places.append((name, scale, 0))
    return list(dict.fromkeys(places))


def _producers(coupling: Coupling, trained: Container[str], *, normalised: bool = False) -> list[Where]:
    """Factors of products, and the axes that are not summed over; of those that a scale follows only if asked for."""
    nodes = coupling.nodes
    followed = set() if normalised else {nodes[affine.node].inputs[0] for affine in coupling.records.affines}
    sums = coupling.summed
    names = dict.fromkeys(
        str(value.name)
        for node in nodes
        if roles.multiplies(node) and node.outputs[0] not in followed
        for value in node.inputs[:2]
        if value is not None and value.is_initializer()
    )
    return [
        (name, name, axis)
        for name in names
        if name in trained and name in coupling.values
        for axis in range(len(coupling.values[name].axes))
        if axis not in sums.get(name, ())
    ]


def _units(coupling: Coupling, carried: Array, name: str, axis: int) -> Array:
    """For every position of an axis 1 + the units that take it along, of all groups in a row; 0 for none."""
    digits = coupling.values[name].axes[axis]
    keys, sizes = [d.key for d in digits], {d.key: d.size for d in digits}
    numbers = [np.zeros(coupling.values[name].shape[axis], np.int64)]
    for digit in digits:
        if digit.labels is not None and set(digit.deps) <= set(keys):
            units = np.where((digit.labels > 0)[..., None], carried[coupling.strong[digit.labels]], 0)
            laid = (over(units[..., k], [*digit.deps, digit.key], keys, sizes) for k in range(units.shape[-1]))
            numbers += [part.reshape(-1) for part in laid]
    return np.stack(numbers, axis=1)


# --- what the module computes -----------------------------------------------------------------------------------------


def _virtual(module: fx.GraphModule, group: Group, where: tuple[str, int], places: Array, *, carry_norm: bool) -> Scale:
    """Put a virtual gamma on an axis of a weight."""
    name, axis = where
    path = module.meta["initializers"][name]
    weight = initializers.parameters(module)[name]
    index = torch.from_numpy(places.reshape([-1 if k == axis else 1 for k in range(weight.ndim)]))
    gamma = nn.Parameter(torch.ones(group.width, dtype=weight.dtype))
    if carry_norm:
        _carry(weight, gamma, index)
    scales = module.meta["scales"].setdefault(name, [])
    number = sum(len(others) for others in module.meta["scales"].values())
    scales.append((f"{HOLDER}.gamma_{number}", f"{HOLDER}.index_{number}"))
    holder = module.get_submodule(HOLDER)
    holder.register_parameter(f"gamma_{number}", gamma)
    holder.register_buffer(f"index_{number}", index, persistent=False)
    (read,) = (node for node in module.graph.nodes if node.op == "get_attr" and node.target == path)
    with module.graph.inserting_after(read):
        factors = [module.graph.get_attr(target) for target in scales[-1]]
    with module.graph.inserting_after(factors[0]):
        product = module.graph.call_function(scaled, (read, *factors))
    read.replace_all_uses_with(product, lambda user: user is not product)
    return Scale(group.name, name, gamma, places, virtual=True)


def _carry(weight: nn.Parameter, gamma: nn.Parameter, index: Tensor) -> None:
    """Move the norm of every unit's filters from the weight into its gamma."""
    with torch.no_grad():
        squares = weight.square().sum([k for k in range(weight.ndim) if index.shape[k] == 1])
        total = torch.zeros(len(gamma) + 1, dtype=weight.dtype).index_add(0, index.reshape(-1), squares)
        norms = torch.where(total > 0, total, torch.ones_like(total)).sqrt()
        norms[0] = 1.0
        gamma.copy_(norms[1:])
        weight.div_(norms[index])
