"""Files of the older exporter carry no shapes inside: what it writes for computed sizes is cut, and stays open.

Every idiom is exported with nothing open, with the batch open, and with batch, height and width open. The law is slim =
mask, at the sizes of the example, at which the analysis ran, and at others; the masked original without its masks must
compute what the file computes.
"""

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onnxslim_learn.workflow import slim as api
from tests import laws

OPEN = {"static": (), "batch": (0,), "all": (0, 2, 3)}
SIZES = {"static": [(2, 16, 16)], "batch": [(1, 16, 16), (5, 16, 16)], "all": [(1, 16, 16), (5, 12, 20), (3, 24, 8)]}


def summed_gate(z: torch.Tensor) -> torch.Tensor:
    """Gate a tensor by its sum over axis 1."""
    return z * torch.sigmoid(z.sum(1, keepdim=True))


def normalised_response(y: torch.Tensor) -> torch.Tensor:
    """Divide the norms of channels by their mean."""
    norms = y.norm(dim=(2, 3), keepdim=True)
    return norms / (norms.mean(1, keepdim=True) + 1e-6)


def unpooled(pooled: torch.Tensor, places: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Put values back where a pooling found them."""
    return torch.zeros_like(y).flatten(2).scatter(2, places.flatten(2), pooled.flatten(2)).view_as(y)


IDIOMS = {
    "interpolate to a size": lambda s, x, y: F.interpolate(y, size=(x.shape[2], x.shape[3])),
    "interpolate bilinearly": lambda s, x, y: F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False),
    "interpolate to half": lambda s, x, y: F.interpolate(y, size=(y.shape[2] // 2, y.shape[3] // 2)),
    "zeros_like": lambda s, x, y: y + torch.zeros_like(y),
    "ones_like": lambda s, x, y: y * torch.ones_like(y),
    "full_like": lambda s, x, y: y * torch.full_like(y, 0.5),
    "new_zeros": lambda s, x, y: y + y.new_zeros(y.shape),
    "new_zeros of a batch": lambda s, x, y: y + y.new_zeros(y.size(0), 1, 1, 1),
    "zeros of sizes": lambda s, x, y: y + torch.zeros(y.size(0), y.size(1), y.size(2), y.size(3)),
    "ones of channels": lambda s, x, y: y * torch.ones(1, y.size(1), 1, 1),
    "expand_as": lambda s, x, y: y * s.v.view(1, -1, 1, 1).expand_as(y),
    "expand": lambda s, x, y: y * s.v.view(1, -1, 1, 1).expand(y.size(0), -1, y.size(2), y.size(3)),
    "expand to a batch": lambda s, x, y: y * s.v.view(1, -1, 1, 1).expand(y.size(0), -1, -1, -1),
    "view and back": lambda s, x, y: torch.tanh(y.view(y.size(0), y.size(1), -1)).view(y.shape),
    "view, softmax and back": lambda s, x, y: y.view(y.size(0), y.size(1), -1).softmax(-1).view(y.shape),
    "view as another": lambda s, x, y: y.flatten(2).view_as(y),
    "where with zeros": lambda s, x, y: torch.where(y > 0.2, y, torch.zeros_like(y)),
    "masked_fill": lambda s, x, y: y.masked_fill(y < 0.1, 0.0),
    "repeat": lambda s, x, y: y + y.mean((2, 3), keepdim=True).repeat(1, 1, y.size(2), y.size(3)),
    "tokens and back": lambda s, x, y: y.flatten(2).transpose(1, 2).transpose(1, 2).view(-1, 16, y.size(2), y.size(3)),
    "groups in the batch": lambda s, x, y: summed_gate(y.view(y.size(0) * 4, -1, y.size(2), y.size(3))).view(y.shape),
    "groups in the batch, flat": lambda s, x, y: summed_gate(y.reshape(y.size(0) * 4, 4, y.size(2) * y.size(3))).view(
        y.shape
    ),
    "shuffle": lambda s, x, y: (
        y.view(y.size(0), 4, 4, y.size(2), y.size(3)).transpose(1, 2).reshape(y.size(0), 16, y.size(2), y.size(3))
    ),
    "pad to even": lambda s, x, y: F.pad(y, (0, y.size(3) % 2, 0, y.size(2) % 2)),
    "index by arange": lambda s, x, y: y[:, :, torch.arange(y.size(2))],
    "chunk": lambda s, x, y: torch.cat(y.chunk(2, 1)[::-1], 1),
    "split by half its channels": lambda s, x, y: torch.cat(torch.split(y, y.size(1) // 2, 1), 1),
    "mean over places by size": lambda s, x, y: y * (y.sum((2, 3)) / (y.size(2) * y.size(3)))[:, :, None, None],
    "response normalised by its mean over channels": lambda s, x, y: y + y * normalised_response(y),
    "groups in the batch, normalised": lambda s, x, y: (
        F.group_norm(y.reshape(y.size(0) * 4, -1, y.size(2), y.size(3)), 4).view(y.shape) + y
    ),
    "padded to multiples": lambda s, x, y: F.pad(y, (0, (-y.size(3)) % 4, 0, (-y.size(2)) % 4)),
    "mean over channels": lambda s, x, y: y * torch.sigmoid(y.mean(1, keepdim=True)),
    "joined with a map": lambda s, x, y: s.joined(torch.cat([y, x[:, :1, ::2, ::2], x[:, :2, ::2, ::2]], 1)),
    "pooled, and put back by hand": lambda s, x, y: unpooled(*F.max_pool2d(y, 2, return_indices=True), y),
    "products of channels": lambda s, x, y: torch.bmm(
        y.flatten(2).bmm(y.flatten(2).transpose(1, 2)) / y.size(2), y.flatten(2)
    ).view(y.shape),
}


class Between(nn.Module):
    """A convolution, something that computes sizes, and a convolution that sums over the channels."""

    def __init__(self, idiom):
        super().__init__()
        self.a, self.b, self.idiom = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 4, 1), idiom
        self.v, self.joined = nn.Parameter(torch.randn(16)), nn.Conv2d(19, 16, 1)

    def forward(self, x):
        return self.b(self.idiom(self, x, torch.relu(self.a(x))))


def exported(net: nn.Module, inputs: tuple[torch.Tensor, ...], axes: dict[str, dict[int, str]]) -> onnx.ModelProto:
    """Return what the older exporter makes of a net."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), inputs, buffer, dynamo=False, opset_version=17, input_names=list(axes), output_names=["y"],
            dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.parametrize("axes", OPEN)
@pytest.mark.parametrize("idiom", IDIOMS)
def test_computed_sizes_follow_a_cut(idiom, axes):
    torch.manual_seed(0)
    opened = {"x": {axis: f"d{axis}" for axis in OPEN[axes]}}
    model = exported(Between(IDIOMS[idiom]), (torch.randn(2, 3, 16, 16),), opened)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((n, 3, h, w)).astype(np.float32)} for n, h, w in SIZES[axes]]
    laws.assert_cut_is_masked(model, feeds)


class Attention(nn.Module):
    """Attention with its heads folded into the batch, between two layers. The length is baked in: 7, or 2 if first."""

    def __init__(self, *, batch_first: bool, weights: bool):
        super().__init__()
        self.i, self.o, self.weights = nn.Linear(6, 16), nn.Linear(16, 5), weights
        self.m = nn.MultiheadAttention(16, 4, batch_first=batch_first)

    def forward(self, x):
        y = self.i(x)
        return self.o(y + self.m(y, y, y, need_weights=self.weights)[0])


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "length first"])
@pytest.mark.parametrize("weights", [True, False], ids=["weights", "fused"])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=["first", "second", "both"])
def test_heads_in_an_open_batch_are_cut_whole(axes, weights, batch_first):
    torch.manual_seed(0)
    net = Attention(batch_first=batch_first, weights=weights)
    model = exported(net, (torch.randn(2, 7, 6),), {"x": {axis: f"d{axis}" for axis in axes}})
    rng = np.random.default_rng(0)
    sizes = [(n if 0 in axes else 2, 7, 6) if batch_first else (2, n if 1 in axes else 7, 6) for n in (1, 5)]
    analysis = laws.assert_cut_is_masked(model, [{"x": rng.standard_normal(size).astype(np.float32)} for size in sizes])
    assert any(group.rows and group.width == 4 for group in laws.free(analysis))


class Experts(nn.Module):
    """A mixture of experts: how many tokens each of them gets depends on data."""

    def __init__(self, *, added: bool):
        super().__init__()
        self.i, self.gate, self.h, self.o = nn.Linear(6, 16), nn.Linear(16, 3), nn.Linear(16, 16), nn.Linear(16, 5)
        self.e = nn.ModuleList(nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 16)) for _ in range(3))
        self.added = added

    def forward(self, x):
        tokens = torch.relu(self.i(x)).reshape(-1, 16)
        weights, chosen = torch.topk(self.gate(tokens).softmax(-1), 2)
        result, where = torch.zeros_like(tokens), F.one_hot(chosen, 3).permute(2, 1, 0)
        for k, expert in enumerate(self.e):
            slot, token = torch.where(where[k] > 0)
            out = expert(tokens[token]) * weights[token, slot, None]
            if self.added:
                result = result.index_add(0, token, out)
            else:
                result[token] = result[token] + out
        return self.o(torch.relu(self.h(result.view(x.shape[0], x.shape[1], 16))))


@pytest.mark.parametrize("added", [True, False], ids=["added", "put"])
@pytest.mark.parametrize("axes", [(), (0,), (0, 1)], ids=["static", "batch", "both"])
def test_experts_and_what_follows_them_are_cut(axes, added):
    torch.manual_seed(0)
    model = exported(Experts(added=added), (torch.randn(2, 7, 6),), {"x": {axis: f"d{axis}" for axis in axes}})
    rng = np.random.default_rng(0)
    sizes = [(n if 0 in axes else 2, length if 1 in axes else 7, 6) for n, length in ((1, 4), (5, 9))]
    analysis = laws.assert_cut_is_masked(model, [{"x": rng.standard_normal(size).astype(np.float32)} for size in sizes])
    assert [group.width for group in laws.free(analysis)] == [16, 12, 16, 12, 12, 16]


def test_the_branch_of_an_expert_goes_with_its_chance_to_be_chosen():
    torch.manual_seed(0)
    analysis = api.analyze(exported(Experts(added=True), (torch.randn(2, 7, 6),), {"x": {0: "batch", 1: "length"}}))
    coupling = analysis.coupling
    branches = [np.array([coupling.column_of(block)]) for block in coupling.blocks if block.atom]
    assert len(branches) == 3
    assert not laws.valid(laws.close(analysis, np.concatenate(branches[:2])))  # every token meets two
    for branch in branches:
        removal = laws.close(analysis, branch)
        small, reference = laws.written(analysis, removal), laws.masked(removal)
        assert [list(t.dims) for t in small.graph.initializer if t.name == "gate.weight"] == [[2, 16]]
        for size in ((2, 7, 6), (1, 4, 6)):
            feed = {"x": np.random.default_rng(0).standard_normal(size).astype(np.float32)}
            laws.assert_close(laws.run(small, feed)["y"], laws.run(reference, feed)["y"], "y")
