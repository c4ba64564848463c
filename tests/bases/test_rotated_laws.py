"""Every law of a cut holds where bases are rotated: on all nets that have free ones, and on random graphs."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nets.fused import plain
from onnxslim_learn.bases.find import spaces
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.workflow import slim as api
from tests import laws
from tests.bases.rotated import ROTATED, SPACES, assert_same, loosened, rotated, turned
from tests.laws import ALL, PLANS, analysed, draw_removal
from tests.random_graphs import graphs
from tests.test_laws import (
    assert_file_keeps_all_but_widths,
    assert_only_removed_positions_are_reached,
    assert_price_is_the_price_of_the_file,
    assert_slim_is_mask,
    assert_slim_twice_is_slim,
    assert_tensors_are_cuts,
    assert_topology_stays,
    described,
)

Draw = Callable[[api.Analysis], Removal]

LAWS: dict[str, Callable[[api.Analysis, Draw], None]] = {
    "slim is mask": lambda analysis, draw: assert_slim_is_mask(draw(analysis)),
    "tensors are cuts": lambda analysis, draw: assert_tensors_are_cuts(analysis, draw(analysis), FLAT),
    "positions": lambda analysis, draw: assert_only_removed_positions_are_reached(analysis, draw(analysis)),
    "price": lambda analysis, draw: assert_price_is_the_price_of_the_file(analysis, draw(analysis)),
    "topology": lambda analysis, draw: assert_topology_stays(analysis, draw(analysis)),
    "twice": lambda analysis, draw: assert_slim_twice_is_slim(analysis, draw(analysis), draw(analysis)),
}
FLAT = {"at"}
"""The tensor of ``routed_by_groups`` that holds flat positions."""


@pytest.mark.parametrize("name", ALL)
def test_nets_with_free_bases_are_known(name):
    found = loosened(analysed(name))
    assert len(spaces(found.coupling, found.groups)) == (SPACES[plain(name)] if name in ROTATED else 0)


@pytest.mark.parametrize("name", ROTATED)
def test_a_rotated_model_computes_the_same(name):
    assert_same(analysed(name), rotated(name))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ROTATED)
@PLANS
@given(st.data())
def test_law_holds_after_a_rotation(name, law, data):
    LAWS[law](rotated(name), lambda analysis: draw_removal(data.draw, analysis))


@pytest.mark.parametrize("name", ROTATED)
@PLANS
@given(st.data())
def test_file_keeps_all_but_widths_after_a_rotation(name, data):
    source = described(name)
    other = turned(loosened(api.analyze(source)))
    assert_file_keeps_all_but_widths(source, laws.written(other, draw_removal(data.draw, other)), plain(name))


@pytest.mark.parametrize("name", ROTATED)
@PLANS
@given(st.data())
def test_plan_is_replayed_on_the_original(name, data):
    """Rotations that lie beside a plan make the same file of the model as it is."""
    removal = draw_removal(data.draw, rotated(name))
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        api.describe(rotated(name), removal, {}).save(plan)
        api.slim(analysed(name), Plan.load(plan)).save(plan.with_name("again.onnx"), check=False)
        again = plan.with_name("again.onnx").read_bytes()
    assert again == laws.written(rotated(name), removal).SerializeToString()


@laws.examples(30)
@given(st.data(), st.sampled_from(sorted(LAWS)))
def test_laws_hold_for_random_graphs_that_are_rotated(data, law):
    analysis = api.analyze(data.draw(graphs()))
    other = turned(loosened(analysis))
    assert_same(analysis, other)
    if laws.free(other):
        LAWS[law](other, lambda analysis: draw_removal(data.draw, analysis))
