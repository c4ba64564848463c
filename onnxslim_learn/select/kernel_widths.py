"""Widths worth having where kernels have steps: between two multiples of a step, the larger costs no more time.

What is narrower than one step goes through other kernels, without steps. They are slower than a whole step where they
are nearly as wide (a convolution of 12 channels takes longer than one of 16 on AVX-512), and faster from about a half;
beside wide layers they cost a change of layout, too.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.costs.devices import CONVOLUTION, DEPTHWISE, PRODUCT
from onnxslim_learn.coupling import roles
from onnxslim_learn.readers import AUTO
from onnxslim_learn.runtime import kernels
from onnxslim_learn.select.budget import span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.costs.roofline import Timed
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.select.budget import Choice, Search

FEW = 8  # steps of a width: one that has fewer keeps to finer ones, or what a cut costs would be decided by its step
COLUMNS = 16  # of a product that onnxruntime's kernels compute at once
ALIGNED = 4  # channels, of which those that a convolution reads are a multiple, or it is computed without blocks


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


def ladder() -> dict[str, dict[int, int]]:
    """Steps of this machine's kernels, in channels: kind of contraction -> what is as wide as this -> its step.

    The kinds are those of a device's table, and an empty string for any other. Convolutions of fewer channels than a
    block read them one by one; depthwise ones must have aligned channels all the same.
    """
    block = kernels.block()
    blocks = {FEW * step: step for step in (block >> k for k in range(block.bit_length())) if step > ALIGNED}
    aligned = {block: ALIGNED, 0: 1} if block > 1 else _halved(ALIGNED)
    product = _halved(COLUMNS)
    return {
        CONVOLUTION: blocks | aligned,
        DEPTHWISE: blocks | ({0: ALIGNED} if block > 1 else aligned),
        PRODUCT: product,
        "": _halved(ALIGNED),
    }


def _halved(coarsest: int) -> dict[int, int]:
    """A step and its halves, each for what is several times as wide."""
    steps = [coarsest >> k for k in range(coarsest.bit_length())]
    return {FEW * step if step > 1 else 0: step for step in steps}


def narrowed(search: Search, multiple: int | str, timed: Timed | None, *, below: bool = True) -> Search:
    """The same search among the widths that are worth having.

    Args:
        search: What can be decided.
        multiple: What was asked for of widths; ``auto`` for the steps of this machine's kernels.
        timed: The latency that is bounded or charged for, whose device's steps are what counts then.
        below: Whether widths below a step of that device may be taken where need be.
    """
    if timed is not None:
        return on_steps(search, timed.device.steps, below=below)
    return on_kernels(search) if multiple == AUTO else search


def on_kernels(search: Search) -> Search:
    """The same search among the widths on the steps of this machine's kernels; finer ones where bounds need them.

    A group has the coarsest steps of which it is several wide. Nothing is timed: the same search has the same widths.
    """
    groups = [choice.group for choice in search.choices]
    widths = _stepped(search.coupling, groups)
    for most in sorted({step for *_, step in widths}, reverse=True):
        choices = []
        for choice, (each, block, step) in zip(search.choices, widths, strict=True):
            finer, least = min(step, most), min(block, most)
            stays = [
                k == choice.group.width or (k * each % finer == 0 and (k * each >= least or 2 * k * each <= least))
                for k in choice.kept
            ]
            choices.append(_among(choice, stays))
        limited = replace(search, choices=choices)
        if limited.fits(limited.at(0.0)):
            return limited
    return search


def units_in_steps(coupling: Coupling, groups: Sequence[Group]) -> dict[str, int]:
    """Group -> of how many units its widths are multiples on the steps of this machine's kernels."""
    widths = _stepped(coupling, groups)
    return {group.name: step // math.gcd(step, each) for group, (each, _, step) in zip(groups, widths, strict=True)}


def _stepped(coupling: Coupling, groups: Sequence[Group]) -> list[tuple[int, int, int]]:
    """For every group the channels of a unit, the narrowest width of the fastest kernels, and its step in channels."""
    kinds, touched, rows = ladder(), _touched(coupling), []
    block = kernels.block()
    for group in groups:
        each = span(coupling, group)
        through = [name for name, columns in touched.items() if columns[group.units].any()]
        steps = [kinds[name][max(w for w in kinds[name] if w <= group.width * each)] for name in through]
        blocked = CONVOLUTION in through and group.width * each >= block
        rows.append((each, block if blocked else 1, max(steps, default=1)))
    return rows


def coarser(search: Search, multiple: int) -> Search:
    """The same search among the widths that are multiples of so many channels; all units remain a choice."""
    choices = []
    for choice in search.choices:
        each = span(search.coupling, choice.group)
        choices.append(_among(choice, [k == choice.group.width or k * each % multiple == 0 for k in choice.kept]))
    return replace(search, choices=choices)


def on_steps(search: Search, table: Mapping[str, int], *, below: bool) -> Search:
    """The same search among the widths on the steps of kernels; among those below, too, only if need be.

    Args:
        search: What can be decided.
        table: Channels in one step, by operator.
        below: Whether widths below a step may be taken.
    """
    limited = search
    for narrower in sorted({False, below}):
        choices = undominated(search.coupling, search.choices, table, below=narrower)
        limited = replace(search, choices=choices)
        if limited.fits(limited.at(0.0)):
            break
    return limited


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
        kept_choices.append(_among(choice, stays))
    return kept_choices


def _among(choice: Choice, stays: Sequence[bool]) -> Choice:
    """The same choice among some of its widths."""
    kept = tuple(k for k, stay in zip(choice.kept, stays, strict=True) if stay)
    return replace(choice, kept=kept, curve=None if choice.curve is None else choice.curve[list(stays)])


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
