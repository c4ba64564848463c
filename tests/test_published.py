"""Nets of well-known kinds, as people export them: cut with and without repair, and run at other sizes."""

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.exports import write
from nets.fused import fused
from nets.published import PUBLISHED, resized
from nets.published.configured import CONFIGURED
from nets.published.more import MORE
from onnxslim_learn.errors import TargetError
from onnxslim_learn.rewrite import verify as checking
from onnxslim_learn.workflow import slim
from tests import laws

CHOSEN = ("keys and values of before", "KAN", "Mamba-2", "BiFPN", "RNN-T", "PWC-Net", "SuperGlue", "DGCNN", "QRNN, SRU")
"""Of the nets that the scripts measure, those that the tests look at."""

ALL = {**PUBLISHED, **CONFIGURED, **{name: MORE[name] for name in CHOSEN}}

QUICK = {"keys and values of before", "KAN", "SGE", "DLRM", "BART's attention, by views", "recurrent states in and out"}
"""What the default run looks at."""

BAKED = {
    "nn.Transformer",
    "SigLIP's pooling",
    "Mask2Former's masked queries",
    "class token",
    "LED, encoder and decoder",
}
"""Of which the older exporter writes sizes into the file that it was told are open: they are run at those alone."""

NOT_OPENED = {
    "StyleGAN2": "the older exporter knows no convolution of a kernel of unknown shape",
}
"""Nets that cannot be exported with open axes, and why."""


def some(names):
    """The names as parameters; all but a few are left to the slow run."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]
    )


def reachable(analysis, share=0.6):
    """A bound on parameters: a share of them, or half the way to what can be reached."""
    try:
        slim.plan(analysis, {"params": share})
    except TargetError as error:
        least, _ = error.missed["params"]
        return (least + analysis.price(analysis.whole)["params"]) / 2
    return share


def assert_cut(name, exporter, tmp_path, *, opened):
    """Assert that a net is cut exactly, at the sizes of the analysis and at two others of its open axes; return it."""
    network, model = ALL[name], write(ALL[name], exporter, opened=opened)
    analysis = slim.analyze(model)
    slimmed = slim.slim(analysis, slim.plan(analysis, {"params": reachable(analysis)}))
    assert slimmed.removal.gone.any()
    slimmed.save(tmp_path / "slim.onnx", check=False)
    inputs = network.inputs(2)
    sizes = [inputs]
    if opened and not (exporter == "legacy" and name in BAKED):
        sizes = [resized(inputs, network.dynamic, which) for which in (0, 1)]
    small, taken = onnx.load(tmp_path / "slim.onnx"), {info.name for info in model.graph.input}
    for size in sizes:
        feed = {key: value.numpy() for key, value in size.items() if key in taken}
        assert checking.verify(slimmed.removal, tmp_path / "slim.onnx", [feed], seeds=1).passed
        assert all(np.isfinite(output).all() for output in laws.run(small, feed).values())
    return analysis


@some(name for name in ALL if name not in NOT_OPENED)
def test_open_axes_of_the_older_exporter(name, tmp_path):
    assert_cut(name, "legacy", tmp_path, opened=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DLRM", "recurrent states in and out", "mixture of experts, routed"])
def test_what_is_cut_is_repaired(name):
    analysis = slim.analyze(write(ALL[name], "legacy", opened=True))
    assert osl.slim(analysis, params=reachable(analysis), samples=64, no_latency=True).report["verify"]["passed"]


@some(name for name in PUBLISHED if name != "messages on edges")  # whose fixed zeros the older exporter cannot write
def test_fixed_sizes_of_the_older_exporter(name, tmp_path):
    assert_cut(name, "legacy", tmp_path, opened=False)


def test_units_whose_final_states_are_stacked_can_go():
    analysis = slim.analyze(write(ALL["final states of two directions"], "legacy", opened=True))
    assert [group.pin for group in analysis.groups if group.width == 20] == [None]


def test_heads_that_share_an_open_batch_lose_cells_as_onnxruntime_fuses_their_products():
    model = write(ALL["SigLIP's pooling"], "legacy", opened=True)
    plain, other = (slim.analyze(form) for form in (model, fused(model, "extended")))
    assert {node.op_type for node in other.graph.nodes} >= {"FusedMatMul"}
    free = [[group for group in one.groups if group.pin is None] for one in (plain, other)]
    assert len(free[0]) == len(free[1]) > 0
