"""Nets of transformers that no other table has, from configurations as small as their constructions allow."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from nets.exports import Inputs, Network, torchvision_models

WORDS = 60
TEXT: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
SPEECH: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48, "conv_dim": (16, 24),
    "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


EXPERTS = ("Moe", "Deepseek")  # nets with mixtures: exported as products with picked weights, not as loops over data


class Answers(nn.Module):
    """A net called by name, whose first answer of floats is taken."""

    def __init__(self, net: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self.names = net, names

    def forward(self, *inputs: Tensor) -> Tensor:
        answers = self.net(**dict(zip(self.names, inputs, strict=True)))
        parts = answers.values() if isinstance(answers, Mapping) else answers
        return next(part for part in parts if isinstance(part, Tensor) and part.is_floating_point())


def words(batch: int) -> Inputs:
    return {
        "input_ids": torch.randint(3, WORDS, (batch, 10)),
        "attention_mask": torch.ones(batch, 10, dtype=torch.long),
    }


def wave(batch: int) -> Inputs:
    return {"input_values": torch.randn(batch, 320)}


def pixels(batch: int) -> Inputs:
    return {"pixel_values": torch.randn(batch, 3, 32, 32)}


def _built(name: str, options: dict[str, Any], feed: Callable[[int], Inputs]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        with suppress(ImportError):
            torchvision_models()
        import transformers

        kind = getattr(transformers, name)
        config = kind.config_class(**options)
        with suppress(AttributeError):
            config.use_cache = False
        chosen = {"attn_implementation": "eager"}
        if any(word in name for word in EXPERTS):
            chosen["experts_implementation"] = "batched_mm"
        return Answers(kind._from_config(config, **chosen).float(), tuple(feed(1)))

    return build


def _nets() -> Iterator[tuple[str, str, dict[str, Any], Callable[[int], Inputs]]]:
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "vocab_size": WORDS}
    yield "RoBERTa with a short table", "RobertaModel", {**TEXT, "max_position_embeddings": 24}, words
    yield "LongT5, local", "LongT5EncoderModel", {**t5, "local_radius": 3}, words
    yield "XLM", "XLMModel", {**TEXT, "emb_dim": 32, "n_layers": 1, "n_heads": 4, "max_position_embeddings": 64}, words
    yield "LED, encoder and decoder", "LEDModel", {
        **TEXT, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "attention_window": 4,
        "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64, "decoder_start_token_id": 2,
    }, words  # fmt: skip
    yield "Qwen2-MoE", "Qwen2MoeForCausalLM", {
        **TEXT, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24, "decoder_sparse_step": 1, "max_position_embeddings": 64,
    }, words  # fmt: skip
    yield "DeepSeek-V3, experts in groups", "DeepseekV3ForCausalLM", {
        **TEXT, "num_key_value_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1, "kv_lora_rank": 16, "moe_intermediate_size": 24, "first_k_dense_replace": 0, "q_lora_rank": 16,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "max_position_embeddings": 64,
    }, words  # fmt: skip
    yield "SigLIP with its pooling", "SiglipVisionModel", VISION, pixels
    yield "GroupViT, vision", "GroupViTVisionModel", {
        **VISION, "num_group_tokens": [4, 2, 0], "num_output_groups": [4, 2, 0], "depths": [1, 1, 1],
        "assign_mlp_ratio": [0.5, 2],
    }, pixels  # fmt: skip
    yield "WavLM", "WavLMModel", {**SPEECH, "num_buckets": 32, "max_bucket_distance": 64}, wave
    yield "Wav2Vec2 with group norm", "Wav2Vec2Model", {**SPEECH, "feat_extract_norm": "group"}, wave
    yield "Wav2Vec2-Conformer, relative", "Wav2Vec2ConformerModel", {
        **SPEECH, "position_embeddings_type": "relative", "conv_depthwise_kernel_size": 3,
    }, wave  # fmt: skip


AXES: dict[str, dict[int, str]] = {
    "input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"},
    "input_values": {0: "batch", 1: "wave"}, "pixel_values": {0: "batch"},
}  # fmt: skip

CONFIGURED: dict[str, Network] = {
    name: Network(_built(kind, options, feed), feed, dynamic={key: AXES[key] for key in feed(1)})
    for name, kind, options, feed in _nets()
}
"""Nets by name; images of theirs have one size."""
