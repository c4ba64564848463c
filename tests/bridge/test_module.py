"""Bridged modules compute what onnxruntime computes, train, compile, and keep names, ties and constants."""

import copy

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from nets.exports import EXPORTERS, NAMES, export
from nets.notation import Net
from nets.pretrained import MODELS, fetch
from onnxslim_learn.bridge.initializers import look_up, parameters, paths, place
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.errors import InputError
from onnxslim_learn.workflow import slim
from tests.laws import NETS, analysed, analysis_inputs, input_sets, normal, run

RELATIVE = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-4}
"""Largest difference allowed, of an output's largest magnitude: kernels of two libraries differ by the order of
summation, which deep nets amplify. Halves are computed in float32 by the module, and rounded at every step by
onnxruntime."""

HARD = {"float16": 1e-2, "float32": 1e-3, "float64": 1e-4}
"""The same for trained nets with steep activations."""


def tensors_of(module, feeds):
    """Return inputs as tensors in the order of a module's arguments."""
    return [torch.from_numpy(np.array(feeds[name])) for name in module.meta["inputs"]]


def call(module, feeds):
    """Run a module on arrays; returns arrays by output name."""
    return {name: value.detach().numpy() for name, value in module(*tensors_of(module, feeds)).items()}


def assert_alike(found, wanted, relative=RELATIVE):
    """Assert that two sets of outputs have the same names, shapes and values; halves are put out as float32."""
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        assert found[name].dtype == (np.float32 if value.dtype == np.float16 else value.dtype), name
        scale = max(float(np.abs(value.astype(np.float64)).max(initial=0)), 1e-6)
        apart = float(np.abs(found[name].astype(np.float64) - value).max(initial=0))
        assert apart <= relative.get(value.dtype.name, 0) * scale, (name, apart, scale)


def step(module, feeds):
    """Run a module and its gradients on arrays; returns the parameters by name."""
    outputs = [value for value in module(*tensors_of(module, feeds)).values() if value.is_floating_point()]
    sum((value * torch.randn_like(value)).sum() for value in outputs).backward()
    return parameters(module)


def read_as_weight(graph):
    """Return the names of initializers that a matrix product or convolution reads directly as floats."""
    kinds = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    read = [v for node in graph.nodes if node.op_type in kinds for v in node.inputs[:2] if v is not None]
    floats = {v.name for v in read if v.is_initializer() and v.const_value.dtype.is_floating_point()}
    return {graph.clones.get(name, name) for name in floats}


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_weight_trains(name):
    analysis = analysed(name)
    module = bridge(analysis)
    torch.manual_seed(0)
    trained = step(module, analysis_inputs(analysis))
    assert read_as_weight(analysis.graph) <= set(trained)
    for own, parameter in trained.items():
        assert parameter.grad is not None, own
        assert bool(torch.isfinite(parameter.grad).all()), own


def test_gradients_are_finite_differences():
    analysis = analysed("layer_norm")
    module = bridge(analysis).double()
    feeds = [t.double() if t.is_floating_point() else t for t in tensors_of(module, analysis_inputs(analysis))]
    for parameter in parameters(module).values():
        flat = parameter.data.reshape(-1)
        loss = sum(value.square().sum() for value in module(*feeds).values())
        (slope,) = torch.autograd.grad(loss, parameter)
        place = int(slope.abs().argmax())
        values = []
        for move in (1e-6, -1e-6):
            before = flat[place].item()
            flat[place] += move
            values.append(sum(value.detach().square().sum().item() for value in module(*feeds).values()))
            flat[place] = before
        measured = (values[0] - values[1]) / 2e-6
        assert abs(measured - slope.reshape(-1)[place].item()) <= 1e-4 * max(abs(measured), 1e-3)


# --- names, ties, constants -------------------------------------------------------------------------------------------


def test_parameters_have_the_names_of_the_initializers():
    names = ["a.0.weight", "a.0.bias", "b", "b.c", "x..y", "training", "if", "m/n:0", 'q"r', ""]
    found = paths(names)
    assert len(set(found.values())) == len(names)
    assert [name for name in names if found[name] == name] == ["a.0.weight", "a.0.bias", "b", "m/n:0"]
    root = nn.Module()
    for name in names:
        place(root, found[name], nn.Parameter(torch.full((1,), float(len(name)))))
    assert all(look_up(root, found[name]).item() == len(name) for name in names)
    assert set(dict(root.named_parameters())) == set(found.values())


TIED = Net(
    """(float[2,6] x, float[2,6] z) => (float[2,4] y) {
        a = Gemm(x, w, b)
        c = Gemm(z, w, b)
        d = Add(a, c)
        r = Relu(d)
        y = MatMul(r, v)
    }""",
    "w 6x5, b 5, v 5x4",
)


def test_tied_weights_are_one_parameter():
    analysis = slim.analyze(TIED.build())
    assert analysis.graph.clones, "the bias should be un-shared in the normal form"
    module = bridge(analysis)
    assert set(parameters(module)) == {"w", "b", "v"}
    feeds = analysis_inputs(analysis)
    with torch.no_grad():
        parameters(module)["b"].add_(1.0)
    model = TIED.build()
    (bias,) = (t for t in model.graph.initializer if t.name == "b")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, "b"))
    assert_alike(call(module, feeds), run(model, feeds))


CONSTANTS = Net(
    """(float[2,6] x) => (float[2,6] y)
       <float[6,6] mask = {0.0, -9.0, -9.0, -9.0, -9.0, -9.0, 0.0, 0.0, -9.0, -9.0, -9.0, -9.0,
                           0.0, 0.0, 0.0, -9.0, -9.0, -9.0, 0.0, 0.0, 0.0, 0.0, -9.0, -9.0,
                           0.0, 0.0, 0.0, 0.0, 0.0, -9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}> {
        a = MatMul(x, w)
        h = Mul(a, {0.5})
        t = Mul(h, table)
        s = Mul(t, scale)
        g = Transpose<perm=[1,0]>(s)
        p = MatMul(g, s)
        m = Add(p, mask)
        o = Softmax<axis=-1>(m)
        f = MatMul(s, o)
        y = Clip(f, low, high)
    }""",
    "w 6x6, table 2x6, scale 6, low high 1",
)


def test_constants_do_not_train():
    model = CONSTANTS.build()
    for tensor in model.graph.initializer:
        if tensor.name in ("low", "high"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(-9 if tensor.name == "low" else 9), tensor.name))
    module = bridge(load(model))
    assert set(parameters(module)) == {"w", "scale"}


def test_frozen_parameters_get_no_gradient():
    module = bridge(load(TIED.build()), freeze=["^w$"])
    assert {name: p.requires_grad for name, p in parameters(module).items()} == {"w": False, "b": True, "v": True}
    with pytest.raises(InputError, match="finds no parameter"):
        bridge(load(TIED.build()), freeze=["nothing"])


def test_unknown_operators_are_named():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "my.own": 1]> net (float[2,6] x) => (float[2,6] y) {
            [odd] a = my.own.Odd (x)
            y = Relu(a)
        }"""
    )
    with pytest.raises(InputError, match=r"node odd \(Odd\): torch has no function"):
        bridge(ir.from_proto(model))


# --- precision, modes -------------------------------------------------------------------------------------------------


def test_half_precision_is_trained_in_float32_and_runs_under_autocast():
    analysis = analysed("half")
    feeds = analysis_inputs(analysis)
    module = bridge(analysis)
    assert {p.dtype for p in parameters(module).values()} == {torch.float32}
    wanted = run(normal(analysis), feeds)
    assert_alike(call(module, feeds), wanted)
    exact = bridge(analysis, master=False)
    assert {p.dtype for p in parameters(exact).values()} == {torch.float16}
    with torch.autocast("cpu", torch.bfloat16):
        outputs = module(*tensors_of(module, feeds))
        sum(value.float().square().sum() for value in outputs.values()).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in parameters(module).values())


NORMED = Net(
    """(float[4,3,6,6] x) => (float[4,5,6,6] y) {
        a = Conv<kernel_shape=[1,1]>(x, w1)
        n = BatchNormalization<momentum=0.75>(a, s, t, m, v)
        r = Relu(n)
        d = Dropout(r, {0.25})
        y = Conv<kernel_shape=[1,1]>(d, w2)
    }""",
    "w1 8x3x1x1, s t m v 8, w2 5x8x1x1",
)


def reference_net(module):
    """The same net written by hand, with the same weights."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8, momentum=0.25), nn.ReLU(), nn.Conv2d(8, 5, 1, bias=False)
    )
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    names = ["w1", "s", "t", "m", "v", "w2"]
    with torch.no_grad():
        own = [net[0].weight, net[1].weight, net[1].bias, net[1].running_mean, net[1].running_var, net[3].weight]
        for tensor, name in zip(own, names, strict=True):
            tensor.copy_(state[name])
    return net


def test_batch_norm_trains_as_torch_does():
    module = bridge(load(NORMED.build()), norms="batch")
    net = reference_net(module)
    x = torch.randn(4, 3, 6, 6)
    for mode in (True, False):
        module.train(mode)
        net.train(mode)
        assert torch.allclose(module(x)["y"], net(x), atol=1e-6)
    assert torch.allclose(module.m, net[1].running_mean)
    assert torch.allclose(module.v, net[1].running_var)


def test_batch_norm_is_frozen_by_default():
    module = bridge(load(NORMED.build()))
    before = copy.deepcopy(module.state_dict())
    x = torch.randn(4, 3, 6, 6)
    assert torch.equal(module.train()(x)["y"], module.eval()(x)["y"])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(("dropout", "share"), [(True, 0.25), (0.5, 0.5)])
def test_dropout_is_revived_on_request(dropout, share):
    module = bridge(load(NORMED.build()), dropout=dropout)
    seen = []

    def note(value):
        seen.append(value)

    (node,) = (n for n in module.graph.nodes if n.name == "d")
    with module.graph.inserting_after(node):
        module.graph.call_function(note, (node,))
    module.recompile()
    x = torch.randn(64, 3, 6, 6)
    module.eval()(x)
    module.train()(x)
    rest, active = seen
    kept = active != 0
    assert torch.allclose(active[kept], rest[kept] / (1 - share), rtol=1e-5)
    dropped = 1 - kept[rest != 0].float().mean().item()
    assert abs(dropped - share) < 0.02  # some 9 000 draws: four standard errors


# --- torch ------------------------------------------------------------------------------------------------------------

COMPILED = ("residual", "attention_dynamic", "squeeze_excite", "grouped_query", "windows", "weight_norm", "lstm")


@pytest.mark.parametrize("name", COMPILED)
def test_torch_compile_takes_the_whole_graph(name):
    analysis = analysed(name)
    module, feeds = bridge(analysis), analysis_inputs(analysis)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found, wanted = compiled(*tensors_of(module, feeds)), module(*tensors_of(module, feeds))
    for key, value in wanted.items():
        assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-5)
    if analysis.graph.shapes.dynamic:
        for other in input_sets(normal(analysis))[1:]:
            compiled(*tensors_of(module, other))


def test_state_goes_round():
    module = bridge(analysed("half"))
    other = bridge(analysed("half"))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    other.load_state_dict(module.state_dict())
    feeds = analysis_inputs(analysed("half"))
    assert_alike(call(copy.deepcopy(module), feeds), call(other, feeds), {})


# --- whole models -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter"), [(n, EXPORTERS[k % 2]) for k, n in enumerate(sorted(NAMES))])
def test_exported_nets_equal_onnxruntime_and_train(name, exporter, tmp_path):
    path = export(name, exporter, tmp_path)
    found = slim.analyze(path)
    module, feeds = bridge(found), analysis_inputs(found)
    assert_alike(call(module, feeds), run(onnx.load(path), feeds))
    trained = step(module, feeds)
    assert read_as_weight(found.graph) <= set(trained)
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in trained.values())
    assert sum(bool(p.grad.abs().sum() > 0) for p in trained.values()) >= 0.95 * len(trained)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_pretrained_nets_equal_onnxruntime_and_train(name):
    path = fetch(name)
    found = slim.analyze(path)
    module, feeds = bridge(found), analysis_inputs(found)
    assert_alike(call(module, feeds), run(onnx.load(path), feeds), HARD)
    trained = step(module, feeds)
    assert read_as_weight(found.graph) <= set(trained)


def test_the_gradient_passes_where_ranges_are_found_at_run_time():
    """As if the weights, dequantized, multiplied what was never rounded."""
    text = """(float[n, 6] x) => (float[n, 5] y) {
        a = Add(x, b) q, scale, zero = DynamicQuantizeLinear(a) p = MatMulInteger(q, w, zero) f = Cast<to=1>(p)
        t = Mul(scale, {0.5}) y = Mul(f, t)
    }"""
    model = Net(text, "b 6, w 6x5:int8").build()
    module = bridge(slim.analyze(model))
    weight = onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "w"))
    torch.sum(module(torch.randn(3, 6))["y"]).backward()
    (bias,) = module.parameters()
    np.testing.assert_allclose(bias.grad, 3 * 0.5 * weight.sum(1, dtype=np.float32), rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "kernel"),
    [
        ("s = Add(h, {3.0}) c = Clip(s, {0.0}, {6.0}) m = Mul(c, h) z = Div(m, {6.0})", "hardswish"),
        ("s = HardSigmoid<alpha=0.16666667, beta=0.5>(h) z = Mul(h, s)", "hardswish"),
        ("s = Sigmoid(h) z = Mul(s, h)", "silu"),
        ("d = Div(h, {1.41421354}) e = Erf(d) o = Add(e, {1.0}) m = Mul(h, o) z = Mul(m, {0.5})", "gelu"),
    ],
)
def test_activations_that_are_spelled_out_are_one_call(body, kernel):
    net = Net(
        f"(float[batch, 4] x) => (float[batch, 3] y) {{ h = MatMul(x, w) {body} y = MatMul(z, v) }}", "w 4x6, v 6x3"
    )
    model = net.build()
    module = bridge(load(model))
    assert [n.target.__name__ for n in module.graph.nodes if n.op == "call_function"] == ["matmul", kernel, "matmul"]
    for feeds in input_sets(model):
        assert_alike(call(module, feeds), run(model, feeds))
    kept = bridge(load(model), features=["s", "e"])  # what is read in between stays
    assert len(kept.graph.nodes) > len(module.graph.nodes)
