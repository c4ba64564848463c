"""Widths worth having where kernels have steps: between two multiples of a step, the larger costs no more time.

What is narrower than one step goes through other kernels, without steps. They are slower than a whole step where they
are nearly as wide (a convolution of 12 channels takes longer than one of 16 on AVX-512), and faster from about a half;
beside wide layers they cost a change of layout, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.costs.devices import CONVOLUTION, DEPTHWISE, PRODUCT
from onnxslim_learn.coupling import roles
from onnxslim_learn.select.budget import span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.select.budget import Choice, Search


def kind(coupling: Coupling, node: ir.Node) -> str:
    """The entry of a table of steps that a node falls under, or an empty string."""
    factors = roles.factors(node)
    if isinstance(factors, roles.Product) and not factors.quantized:
        return PRODUCT
    if not isinstance(factors, roles.Convolution) or factors.quantized or factors.moved:
        return ""
    value = node.inputs[factors.weight] if len(node.inputs) > factors.weight else None
    weight = () if value is None else coupling.graph.shapes.nominal.shape.get(str(value.name), ())
    groups = node.attributes.get_int("group", 1)
    return DEPTHWISE if groups > 1 and len(weight) > 1 and weight[1] == 1 else CONVOLUTION


def on_steps(search: Search, table: Mapping[str, int], *, below: bool) -> Search:
    """The same search among the widths on the steps of kernels; among those below, too, only if need be.

    Args:
        search: What can be decided.
        table: Channels in one step, by operator.
        below: Whether widths below a step may be taken.
    """
    narrowed = search
    for narrower in sorted({False, below}):
        choices = undominated(search.coupling, search.choices, table, below=narrower)
        narrowed = replace(search, choices=choices)
        if narrowed.fits(narrowed.at(0.0)):
            break
    return narrowed


def undominated(
    coupling: Coupling, choices: Sequence[Choice], steps: Mapping[str, int], *, below: bool = False
) -> list[Choice]:
    """Drop widths between the steps of the kernels that they go through; all units remain a choice.

    Args:
        coupling: The model.
        choices: What can be decided.
        steps: Channels in one step, by operator; an operator that is not there has steps of one.
        below: Whether widths of at most half a step stay, too.
    """
    kept_choices = []
    touched = _touched(coupling)
    for choice in choices:
        multiples = [steps.get(name, 1) for name, columns in touched.items() if columns[choice.group.units].any()]
        each = span(coupling, choice.group)
        stays = [
            k == choice.group.width
            or all(k * each % step == 0 or (below and 2 * k * each <= step) for step in multiples)
            for k in choice.kept
        ]
        kept = tuple(k for k, stay in zip(choice.kept, stays, strict=True) if stay)
        curve = None if choice.curve is None else choice.curve[stays]
        kept_choices.append(replace(choice, kept=kept, curve=curve))
    return kept_choices


def _touched(coupling: Coupling) -> dict[str, Array]:
    """Kind of contraction -> which columns are a width of one."""
    touched: dict[str, Array] = {}
    nodes = coupling.nodes
    for term in coupling.records.terms:
        columns = touched.setdefault(kind(coupling, nodes[term.node]), np.zeros(coupling.columns, bool))
        for digit in term.digits:
            if digit.labels is not None:
                atoms = digit.labels[digit.labels > 0]
                columns[coupling.column[coupling.strong[atoms]]] = True
    return touched
