"""The nets of the benchmark, as files, and the same architectures built anew at the widths of a slimmed file."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from torch import nn

from nets.exports import NAMES, Inputs, Network, jitter


def _yolo() -> nn.Module:
    """YOLOv8n as ultralytics describes it, without weights."""
    from ultralytics.nn.tasks import DetectionModel

    net = DetectionModel("yolov8n.yaml", verbose=False)
    net.model[-1].export, net.model[-1].format = True, "onnx"
    return net


def _small_image(batch: int) -> Inputs:
    return {"image": torch.randn(batch, 3, 320, 320)}


NETS: dict[str, Network] = {
    "resnet50": replace(NAMES["resnet50"], keep_norms=True),
    "mobilenet_v2": replace(NAMES["mobilenet_v2"], keep_norms=True),
    "yolov8n": Network(_yolo, _small_image, keep_norms=True),
    "bert": NAMES["bert"],
}


def build(name: str) -> tuple[nn.Module, Inputs]:
    """A net with random weights, and inputs for it."""
    torch.manual_seed(0)
    net = NETS[name].build().eval()
    jitter(net, NETS[name].inputs(2))
    return net, NETS[name].inputs(1)


def write(name: str, net: nn.Module, inputs: Inputs, path: Path) -> Path:
    """Export a net so that weights keep their names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=list(NETS[name].outputs),
            opset_version=17,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )
    return path


def from_scratch(name: str, slimmed: Path, path: Path) -> Path | None:
    """Build a net anew at the widths of a slimmed file; ``None`` where its modules cannot be told such widths.

    Its weights are those of the file: what some nodes take depends on values, as the softmax of YOLO's boxes does.
    """
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(slimmed).graph.initializer}
    net, inputs = build(name)
    for prefix, module in net.named_modules():
        if type(module).__name__ == "C2f":
            module.forward = partial(_halves, module)  # type: ignore[method-assign]
        _narrow(module, {k: arrays.get(f"{prefix}.{k}") for k in ("weight", "bias", "running_mean", "running_var")})
    try:
        return write(name, net, inputs, path)
    except (RuntimeError, ValueError) as error:
        print(f"{name}: not built from scratch: {str(error).splitlines()[0][:120]}")
        return None


def _halves(block: Any, x: torch.Tensor) -> torch.Tensor:
    """What YOLO's C2f computes, with halves of widths of their own where the module has two of one."""
    joined = block.cv1(x)
    inner = block.m[0].cv1.conv.in_channels
    parts = list(joined.split((joined.shape[1] - inner, inner), 1))
    for one in block.m:
        parts.append(one(parts[-1]))
    found: torch.Tensor = block.cv2(torch.cat(parts, 1))
    return found


def _narrow(module: nn.Module, arrays: Mapping[str, np.ndarray | None]) -> None:
    """Give a module weights of other shapes."""
    for key, array in arrays.items():
        old = getattr(module, key, None)
        if array is None or old is None:
            continue
        fresh = torch.from_numpy(array.copy())
        setattr(module, key, nn.Parameter(fresh) if isinstance(old, nn.Parameter) else fresh)
    weight = None if arrays["weight"] is None else arrays["weight"].shape
    if isinstance(module, nn.Conv2d) and weight is not None:
        module.groups = module.groups if module.groups == 1 else weight[0] // (module.out_channels // module.groups)
        module.out_channels, module.in_channels = weight[0], weight[1] * module.groups
    if isinstance(module, nn.Linear) and weight is not None:
        module.out_features, module.in_features = weight
