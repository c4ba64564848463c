"""Nets that stand for the others: cheap ones of every kind, on which every law is checked in the default test run.

A law about nets holds of all of them, and is checked on all of them in the slow run. Between them these have every rule
of the operator table, and every construction that has had a defect of its own.
"""

ZOO = """
    residual concat depthwise grouped squeeze_excite conv_transpose convnext flatten_gemm chain channel_shuffle
    shuffle_between_groups groups_across_parts rows_of_repeated_channels pad_shortcut space_to_depth group_norm
    group_norm_native windows swiglu tied_embedding layer_norm attention attention_dynamic packed_split
    grouped_query rotary lstm class_token bare_constants listed_initializers half siamese multi_io pinned_by_output
    function branch weight_norm quantized lstm_computed anchors positions_from_mask bias_without_key bidirectional
    multi_query cached_attention routed_experts routed_by_groups read_at_places
""".split()  # noqa: SIM905
"""Zoo nets and variants."""

OPERATORS = """
    Dropout Upsample Tile DynamicQuantizeLinear GatherND GatherElements AffineGrid DeformConv Col2Im TensorScatter
    CausalConvWithState
    MaxUnpool RotaryEmbedding LinearAttention ConvInteger QLinearConv RoiAlign RNN Where Softsign ArgMax
    RandomNormalLike
    com.microsoft.FusedConv com.microsoft.MatMulNBits com.microsoft.Attention com.microsoft.SkipLayerNormalization
    com.microsoft.EmbedLayerNormalization com.microsoft.FusedMatMul com.microsoft.MoE com.microsoft.QMoE
    com.microsoft.QLinearConcat com.microsoft.QEmbedLayerNormalization com.microsoft.QAttention
""".split()  # noqa: SIM905
"""Examples of single operators: one for every rule that no zoo net above has, and some of the families."""

FORMS = """
    FusedConv_group FusedGemm_transB FusedMatMul_scores BiasGelu MatMulNBits_bias SkipLayerNormalization_broadcast
    RMSNormalization_heads GroupNormalization_21 Attention_packed_mask MultiHeadAttention_past
    GroupQueryAttention_rotary onnx_Attention_gqa onnx_RotaryEmbedding_4d_0 RotaryEmbedding_partial RNN_forward
    GRU_reset_after LSTM_bidirectional_all LSTM_batch_first QLinearConv_group QGemm_float MatMulIntegerToFloat
    MatMulInteger_dynamic MoE_gated QMoE_blocks
""".split()  # noqa: SIM905
"""Forms of fused, attention, recurrent and quantized operators."""

FUSED = "residual-extended attention-extended squeeze_excite_gemm-basic".split()  # noqa: SIM905
"""Forms in which onnxruntime fuses nets."""

REPRESENTATIVES = {*FUSED, *ZOO, *OPERATORS, *FORMS}
