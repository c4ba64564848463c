"""The axis probe on every operator with a rule: what the table states about axes is what the operators do."""

import functools

import pytest

from nets.operators import UNRUNNABLE
from onnxslim_learn.coupling.operators import table
from scripts import coverage_operators as coverage
from scripts.axis_probe import MODES, Case, probe

PROBED = [name for name in coverage.declared() if name not in coverage.UNPROMISED and name not in UNRUNNABLE]

CUTS = 10
"""Cuts per case: the script tries more."""


@functools.cache
def cases(operator: str) -> tuple[Case, ...]:
    """Return node tests of one operator alone, the widest first."""
    found = [case for case in coverage.node_cases() if [n.op_type for n in case.model.graph.node] == [operator]]
    return tuple(sorted(found, key=breadth, reverse=True))


def breadth(case: Case) -> int:
    """Return how many axes of the first input have several positions, or nothing where it is large."""
    (first, *_) = (*(getattr(given, "shape", ()) for given in case.feeds.values()), ())
    return sum(size > 1 for size in first) if all(size <= 10 for size in first) else 0


def probed(operator: str):
    """Yield findings, in turn of both modes, until the laws were tried."""
    nets = coverage.net_cases(operator)
    chosen = [*cases(operator)[:2], *(nets if len(nets) < 3 else (nets[0], nets[-1]))]
    for number, case in enumerate(chosen):
        found = probe(case, MODES[number % 2], most=CUTS)
        yield found
        if found.removals and number:
            return


@pytest.mark.parametrize("operator", PROBED)
def test_axes_are_true(operator):
    findings = list(probed(operator))
    assert sum(found.removals for found in findings), "nothing was tried"
    assert [text for found in findings for text in found.breaches] == []


MOST = 60  # cases of an operator in nets


@pytest.mark.slow
@pytest.mark.parametrize("operator", PROBED)
def test_axes_are_true_in_every_case(operator):
    inside = list(coverage.net_cases(operator))  # in nets; the published table tries all of them
    row = coverage.Row(cases=[*cases(operator), *inside[:: len(inside) // MOST + 1]])
    coverage.try_out(row)
    assert row.finding.breaches == []


@pytest.mark.parametrize("operator", coverage.UNPROMISED)
def test_operator_that_promises_nothing_is_declared_and_pins(operator):
    assert coverage.is_declared(operator)
    assert all(probe(case).removals == 0 for case in cases(operator)[:2])


def test_every_operator_without_a_rule_has_a_reason():
    assert all(coverage.why_opaque(name) for name in coverage.unknown())
    assert {name.rpartition(".")[2] for name in coverage.unknown()} >= set(coverage.REASONS)


def no_patch(row):
    """Return a row whose rule states everything but how its node changes."""

    def silent(context):
        row.rule(context)
        context.records.patches.clear()

    return row.having(rule=silent)


def unmasked(row):
    """Return a row whose rule states everything but what it sums over."""

    def silent(context):
        row.rule(context)
        context.records.contractions.clear()

    return row.having(rule=silent)


RULES = table.TABLE
WRONG = {
    "Softmax": (RULES["Relu"], "moves positions"),
    "CumSum": (RULES["Dropout"], "moves positions"),
    "Transpose": (RULES["Relu"], "has a layout of"),
    "MatMul": (unmasked(RULES["MatMul"]), "moves positions"),
    "ReduceMean": (RULES["ReduceSum"], "is not the masked one's cut"),
    "Split": (no_patch(RULES["Split"]), "cut"),
    "Reshape": (no_patch(RULES["Reshape"]), "cut"),
}
"""Rules that are not true, and what the probe says of them."""


@pytest.mark.parametrize("operator", WRONG)
def test_probe_finds_a_wrong_rule(operator, monkeypatch):
    rule, complaint = WRONG[operator]
    monkeypatch.setitem(table.TABLE, operator, rule)
    found = [text for case in cases(operator)[:8] for text in probe(case, most=CUTS).breaches]
    assert any(complaint in text for text in found), found
