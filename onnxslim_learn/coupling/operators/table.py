"""The operator table: every operator declared once, by the family it belongs to.

From a declaration follow coupling, weight slicing, attribute patches, mask placement, parameter counts and
multiply-accumulates, and what a node is (:mod:`onnxslim_learn.coupling.operators.facts`). An operator that is not here
is opaque: it pins what it touches and is reported by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.coupling.operators import contractions as c
from onnxslim_learn.coupling.operators import counted as w
from onnxslim_learn.coupling.operators import elementwise as f
from onnxslim_learn.coupling.operators import experts as e
from onnxslim_learn.coupling.operators import fused as x
from onnxslim_learn.coupling.operators import indexing as a
from onnxslim_learn.coupling.operators import mixing as b
from onnxslim_learn.coupling.operators import movement as m
from onnxslim_learn.coupling.operators import sequences as s
from onnxslim_learn.coupling.operators.facts import (
    NOTHING,
    OWN,
    Convolution,
    Experts,
    Normalisation,
    Operator,
    Product,
    Trait,
    above_zero,
    as_it_was,
    clipped,
    permuted,
)
from onnxslim_learn.registry import operator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.coupling.context import Axes, NodeContext, Rule


def _axis(default: int = -1) -> Axes:
    """The single axis given as attribute."""
    return lambda context, rank: [int(context.attr("axis", default)) % rank]


def _from_axis(default: int = -1) -> Axes:
    """All axes from the one given as attribute to the last."""
    return lambda context, rank: range(int(context.attr("axis", default)) % rank, rank)


def _softmax(context: NodeContext, rank: int) -> Iterable[int]:
    """One axis since opset 13; all from ``axis`` (default 1) before."""
    return _axis(-1)(context, rank) if context.version >= 13 else _from_axis(1)(context, rank)


def _quantized_softmax(context: NodeContext, rank: int) -> Iterable[int]:
    """The same, after the opset that an attribute names."""
    return _axis(-1)(context, rank) if context.attr("opset", 13) >= 13 else _from_axis(1)(context, rank)


def _cumsum(context: NodeContext, rank: int) -> Iterable[int]:
    """The axis given as an input, or all if it is computed."""
    axis = context.static(1)
    return range(rank) if axis is None else [int(axis.reshape(-1)[0])]


def _transformed(context: NodeContext, rank: int) -> Iterable[int]:
    """The axis of a DFT, an input since opset 20, and the last one, which holds real and imaginary parts."""
    axis = context.ints(2, "axis") if context.version >= 20 else [int(context.attr("axis", 1))]
    return range(rank) if context.name(2) and axis is None else [*(axis or [-2]), -1]


def _matrix(context: NodeContext, rank: int) -> Iterable[int]:
    """The last two axes."""
    return range(rank - 2, rank)


def _listed(context: NodeContext, rank: int) -> Iterable[int]:
    """The axes given as attribute, or all."""
    return list(context.attr("axes") or range(rank))


def _trained(context: NodeContext, rank: int) -> Iterable[int]:
    """Batch norm in training mode normalises over all axes but the channel."""
    return [a for a in range(rank) if a != 1] if context.attr("training_mode", 0) else []


def _each(names: str, rule: Rule | Operator, traits: Trait = NOTHING) -> dict[str, Operator]:
    """A row for each of some operators that have nothing but their names of their own."""
    plain = rule if isinstance(rule, Operator) else Operator(rule)
    return {name: plain.having(traits) for name in names.split()}


SMOOTH = """
    Abs Acos Acosh Asin Asinh Atan Atanh Celu Cos Cosh Elu Erf Exp Gelu HardSwish LeakyRelu Log Max Mean Min
    Mish Reciprocal Selu Shrink Sin Sinh Softplus Softsign Sqrt SwiGLU Swish Tan Tanh ThresholdedRelu
"""

STEPPED = """
    And Bernoulli BitCast BitwiseAnd BitwiseOr BitwiseXor Ceil Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual
    Mod Not Or Round Sign Where Xor
"""

FRESH = """
    AffineGrid BlackmanWindow EyeLike HammingWindow HannWindow MelWeightMatrix Multinomial NonMaxSuppression
    NonZero
"""

_POINTWISE = Operator(f.elementwise)
_SAME = _POINTWISE.having(Trait.MOVES | Trait.SMOOTH, order=as_it_was, apart=b.nothing)
_SOFTMAX = f.shares(_softmax)
_BATCH = Normalisation(1, 2, mean=3, variance=4)
_VIEW = Operator(m.regrouped, traits=Trait.MOVES | Trait.SMOOTH | Trait.VIEW | Trait.ARRANGES, apart=b.nothing)
_SUM = _POINTWISE.having(Trait.SMOOTH | Trait.WRAPS, arithmetic="add", apart=b.added)

TABLE: dict[str, Operator] = {
    **_each(SMOOTH, _POINTWISE, Trait.SMOOTH),
    **_each(STEPPED, _POINTWISE),
    **_each("BitShift BitwiseNot", _POINTWISE, Trait.WRAPS),
    "Pow": _POINTWISE.having(Trait.SMOOTH | Trait.WRAPS),
    "Neg": _POINTWISE.having(Trait.SMOOTH | Trait.WRAPS, apart=b.nothing),
    **_each("Add Sum", _SUM),
    "Sub": _SUM.having(arithmetic="subtract"),
    "Mul": _SUM.having(arithmetic="multiply", apart=b.multiplied),
    "Div": _POINTWISE.having(Trait.SMOOTH, arithmetic="divide", apart=b.divided),
    **_each("Sigmoid HardSigmoid", _POINTWISE.having(puts_out="labels"), Trait.SMOOTH),
    "Relu": _POINTWISE.having(Trait.SMOOTH, bounds=above_zero),
    "Clip": _POINTWISE.having(Trait.SMOOTH, bounds=clipped),
    "PRelu": _POINTWISE.having(Trait.SMOOTH, weights=(1,)),
    "Equal": _POINTWISE.having(Trait.EQUATES),
    "Identity": _SAME.having(Trait.VIEW),
    "Cast": _SAME.having(Trait.CONVERTS),
    "CastLike": _SAME.having(rule=f.first_input),
    "Dropout": _SAME.having(Trait.VIEW | Trait.DROPS, rule=f.first_input),
    "BatchNormalization": f.per_channel(normalised=_trained, norm=_BATCH),
    "InstanceNormalization": f.per_channel(normalised=lambda context, rank: range(2, rank), norm=Normalisation()),
    "GroupNormalization": x.group_norm(),
    "QuantizeLinear": f.per_channel(axis=None).having(Trait.QUANTIZES, weights=(0,)),
    "DequantizeLinear": f.per_channel(axis=None).having(Trait.DEQUANTIZES),
    "DynamicQuantizeLinear": Operator(c.ranged),
    "LayerNormalization": f.norm(_from_axis(), scale=1, centred=True),
    "RMSNormalization": f.norm(_from_axis(), scale=1),
    "SimplifiedLayerNormalization": f.norm(_from_axis(), scale=1),  # onnxruntime's own, in the default domain
    "LpNormalization": f.norm(_axis()).having(puts_out="embeddings"),
    "MeanVarianceNormalization": f.norm(lambda context, rank: context.attr("axes", [0, 2, 3])),
    "LRN": f.norm(lambda context, rank: [1]),
    "Softmax": _SOFTMAX.having(puts_out="probabilities"),
    "LogSoftmax": _SOFTMAX.having(puts_out="logits"),
    "Hardmax": f.norm(_softmax),
    "CumSum": f.mixing(_cumsum).having(apart=b.nothing),
    "CumProd": f.mixing(_cumsum),
    "CenterCropPad": f.mixing(_listed).having(sizes=(1,)),
    "DFT": f.mixing(_transformed),
    "Det": f.mixing(_matrix, vanish=True),
    "TopK": Operator(f.ranked, sizes=(1,), traits=Trait.RANKS),
    "ArgMax": f.mixing(_axis(0), vanish=True).having(Trait.RANKS),
    "ArgMin": f.mixing(_axis(0), vanish=True),
    "Trilu": f.mixing(_matrix).having(apart=b.nothing),
    "ReverseSequence": f.mixing(lambda context, rank: [context.attr("batch_axis", 1), context.attr("time_axis", 0)]),
    "MatMul": c.matmul(),
    "Gemm": c.gemm(),
    "Einsum": c.einsum(c.equation),
    "Conv": c.convolution(),
    "ConvTranspose": c.convolution(transposed=True),
    "DeformConv": c.deformed(),
    "CausalConvWithState": Operator(s.causal_convolution, factors=Convolution(moved=True), weights=(1, 2)),
    "Col2Im": Operator(m.columns),
    "ConvInteger": c.convolution(bias=3, zero=2),
    "MatMulInteger": c.matmul(columns=(3,), zero=2),
    "QLinearConv": c.convolution(weight=3, bias=8, more=(4, 5), zero=2),
    "QLinearMatMul": c.matmul(right=3, columns=(4, 5), zero=2),
    "RNN": s.recurrent(1, 1),
    "GRU": s.recurrent(3, 1),
    "LSTM": s.recurrent(4, 2),
    "Attention": s.attention(
        slots={"query": 0, "key": 1, "value": 2, "past_key": 4, "past_value": 5},
        heads=("q_num_heads", "kv_num_heads"),
        transposed=True,
    ),
    "LinearAttention": Operator(s.linear_attention, traits=Trait.ATTENDS),
    "RotaryEmbedding": s.rotary(positions=3, cosine=1),
    "ReduceMean": c.reduce(exact=False, mean=True, linear=True),
    "ReduceSum": c.reduce(exact=True, linear=True),
    "ReduceL1": c.reduce(exact=True),
    **_each("ReduceL2 ReduceSumSquare", c.reduce(exact=True).having(apart=c.squared)),
    **_each("ReduceMax ReduceMin ReduceProd ReduceLogSum ReduceLogSumExp", c.reduce(exact=False)),
    **_each("AveragePool GlobalAveragePool", f.spatial().having(apart=b.nothing)),
    **_each("MaxPool LpPool GlobalMaxPool GlobalLpPool", f.spatial()),
    "MaxUnpool": Operator(f.unpool, sizes=(2,)),
    **_each("RoiAlign MaxRoiPool", f.regions),
    "GridSample": f.spatial(keep=(1,)).having(apart=b.nothing),
    "Resize": Operator(m.resize, sizes=(3,), apart=b.unless(b.cropped)),
    "Upsample": Operator(m.resize, apart=b.nothing),
    "Reshape": _VIEW.having(rule=m.reshape, sizes=(1,)),
    **_each("Flatten Squeeze Unsqueeze", _VIEW),
    "Transpose": Operator(
        m.transpose, order=permuted, traits=Trait.MOVES | Trait.SMOOTH | Trait.ARRANGES, apart=b.nothing
    ),
    "DepthToSpace": m.blocks(to_space=True).having(apart=b.nothing),
    "SpaceToDepth": m.blocks(to_space=False).having(apart=b.nothing),
    "Expand": Operator(m.expand, sizes=(1,), traits=Trait.MOVES | Trait.SMOOTH, apart=b.grown),
    "ConstantOfShape": Operator(m.fill, sizes=(0,)),
    "Tile": Operator(m.tile, sizes=(1,), traits=Trait.MOVES | Trait.SMOOTH, apart=b.nothing),
    "Concat": Operator(m.concat, traits=Trait.JOINS | Trait.SMOOTH, apart=b.nothing),
    "Split": Operator(m.split_parts, sizes=(1,), traits=Trait.MOVES | Trait.SMOOTH, apart=b.nothing),
    "Slice": Operator(
        m.slice_axes, sizes=(1, 2, 3, 4), traits=Trait.MOVES | Trait.SMOOTH | Trait.PICKS, apart=b.nothing
    ),
    "Gather": Operator(a.gather, traits=Trait.PICKS, apart=b.nothing),
    "GatherND": Operator(a.gather_nd, traits=Trait.PICKS | Trait.WHOLE),
    "GatherElements": Operator(a.elements, traits=Trait.PICKS | Trait.WHOLE),
    "ScatterND": Operator(a.scatter_nd, traits=Trait.WHOLE),
    "TensorScatter": Operator(a.tensor_scatter, traits=Trait.WHOLE),
    **_each("ScatterElements Scatter", a.elements, Trait.WHOLE),
    "OneHot": Operator(a.one_hot, sizes=(1,)),
    "Pad": Operator(m.pad, sizes=(1,), apart=b.unless(b.padded_by_number)),
    **_each("Shape Size", Operator(f.shape_of, apart=b.nothing), Trait.MEASURES),
    **_each(FRESH, f.fresh_output),
    **_each("RandomNormal RandomNormalLike RandomUniform RandomUniformLike", m.drawn),
    "Range": Operator(f.fresh_output, sizes=(0, 1, 2)),
}

# Operators that onnxruntime writes into optimised models (domain com.microsoft).
_BIASED = _POINTWISE.having(weights=(1,))
_LAYER = c.gemm()

CONTRIB: dict[str, Operator] = {
    **_each("QLinearAdd QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearWhere", _POINTWISE),
    **_each("QuickGelu Gelu", _POINTWISE, Trait.SMOOTH),
    **_each("BiasAdd BiasSplitGelu", _BIASED),
    "BiasGelu": _BIASED.having(parts=x.shifted("Gelu")),
    "FastGelu": _BIASED.having(parts=x.shifted("FastGelu")),
    "BiasDropout": _BIASED.having(Trait.DROPS),
    "FusedConv": c.fused(c.convolution(), skip=3).having(summands=(OWN, 3), parts=x.activated("Conv", skip=3)),
    "FusedGemm": _LAYER.having(parts=x.activated("Gemm"), apart=b.activated(_LAYER.apart)),
    **_each("FusedMatMul TransposeMatMul", c.matmul()),
    "MatMulNBits": Operator(x.block_quantized, factors=Product(quantized=True)),
    "QGemm": c.gemm(right=3, bias=6, columns=(4, 5), zero=2),
    "DynamicQuantizeMatMul": c.matmul(columns=(2, 3, 4)).having(factors=Product(quantized=True), weights=()),
    "MatMulIntegerToFloat": c.matmul(columns=(3, 5, 6), zero=4),
    "DynamicQuantizeLSTM": s.recurrent(4, 2, quantized=True),
    **_each("QLinearAveragePool QLinearGlobalAveragePool", f.spatial()),
    "QLinearConcat": Operator(m.concat_quantized),
    "QLinearSoftmax": f.norm(_quantized_softmax).having(puts_out="probabilities"),
    "QuantizeLinear": f.per_channel(axis=None).having(Trait.QUANTIZES, weights=(0,)),
    "DequantizeLinear": f.per_channel(axis=None).having(Trait.DEQUANTIZES),
    "SkipLayerNormalization": x.skip_norm((2, 3, 4)),
    "SkipSimplifiedLayerNormalization": x.skip_norm((2, 3)),
    "EmbedLayerNormalization": Operator(x.embed_norm, norm=Normalisation(5, 6, features=True), weights=(2, 3, 4, 5, 6)),
    "QEmbedLayerNormalization": Operator(x.embed_norm),
    "Attention": s.packed_attention(past=4).having(parts=x.projected),
    "QAttention": s.packed_attention(past=8, columns=(4, 7), zero=6),
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
    "MoE": e.mixture(Experts(weight=2, second=4, third=6, biases=1)),
    "QMoE": e.mixture(Experts(weight=2, second=5, third=8, scales=1, biases=2, zeros=11, chances=(14,))),
}

# Cut by no rule, but counted.
CONTRIB |= {
    "AttnLSTM": w.counted(w.each_row(1, 2)),
    **_each("NhwcConv NhwcFusedConv", w.counted(w.filters(1))),
    "QLinearConv": w.counted(w.filters(3)),
    "ConvTransposeWithDynamicPads": w.counted(w.filters(1, data=0)),
    **_each("FusedMatMulActivation GemmFastGelu GemmFloat8 MatMulInteger16 SparseToDenseMatMul", w.counted(w.product)),
    "QOrderedMatMul": w.counted(w.each_row(2)),
    "MatMulBnb4": w.counted(w.stated),
    "MatMulFpQ4": w.counted(w.listed),
    "DecoderMaskedSelfAttention": w.counted(w.projected),
    "PackedAttention": w.counted(w.packed(3, weight=1)),
    "PackedMultiHeadAttention": w.counted(w.packed(4)),
    "LongformerAttention": w.counted(w.windowed),
    "DecoderAttention": w.counted(w.cross),
    **_each("DecoderMaskedMultiHeadAttention SparseAttention", w.counted(w.compared)),
}
LAYOUTS = {"Conv": w.counted(w.filters(1))}  # of layouts that onnxruntime chooses for itself

INSERTED = _each("ReorderInput ReorderOutput MemcpyToHost MemcpyFromHost", f.opaque, Trait.ARRANGES)
"""Operators that onnxruntime inserts while it loads a file: they are seen in its profiles alone."""

DOMAINS: dict[str, dict[str, Operator]] = {"": TABLE, "ai.onnx": TABLE, "com.microsoft": CONTRIB}
DOMAINS |= dict.fromkeys(["com.microsoft.nchwc", "com.ms.internal.nhwc"], LAYOUTS)

OPAQUE = Operator(f.opaque)
"""An operator that is not declared."""


def row(domain: str, op_type: str) -> Operator:
    """What is declared of an operator; :data:`OPAQUE` for one that is not."""
    known = DOMAINS.get(domain, {}).get(op_type)
    if known is not None or domain in DOMAINS:
        return known or OPAQUE
    declared = operator(domain, op_type)
    stated = OPAQUE if declared is None else declared.load()
    return stated if isinstance(stated, Operator) else Operator(stated)


def named(op_type: str) -> Operator:
    """What is declared of an operator of which a profile of onnxruntime tells the name alone."""
    tables = (INSERTED, TABLE, CONTRIB)
    return next((table[op_type] for table in tables if op_type in table), OPAQUE)
