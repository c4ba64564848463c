"""Image nets: classification, segmentation, detection, diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nets.exports import Inputs, Network, torchvision_models
from scripts.architectures.plain import Plain, images, vision

# --- torchvision ------------------------------------------------------------------------------------------------------

_TV = {
    "resnet18": 64, "resnet50": 64, "wide_resnet50_2": 64, "resnext50_32x4d": 64, "alexnet": 224,
    "vgg11_bn": 224, "squeezenet1_0": 64, "squeezenet1_1": 64, "densenet121": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "mobilenet_v3_large": 64, "mnasnet0_5": 64, "shufflenet_v2_x0_5": 64,
    "shufflenet_v2_x1_0": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "regnet_x_400mf": 64,
    "regnet_y_400mf": 64, "convnext_tiny": 64, "swin_t": 64, "swin_v2_t": 64,
}  # fmt: skip


def torchvision_nets() -> Iterator[tuple[str, Network]]:
    """The nets of torchvision."""
    tv = torchvision_models()
    for name, side in _TV.items():
        yield name, vision(partial(getattr(tv, name), weights=None), side)
    plain = {"aux_logits": False, "transform_input": False, "init_weights": False, "weights": None}
    yield "googlenet", vision(partial(tv.googlenet, **plain), 64)
    yield "inception_v3", vision(partial(tv.inception_v3, **plain), 96)
    tiny = {"patch_size": 16, "num_layers": 3, "num_heads": 4, "hidden_dim": 96, "mlp_dim": 256}
    yield "vit", vision(partial(tv.VisionTransformer, image_size=64, **tiny), 64)
    maxvit = {"stem_channels": 32, "partition_size": 2, "block_channels": [32, 64], "block_layers": [1, 1]}
    more = {"head_dim": 16, "stochastic_depth_prob": 0.0}
    yield "maxvit", vision(partial(tv.MaxVit, input_size=(64, 64), **maxvit, **more), 64)
    part = {"weights": None, "weights_backbone": None}
    for name in ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        yield name, vision(partial(getattr(tv.segmentation, name), **part), 64)
    yield "r3d_18", Network(partial(tv.video.r3d_18, weights=None), _clips)
    yield "r2plus1d_18", Network(partial(tv.video.r2plus1d_18, weights=None), _clips)
    for name in ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn", "fcos_resnet50_fpn"):
        yield f"{name} (heads)", vision(partial(_Heads, name), 96)


def _clips(batch: int) -> Inputs:
    return {"clip": torch.randn(batch, 3, 8, 32, 32)}


class _Heads(nn.Module):
    """Backbone, pyramid and heads of a torchvision detector, before boxes are decoded."""

    def __init__(self, name: str) -> None:
        super().__init__()
        net = getattr(torchvision_models().detection, name)(weights=None, weights_backbone=None)
        self.backbone, self.head = net.backbone, net.head

    def forward(self, x: Tensor) -> Any:
        return self.head(list(self.backbone(x).values()))


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
vit_tiny_r_s16_p8_224 sequencer2d_s convmixer_768_32 tresnet_m efficientvit_m0 efficientformer_l1
efficientformerv2_s0 twins_pcpvt_small twins_svt_small xcit_nano_12_p16_224 mixer_s32_224 resmlp_12_224 gmlp_ti16_224
gmixer_12_224 beit_base_patch16_224 tiny_vit_5m_224 hiera_tiny_224 swin_tiny_patch4_window7_224
swinv2_tiny_window8_256 swinv2_cr_tiny_224 maxvit_pico_rw_256 maxxvitv2_nano_rw_256 coatnet_nano_rw_224 levit_128s
levit_conv_128s crossvit_9_240 convit_tiny coat_lite_tiny mvitv2_tiny nest_tiny pit_ti_224 volo_d1_224 gcvit_xxtiny
vit_tiny_patch16_224 vit_small_patch14_dinov2 vit_relpos_small_patch16_224 vit_small_patch16_dinov3
deit_tiny_distilled_patch16_224
deit3_small_patch16_224 cait_xxs24_224 eva02_tiny_patch14_224 samvit_base_patch16 vitamin_small_224 halonet26t
lambda_resnet26t botnet26t_256 inception_v3 inception_v4 inception_resnet_v2 iformer_t
"""
_SIDE = {
    "inception_v3": 96, "inception_v4": 96, "inception_resnet_v2": 128, "halonet26t": 256,
    "vit_small_patch14_dinov2": 56, "eva02_tiny_patch14_224": 56,
    "legacy_xception": 96, "crossvit_9_240": 240, "gcvit_xxtiny": 224, "tiny_vit_5m_224": 224,
    "lambda_resnet26t": 128, "shvit_s1": 128, "efficientformer_l1": 224,
}  # fmt: skip
_SIZED = (
    "vit_ deit efficientvit_m0 efficientformer_l1 efficientformerv2 mixer_ resmlp gmlp gmixer beit swin coatnet max "
    "levit crossvit convit coat_ mvitv2 nest pit volo cait eva02 sam vitamin visformer xcit twins botnet "
    "eca_botnext hiera"
)  # names that begin so are told the size of the image
_WITH: dict[str, dict[str, Any]] = {
    "tiny_vit_5m_224": {"num_classes": 1000},
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 128, "num_heads": 4},
    "samvit_base_patch16": {"depth": 3, "embed_dim": 96, "num_heads": 4, "global_attn_indexes": (1,)},
    "vit_small_patch14_dinov2": {"depth": 3}, "vit_small_patch16_dinov3": {"depth": 3},
    "vit_relpos_small_patch16_224": {"depth": 3}, "deit3_small_patch16_224": {"depth": 3},
    "swin_tiny_patch4_window7_224": {"window_size": 2}, "swinv2_tiny_window8_256": {"window_size": 2},
    "swinv2_cr_tiny_224": {"window_size": 2}, "cait_xxs24_224": {"depth": 3},
}  # fmt: skip


def timm_nets() -> Iterator[tuple[str, Network]]:
    """The nets of timm."""
    torchvision_models()
    import timm

    for name in _TIMM.split():
        side = _SIDE.get(name, 64)
        options = dict(_WITH.get(name, {}))
        if name.startswith(tuple(_SIZED.split())):
            options["img_size"] = side
        yield name, vision(partial(timm.create_model, name, **options), side)


# --- segmentation, detection, diffusion -------------------------------------------------------------------------------

_SMP = {
    "Unet": "resnet18 mobilenet_v2 efficientnet-b0 timm-regnetx_002", "UnetPlusPlus": "resnet18", "MAnet": "resnet18",
    "FPN": "resnet18 mobilenet_v2", "DeepLabV3": "resnet18", "DeepLabV3Plus": "resnet18 mobilenet_v2 efficientnet-b0",
    "PSPNet": "resnet18 mobilenet_v2", "Linknet": "resnet18 efficientnet-b0", "PAN": "resnet18",
    "UPerNet": "resnet18", "Segformer": "resnet18",
}  # fmt: skip


def smp_nets() -> Iterator[tuple[str, Network]]:
    """The nets of segmentation-models-pytorch."""
    torchvision_models()
    import segmentation_models_pytorch as smp

    for name, encoders in _SMP.items():
        for encoder in encoders.split():
            build = partial(getattr(smp, name), encoder_name=encoder, encoder_weights=None, classes=5)
            side = {"PAN": 128, "PSPNet": 96, "UPerNet": 192}.get(name, 64)  # what their pyramids divide
            yield f"{name}, {encoder}", vision(build, side)


_YOLO = (
    "yolov3-tiny yolov5n yolov6n yolov8n yolov8n-seg yolov8n-pose yolov8n-cls yolov8n-obb yolov9t yolov10n yolo11n "
    "yolo12n yolov8-ghost rtdetr-l"
)


def _yolo(name: str) -> nn.Module:
    """Build an ultralytics model in the state in which it is exported."""
    from ultralytics.nn.tasks import yaml_model_load
    from ultralytics.utils import LOGGER

    LOGGER.setLevel("ERROR")
    from ultralytics.nn import tasks

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


def yolo_nets() -> Iterator[tuple[str, Network]]:
    """The nets of ultralytics."""
    torchvision_models()
    import ultralytics  # noqa: F401

    for name in _YOLO.split():
        yield name, Network(partial(_yolo, name), partial(images, side=128 if name.startswith("rtdetr") else 64))


_UNET = {"sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}


def diffusers_nets() -> Iterator[tuple[str, Network]]:
    """The nets of diffusers."""
    torchvision_models()
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
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **_UNET,
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
