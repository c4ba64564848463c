"""Export one net, and measure the file: what can be cut, and whether cutting it is exact."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.workflow import slim
    from scripts.architectures import Architecture

Row = dict[str, Any]
Columns = Callable[["Group"], np.ndarray]

PART = 0.3  # of every group in the first plan
PLANS = 4  # the others take a random number of units of about half the groups
LOW = 0.6  # shares below are explained


def export(architecture: Architecture, exporter: str, path: Path) -> None:
    """Build, jitter and write one net; randomness is seeded. "open" is the legacy exporter, with open axes."""
    import torch
    from torch import nn

    from nets.exports import LEGACY_OPSET, jitter

    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # the legacy exporter knows no fused attention
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    network = architecture.network
    net = network.build().eval()
    with torch.no_grad():
        jitter(net, network.inputs(4))
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm3d) and norm.running_mean is not None:
                norm.running_mean.normal_(0, 0.2)
                norm.running_var.uniform_(0.5, 1.5)
        inputs = network.inputs(1)
        options: Row = (
            {"verbose": False, "external_data": False} if exporter == "dynamo" else {"opset_version": LEGACY_OPSET}
        )
        if exporter == "open":
            options["dynamic_axes"] = network.dynamic or {name: open_axes(tensor) for name, tensor in inputs.items()}
        torch.onnx.export(
            net, tuple(inputs.values()), path, dynamo=exporter == "dynamo", input_names=list(inputs), **options
        )


def open_axes(tensor: Any) -> dict[int, str]:
    """The axes of an input that people leave open: its batch, and height and width, or the length of a text."""
    if tensor.dim() == 4:
        return {0: "batch", 2: "height", 3: "width"}
    return {0: "batch", 1: "sequence"} if tensor.dim() == 2 and not tensor.is_floating_point() else {0: "batch"}


def measure(path: Path) -> Row:
    """Analyse one file and slim it by random plans."""
    from onnxslim_learn.workflow import slim

    _runnable(path)
    started = time.perf_counter()
    found = slim.analyze(path)
    seconds = time.perf_counter() - started
    free = [group for group in found.groups if group.pin is None]
    total = found.price(found.whole)["params"]
    row: Row = {
        "nodes": len(found.graph.nodes),
        "groups": len(found.groups),
        "cuttable": len(free),
        "params": total,
        "seconds": round(seconds, 2),
        "unknown": found.opaque,
    }
    largest = combined(found, free, _all_but_one_step)
    left = found.price(largest)["params"]
    row["share"] = round(1 - left / max(total, 1), 4)
    row["alone"] = _left_out(largest, free)
    if row["share"] < LOW:
        row["reasons"] = reasons(found, largest)
    if free:
        row |= worst(compare(found, plan, path) for plan in plans(found, free))
    return row


def plans(found: slim.Analysis, free: Sequence[Group]) -> Iterator[Removal]:
    """Random valid plans, rows and strata included."""
    rng = np.random.default_rng(0)
    yield combined(found, free, lambda group: _random_units(group, _level(group), rng))
    for _ in range(PLANS - 1):
        some = [group for group in free if rng.random() < 0.5] or list(free)
        yield combined(found, some, lambda group: _random_units(group, rng.integers(1, group.levels), rng))


def worst(rows: Iterable[Row]) -> Row:
    """The first plan's row with the largest difference of all, or the row of the first plan that fails."""
    first, *others = rows
    first["plans"] = 1 + len(others)
    for row in others:
        if first["status"] != "ok":
            break
        if row["status"] != "ok":
            return row | {"plans": first["plans"]}
        first["worst"] = max(first["worst"], row["worst"])
    return first


class NotRunnableError(Exception):
    """Raised when onnxruntime cannot even run the exported file."""


def _runnable(path: Path) -> None:
    import onnxruntime as ort

    try:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        ort.InferenceSession(str(path), options)
    except Exception as error:
        raise NotRunnableError(str(error)) from None


def _all_but_one_step(group: Group) -> np.ndarray:
    return group.units[np.concatenate([part[max(1, len(part) // group.levels) :] for part in group.strata])]


def _level(group: Group) -> int:
    return min(max(1, round(group.levels * PART)), group.levels - 1)


def _random_units(group: Group, level: int, rng: np.random.Generator) -> np.ndarray:
    parts = [rng.permutation(part)[: len(part) * level // group.levels] for part in group.strata]
    return group.units[np.concatenate(parts)]


def combined(found: slim.Analysis, groups: Sequence[Group], columns: Columns) -> Removal:
    """The removal of columns of many groups; those with which it would be invalid are left out, by halving."""
    chosen = [columns(group) for group in groups]

    def add(before: list[np.ndarray], more: list[np.ndarray]) -> list[np.ndarray]:
        if not more or not found.coupling.faults(_closed(found, [*before, *more]).gone):
            return [*before, *more]
        if len(more) == 1:
            return before
        half = len(more) // 2
        return add(add(before, more[:half]), more[half:])

    return _closed(found, add([], chosen))


def _closed(found: slim.Analysis, columns: list[np.ndarray]) -> Removal:
    from onnxslim_learn.coupling.removal import Removal

    chosen = np.zeros(found.coupling.columns, bool)
    if columns:
        chosen[np.concatenate(columns)] = True
    return Removal(found.coupling, found.coupling.close(chosen))


def _left_out(largest: Removal, free: Sequence[Group]) -> int:
    """Groups that lose nothing in the largest cut, although they can alone."""
    coupling = largest.coupling
    gone = np.zeros(coupling.columns, bool)
    gone[coupling.column[largest.gone]] = True
    return sum(not gone[group.units].any() for group in free)


def reasons(found: slim.Analysis, largest: Removal) -> list[list[Any]]:
    """Why parameters stay: ``[operator and reason, share]``, the two largest."""
    coupling, pinned = found.coupling, {}
    for group in found.groups:
        if group.pin is not None:
            pinned.setdefault(_reason(found, group), []).append(group.units[1:])
    total, left = found.price(found.whole)["params"], found.price(largest)["params"]
    shares = []
    for text, columns in pinned.items():
        chosen = np.zeros(coupling.columns, bool)
        chosen[np.concatenate(columns)] = True
        gone = coupling.close(chosen) | largest.gone
        alive = (~gone).astype(float)
        shares.append([text, round((left - found.costs["params"].value(alive)) / max(total, 1), 4)])
    return sorted(shares, key=lambda pair: -pair[1])[:2]


def _reason(found: slim.Analysis, group: Group) -> str:
    """Operator and rule, without names and numbers."""
    pin = group.pin
    assert pin is not None
    op_type = found.graph.nodes[pin.node].op_type if pin.node >= 0 else ""
    text = re.sub(r"node \S+ \((\w+)\): ", r"\1: ", pin.reason)
    text = re.sub(r"is the graph output .*", "graph output", text)
    text = re.sub(r"\S+: nothing would be left of it", "nothing would be left of a parameter", text)
    text = re.sub(r"\d+", "n", text)
    return f"{op_type}: {text}" if op_type else text


def compare(found: slim.Analysis, removal: Removal, path: Path) -> Row:
    """Slim and judge by the masked original."""
    import onnx

    from onnxslim_learn.rewrite import verify as checking
    from onnxslim_learn.workflow import slim

    target = path.with_suffix(".slim.onnx")
    slim.slim(found, slim.describe(found, removal, {})).save(target, check=False)
    onnx.checker.check_model(str(target))
    check = checking.verify(removal, target)
    again = slim.analyze(target)
    wanted, priced = found.price(removal), again.price(again.whole)
    row: Row = {"worst": check.max_rel_diff, "allowed": check.tolerance, "noise": check.noise, "change": check.change}
    row["cut"] = round(1 - wanted["params"] / max(found.price(found.whole)["params"], 1), 4)
    row["status"] = "ok" if check.passed else "chaotic" if check.undecided == check.runs else "wrong result"
    if not check.passed:
        row["error"] = check.complaint
    elif priced != wanted:
        row |= {"status": "wrong price", "error": f"predicted {wanted}, found {priced}"}
    return row
