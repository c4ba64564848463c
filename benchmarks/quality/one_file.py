"""Other tools on one file, the net of digits that ships with the package, asked for half of its multiply-accumulates.

    pip install onnxsim==0.8.1 onnxslim==0.1.98 nncf==3.4.0 torch-pruning==1.6.1
    python -m benchmarks.quality.one_file

Columns: multiply-accumulates and parameters that are left, counted on the file alike for all; right answers on 450
images that nobody saw. Tools that work on torch modules are given what ``to_torch`` makes of the file.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch

import onnxslim_learn as osl
from onnxslim_learn import demo
from onnxslim_learn.demo.story import accuracy

MODEL = demo.model_path()
CALIBRATION = MODEL.with_name("calibration.npz")
HALF, STEPS = 0.5, 7  # of the multiply-accumulates; halvings of the interval of a tool's own ratio
Cut = Callable[[], onnx.ModelProto]


def costs(model: onnx.ModelProto | str) -> dict[str, float]:
    """What a model costs."""
    told: dict[str, float] = osl.analyze(model).report["costs"]
    return told


def half(cut: Callable[[float], onnx.ModelProto]) -> onnx.ModelProto:
    """What a tool leaves at the least ratio at which at most half of the multiply-accumulates are left."""
    low, high, bound = 0.0, 0.95, HALF * costs(str(MODEL))["macs"]
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if costs(cut(middle))["macs"] <= bound else (middle, high)
    return cut(high)


def ours(**options: bool) -> onnx.ModelProto:
    """What is cut here."""
    model: onnx.ModelProto = osl.slim(str(MODEL), macs=HALF, data=str(CALIBRATION), latency=False, **options).model
    return model


def torch_pruning() -> onnx.ModelProto:
    """Half of every group of units, as Torch-Pruning finds them in the module of the file."""
    import torch_pruning as tp

    net = osl.to_torch(str(MODEL))
    score = tp.importance.GroupMagnitudeImportance(p=2)
    tp.pruner.BasePruner(net, torch.rand(1, 1, 8, 8), score, pruning_ratio=HALF).step()
    with tempfile.TemporaryDirectory() as folder:
        osl.from_torch(net, Path(folder, "pruned.onnx"))
        return onnx.load(Path(folder, "pruned.onnx"))


def others() -> dict[str, Cut]:
    """A row for each way of another tool."""
    import nncf
    import onnxsim
    import onnxslim

    samples = np.load(CALIBRATION)["image"]
    batches = [{"image": row[None]} for row in samples]
    zeros = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL
    return {
        "onnxsim, simplify": lambda: onnxsim.simplify(str(MODEL))[0],
        "onnxslim": lambda: onnxslim.slim(str(MODEL)),
        "onnxsim, apply_structured_pruning": lambda: half(lambda r: onnxsim.apply_structured_pruning(str(MODEL), r)),
        "onnxsim, apply_structured_wanda_pruning": lambda: half(
            lambda r: onnxsim.apply_structured_wanda_pruning(str(MODEL), batches, sparsity=r)
        ),
        "NNCF, prune": lambda: nncf.prune(onnx.load(MODEL), mode=zeros, ratio=HALF),
        "Torch-Pruning through to_torch": torch_pruning,
    }


def told(cut: Cut) -> str:
    """What is left, or what the tool says instead."""
    try:
        model = cut()
    except Exception as error:  # whatever a tool says is the row
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    held, whole, left = np.load(MODEL.with_name("digits.npz")), costs(str(MODEL)), costs(model)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder, "cut.onnx"))
        right = accuracy(Path(folder, "cut.onnx"), held["image"], held["labels"])
    macs, params = (left[key] / whole[key] for key in ("macs", "params"))
    return f"{macs:.1%} MACs, {params:.1%} parameters, {right:.1%} right"


def main() -> None:
    """Print a row for every tool."""
    rows: dict[str, Cut] = {"as it is": lambda: onnx.load(MODEL)}
    rows |= {"slim": ours, "slim --no-repair": lambda: ours(no_repair=True), **others()}
    for name, cut in rows.items():
        print(f"{name:40} {told(cut)}", flush=True)


if __name__ == "__main__":
    main()
