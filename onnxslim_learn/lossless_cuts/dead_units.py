"""Units that change no output: nothing reads them, they are zero, or constant so that consumers can take them over.

A unit is considered where the weights say so: a producer's or a consumer's slice, or a gain, is all zero. That its
values are constant then shows in runs on random inputs of several magnitudes, to the bit, at every place where they are
summed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.relations import over
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.rewrite.mask import kept_parts
from onnxslim_learn.runtime.executor import Runner
from onnxslim_learn.select.weight_slices import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.records import Contraction
    from onnxslim_learn.coupling.relations import Digit, Value
    from onnxslim_learn.coupling.solver import Coupling


MAGNITUDES = (1.0, 1.0, 0.1, 10.0, 100.0)  # of floating inputs: one run each
UNEVEN = "its rows must keep equally many, or nothing would be left of it"


@dataclass(frozen=True)
class Meeting:
    """What a contraction sums over, seen from its input: one entry per index of the labelled digits and their rows.

    Attributes:
        contraction: The contraction.
        sizes: Key -> size, of these digits.
        summed: Keys of those that are summed over.
        silent: Whether a position contributes nothing, over ``digits``: it is zero, or met by zero weights.
        constant: Whether it is the same for all inputs, and the node can take it over.
    """

    contraction: Contraction
    sizes: dict[int, int]
    summed: frozenset[int]
    silent: Array
    constant: Array

    def lost(self, removal: Removal) -> Array:
        """What a removal takes from the sum, where the result stays."""
        keys = list(self.sizes)
        kept = {True: np.ones(list(self.sizes.values()), bool), False: np.ones(list(self.sizes.values()), bool)}
        for digit in _labelled(self.contraction.value):
            kept[digit.key in self.summed] &= over(removal.kept(digit), (*digit.deps, digit.key), keys, self.sizes)
        result: Array = ~kept[True] & kept[False]
        return result

    def only(self, data: Array, where: Array) -> Array:
        """The contraction's input with zeros but for these positions."""
        digits = self.contraction.value.digits.values()
        shape = [d.size if d.key in self.sizes else 1 for d in digits]
        stays = np.broadcast_to(where.reshape(shape), [d.size for d in digits]).reshape(data.shape)
        return np.where(stays, data, 0).astype(data.dtype)

    def even(self, data: Array) -> Array:
        """Which positions have one value at all places of the input."""
        split, free = _split(data, self.contraction)
        result: Array = (split == split.min(axis=free, keepdims=True)).all(axis=free)
        return result


def _labelled(value: Value) -> list[Digit]:
    return [d for d in value.digits.values() if d.labels is not None]


def _tracked(value: Value) -> dict[int, int]:
    """Key -> size of the digits that are labelled or that labels depend on."""
    needed = {key for d in _labelled(value) for key in (d.key, *d.deps)}
    return {d.key: d.size for d in value.digits.values() if d.key in needed}


def _split(data: Array, contraction: Contraction) -> tuple[Array, tuple[int, ...]]:
    """An input with one axis per digit, and which of them are only places."""
    digits, tracked = list(contraction.value.digits.values()), _tracked(contraction.value)
    return data.reshape([d.size for d in digits]), tuple(k for k, d in enumerate(digits) if d.key not in tracked)


def runs(coupling: Coupling) -> list[dict[str, Array]]:
    """Random inputs at the sizes of the analysis, floats in several magnitudes."""
    sample = coupling.graph.shapes.analysis
    feeds = []
    for seed, scale in enumerate(MAGNITUDES):
        feed = random_inputs(coupling, sample, seed)
        feeds.append({n: (a * scale).astype(a.dtype) if a.dtype.kind == "f" else a for n, a in feed.items()})
    return feeds


def meetings(
    coupling: Coupling, feeds: Sequence[Mapping[str, Array]], progress: Callable[[float], None] = lambda share: None
) -> list[Meeting]:
    """Run a model and see which positions of its contractions' inputs are zero or constant."""
    nodes, unread, never = coupling.nodes, _unread(coupling), np.zeros(coupling.size, bool)
    wanted = [c for c in coupling.records.contractions if any(d.labels is not None for d in c.value.digits.values())]
    names = [str(nodes[c.node].inputs[c.slot].name) for c in wanted]  # type: ignore[union-attr]
    fixed = coupling.graph.initializers
    runner = Runner(coupling.graph.model, feeds, set(names) - set(fixed))
    results = []
    for number, (contraction, name) in enumerate(zip(wanted, names, strict=True)):
        if name in fixed:
            if contraction.inner:  # nothing but the weights themselves says what the node's own state adds
                weights = fixed[name].const_value.numpy()  # type: ignore[union-attr]
                weights = weights if contraction.zero is None else np.ones_like(weights)  # a grid spans all states
                results.append(_meeting(coupling, contraction, [weights], never))
            continue
        progress(number / len(wanted))
        runner.run_past(name)
        results.append(_meeting(coupling, contraction, runner.get(name), unread.get(contraction.node, never)))
        if name not in names[number + 1 :]:
            runner.drop(name)
    return results


def _meeting(coupling: Coupling, contraction: Contraction, arrays: Sequence[Array], unread: Array) -> Meeting:
    value = contraction.value
    split = [_split(a, contraction) for a in arrays]
    silent = np.all([(a == 0).all(axis=free) for a, free in split], axis=0)
    constant = np.all([(a == split[0][0]).all(axis=free) for a, free in split], axis=0) & (not contraction.inner)
    sizes = _tracked(value)
    summed = frozenset(d.key for axis in contraction.axes for d in value.axes[axis])
    mute = np.zeros(silent.shape, bool)
    for digit in _labelled(value):
        if digit.key in summed and digit.labels is not None:
            mute |= over(unread[coupling.strong[digit.labels]], (*digit.deps, digit.key), list(sizes), sizes)
    return Meeting(contraction, sizes, summed, silent | mute, constant)


def _unread(coupling: Coupling) -> dict[int, Array]:
    """Node -> for every class whether it is met by weights of the node, all of them zero."""
    rows: dict[str, list[tuple[Array, Array]]] = {}
    for part in slices(coupling, least_rank=2):
        if part.summed:
            classes = coupling.strong[part.labels.reshape(-1)]
            rows.setdefault(part.name, []).append((classes, part.sums(lambda x: x != 0) > 0))
    met: dict[int, Array] = {}
    read: dict[int, Array] = {}
    for contraction in coupling.records.contractions:
        node = coupling.nodes[contraction.node]
        others = [str(v.name) for k, v in enumerate(node.inputs) if v is not None and k != contraction.slot]
        for classes, used in (part for name in others for part in rows.get(name, ())):
            met.setdefault(contraction.node, np.zeros(coupling.size, bool))[classes] = True
            read.setdefault(contraction.node, np.zeros(coupling.size, bool))[classes[used]] = True
    return {node: met[node] & ~read[node] for node in met}


def suspects(coupling: Coupling) -> Array:
    """Which columns have a slice of weights, or a gain, that is all zero."""
    nodes = coupling.nodes
    gains = {str(v.name) for a in coupling.records.affines if (v := nodes[a.node].inputs[a.scale]) is not None}
    gains |= {str(v.name) for n in nodes if roles.of(n).arithmetic == "multiply" for v in n.inputs if v is not None}
    for node in nodes:
        factors, norm = roles.factors(node), roles.normalisation(node)
        slots = [slot for slot in (factors and factors.weight, norm and norm.scale) if slot]
        gains |= {str(v.name) for slot in slots if slot < len(node.inputs) and (v := node.inputs[slot]) is not None}
    suspected = np.zeros(coupling.columns, bool)
    for part in slices(coupling):
        if part.others > 1 or part.name in gains:
            atoms = part.labels.reshape(-1)[part.sums(lambda x: x != 0) == 0]
            suspected[coupling.column[coupling.strong[atoms[atoms > 0]]]] = True
    return suspected


@dataclass(frozen=True)
class Dead:
    """What can go without a change.

    Attributes:
        removal: The largest such removal found.
        left: Group -> why dead units of it stay.
    """

    removal: Removal
    left: dict[str, str]


def find(
    coupling: Coupling,
    groups: Iterable[Group],
    met: Sequence[Meeting],
    *,
    empty: bool = False,
) -> Dead:
    """The units whose removal changes nothing.

    Args:
        coupling: The model.
        groups: Its groups.
        met: What its contractions see (:func:`meetings`); what is constant there can go into a bias.
        empty: Whether whole branches may go.
    """
    suspected, dead = suspects(coupling), dict[str, Array]()
    chosen = np.zeros(coupling.columns, bool)
    able = sorted((group for group in groups if group.pin is None), key=lambda g: not g.rows)
    for group in able:
        is_dead = [_silent(coupling, u, suspected, met, rows=group.rows) for u in group.units.tolist()]
        dead[group.name] = np.array(is_dead, bool)
        units = _even(group, dead[group.name], empty=empty)
        wider = chosen.copy()
        wider[group.units[units]] = True
        if len(units) and not coupling.faults(coupling.close(wider), empty=empty):
            chosen = wider
    gone = coupling.close(chosen)
    stays = np.zeros(coupling.columns, bool)
    stays[coupling.column[~gone]] = True
    return Dead(Removal(coupling, gone), {g.name: UNEVEN for g in able if stays[g.units[dead[g.name]]].any()})


def _silent(coupling: Coupling, column: int, suspected: Array, met: Sequence[Meeting], *, rows: bool) -> bool:
    """Whether nothing changes when a column goes by itself."""
    if not rows and not suspected[column]:
        return False
    alone = np.zeros(coupling.columns, bool)
    alone[column] = True
    gone = coupling.close(alone)
    if not suspected[coupling.column[gone]].any():
        return False
    removal = Removal(coupling, gone)
    contests = coupling.records.contests  # whoever goes, the others get its share
    competes = any(not kept_parts(one.value, one.axes, removal)[0].all() for one in contests)
    return not competes and not any((m.lost(removal) & ~m.silent & ~m.constant).any() for m in met)


def _even(group: Group, dead: Array, *, empty: bool) -> Array:
    """Dead units to take: as many of every stratum as rows that stay equal allow."""
    most = group.levels if empty else group.spare
    levels = [int(dead[s].sum()) * group.levels // len(s) for s in group.strata]
    level = min([most, *levels])
    return np.concatenate([s[dead[s]][: len(s) * level // group.levels] for s in group.strata])
