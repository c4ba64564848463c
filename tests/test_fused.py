"""A file that onnxruntime has fused is handled as the file it was made from: the same groups, laws and repair."""

import functools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.transformers import float16

from nets.forms import ATTENTION, FUSED, NORMS
from nets.fused import LEVELS, fused, plain
from nets.notation import Net
from nets.operators import EXAMPLES
from onnxslim_learn import demo
from onnxslim_learn.costs import polynomial
from onnxslim_learn.coupling import roles
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.errors import InputError
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.plans.realize import realize
from onnxslim_learn.repair.sequential import repair
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.rewrite.unfuse import unfuse
from onnxslim_learn.select import kernel_widths
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.sparse.maskable import maskable
from onnxslim_learn.workflow import slim as api
from onnxslim_learn.workflow import sparsify
from onnxslim_learn.workflow.settings import ZeroSettings
from onnxslim_learn.workflow.widen import growable
from tests import laws
from tests.laws import ALL, CUT, ZOO

ALIKE = 1e-3  # share by which the deviation after repair may differ: sums of floats in another order choose ridges
HALF = 1e-2  # likewise, of halves
TIES = 0.25  # likewise, where ties decide: noise of 1e-6 in the samples moves what comes of the exported nets by 9 %
SHARE = 0.75  # of the multiply-accumulates

COMPUTED = {
    "weight_norm": "the first weight is computed, and not masked, where it is stored in the fused net",
    "MelWeightMatrix": "the matrix is computed, and not masked, where it is stored in the fused net",
}
"""Nets whose weights onnxruntime computes once and for all: the fused one has more weights, but is cut alike."""

OTHER = {
    "tied_embedding": "the transposed table is a second one, and each loses rows by itself",
    "LinearAttention": "a loop over cells stands for it, of which all steps are nodes",
    "CausalConvWithState": "onnxruntime has no kernel, only a function for it, of which all steps are nodes",
}
"""Nets that onnxruntime writes as others, and how they differ; laws that need no plain twin run on them as well."""

FEW = {"residual", "bottleneck", "depthwise", "squeeze_excite_gemm", "attention", "class_token", "half"}
EXPORTED = ("transformer", "inverted_residual", "digits")
TWINS = [*(name for name in CUT if plain(name) == name and name not in OTHER), *EXPORTED]


def parameters(names):
    """Return nets as parameters of a test: a few for the default run."""
    return [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in names]


NAMES = parameters(TWINS)
ALIKE_IN_NODES = [name for name in TWINS if name not in COMPUTED]
ZEROED = [name for name in ALIKE_IN_NODES if name in (*ZOO, *EXPORTED) and name != "quantized"]  # which has its own law


def exported(name):
    """Export a net of torch: residual blocks of attention and perceptrons, or of convolutions."""
    torch = pytest.importorskip("torch")
    from tests import torch_blocks

    torch.manual_seed(0)
    return torch_blocks.exported(name)


DIGITS = Path(demo.__file__).parent / "digits.onnx"


HALVES = " in halves"
"""What follows the name of a net whose weights and tensors are halves."""


def halved(model):
    """Return a model with halves for floats."""
    known = onnx.shape_inference.infer_shapes(model)
    return float16.convert_float_to_float16(known, force_fp16_initializers=True, op_block_list=[])


@functools.cache
def source(name):
    if name.endswith(HALVES):
        return halved(source(name.removesuffix(HALVES)))
    if name == "digits":
        return onnx.load(DIGITS)
    return ALL[name].build() if name in ALL else exported(name)


@functools.cache
def analysed(name, level):
    """Return the analysis of a net as it is, or fused."""
    return api.analyze(source(name) if level == "plain" else fused(source(name), level))


def free(analysis):
    """Return the groups that can be cut by width: which comes first is up to the order of nodes in the file."""
    return sorted((group for group in analysis.groups if group.pin is None), key=lambda group: group.width)


@functools.cache
def kept(name):
    """Return what a plan for the plain net keeps of every group that can be cut, group by group."""
    analysis = analysed(name, "plain")
    plan = api.plan(analysis, {"macs": SHARE}, criterion="l1")
    return [plan.groups.get(group.name) for group in free(analysis)]


@functools.cache
def repaired(name, level):
    """Return what repair did to a net cut by the plan of the plain one."""
    analysis = analysed(name, level)
    pairs = [(g, k) for g, k in zip(free(analysis), kept(name), strict=True) if k is not None]
    cut = realize(analysis, Plan({g.name: k for g, k in pairs}, {g.name: g.width for g, _ in pairs}))
    sample = analysis.graph.shapes.analysis
    return repair(cut, slim(cut), [random_inputs(analysis.coupling, sample, seed) for seed in range(8)])


def refitted(name, level):
    """Count the layers that repair tried, without normalisations: fusing puts these into the layers before."""
    norms = {str(n.name) for n in analysed(name, level).graph.nodes if roles.normalisation(n)}
    return len(repaired(name, level).nodes.keys() - norms)


def relative(deviations):
    return float(np.mean([one.relative for one in deviations.values()]))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_a_fused_net_is_repaired_as_the_plain_one(name, level):
    assert [g.width for g in free(analysed(name, level))] == [g.width for g in free(analysed(name, "plain"))]
    plain, found = repaired(name, "plain"), repaired(name, level)
    assert refitted(name, level) == refitted(name, "plain")
    assert relative(found.before) == pytest.approx(relative(plain.before), rel=ALIKE)
    assert relative(found.after) == pytest.approx(relative(plain.after), rel=ALIKE)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", EXPORTED)
def test_a_fused_net_of_halves_is_repaired_as_the_plain_one(name, level):
    """onnxruntime computes it with floats, of weights that are halves; every tensor of the plain one is rounded."""
    name += HALVES
    stored = {tensor.data_type for tensor in fused(source(name), level).graph.initializer if len(tensor.dims) > 1}
    assert stored == {onnx.TensorProto.FLOAT16}
    plain, found = repaired(name, "plain"), repaired(name, level)
    assert refitted(name, level) == refitted(name, "plain") > 0
    assert relative(found.before) == pytest.approx(relative(plain.before), rel=HALF)
    assert relative(found.after) == pytest.approx(relative(plain.after), rel=HALF)


def told(analysis):
    """Return what is masked and in how many parts, what can grow, kinds of kernels, and the work."""
    coupling, graph = analysis.coupling, analysis.graph
    masked = sorted((layer.size, layer.blocks) for layer in maskable(graph.model))
    wide = sorted(group.width for group in growable(analysis, analysis.groups))
    kinds = sorted(kernel_widths.kind(coupling, graph.nodes[term.node]) for term in coupling.records.terms)
    return masked, wide, kinds, polynomial.macs(coupling).value(np.ones(coupling.size))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", parameters(ALIKE_IN_NODES))
def test_nodes_of_a_fused_net_are_what_they_were(name, level):
    assert told(analysed(name, level)) == told(analysed(name, "plain"))


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", [*COMPUTED, *OTHER])
def test_nets_that_are_left_out_differ(name, level):
    assert told(analysed(name, level)) != told(analysed(name, "plain"))


def test_layers_of_fused_nets_are_refitted():
    assert all(refitted(name, level) for name in FEW for level in LEVELS)


@functools.cache
def zeroed(name, level):
    """Return size, ratio, zeros and error of every layer of a sparsified net, and how far its outputs are off."""
    analysis = analysed(name, level)
    sample = analysis.graph.shapes.analysis
    batches = [random_inputs(analysis.coupling, sample, seed) for seed in range(32)]
    data = {value: np.concatenate([batch[value] for batch in batches]) for value in batches[0]}
    known = Calibration(analysis.coupling, open_source(data, analysis.graph))
    made = sparsify.sparsify(analysis, ZeroSettings(0.5), known)
    done = (
        (layer.size, made.ratios[layer.name], (made.array(layer) == 0).sum(), made.done[layer.name].after or 0.0)
        for layer in made.layers
    )
    return np.array(sorted(done)), relative(made.deviation)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["residual", "depthwise", "squeeze_excite_gemm", "attention", "lstm"])
def test_a_fused_net_is_sparsified_as_the_plain_one(name, level):
    layers, off = zeroed(name, level)
    assert layers == pytest.approx(zeroed(name, "plain")[0], rel=ALIKE)
    assert off == pytest.approx(zeroed(name, "plain")[1], rel=ALIKE)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", parameters(ZEROED))
def test_as_much_of_a_fused_net_is_sparsified_as_of_the_plain_one(name, level):
    """Where weights tie, rounding decides which goes, later ones take over, and layers behind see other inputs.

    So no more holds of all nets: every layer has as many zeros, and the outputs are about as far off.
    """
    layers, off = zeroed(name, level)
    wanted, plain = zeroed(name, "plain")
    size, ratio, zeros, _ = layers.T
    assert (size == wanted.T[0]).all() and (zeros == wanted.T[2]).all()
    assert ratio == pytest.approx(wanted.T[1], rel=1e-9)
    assert off == pytest.approx(plain, rel=TIES)


@pytest.mark.parametrize("level", ["plain", *LEVELS])
def test_a_quantized_net_has_nothing_to_sparsify_in_any_form(level):
    with pytest.raises(InputError, match="Nothing can be sparsified"):
        zeroed("quantized", level)


def test_the_nets_hold_what_onnxruntime_fuses():
    held = {(n.domain, n.op_type) for name in FEW for n in analysed(name, "extended").graph.nodes}
    assert {("com.microsoft", op) for op in ("FusedConv", "FusedMatMul", "FusedGemm")} <= held


# --- taken apart ------------------------------------------------------------------------------------------------------

BUNDLES = {
    **{name: net for nets in (FUSED, NORMS, ATTENTION) for name, net in nets.items()},
    **{name: net for name, net in EXAMPLES.items() if name.startswith("com.microsoft.")},
}
APART = [name for name, net in BUNDLES.items() if any(roles.of(n).parts for n in net.build().graph.node)]


def test_operators_that_can_be_taken_apart_are_covered():
    from onnxslim_learn.coupling.operators.table import CONTRIB

    held = {n.op_type for name in APART for n in BUNDLES[name].build().graph.node}
    assert {name for name, row in CONTRIB.items() if row.parts} <= held


def test_a_node_that_makes_an_output_is_taken_apart():
    net = Net(
        """(float[2,4,6] x) => (float[2,4,8] y, float[2,4,8] s) {
            a = MatMul(x, w1)
            b = MatMul(x, w2)
            y, , , s = com.microsoft.SkipLayerNormalization(a, b, gain, shift)
        }""",
        "w1 w2 6x8, gain shift 8",
        domains=', "com.microsoft" : 1',
    )
    model = api.analyze(net.build()).graph.model
    feed = {"x": np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)}
    wanted, found = laws.run(ir.to_proto(model), feed), laws.run(ir.to_proto(unfuse(model)), feed)
    assert list(found) == list(wanted) == ["y", "s"]
    for output in wanted:
        laws.assert_close(found[output], wanted[output], output)


@pytest.mark.parametrize("name", APART)
def test_a_node_taken_apart_computes_the_same(name):
    analysis = api.analyze(BUNDLES[name].build())
    model = analysis.graph.model
    whole, apart = ir.to_proto(model), ir.to_proto(unfuse(model))
    feed = laws.analysis_inputs(analysis)
    wanted, found = laws.run(whole, feed), laws.run(apart, feed)
    assert list(found) == list(wanted)
    for output in wanted:
        laws.assert_close(found[output], wanted[output], output)
