"""The laws on random graphs with random plans: as many as asked for, from a seed that names them again.

``pytest tests/test_random_pairs.py -n 0 -m slow -s --graphs 500 --graph-seed 7`` looks at 500 graphs;
``python -m scripts.reliability graphs`` does so seed after seed.
"""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.plans.realize import describe, realize
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.workflow import slim as api
from tests import laws
from tests.bases.rotated import assert_same, loosened, turned
from tests.counted_macs import macs_by_output
from tests.random_graphs import graphs

EACH = 4  # plans for a graph, and for the same one rotated


@pytest.mark.slow
def test_laws_hold_for_random_pairs(request):
    """Work is what a count by hand says; slim is mask; a plan costs what its file costs and reads as it was written.

    Where bases are free, they are rotated by chance, and all of it holds for what that leaves, too.
    """
    count, chosen = request.config.getoption("--graphs"), request.config.getoption("--graph-seed")
    looked_at = {"graphs": 0, "pairs": 0}

    @seed(chosen)
    @settings(
        settings.get_profile("slow"),
        max_examples=count,
        derandomize=False,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def hold(data):
        model = data.draw(graphs())
        analysis = api.analyze(model)
        looked_at["graphs"] += 1
        counted = macs_by_output(model, random_inputs(analysis.coupling, analysis.graph.shapes.nominal))
        assert analysis.price(analysis.whole)["macs"] == sum(counted.values())
        other = turned(loosened(analysis))
        assert_same(analysis, other)
        for one in [analysis] * EACH + [other] * (EACH if other.bases else 0):
            if not laws.free(one):
                continue
            removal = laws.draw_removal(data.draw, one)
            small, reference = ir.to_proto(slim(removal)), laws.masked(removal)
            for feed in laws.input_sets(small):
                found, wanted = laws.run(small, feed), laws.run(reference, feed)
                assert list(found) == list(wanted)
                for name in wanted:
                    laws.assert_close(found[name], wanted[name], name)
            again = api.analyze(small, inputs=one.graph.shapes.nominal.inputs)
            assert again.price(again.whole) == one.price(removal)
            written = Plan.from_json(describe(one, removal, {}).to_json())
            assert np.array_equal(realize(one, written).gone, removal.gone)
            looked_at["pairs"] += 1

    try:
        hold()
    finally:
        print(f"\nseed {chosen}: {looked_at['graphs']} graphs, {looked_at['pairs']} pairs")
