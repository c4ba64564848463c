"""A criterion of one's own: a function of an analysis, groups and samples; one score per column."""

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS, feeds
from onnxslim_learn.cli import commands
from onnxslim_learn.data.open import open_source
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import CRITERIA
from onnxslim_learn.select import criteria, planner
from onnxslim_learn.select.calibration import Calibration
from tests import laws
from tests.laws import analysed

LAST_FIRST = """
import numpy as np


def last_first(analysis, groups, samples):
    '''The last units of every group go first.'''
    scores = np.full(analysis.coupling.columns, np.nan)
    for group in groups:
        scores[group.units] = -np.arange(group.width)
    return scores
"""


def last_first(analysis, groups, samples):
    """The last units of every group go first."""
    scores = np.full(analysis.coupling.columns, np.nan)
    for group in groups:
        scores[group.units] = -np.arange(group.width)
    return scores


def test_a_function_chooses_what_goes():
    analysis = analysed("residual")
    plan = osl.plan(analysis, {"macs": 0.5}, criterion=last_first)
    assert plan.groups
    for name, kept in plan.groups.items():
        assert list(kept) == list(range(len(kept))), name
    assert plan.provenance["criterion"] == f"{__name__}:last_first"


def test_on_the_command_line_it_is_named_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(LAST_FIRST)
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    line = "slim net.onnx -o slim.onnx --target macs=0.5 --no-repair --no-latency --plan-out plan.json --criterion"
    assert commands.main([*line.split(), "mine:last_first"]) == 0
    plan = osl.Plan.load("plan.json")
    assert plan.groups
    for name, kept in plan.groups.items():
        assert list(kept) == list(range(len(kept))), name


def test_rows_without_a_score_are_worth_what_their_cells_are():
    analysis = analysed("attention")
    coupling, rng = analysis.coupling, np.random.default_rng(0)
    heads = [group for group in laws.free(analysis) if group.rows]
    values = rng.random(coupling.columns)
    rows = np.unique(coupling.column[coupling.is_row])

    def cells_alone(analysis, groups, samples):
        return np.where(np.isin(np.arange(len(values)), rows), np.nan, values)

    found = criteria.scores(analysis, analysis.groups, cells_alone)
    cells, of = coupling.membership.nonzero()
    for unit in heads[0].units:
        own = {int(cell) for cell, row in zip(cells, of, strict=True) if coupling.column[row] == unit}
        assert found[unit] == pytest.approx(sum(values[coupling.column[cell]] for cell in own))


def test_it_is_given_samples_and_kept_beside_them():
    analysis, asked = analysed("residual"), []

    def counting(analysis, groups, samples):
        asked.append(samples)
        return np.arange(analysis.coupling.columns)

    arrays = {name: np.concatenate([value] * 4) for name, value in feeds(laws.normal(analysis)).items()}
    samples = Calibration(analysis.coupling, open_source(arrays, analysis.graph), work=0)
    with CRITERIA.having("counting", counting, samples=True):
        for share in (0.8, 0.5):
            planner.plan(analysis, {"macs": share}, criterion="counting", calibration=samples)
        assert asked == [samples]
        with pytest.raises(InputError, match="criterion counting: needs samples"):
            planner.plan(analysis, {"macs": 0.5}, criterion="counting")
    with (
        CRITERIA.having("labelled", counting, labels=True),
        pytest.raises(InputError, match=r"criterion labelled: needs labels, and .* has none"),
    ):
        planner.plan(analysis, {"macs": 0.5}, criterion="labelled", calibration=samples)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda size: np.zeros(size - 1), "expected one score for each of"),
        (lambda size: np.full(size, np.nan), "have no score"),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused(answer, words):
    analysis = analysed("residual")
    with pytest.raises(InputError, match=words):
        osl.plan(analysis, {"macs": 0.5}, criterion=lambda analysis, *_: answer(analysis.coupling.columns))
