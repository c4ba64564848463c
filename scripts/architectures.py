"""The architectures whose coverage is measured: name, library, and how each is built small and randomly initialised.

Widths are those of the smallest published variant where it is light, else reduced; images are as small as the strides
allow. Needs torch, torchvision, timm, transformers, segmentation-models-pytorch, ultralytics and diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.exports import Inputs, Network, _torchvision
from tests.oddities import ODDITIES

WORDS = 200


class Plain(nn.Module):
    """A net called with tensors by position, whose outputs of whatever structure come as a tuple of tensors."""

    def __init__(self, net: nn.Module, names: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__()
        self.net, self.names, self.options = net, names, options

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Call the net; ``names`` are its keyword arguments, if any."""
        named = dict(zip(self.names, inputs, strict=True)) if self.names else {}
        found = tuple(_tensors(self.net(*(() if self.names else inputs), **named, **self.options)))
        return found[0] if len(found) == 1 else found


def _tensors(result: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a structure, each once."""
    if isinstance(result, Tensor):
        if result.is_floating_point():
            yield result
    elif isinstance(result, Mapping):
        for part in result.values():
            yield from _tensors(part)
    elif isinstance(result, list | tuple):
        for part in result:
            yield from _tensors(part)


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        library: Where it comes from.
        network: How it is built and fed.
    """

    library: str
    network: Network


def images(batch: int, *, side: int, channels: int = 3, name: str = "image") -> Inputs:
    """Random square images."""
    return {name: torch.randn(batch, channels, side, side)}


def _vision(build: Callable[[], nn.Module], side: int) -> Network:
    return Network(lambda: Plain(build()), partial(images, side=side))


# --- torchvision ------------------------------------------------------------------------------------------------------

_TV = {
    "resnet18": 64, "resnet50": 64, "wide_resnet50_2": 64, "resnext50_32x4d": 64, "alexnet": 224,
    "vgg11_bn": 224, "squeezenet1_0": 64, "squeezenet1_1": 64, "densenet121": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "mobilenet_v3_large": 64, "mnasnet0_5": 64, "shufflenet_v2_x0_5": 64,
    "shufflenet_v2_x1_0": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "regnet_x_400mf": 64,
    "regnet_y_400mf": 64, "convnext_tiny": 64, "swin_t": 64, "swin_v2_t": 64,
}  # fmt: skip


def _torchvision_nets() -> Iterator[tuple[str, Network]]:
    tv = _torchvision()
    for name, side in _TV.items():
        yield name, _vision(partial(getattr(tv, name), weights=None), side)
    plain = {"aux_logits": False, "transform_input": False, "init_weights": False, "weights": None}
    yield "googlenet", _vision(partial(tv.googlenet, **plain), 64)
    yield "inception_v3", _vision(partial(tv.inception_v3, **plain), 96)
    tiny = {"patch_size": 16, "num_layers": 3, "num_heads": 4, "hidden_dim": 96, "mlp_dim": 256}
    yield "vit", _vision(partial(tv.VisionTransformer, image_size=64, **tiny), 64)
    maxvit = {"stem_channels": 32, "partition_size": 2, "block_channels": [32, 64], "block_layers": [1, 1]}
    more = {"head_dim": 16, "stochastic_depth_prob": 0.0}
    yield "maxvit", _vision(partial(tv.MaxVit, input_size=(64, 64), **maxvit, **more), 64)
    part = {"weights": None, "weights_backbone": None}
    for name in ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        yield name, _vision(partial(getattr(tv.segmentation, name), **part), 64)
    yield "r3d_18", Network(partial(tv.video.r3d_18, weights=None), _clips)
    yield "r2plus1d_18", Network(partial(tv.video.r2plus1d_18, weights=None), _clips)
    for name in ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn", "fcos_resnet50_fpn"):
        yield f"{name} (heads)", _vision(partial(_Heads, name), 96)
    yield (
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        _vision(partial(_Detector, "fasterrcnn_mobilenet_v3_large_320_fpn"), 96),
    )


def _clips(batch: int) -> Inputs:
    return {"clip": torch.randn(batch, 3, 8, 32, 32)}


class _Heads(nn.Module):
    """Backbone, pyramid and heads of a torchvision detector, before boxes are decoded."""

    def __init__(self, name: str) -> None:
        super().__init__()
        net = getattr(_torchvision().detection, name)(weights=None, weights_backbone=None)
        self.backbone, self.head = net.backbone, net.head

    def forward(self, x: Tensor) -> Any:
        return self.head(list(self.backbone(x).values()))


class _Detector(nn.Module):
    """A whole torchvision detector on one image of its batch."""

    def __init__(self, name: str) -> None:
        super().__init__()
        sizes = {"min_size": 96, "max_size": 96, "rpn_post_nms_top_n_test": 20, "box_detections_per_img": 10}
        self.net = getattr(_torchvision().detection, name)(weights=None, weights_backbone=None, **sizes)

    def forward(self, x: Tensor) -> Any:
        return self.net(list(x))


# --- timm -------------------------------------------------------------------------------------------------------------

_TIMM = """
resnet26t resnet50_gn resnetaa50 resnetblur18 resnetrs50 resnetv2_18 resnetv2_50x1_bit resnext26ts seresnext26t_32x4d
legacy_seresnet18 legacy_seresnext26_32x4d regnetx_002 regnety_002 regnetz_005 nf_regnet_b0 res2net50_14w_8s
dla60_res2net densenet121 densenetblur121d rdnet_tiny dpn48b dpn68 vovnet39a ese_vovnet19b_dw dla34 dla46_c
hrnet_w18_small ghostnet_050 ghostnetv2_100 ghostnetv3_050 repghostnet_050 rexnet_100 rexnetr_100 mobilenetv1_100
mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small_050 mobilenetv4_hybrid_medium mobileone_s0
efficientnet_lite0 efficientnet_b0 efficientnetv2_rw_t efficientnet_cc_b0_4e efficientnet_es efficientnet_b0_gn
mnasnet_small semnasnet_050 spnasnet_100 mixnet_s fbnetc_100 fbnetv3_b tinynet_e lcnet_035 hardcorenas_a selecsls42b
skresnet18 skresnext50_32x4d resnest14d ecaresnet26t gernet_s repvgg_a0 nf_resnet26 nfnet_l0 eca_nfnet_l0 cspresnet50
cspresnext50 cspdarknet53 cs3darknet_s cs3darknet_focus_s cspnext_tiny darknet17 xception41 legacy_xception
hgnet_tiny hgnetv2_b0 convnext_atto convnext_zepto_rms convnextv2_atto inception_next_atto poolformer_s12
poolformerv2_s12 caformer_s18 convformer_s18 fastvit_t8 repvit_m0_9 efficientvit_b0 mambaout_femto starnet_s1
fasternet_t0 shvit_s1 efficientvim_m1 gcresnext26ts edgenext_xx_small mobilevit_xxs mobilevitv2_050 pvt_v2_b0
davit_tiny visformer_tiny nextvit_small lowformer_b0 focalnet_tiny_srf swiftformer_xs eca_botnext26ts_256
vit_tiny_r_s16_p8_224 nasnetalarge sequencer2d_s convmixer_768_32 tresnet_m efficientvit_m0 efficientformer_l1
efficientformerv2_s0 twins_pcpvt_small twins_svt_small xcit_nano_12_p16_224 mixer_s32_224 resmlp_12_224 gmlp_ti16_224
gmixer_12_224 beit_base_patch16_224 tiny_vit_5m_224 hiera_tiny_224 swin_tiny_patch4_window7_224
swinv2_tiny_window8_256 swinv2_cr_tiny_224 maxvit_pico_rw_256 maxxvitv2_nano_rw_256 coatnet_nano_rw_224 levit_128s
levit_conv_128s crossvit_9_240 convit_tiny coat_lite_tiny mvitv2_tiny nest_tiny pit_ti_224 volo_d1_224 gcvit_xxtiny
vit_tiny_patch16_224 vit_small_patch14_dinov2 vit_relpos_small_patch16_224 vit_small_patch16_dinov3 deit_tiny_distilled_patch16_224
deit3_small_patch16_224 cait_xxs24_224 eva02_tiny_patch14_224 samvit_base_patch16 vitamin_small_224 halonet26t
lambda_resnet26t botnet26t_256 inception_v3 inception_v4 inception_resnet_v2 iformer_t
""".split()
_SIDE = {
    "inception_v3": 96, "inception_v4": 96, "inception_resnet_v2": 128, "nasnetalarge": 96, "halonet26t": 128,
    "efficientformer_l1": 64, "vit_small_patch14_dinov2": 56, "eva02_tiny_patch14_224": 56, "nest_tiny": 64,
    "legacy_xception": 96, "crossvit_9_240": 240, "convit_tiny": 64, "visformer_tiny": 64,
    "swin_tiny_patch4_window7_224": 64, "lambda_resnet26t": 128, "shvit_s1": 128, "coat_lite_tiny": 64,
    "maxvit_pico_rw_256": 64, "maxxvitv2_nano_rw_256": 64, "coatnet_nano_rw_224": 64, "mvitv2_tiny": 64,
}  # fmt: skip
_SIZED = (
    "vit_ deit efficientvit_m0 efficientformer_l1 efficientformerv2 mixer_ resmlp gmlp gmixer beit swin coatnet max "
    "levit crossvit convit coat_ mvitv2 nest pit volo cait eva02 sam vitamin visformer xcit twins tiny_vit botnet "
    "eca_botnext hiera"
).split()
_WITH: dict[str, dict[str, Any]] = {
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 128, "num_heads": 4},
    "samvit_base_patch16": {"depth": 3, "embed_dim": 96, "num_heads": 4, "global_attn_indexes": (1,)},
    "vit_small_patch14_dinov2": {"depth": 3}, "vit_small_patch16_dinov3": {"depth": 3},
    "vit_relpos_small_patch16_224": {"depth": 3}, "deit3_small_patch16_224": {"depth": 3},
    "swin_tiny_patch4_window7_224": {"window_size": 2}, "swinv2_tiny_window8_256": {"window_size": 2},
    "swinv2_cr_tiny_224": {"window_size": 2}, "cait_xxs24_224": {"depth": 3}, "convmixer_768_32": {"depth": 4},
    "nasnetalarge": {"num_conv_filters": 12, "stem_size": 24, "num_features": 288},
    "mixer_s32_224": {"num_blocks": 3}, "resmlp_12_224": {"num_blocks": 3}, "gmixer_12_224": {"num_blocks": 3},
    "gmlp_ti16_224": {"num_blocks": 4},
}  # fmt: skip


def _timm_nets() -> Iterator[tuple[str, Network]]:
    _torchvision()
    import timm

    for name in _TIMM:
        side = _SIDE.get(name, 64)
        options = dict(_WITH.get(name, {}))
        if name.startswith(tuple(_SIZED)):
            options["img_size"] = side
        yield name, _vision(partial(timm.create_model, name, **options), side)


# --- transformers -----------------------------------------------------------------------------------------------------

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
    "bart encoder": ("BartEncoder", {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128}),
    "modernbert": ("ModernBertModel", {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 8, "global_attn_every_n_layers": 2}),
    "deberta": ("DebertaModel", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "deberta_v2": ("DebertaV2Model", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}),
    "mpnet": ("MPNetModel", {}),
    "funnel": ("FunnelBaseModel", {"block_sizes": [1, 1], "d_model": 64, "n_head": 4, "d_head": 16, "d_inner": 128, "num_hidden_layers": None}),
    "xlnet": ("XLNetModel", {"max_position_embeddings": None, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128}),
    "mamba": ("MambaModel", {"state_size": 8, "use_mambapy": False}),
    "fnet": ("FNetModel", {}),
    "squeezebert": ("SqueezeBertModel", {"embedding_size": 64}),
    "convbert": ("ConvBertModel", {"embedding_size": 64}),
}  # fmt: skip
_IMAGE: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit": ("ViTForImageClassification", _PATCHES, 64),
    "deit": ("DeiTModel", _PATCHES, 64),
    "beit": ("BeitModel", {**_PATCHES, "use_relative_position_bias": True}, 64),
    "dinov2": ("Dinov2Model", {**_PATCHES, "mlp_ratio": 2}, 64),
    "clip vision": ("CLIPVisionModel", _PATCHES, 64),
    "siglip vision": ("SiglipVisionModel", _PATCHES, 64),
    "swin": ("SwinModel", {"image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}, 64),
    "segformer": ("SegformerForSemanticSegmentation", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4], "decoder_hidden_size": 32}, 64),
    "convnext": ("ConvNextModel", _WIDTHS, 64),
    "resnet": ("ResNetModel", {**_WIDTHS, "embedding_size": 16}, 64),
    "mobilenet_v1": ("MobileNetV1Model", {}, 64),
    "mobilenet_v2": ("MobileNetV2Model", {}, 64),
    "mobilevit": ("MobileViTModel", {"image_size": 64, "hidden_sizes": [32, 48, 64], "neck_hidden_sizes": [16, 16, 32, 48, 64, 64, 96]}, 64),
    "efficientnet": ("EfficientNetModel", {"image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640}, 64),
    "poolformer": ("PoolFormerModel", _WIDTHS, 64),
    "levit": ("LevitModel", {"image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}, 64),
    "regnet": ("RegNetModel", {**_WIDTHS, "embedding_size": 16, "groups_width": 8}, 64),
    "yolos": ("YolosForObjectDetection", {**_PATCHES, "image_size": [64, 64], "num_detection_tokens": 8}, 64),
    "dpt": ("DPTForDepthEstimation", {**_PATCHES, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [16, 24, 32, 32], "fusion_hidden_size": 24}, 64),
    "detr": ("DetrForObjectDetection", _DETR, 64),
    "conditional_detr": ("ConditionalDetrForObjectDetection", _DETR, 64),
    "deformable_detr": ("DeformableDetrForObjectDetection", _DETR, 64),
    "rt_detr": ("RTDetrForObjectDetection", {**_DETR, "encoder_hidden_dim": 64, "encoder_layers": 1, "feat_strides": [8, 16, 32]}, 64),
}  # fmt: skip


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
        options["encoder_in_channels"] = [48, 64, 96]
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


def _transformers_nets() -> Iterator[tuple[str, Network]]:
    with suppress(ImportError):
        _torchvision()
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


# --- segmentation, detection, diffusion -------------------------------------------------------------------------------

_SMP = {
    "Unet": "resnet18 mobilenet_v2 efficientnet-b0 timm-regnetx_002", "UnetPlusPlus": "resnet18", "MAnet": "resnet18",
    "FPN": "resnet18 mobilenet_v2", "DeepLabV3": "resnet18", "DeepLabV3Plus": "resnet18 mobilenet_v2 efficientnet-b0",
    "PSPNet": "resnet18 mobilenet_v2", "Linknet": "resnet18 efficientnet-b0", "PAN": "resnet18",
    "UPerNet": "resnet18", "Segformer": "resnet18",
}  # fmt: skip


def _smp_nets() -> Iterator[tuple[str, Network]]:
    _torchvision()
    import segmentation_models_pytorch as smp

    for name, encoders in _SMP.items():
        for encoder in encoders.split():
            build = partial(getattr(smp, name), encoder_name=encoder, encoder_weights=None, classes=5)
            side = {"PAN": 128, "PSPNet": 96, "UPerNet": 192}.get(name, 64)  # what their pyramids divide
            yield f"{name}, {encoder}", _vision(build, side)


_YOLO = "yolov3-tiny yolov5n yolov6n yolov8n yolov8n-seg yolov8n-pose yolov8n-cls yolov8n-obb yolov9t yolov10n yolo11n yolo12n yolov8-ghost rtdetr-l".split()


def _yolo(name: str) -> nn.Module:
    """Build an ultralytics model in the state in which it is exported."""
    from ultralytics.nn.tasks import yaml_model_load
    from ultralytics.utils import LOGGER

    LOGGER.setLevel("ERROR")
    import ultralytics.nn.tasks as tasks

    kinds = {
        "-seg": tasks.SegmentationModel,
        "-pose": tasks.PoseModel,
        "-cls": tasks.ClassificationModel,
        "-obb": tasks.OBBModel,
    }
    kind = next((k for suffix, k in kinds.items() if name.endswith(suffix)), tasks.DetectionModel)
    if name.startswith("rtdetr"):
        kind = tasks.RTDETRDetectionModel
    net = kind(yaml_model_load(f"{name}.yaml"), ch=3, verbose=False).eval()
    for module in net.modules():
        if hasattr(module, "export"):
            module.export, module.format, module.dynamic = True, "onnx", False
    return Plain(net)


def _yolo_nets() -> Iterator[tuple[str, Network]]:
    _torchvision()
    import ultralytics  # noqa: F401

    for name in _YOLO:
        yield name, Network(partial(_yolo, name), partial(images, side=128 if name.startswith("rtdetr") else 64))


_UNET = {"sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}


def _diffusers_nets() -> Iterator[tuple[str, Network]]:
    _torchvision()
    import diffusers

    def noisy(batch: int) -> Inputs:
        return {**images(batch, side=16, channels=4, name="sample"), "timestep": torch.tensor([7.0])}

    plain = partial(
        diffusers.UNet2DModel, in_channels=4, out_channels=4, attention_head_dim=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), **_UNET,
    )  # fmt: skip
    yield "UNet2DModel", Network(lambda: Plain(plain(), ("sample", "timestep")), noisy)
    told = partial(
        diffusers.UNet2DConditionModel, cross_attention_dim=24, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **_UNET,
    )  # fmt: skip
    yield (
        "UNet2DConditionModel",
        Network(
            lambda: Plain(told(), ("sample", "timestep", "encoder_hidden_states")),
            lambda batch: {**noisy(batch), "encoder_hidden_states": torch.randn(batch, 6, 24)},
        ),
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = partial(diffusers.AutoencoderKL, **_UNET, **blocks)
    yield "AutoencoderKL", Network(lambda: Plain(vae(), sample_posterior=False), partial(images, side=16))
    dit = {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 2, "sample_size": 8, "in_channels": 4}
    yield (
        "DiTTransformer2DModel",
        Network(
            lambda: Plain(
                diffusers.DiTTransformer2DModel(norm_num_groups=8, **dit), ("hidden_states", "timestep", "class_labels")
            ),
            lambda batch: {
                **images(batch, side=8, channels=4),
                "timestep": torch.full((batch,), 7),
                "labels": torch.full((batch,), 3),
            },
        ),
    )


SOURCES: dict[str, Callable[[], Iterator[tuple[str, Network]]]] = {
    "hand-written": lambda: iter(ODDITIES.items()),
    "torchvision": _torchvision_nets,
    "timm": _timm_nets,
    "transformers": _transformers_nets,
    "segmentation-models-pytorch": _smp_nets,
    "ultralytics": _yolo_nets,
    "diffusers": _diffusers_nets,
}


def catalogue() -> dict[str, Architecture]:
    """All architectures by name; the library is part of the name where two have the same."""
    found: dict[str, Architecture] = {}
    for library, nets in SOURCES.items():
        for name, network in nets():
            found[f"{name} ({library})" if name in found else name] = Architecture(library, network)
    return found
