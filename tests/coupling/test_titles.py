"""Groups have titles that people understand, and are found by role, module and anything they contain."""

import re
from collections import OrderedDict

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nets.forms import NETS as FORMS
from onnxslim_learn import demo
from onnxslim_learn.analysis import analyze
from onnxslim_learn.coupling.titles import module_path, place, shared_path
from onnxslim_learn.errors import InputError
from onnxslim_learn.select.planner import plan
from tests.laws import analysed

PLACES = [
    ("encoder.layer.3.attention.self", "encoder layer 3, attention"),
    ("model.layers.0.mlp", "layer 0, MLP"),
    ("layer2.1", "stage 2, block 1"),
    ("features.7.block.3.0", "features 7, block 3, block 0"),
    ("residual1.conv1.1", "residual1, conv1 1"),
    ("fc", "fc"),
    ("", ""),
]


@pytest.mark.parametrize(("path", "words"), PLACES)
def test_module_paths_are_said_in_words(path, words):
    assert place(tuple(path.split(".")) if path else ()) == words


@pytest.mark.parametrize(
    ("paths", "shared"),
    [
        (["layer1.0.conv2", "layer1.1.conv2"], "layer1"),
        (["conv1", "layer1.0.conv2", "layer1.1.conv2"], "layer1"),  # most of them
        (["encoder.layer.0.output", "encoder.layer.1.output"], "encoder"),
        (["features.2", "features.3"], ""),  # what all lie in tells nothing
        (["fc", "fc"], "fc"),
    ],
)
def test_the_module_that_layers_share(paths, shared):
    assert ".".join(shared_path([tuple(path.split(".")) for path in paths])) == shared


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12, bias=k == 0) for k in range(4))

    def forward(self, x):
        q, k, v = (f(x).view(1, 5, 3, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.o(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).reshape(1, 5, 12))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp = Attention(), nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12))

    def forward(self, x):
        x = x + self.attn(x)
        return x + self.mlp(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.layers, self.head = nn.Linear(6, 12), nn.ModuleList([Layer(), Layer()]), nn.Linear(12, 3)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("titles") / "net.onnx"
    torch.onnx.export(Net().eval(), torch.randn(1, 5, 6), path, dynamo=False)
    return analyze(path)


def test_every_group_has_a_role_and_a_place(net):
    said = {title.text: title.role for title in net.titles.values()}
    assert said == {
        "layer 0 to 1: 12 channels of the residual stream": "residual",
        "layer 0, attention: 3 heads of 4": "heads",
        "layer 1, attention: 3 heads of 4": "heads",
        "layer 0, attention: 12 entries of queries and keys": "queries-keys",
        "layer 1, attention: 12 entries of queries and keys": "queries-keys",
        "layer 0, attention: 12 entries of values": "values",
        "layer 1, attention: 12 entries of values": "values",
        "layer 0, MLP: 20 hidden units": "hidden",
        "layer 1, MLP: 20 hidden units": "hidden",
        "head: 3 outputs": "outputs",
    }
    blocks = [f"layer {k}: {what} block" for k in (0, 1) for what in ("attention", "MLP")]
    assert [title.text for title in net.block_titles.values()] == blocks


def test_layers_are_called_so_within_a_module_whose_name_says_little(tmp_path):
    torch.manual_seed(0)
    whole = nn.Sequential(OrderedDict(model=Net())).eval()
    torch.onnx.export(whole, torch.randn(1, 5, 6), tmp_path / "net.onnx", dynamo=False)
    texts = {title.text for title in analyze(tmp_path / "net.onnx").titles.values()}
    assert "layer 0 to 1: 12 channels of the residual stream" in texts


def test_what_lies_in_no_numbered_module_is_called_by_the_module_around_it():
    """Of a squeezed block, whose first layer two others read, by the block; of blocks likewise."""
    shipped = analyze(demo.model_path())
    assert {title.text for title in shipped.titles.values()} >= {"inverted: 64 channels", "classifier: 10 outputs"}
    blocks = ["residual1", "inverted", "residual2"]
    assert [title.text for title in shipped.block_titles.values()] == [f"{one}: convolution block" for one in blocks]


def test_blocks_of_files_without_modules_are_called_by_their_sums():
    assert [title.text for title in analysed("swiglu").block_titles.values()] == ["z: MLP block"]


def narrowed(net, **settings):
    chosen = plan(net, {"macs": 0.9}, **settings)
    return {net.titles[name].text for name in chosen.groups}


def test_protection_holds_for_rows_and_cells_alike(net):
    hidden = {"layer 0, MLP: 20 hidden units", "layer 1, MLP: 20 hidden units"}
    assert narrowed(net, protect=["attn"]) == hidden  # what attention reads and writes, the stream, stays as well
    assert not hidden & narrowed(net, protect=["hidden"])


def test_only_what_is_named_is_cut(net):
    assert {net.titles[n].role for n in plan(net, {"macs": 0.9}, only=["hidden"]).groups} == {"hidden"}
    assert all(text.startswith("layer 1") for text in narrowed(net, only=[r"layers\.1"]))
    assert {net.titles[n].role for n in plan(net, {"macs": 0.98}, only=[r"attn\.[qk]$"]).groups} == {"queries-keys"}


def test_groups_keep_the_share_they_are_told_to(net):
    chosen = plan(net, {"macs": 0.7}, keep={"hidden": 0.95})
    hidden = [name for name, title in net.titles.items() if title.role == "hidden"]
    assert all(len(chosen.groups.get(name, range(20))) >= 19 for name in hidden)
    assert min(len(plan(net, {"macs": 0.7}).groups.get(name, range(20))) for name in hidden) < 19


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"only": ["nothing"]}, ["only nothing", "heads"]),
        ({"protect": ["nothing"]}, ["protect nothing", "no group matches"]),
        ({"keep": {"nothing": 0.5}}, ["keep nothing"]),
        ({"keep": {"heads": 1.5}}, ["keep heads=1.5", "from 0 to 1"]),
        ({"only": ["["]}, ["only [", "regular expression"]),
    ],
)
def test_what_names_nothing_is_refused(net, settings, words):
    with pytest.raises(InputError) as error:
        plan(net, {"macs": 0.9}, **settings)
    assert all(word in str(error.value) for word in words)


def test_paths_come_from_what_the_exporter_left():
    node = onnx.helper.make_node("Relu", ["x"], ["y"], name="/layer1/layer1.0/relu/Relu")
    import onnx_ir as ir

    assert module_path(ir.from_proto(node)) == ("layer1", "0", "relu")
    bare = ir.from_proto(onnx.helper.make_node("Relu", ["x"], ["y"], name="node_1"))
    assert module_path(bare, ["model.layers.0.fc.weight"]) == ("model", "layers", "0", "fc")
    assert module_path(bare, ["onnx::MatMul_3"]) == ()
    assert re.search("layers", ".".join(module_path(bare, ["model.layers.0.fc.weight"])))


VALUES = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
TABLES = {
    "candidates": onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(1, 1, 12), "candidates"),
    "table": onnx.numpy_helper.from_array(np.eye(12, dtype=np.float32), "table"),
    "w": onnx.numpy_helper.from_array(VALUES, "w"),
    "v": onnx.numpy_helper.from_array(VALUES[:8, :3].copy(), "v"),
}
ONE_HOT = {
    "compared": ("float[n, 5, 1] x", "e = Equal(x, candidates) o = Cast<to=1>(e)", "candidates"),
    "picked": ("int64[n, 5] x", "o = Gather(table, x)", "table"),
}


def one_hot(name):
    given, front, table = ONE_HOT[name]
    text = f"net ({given}) => (float[n, 5, 3] y) {{ {front} m = MatMul(o, w) r = Relu(m) y = MatMul(r, v) }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    model.graph.initializer.extend(TABLES[tensor] for tensor in (table, "w", "v"))
    return analyze(model)


@pytest.mark.parametrize("name", ONE_HOT)
def test_symbols_of_the_input_stay_unless_they_are_meant(name):
    net = one_hot(name)
    (symbols,) = [group for group in net.groups if net.titles[group.name].role == "symbols"]
    assert (symbols.width, symbols.pin) == (12, None)
    assert symbols.name not in plan(net, {"macs": 0.9}).groups
    assert symbols.name in plan(net, {"macs": 0.9}, only=["symbols"]).groups
    assert symbols.name not in plan(net, {"macs": 0.9}, only=["hidden"]).groups
    found = dict(zip(("none", "all"), (net.free_groups(), net.free_groups(only=["."])), strict=True))
    pinned = {key: [g.name for g in groups if g.pin is not None] for key, groups in found.items()}
    assert symbols.name in pinned["none"]
    assert symbols.name not in pinned["all"]


def test_a_table_of_learnt_rows_holds_no_symbols():
    net = one_hot("picked")
    model = onnx.ModelProto()
    model.CopyFrom(onnx.load_from_string(net.graph.data))
    (table,) = [tensor for tensor in model.graph.initializer if tensor.name == "table"]
    table.CopyFrom(onnx.numpy_helper.from_array(np.eye(12, dtype=np.float32) + 0.1, "table"))
    assert "symbols" not in {title.role for title in analyze(model).titles.values()}


def test_groups_are_called_after_layers_and_not_after_what_rounds_in_front_of_them():
    analysis = analyze(FORMS["ConvInteger_dynamic"].build())
    texts = [title.text for title in analysis.titles.values()]
    assert texts
    assert not [text for text in texts if "q:" in text]
