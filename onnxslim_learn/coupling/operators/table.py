"""The operator table: every operator declared once, by the family it belongs to.

From a declaration follow coupling, weight slicing, attribute patches, mask placement, parameter counts and
multiply-accumulates. An operator that is not here is opaque: it pins what it touches and is reported by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.coupling.operators import contractions as c
from onnxslim_learn.coupling.operators import elementwise as f
from onnxslim_learn.coupling.operators import fused as x
from onnxslim_learn.coupling.operators import indexing as a
from onnxslim_learn.coupling.operators import movement as m
from onnxslim_learn.coupling.operators import sequences as s

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.coupling.context import Axes, Rule, Site


def _axis(default: int = -1) -> Axes:
    """The single axis given as attribute."""
    return lambda site, rank: [int(site.attr("axis", default)) % rank]


def _from_axis(default: int = -1) -> Axes:
    """All axes from the one given as attribute to the last."""
    return lambda site, rank: range(int(site.attr("axis", default)) % rank, rank)


def _softmax(site: Site, rank: int) -> Iterable[int]:
    """One axis since opset 13; all from ``axis`` (default 1) before."""
    return _axis(-1)(site, rank) if site.version >= 13 else _from_axis(1)(site, rank)


def _cumsum(site: Site, rank: int) -> Iterable[int]:
    """The axis given as an input, or all if it is computed."""
    found = site.static(1)
    return range(rank) if found is None else [int(found.reshape(-1)[0])]


def _transformed(site: Site, rank: int) -> Iterable[int]:
    """The axis of a DFT, an input since opset 20, and the last one, which holds real and imaginary parts."""
    found = site.ints(2, "axis") if site.version >= 20 else [int(site.attr("axis", 1))]
    return range(rank) if site.name(2) and found is None else [*(found or [-2]), -1]


def _matrix(site: Site, rank: int) -> Iterable[int]:
    """The last two axes."""
    return range(rank - 2, rank)


def _listed(site: Site, rank: int) -> Iterable[int]:
    """The axes given as attribute, or all."""
    return list(site.attr("axes") or range(rank))


def _trained(site: Site, rank: int) -> Iterable[int]:
    """Batch norm in training mode normalises over all axes but the channel."""
    return [a for a in range(rank) if a != 1] if site.attr("training_mode", 0) else []


ELEMENTWISE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
    Cast Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish
    Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or Pow PRelu Reciprocal Relu
    Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum SwiGLU Swish Tan Tanh ThresholdedRelu Where
    Xor
""".split()  # noqa: SIM905

FRESH = """
    AffineGrid BlackmanWindow EyeLike HammingWindow HannWindow MaxUnpool MelWeightMatrix Multinomial NonMaxSuppression
    NonZero
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
""".split()  # noqa: SIM905

TABLE: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, f.elementwise),
    **dict.fromkeys(["CastLike", "Dropout"], f.first_input),
    "BatchNormalization": f.per_channel(normalised=_trained, affine=True),
    "InstanceNormalization": f.per_channel(normalised=lambda site, rank: range(2, rank), affine=True),
    "GroupNormalization": x.group_norm,
    "QuantizeLinear": f.per_channel(axis=None),
    "DequantizeLinear": f.per_channel(axis=None),
    "DynamicQuantizeLinear": f.mixing(lambda site, rank: range(rank)),
    "LayerNormalization": f.norm(_from_axis(), scale=1),
    "RMSNormalization": f.norm(_from_axis(), scale=1),
    "SimplifiedLayerNormalization": f.norm(_from_axis(), scale=1),  # onnxruntime's own, in the default domain
    "LpNormalization": f.norm(_axis()),
    "MeanVarianceNormalization": f.norm(lambda site, rank: site.attr("axes", [0, 2, 3])),
    "LRN": f.norm(lambda site, rank: [1]),
    "Softmax": f.norm(_softmax),
    "LogSoftmax": f.norm(_softmax),
    "Hardmax": f.norm(_softmax),
    **dict.fromkeys(["CumSum", "CumProd"], f.mixing(_cumsum)),
    "CenterCropPad": f.mixing(_listed),
    "DFT": f.mixing(_transformed),
    "Det": f.mixing(_matrix, vanish=True),
    "TopK": f.mixing(_axis()),
    "ArgMax": f.mixing(_axis(0), vanish=True),
    "ArgMin": f.mixing(_axis(0), vanish=True),
    "Trilu": f.mixing(_matrix),
    "ReverseSequence": f.mixing(lambda site, rank: [site.attr("batch_axis", 1), site.attr("time_axis", 0)]),
    "MatMul": c.einsum(c.matmul()),
    "Gemm": c.einsum(c.gemm()),
    "Einsum": c.einsum(c.equation),
    "Conv": c.convolution(),
    "ConvTranspose": c.convolution(transposed=True),
    "DeformConv": c.deformed,
    "CausalConvWithState": s.causal_convolution,
    "Col2Im": m.columns,
    "ConvInteger": c.convolution(bias=3, zero=2),
    "MatMulInteger": c.einsum(c.matmul(columns=(3,)), zero=2),
    "QLinearConv": c.convolution(weight=3, bias=8, more=(4, 5), zero=2),
    "QLinearMatMul": c.einsum(c.matmul(right=3, columns=(4, 5)), zero=2),
    **dict.fromkeys(["RNN"], s.recurrent(1, 1)),
    "GRU": s.recurrent(3, 1),
    "LSTM": s.recurrent(4, 2),
    "Attention": s.attention(
        slots={"query": 0, "key": 1, "value": 2, "past_key": 4, "past_value": 5},
        heads=("q_num_heads", "kv_num_heads"),
        transposed=True,
    ),
    "LinearAttention": s.linear_attention,
    "RotaryEmbedding": s.rotary(positions=3, cosine=1),
    "ReduceMean": c.reduce(exact=False, mean=True),
    **dict.fromkeys(["ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"], c.reduce(exact=True)),
    **dict.fromkeys(["ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"], c.reduce(exact=False)),
    **dict.fromkeys(["MaxPool", "AveragePool", "LpPool"], f.spatial()),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], f.spatial()),
    **dict.fromkeys(["RoiAlign", "MaxRoiPool", "GridSample"], f.spatial(keep=(1,))),
    "Resize": m.resize,
    "Upsample": m.resize,
    "Reshape": m.reshape,
    **dict.fromkeys(["Flatten", "Squeeze", "Unsqueeze"], m.regrouped),
    "Transpose": m.transpose,
    "DepthToSpace": m.blocks(to_space=True),
    "SpaceToDepth": m.blocks(to_space=False),
    "Expand": m.expand,
    "ConstantOfShape": m.fill,
    "Tile": m.tile,
    "Concat": m.concat,
    "Split": m.split_parts,
    "Slice": m.slice_axes,
    "Gather": a.gather,
    "GatherND": a.gather_nd,
    "ScatterND": a.scatter_nd,
    "TensorScatter": a.tensor_scatter,
    **dict.fromkeys(["GatherElements", "ScatterElements", "Scatter"], a.elements),
    "Pad": m.pad,
    "Shape": f.shape_of,
    "Size": f.shape_of,
    **dict.fromkeys(FRESH, f.fresh_output),
}

# Operators that onnxruntime writes into optimised models (domain com.microsoft).
CONTRIB_ELEMENTWISE = """
    BiasAdd BiasDropout BiasGelu BiasSplitGelu FastGelu Gelu QLinearAdd QLinearLeakyRelu QLinearMul QLinearSigmoid
    QuickGelu
""".split()  # noqa: SIM905

CONTRIB: dict[str, Rule] = {
    **dict.fromkeys(CONTRIB_ELEMENTWISE, f.elementwise),
    "FusedConv": c.fused(c.convolution(), skip=3),
    "FusedGemm": c.einsum(c.gemm()),
    "FusedMatMul": c.einsum(c.matmul()),
    "TransposeMatMul": c.einsum(c.matmul()),
    "MatMulNBits": x.block_quantized,
    "QGemm": c.einsum(c.gemm(right=3, bias=6, columns=(4, 5)), zero=2),
    "MatMulIntegerToFloat": c.einsum(c.matmul(columns=(3, 5, 6)), zero=4),
    "QLinearGlobalAveragePool": f.spatial(),
    "QuantizeLinear": f.per_channel(axis=None),
    "DequantizeLinear": f.per_channel(axis=None),
    "SkipLayerNormalization": x.skip_norm((2, 3, 4)),
    "SkipSimplifiedLayerNormalization": x.skip_norm((2, 3)),
    "EmbedLayerNormalization": x.embed_norm,
    "Attention": s.packed_attention,
    "MultiHeadAttention": s.attention(
        slots={"query": 0, "key": 1, "value": 2, "bias": 3, "past_key": 6, "past_value": 7},
        heads=("num_heads", "num_heads"),
    ),
    "GroupQueryAttention": s.attention(
        slots={"query": 0, "key": 1, "value": 2, "past_key": 3, "past_value": 4},
        heads=("num_heads", "kv_num_heads"),
        whole=True,
    ),
    "RotaryEmbedding": s.rotary(positions=1, cosine=2),
}

DOMAINS: dict[str, dict[str, Rule]] = {"": TABLE, "ai.onnx": TABLE, "com.microsoft": CONTRIB}


def rule_for(domain: str, op_type: str) -> Rule:
    """The rule of an operator; :func:`onnxslim_learn.coupling.operators.elementwise.opaque` for one that has none."""
    return DOMAINS.get(domain, {}).get(op_type, f.opaque)
