"""The nets of transformers, from small configurations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from nets.exports import Inputs, Network, torchvision_models
from scripts.architectures.plain import Plain, images

WORDS = 200
_SMALL: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_EAGER = {"attn_implementation": "eager"}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 16}
_PATCHES = {"image_size": 64, "patch_size": 16}
_WIDTHS = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
_DETR = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "num_queries": 12,
}  # fmt: skip
_SPEECH = {"conv_dim": (32, 32, 48), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3}
_GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
_STAGED = ("Swin", "ConvNext", "ResNet", "RegNet", "PoolFormer", "MobileNet", "Levit", "EfficientNet")

# Name -> class, configuration beside the common one, and what it reads.
_TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertModel", {}),
    "bert (eager attention)": ("BertForSequenceClassification", _EAGER),
    "distilbert": ("DistilBertModel", {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}),
    "roberta": ("RobertaForMaskedLM", {}),
    "albert": ("AlbertModel", {"embedding_size": 32}),
    "electra": ("ElectraModel", {"embedding_size": 32}),
    "gpt2": ("GPT2LMHeadModel", _GPT2),
    "gpt_neox": ("GPTNeoXForCausalLM", {}),
    "gptj": ("GPTJForCausalLM", {**_GPT2, "rotary_dim": 8}),
    "llama": ("LlamaForCausalLM", {"num_key_value_heads": 2}),
    "llama (eager attention)": ("LlamaForCausalLM", {"num_key_value_heads": 2, **_EAGER}),
    "mistral": ("MistralForCausalLM", _GROUPED),
    "mixtral": ("MixtralForCausalLM", {**_GROUPED, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2ForCausalLM", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", _GROUPED),
    "gemma": ("GemmaForCausalLM", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("Gemma2ForCausalLM", _GROUPED),
    "phi": ("PhiForCausalLM", {}),
    "phi3": ("Phi3ForCausalLM", {"num_key_value_heads": 2}),
    "opt": ("OPTForCausalLM", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
    "bloom": ("BloomForCausalLM", {"n_layer": 2, "n_head": 4}),
    "falcon": ("FalconForCausalLM", {}),
    "t5 encoder": ("T5EncoderModel", {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}),
    "bart encoder": (
        "BartEncoder",
        {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128},
    ),
    "modernbert": (
        "ModernBertModel",
        {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "deberta": ("DebertaModel", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "deberta_v2": (
        "DebertaV2Model",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    ),
    "mpnet": ("MPNetModel", {}),
    "funnel": (
        "FunnelBaseModel",
        {"block_sizes": [1, 1], "d_model": 64, "n_head": 4, "d_head": 16, "d_inner": 128, "num_hidden_layers": None},
    ),
    "xlnet": (
        "XLNetModel",
        {"max_position_embeddings": None, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128},
    ),
    "mamba": ("MambaModel", {"state_size": 8, "use_mambapy": False}),
    "fnet": ("FNetModel", {}),
    "squeezebert": ("SqueezeBertModel", {"embedding_size": 64}),
    "convbert": ("ConvBertModel", {"embedding_size": 64}),
}
_IMAGE: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit": ("ViTForImageClassification", _PATCHES, 64),
    "deit": ("DeiTModel", _PATCHES, 64),
    "beit": ("BeitModel", {**_PATCHES, "use_relative_position_bias": True}, 64),
    "dinov2": ("Dinov2Model", {**_PATCHES, "mlp_ratio": 2}, 64),
    "clip vision": ("CLIPVisionModel", _PATCHES, 64),
    "siglip vision": ("SiglipVisionModel", _PATCHES, 64),
    "swin": (
        "SwinModel",
        {"image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        64,
    ),
    "segformer": (
        "SegformerForSemanticSegmentation",
        {
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 3, 4],
            "decoder_hidden_size": 32,
        },
        64,
    ),
    "convnext": ("ConvNextModel", _WIDTHS, 64),
    "resnet": ("ResNetModel", {**_WIDTHS, "embedding_size": 16}, 64),
    "mobilenet_v1": ("MobileNetV1Model", {}, 64),
    "mobilenet_v2": ("MobileNetV2Model", {}, 64),
    "mobilevit": (
        "MobileViTModel",
        {"image_size": 64, "hidden_sizes": [32, 48, 64], "neck_hidden_sizes": [16, 16, 32, 48, 64, 64, 96]},
        64,
    ),
    "efficientnet": (
        "EfficientNetModel",
        {"image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
        64,
    ),
    "poolformer": ("PoolFormerModel", _WIDTHS, 64),
    "levit": (
        "LevitModel",
        {
            "image_size": 64,
            "hidden_sizes": [32, 48, 64],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        64,
    ),
    "regnet": ("RegNetModel", {**_WIDTHS, "embedding_size": 16, "groups_width": 8}, 64),
    "yolos": ("YolosForObjectDetection", {**_PATCHES, "image_size": [64, 64], "num_detection_tokens": 8}, 64),
    "dpt": (
        "DPTForDepthEstimation",
        {
            **_PATCHES,
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [16, 24, 32, 32],
            "fusion_hidden_size": 24,
        },
        64,
    ),
    "detr": ("DetrForObjectDetection", _DETR, 64),
    "conditional_detr": ("ConditionalDetrForObjectDetection", _DETR, 64),
    "deformable_detr": ("DeformableDetrForObjectDetection", _DETR, 64),
    "rt_detr": (
        "RTDetrForObjectDetection",
        {**_DETR, "encoder_hidden_dim": 64, "encoder_layers": 1, "feat_strides": [8, 16, 32]},
        64,
    ),
}


def _hugging(name: str, more: dict[str, Any], names: tuple[str, ...]) -> nn.Module:
    """Build a transformers model from a small configuration."""
    import transformers

    options = {**({} if name.startswith(_STAGED) else _SMALL), **more}
    options = {key: value for key, value in options.items() if value is not None}
    if name == "BartEncoder":
        from transformers.models.bart.modeling_bart import BartEncoder

        return Plain(BartEncoder(transformers.BartConfig(**options)), names)
    model = getattr(transformers, name)
    attention = options.pop("attn_implementation", "sdpa")
    config = model.config_class(**_backbone(name, options))
    with suppress(AttributeError):
        config.use_cache = False
    try:
        net = model._from_config(config, attn_implementation=attention)
    except ValueError:  # it has no such attention
        net = model._from_config(config, attn_implementation="eager")
    return Plain(net.float(), names)


def _backbone(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Give detectors a small convolutional backbone of the same library."""
    import transformers

    if "Detr" not in name:
        return options
    common = {"embedding_size": 16, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    if name.startswith("RTDetr"):
        kind, common["out_features"] = transformers.RTDetrResNetConfig, ["stage2", "stage3", "stage4"]
        options = {k: v for k, v in options.items() if k not in _SMALL}
        common["layer_type"] = "bottleneck"
        options |= {"encoder_in_channels": [48, 64, 96], "decoder_in_channels": [64, 64, 64]}
    else:
        many = name.startswith("Deformable")
        kind, common["out_features"] = transformers.ResNetConfig, ["stage2", "stage3", "stage4"][0 if many else 2 :]
        options = {k: v for k, v in options.items() if k not in ("hidden_size",)}
    kept = {k: v for k, v in options.items() if not k.startswith(("vocab", "max_", "pad", "bos", "eos"))}
    return {**kept, "backbone_config": kind(**common), "use_timm_backbone": False, "use_pretrained_backbone": False}


def _words(batch: int) -> Inputs:
    return {"input_ids": torch.randint(3, WORDS, (batch, 12))}


def _masked_words(batch: int) -> Inputs:
    return {**_words(batch), "attention_mask": (torch.arange(12) < 9).long().expand(batch, 12)}


def transformers_nets() -> Iterator[tuple[str, Network]]:
    """The nets of transformers."""
    with suppress(ImportError):
        torchvision_models()
    for name, (kind, more) in _TEXT.items():
        feed = _words if kind in {"MambaModel", "FNetModel", "XLNetModel"} else _masked_words
        names = tuple(feed(1))
        yield name, Network(partial(_hugging, kind, more, names), feed)
    for name, (kind, more, side) in _IMAGE.items():
        feed = partial(images, side=side, name="pixel_values")
        yield name, Network(partial(_hugging, kind, more, ("pixel_values",)), feed)
    speech = partial(
        _hugging, "Wav2Vec2Model", {**_SPEECH, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    )
    yield (
        "wav2vec2",
        Network(partial(speech, ("input_values",)), lambda batch: {"input_values": torch.randn(batch, 800)}),
    )
    yield "whisper encoder", Network(_whisper, lambda batch: {"features": torch.randn(batch, 16, 40)})
    yield "clip", Network(_clip, lambda batch: {**_masked_words(batch), **images(batch, side=64, name="pixel_values")})
    yield (
        "t5",
        Network(
            partial(_hugging, "T5ForConditionalGeneration", _TEXT["t5 encoder"][1], ("input_ids", "decoder_input_ids")),
            lambda batch: {**_words(batch), "decoder_input_ids": torch.randint(3, WORDS, (batch, 5))},
        ),
    )


def _whisper() -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes = {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128}
    return Plain(WhisperEncoder(WhisperConfig(num_mel_bins=16, max_source_positions=20, **sizes)))


def _clip() -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    vision = {**{k: v for k, v in _SMALL.items() if "token" not in k}, **_PATCHES}
    config = CLIPConfig(text_config=dict(_SMALL), vision_config=vision, projection_dim=32)
    return Plain(CLIPModel(config), ("input_ids", "attention_mask", "pixel_values"))
