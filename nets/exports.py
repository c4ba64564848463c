"""Well-known networks written to ONNX by both exporters of PyTorch.

The nets are randomly initialised and then jittered, so that no normalisation, bias, scale or zero-initialised weight is
an identity that a wrong rewrite could drop unseen; batch statistics follow the data, so that the signal reaches the
output. Needs torch, onnxscript, torchvision and (for BERT) transformers.

    python -m nets.exports FOLDER [NAME ...]     # every name, or the named ones, by both exporters
"""

import io
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import onnx
import torch
from torch import Tensor, nn

Exporter = Literal["legacy", "dynamo"]
EXPORTERS: tuple[Exporter, ...] = get_args(Exporter)
Inputs = dict[str, Tensor]

LEGACY_OPSET = 17
EXTERNAL_BYTES = 100 * 2**20  # larger nets keep their weights beside the file when the dynamo exporter writes them
VOCABULARY = 3000

_operators: list[torch.library.Library] = []  # a library's operators live as long as it does


@dataclass(frozen=True)
class Network:
    """How one net is built and fed, and how it is exported.

    Attributes:
        build: Makes the net; called under the seed.
        inputs: Makes its example inputs, by name, for a batch size; called under the seed.
        outputs: The names of its outputs.
        dynamic: The named axes that stay dynamic, by input and output.
        keep_norms: Leave BatchNormalization nodes instead of folding them into the convolutions.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    outputs: tuple[str, ...] = ("output",)
    dynamic: Mapping[str, dict[int, str]] = field(default_factory=dict)
    keep_norms: bool = False


@cache
def torchvision_models() -> ModuleType:
    """Import ``torchvision.models``, also where its compiled operators cannot be loaded."""
    try:
        import torchvision
    except RuntimeError:  # its Python half registers shapes for operators that were not loaded: declare them
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(library)
        import torchvision
    return torchvision.models


def _vision(name: str, **options: Any) -> nn.Module:
    """Build a torchvision classifier without weights."""
    return getattr(torchvision_models(), name)(weights=None, **options)


def _image(batch: int) -> Inputs:
    """Random images of 224 by 224."""
    return {"image": torch.randn(batch, 3, 224, 224)}


class _Bert(nn.Module):
    """A small BERT encoder that returns plain tensors."""

    def __init__(self) -> None:
        super().__init__()
        with suppress(ImportError):  # transformers does without torchvision, but not with one that fails to load
            torchvision_models()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=VOCABULARY,
            num_hidden_layers=4,
            hidden_size=256,
            num_attention_heads=4,
            intermediate_size=1024,
        )
        self.bert = BertModel(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return encoded.last_hidden_state, encoded.pooler_output


def _tokens(batch: int, length: int = 32) -> Inputs:
    """Random tokens in two segments, the last ones padding."""
    place = torch.arange(length).expand(batch, length)
    return {
        "input_ids": torch.randint(VOCABULARY, (batch, length)),
        "attention_mask": (place < length - 5).long(),
        "token_type_ids": (place >= length // 2).long(),
    }


_SERVER = ("resnet18", "resnet50", "resnext50_32x4d", "vgg11_bn", "densenet121", "convnext_tiny", "vit_b_16", "swin_t")
_MOBILE = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "squeezenet1_1", "shufflenet_v2_x1_0")
_BATCH = {"image": {0: "batch"}, "output": {0: "batch"}}
_BATCH_AND_SIZE = {"image": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}}
_BERT = partial(Network, _Bert, _tokens, ("hidden", "pooled"))
_LENGTHS = {key: {0: "batch", 1: "sequence"} for key in ("input_ids", "attention_mask", "token_type_ids", "hidden")}

NAMES: dict[str, Network] = {
    **{name: Network(partial(_vision, name), _image) for name in (*_SERVER, *_MOBILE)},
    "googlenet": Network(
        partial(_vision, "googlenet", aux_logits=False, transform_input=False, init_weights=False), _image
    ),
    "bert": _BERT(),
    "bert_dyn": _BERT(dynamic={**_LENGTHS, "pooled": {0: "batch"}}),
    "resnet18_dyn": Network(partial(_vision, "resnet18"), _image, dynamic=_BATCH),
    "mobilenet_v3_large_dyn": Network(partial(_vision, "mobilenet_v3_large"), _image, dynamic=_BATCH),
    "efficientnet_b0_dyn": Network(partial(_vision, "efficientnet_b0"), _image, dynamic=_BATCH_AND_SIZE),
    "resnet18_bn": Network(partial(_vision, "resnet18"), _image, keep_norms=True),
}


@torch.no_grad()
def jitter(net: nn.Module, inputs: Inputs) -> None:
    """Randomise in place biases, constant parameters and, around what the inputs give, the batch statistics."""
    for name, parameter in net.named_parameters():
        first = parameter.flatten()[0]
        constant = bool((parameter == first).all())
        if name.endswith("bias") or (constant and first == 0):
            parameter.normal_(0, 0.2)
        elif constant:  # the scales of normalisations and of residual branches
            parameter.uniform_(0.5, 1.5)

    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(_measure) for norm in norms]
    if hooks:
        net(*inputs.values())
    for hook in hooks:
        hook.remove()


def _measure(norm: nn.BatchNorm2d, arguments: tuple[Tensor]) -> None:
    """Set the statistics of a normalisation to those of its input, within about a factor."""
    variance, mean = torch.var_mean(arguments[0], (0, 2, 3))
    norm.running_mean = mean + variance.sqrt() * torch.empty_like(mean).normal_(0, 0.2)
    norm.running_var = variance * torch.empty_like(mean).uniform_(0.5, 1.5)


def build(name: str, *, seed: int = 0) -> tuple[nn.Module, Inputs]:
    """Make the jittered net called ``name``, in evaluation mode, and example inputs for it."""
    network = NAMES[name]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        net = network.build().eval()
        jitter(net, network.inputs(4))
        return net, network.inputs(2 if network.dynamic else 1)


def export(name: str, exporter: Exporter, path: Path, *, seed: int = 0) -> Path:
    """Write the net called ``name`` to ``path``.

    Args:
        name: A key of ``NAMES``.
        exporter: The tracing exporter ("legacy") or the one on ``torch.export`` ("dynamo").
        path: The file to write, or a folder in which it is called NAME.EXPORTER.onnx.
        seed: Determines weights and example inputs.

    Returns:
        The file written.
    """
    network, (net, inputs) = NAMES[name], build(name, seed=seed)
    target = path / f"{name}.{exporter}.onnx" if path.is_dir() else path
    options: dict[str, Any] = {"input_names": list(inputs), "output_names": list(network.outputs)}
    if exporter == "legacy":
        options |= {"opset_version": LEGACY_OPSET, "do_constant_folding": not network.keep_norms}
        options |= {"dynamic_axes": network.dynamic}
        if network.keep_norms:
            options["training"] = torch.onnx.TrainingMode.PRESERVE
    else:
        size = sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
        options |= {"external_data": size > EXTERNAL_BYTES, "optimize": not network.keep_norms, "verbose": False}
        options |= {"dynamic_shapes": tuple(network.dynamic.get(key) for key in inputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, tuple(inputs.values()), target, dynamo=exporter == "dynamo", **options)
    return target


def write(network: Network, exporter: Exporter, *, opened: bool, seed: int = 0) -> onnx.ModelProto:
    """Return what an exporter makes of a jittered net, fed with two samples: its dynamic axes open, or all fixed."""
    options: dict[str, Any] = {"opset_version": LEGACY_OPSET} if exporter == "legacy" else {"verbose": False}
    buffer = io.BytesIO()
    torch.backends.mha.set_fastpath_enabled(False)  # the tracing exporter knows no fused attention
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        net = network.build().eval()
        jitter(net, network.inputs(4))
        inputs = network.inputs(2)
        if opened and exporter == "legacy":
            options["dynamic_axes"] = network.dynamic
        elif opened:
            open_axes = {key: dict.fromkeys(network.dynamic.get(key, {}), torch.export.Dim.AUTO) for key in inputs}
            options["dynamic_shapes"] = tuple(open_axes.values())
        torch.onnx.export(
            net, tuple(inputs.values()), buffer, dynamo=exporter == "dynamo", input_names=list(inputs), **options
        )
    return onnx.load_from_string(buffer.getvalue())


if __name__ == "__main__":
    for chosen in sys.argv[2:] or NAMES:
        for which in EXPORTERS:
            print(export(chosen, which, Path(sys.argv[1])))
