"""Torch-Pruning (Fang et al., 2023) on the same nets at the same MACs: in one shot, or with statistics estimated anew.

pip install torch-pruning==1.6.1
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch_pruning as tp
from torch import Tensor, nn

from benchmarks.quality import fashion
from benchmarks.quality.nets import Attention, ViT
from benchmarks.quality.train import export
from onnxslim_learn.workflow import slim

STEPS = 8  # halvings of the interval in which the ratio is searched
BATCH = 64

# Name of a row -> how units are scored and where the ratio holds: in every group, or over all of them.
PEERS: dict[str, tuple[Callable[[], tp.importance.Importance], bool]] = {
    "Torch-Pruning, group L2": (lambda: tp.importance.GroupMagnitudeImportance(p=2), False),
    "Torch-Pruning, group L2, global": (lambda: tp.importance.GroupMagnitudeImportance(p=2), True),
    "Torch-Pruning, LAMP, global": (lambda: tp.importance.LAMPImportance(p=2), True),
}


def cut(net: nn.Module, ratio: float, row: str) -> nn.Module:
    """A copy of a net with that share of every group's, or of all, units removed."""
    score, everywhere = PEERS[row]
    net = copy.deepcopy(net)
    heads = {m.qkv: m.heads for m in net.modules() if isinstance(m, Attention)}
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        net,
        torch.rand(1, 1, fashion.SIDE, fashion.SIDE),
        score(),
        pruning_ratio=ratio,
        max_pruning_ratio=0.95,
        global_pruning=everywhere,
        ignored_layers=[last],
        num_heads=heads,
        prune_head_dims=True,
        unwrapped_parameters=[(net.position, 2)] if isinstance(net, ViT) else None,
    )
    pruner.step()
    for module in net.modules():
        if isinstance(module, Attention):
            module.heads = pruner.num_heads[module.qkv]
            module.size = module.qkv.out_features // (3 * module.heads)
    return net.eval()


def macs(net: nn.Module) -> int:
    """Multiply-accumulates of one image, counted as those of our own results."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        export(net, path)
        found = slim.analyze(path)
        return found.price(found.whole)["macs"]


def at_macs(net: nn.Module, bound: float, row: str) -> tuple[nn.Module, int]:
    """The least pruned net whose MACs are within a bound, and its MACs."""
    low, high = 0.0, 0.95
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if macs(cut(net, middle, row)) <= bound else (middle, high)
    found = cut(net, high, row)
    return found, macs(found)


def estimate(net: nn.Module, images: Tensor) -> None:
    """Estimate the statistics of all batch normalisations anew, in place."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.inference_mode():
        for x in images.split(BATCH):
            net(x)
    net.eval()
