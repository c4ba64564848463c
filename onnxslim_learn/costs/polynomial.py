"""Costs as data: a sum over nodes of coefficient times a product of widths.

``value`` is exact for a real removal (alive 0 or 1) and smooth between; ``gradient`` is its derivative; ``by_node``
splits it. Report, budget search and learners read this one object. MACs are multiply-accumulates; FLOPs are twice that.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx_ir as ir
import scipy.sparse as sp

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling.constraints import incidence, linked
from onnxslim_learn.coupling.records import Term
from onnxslim_learn.graph import bodies
from onnxslim_learn.graph.stored_types import stored_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnxslim_learn.array_types import Labels, Mask
    from onnxslim_learn.coupling.relations import Digit
    from onnxslim_learn.coupling.solver import Coupling

SETTINGS = (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING)  # types of sizes, indices and switches


class Priced(Protocol):
    """What a budget may bound: a cost that falls as classes go."""

    def value(self, alive: Array) -> float:
        """Total cost; ``alive`` is ``classes`` numbers in [0, 1]."""

    def gradient(self, alive: Array) -> Array:
        """Its derivative by every class's aliveness, shape ``(classes,)``."""


def saved(cost: Priced, gone: Mask) -> float:
    """What the whole model costs more than it does without these classes."""
    if isinstance(cost, Cost):
        return cost.saved(np.flatnonzero(gone))
    return cost.value(np.ones(len(gone))) - cost.value((~gone).astype(float))


@dataclass(frozen=True)
class Cost:
    """A cost as a polynomial in widths.

    A width counts the alive positions of a label array; a digit that depends on rows counts per row, so that exponents
    can be negative (``rows⁻¹``).

    Attributes:
        name: What it is called.
        counts: Sparse matrix, widths × classes: how often a class occurs.
        fixed: Positions per width that can never go.
        coefficients: One per term.
        widths: Indices of widths, terms × k, padded with -1.
        exponents: Their exponents, terms × k.
        owners: Where each term belongs: a node's or an initializer's name.
    """

    name: str
    counts: Any
    fixed: Array
    coefficients: Array
    widths: Labels
    exponents: Array
    owners: tuple[str, ...]

    def value(self, alive: Array) -> float:
        """Total cost; ``alive`` is ``classes`` numbers in [0, 1]."""
        return float(self.terms(alive).sum())

    def terms(self, alive: Array) -> Array:
        """Cost of every term."""
        return self._at(alive)[1]

    def _at(self, alive: Array) -> tuple[Array, Array]:
        """Sizes of the widths, and of none, and the cost of every term, as searches ask for several times in a row."""
        known = self._recent.get(self.name)
        if known is None or not np.array_equal(known[0], alive):
            sizes = self._sizes(alive)
            known = self._recent[self.name] = alive.copy(), sizes, self._terms(sizes, slice(None))
        return known[1:]

    @cached_property
    def _recent(self) -> dict[str, tuple[Array, Array, Array]]:
        """What was alive when it was last asked, and what was said then, by its name."""
        return {}

    def _sizes(self, alive: Array) -> Array:
        """Sizes of the widths, and of none."""
        return np.append(self.counts @ alive + self.fixed, 1.0)

    def _terms(self, sizes: Array, chosen: Labels | slice) -> Array:
        """Cost of some terms at these sizes of the widths; the last size is that of none."""
        factors, exponents = sizes[self.widths[chosen]], self.exponents[chosen]
        with np.errstate(divide="ignore", invalid="ignore"):
            products = np.prod(np.where(exponents == 0, 1.0, factors**exponents), axis=1)
        result: Array = self.coefficients[chosen] * np.where(np.isfinite(products), products, 0.0)
        return result

    def saved(self, gone: Labels) -> float:
        """What the whole model costs more than it does without these classes: only terms that have them are looked at.

        Args:
            gone: Indices of classes, each once.
        """
        touched = linked(self._widths_of_class, gone)
        lost = np.zeros(len(self._whole))
        np.add.at(lost, touched, linked(self._widths_of_class, gone, self._widths_of_class.data))
        terms = np.unique(linked(self._terms_of_width, np.unique(touched)))
        return float((self._terms(self._whole, terms) - self._terms(self._whole - lost, terms)).sum())

    @cached_property
    def _whole(self) -> Array:
        """Sizes of the widths while nothing is gone, and of none."""
        return self._sizes(np.ones(self.counts.shape[1]))

    @cached_property
    def _widths_of_class(self) -> Any:
        return self.counts.T.tocsr()

    @cached_property
    def _terms_of_width(self) -> Any:
        numbers = np.repeat(np.arange(len(self.widths)), self.widths.shape[1])
        return incidence(self.widths.reshape(-1), numbers, (len(self._whole), len(self.widths)))

    def gradient(self, alive: Array, weights: Array | float = 1.0) -> Array:
        """Derivative of the total by every class's aliveness, shape ``(classes,)``; ``weights`` are for the terms."""
        sizes, terms = self._at(alive)
        factors = np.maximum(sizes[self.widths], 1e-12)
        parts = (weights * terms)[:, None] * self.exponents / factors
        slope = np.zeros(len(sizes))
        np.add.at(slope, self.widths.reshape(-1), parts.reshape(-1))
        result: Array = self._widths_of_class @ slope[:-1]
        return result

    def by_node(self, alive: Array) -> dict[str, float]:
        """Cost by owner: node names for MACs, initializer names for sizes."""
        totals: dict[str, float] = {}
        for owner, cost in zip(self.owners, self.terms(alive).tolist(), strict=True):
            totals[owner] = totals.get(owner, 0.0) + cost
        return totals


def _exponents(digits: Sequence[Digit], by_key: Mapping[int, Digit]) -> tuple[dict[int, int], Fraction]:
    """Exponents by digit key, and the factor that free rows contribute.

    The width of a digit is its alive cells over the product of the widths of the digits it depends on.
    """
    exponents: dict[int, int] = {}
    factor = Fraction(1)

    def add(digit: Digit, sign: int) -> None:
        nonlocal factor
        if digit.labels is None:
            factor *= Fraction(digit.size) ** sign
            return
        exponents[digit.key] = exponents.get(digit.key, 0) + sign
        for key in digit.deps:
            add(by_key[key], -sign)

    for digit in digits:
        if digit.labels is not None:
            add(digit, 1)
    return {k: e for k, e in exponents.items() if e}, factor


def polynomial(
    name: str, coupling: Coupling, terms: Iterable[tuple[str, int, Sequence[Digit], *tuple[Sequence[Digit], ...]]]
) -> Cost:
    """Build a cost from terms: owner, coefficient, digits, and digits that these only depend on."""
    index: dict[int, int] = {}
    arrays: list[Labels] = []
    rows: list[tuple[str, float, dict[int, int]]] = []
    for owner, coefficient, digits, *within in terms:
        by_key = {d.key: d for d in itertools.chain(digits, *within)}
        exponents, factor = _exponents(digits, by_key)
        named: dict[int, int] = {}
        for key, exponent in exponents.items():
            labels = by_key[key].labels
            assert labels is not None
            if id(labels) not in index:
                index[id(labels)] = len(arrays)
                arrays.append(labels)
            place = index[id(labels)]
            named[place] = named.get(place, 0) + exponent
        rows.append((owner, float(coefficient * factor), named))
    width = max([len(named) for _, _, named in rows], default=0) or 1
    places = np.full((len(rows), width), len(arrays), np.int64)
    powers = np.zeros((len(rows), width))
    for number, (_, _, named) in enumerate(rows):
        places[number, : len(named)] = list(named)
        powers[number, : len(named)] = list(named.values())
    counts, fixed = _counts(coupling, arrays)
    coefficients = np.array([coefficient for _, coefficient, _ in rows], float)
    return Cost(name, counts, fixed, coefficients, places, powers, tuple(owner for owner, _, _ in rows))


def _counts(coupling: Coupling, arrays: Sequence[Labels]) -> tuple[Any, Array]:
    """How often every class occurs in every label array, and how many positions are pinned."""
    if not arrays:
        return sp.csr_matrix((0, coupling.size)), np.zeros(0)
    flat = [labels.reshape(-1) for labels in arrays]
    owner = np.repeat(np.arange(len(flat)), [len(f) for f in flat])
    atoms = np.concatenate(flat)
    free = atoms > 0
    classes = coupling.strong[atoms[free]]
    matrix = sp.coo_matrix((np.ones(len(classes)), (owner[free], classes)), shape=(len(flat), coupling.size)).tocsr()
    return matrix, np.bincount(owner[~free], minlength=len(flat)).astype(float)


def macs(coupling: Coupling) -> Cost:
    """Multiply-accumulates of all contractions at the nominal input sizes."""
    return polynomial("macs", coupling, (_work(coupling, term) for term in coupling.records.terms))


def _work(coupling: Coupling, term: Term) -> tuple[str, int, Sequence[Digit], Sequence[Digit]]:
    return (
        str(coupling.nodes[term.node].name),
        term.coefficient,
        (*term.digits, *coupling.present([term.node])),
        term.within,
    )


def work(coupling: Coupling) -> int:
    """Multiply-accumulates of the whole model at the nominal input sizes."""
    return int(macs(coupling).value(np.ones(coupling.size)))


def params(coupling: Coupling) -> Cost:
    """Elements of all parameters: every initializer but integer shape and index constants."""
    return polynomial("params", coupling, _sizes(coupling, bits=False))


def weight_bytes(coupling: Coupling) -> Cost:
    """Bytes of all parameters."""
    return polynomial("bytes", coupling, _sizes(coupling, bits=True))


def _sizes(coupling: Coupling, *, bits: bool) -> Iterable[tuple[str, int, Sequence[Digit]]]:
    inside = [held for node in coupling.nodes for held in bodies.parameters(node)]
    shared = {*coupling.graph.clones, *coupling.graph.clones.values()}  # counted once, wherever they are read
    for name, value in (*parameters(coupling).items(), *((n, v) for n, v in inside if is_parameter(v))):
        layout = coupling.values.get(name)
        digits = list(layout.digits.values()) if layout else []
        digits += coupling.present(coupling.readers.get(name, ())) if name not in shared else ()
        labelled = int(np.prod([d.size for d in digits if d.labels is not None], dtype=np.int64))
        per = stored_type(value).bitwidth if bits else 1
        size = int(np.prod(value.const_value.shape, dtype=np.int64))
        coefficient = size // max(labelled, 1) * per
        yield (
            name,
            coefficient // 8 if bits and coefficient % 8 == 0 else coefficient / 8 if bits else coefficient,
            digits,
        )  # type: ignore[misc]


def parameters(coupling: Coupling) -> Mapping[str, Any]:
    """The initializers that count as parameters, once each; copies that every plan cuts alike count once."""
    clones, counted, seen = coupling.graph.clones, {}, set()
    origins = set(clones.values())
    for name, value in coupling.graph.initializers.items():
        if not is_parameter(value):
            continue
        assert value.const_value is not None
        if value.const_value.dtype == ir.DataType.INT32 and name not in coupling.values:
            continue  # a setting, not a quantized bias
        origin = clones.get(name, name)
        if origin in origins:
            mark = (origin, coupling.signature(name))
            if mark in seen:
                continue
            seen.add(mark)
        counted[name] = value
    return counted


def is_parameter(value: ir.Value) -> bool:
    """Whether an initializer is one: no size or index, and no single setting such as an epsilon."""
    tensor = value.const_value
    return tensor is not None and tensor.dtype not in SETTINGS and len(tensor.shape) > 0
