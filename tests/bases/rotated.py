"""Models of which all free bases are rotated by chance, and which nets have some."""

import functools

import numpy as np

from nets.fused import plain
from onnxslim_learn.bases import norms
from onnxslim_learn.bases.find import spaces
from onnxslim_learn.bases.fold import folded
from onnxslim_learn.bases.rotate import in_bases
from onnxslim_learn.workflow import slim as api
from tests import laws
from tests.laws import ALL, analysed

SPACES = {
    "depthwise": 1,
    "grouped": 2,
    "conv3d": 1,
    "conv_transpose": 1,
    "shuffle_between_groups": 4,
    "rows_of_repeated_channels": 1,
    "channel_shuffle": 2,
    "shufflenet_v2": 1,
    "pad_pool": 1,
    "windows": 1,
    "swiglu": 1,
    "tied_embedding": 1,
    "layer_norm_decomposed": 1,
    "attention": 8,
    "attention_gemm": 8,
    "attention_dynamic": 8,
    "packed_gather": 8,
    "packed_split": 8,
    "relative_bias": 8,
    "grouped_query": 4,
    "rotary": 4,
    "bias_of_two_layers": 3,
    "class_token": 1,
    "lstm": 1,
    "branch": 1,
    "lstm_computed": 1,
    "positions_from_mask": 1,
    "size_computed_with": 2,
    "bias_without_key": 8,
    "routed_by_groups": 1,
    "shuffle_of_three": 3,
    "multi_query": 2,
    "joined_and_cut_elsewhere": 2,
    "cached_attention": 2,
    "Identity": 1,
    "Sum": 1,
    "Dropout": 1,
    "Trilu": 1,
    "Upsample": 1,
    "GridSample": 1,
    "AffineGrid": 1,
    "Tile": 1,
    "MelWeightMatrix": 1,
    "SimplifiedLayerNormalization": 1,
    "RNN": 1,
    "Attention": 4,
    "CenterCropPad": 1,
    "com.microsoft.FusedConv": 1,
    "com.microsoft.FusedGemm": 1,
    "com.microsoft.FusedMatMul": 2,
    "com.microsoft.TransposeMatMul": 2,
}
"""Nets -> how many spaces they have: of attention, one for the queries of every head and one for its values."""

IN_ONE_FORM = {"CenterCropPad": ("basic", "extended")}
"""Nets -> levels at which they have these: the operator is a function, whose body is its nodes once it is unfolded."""

ROTATED = [
    name
    for name in ALL
    if (net := plain(name)) in SPACES and (net not in IN_ONE_FORM or name.removeprefix(f"{net}-") in IN_ONE_FORM[net])
]


def turned(analysis: api.Analysis, seed: int = 0) -> api.Analysis:
    """Return a model of which all free bases are rotated by chance."""
    rng = np.random.default_rng(seed)
    known = spaces(analysis.coupling, analysis.groups)
    return in_bases(analysis, {s.name: np.linalg.qr(rng.normal(size=(s.size, s.size)))[0] for s in known})


def loosened(analysis: api.Analysis) -> api.Analysis:
    """Return a model with its normalisations written so that bases are free, as a cut with samples does."""
    return norms.without(folded(analysis))


@functools.cache
def rotated(name: str) -> api.Analysis:
    """Return one of the nets, loosened and turned; shared, so do not change it."""
    return turned(loosened(analysed(name)))


def assert_same(analysis: api.Analysis, other: api.Analysis) -> None:
    """Assert that two models compute the same."""
    before, after = laws.normal(analysis), laws.normal(other)
    for feed in laws.input_sets(before):
        wanted, found = laws.run(before, feed), laws.run(after, feed)
        for output in wanted:
            laws.assert_close(found[output], wanted[output], output)
