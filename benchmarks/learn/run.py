"""Learn widths on Fashion-MNIST by self-distillation without labels, and count what is right on the test images.

    python -m benchmarks.learn.run [--net resnet20_bn] [--shares 0.5,0.3] [--methods morphnet,uniform] [--steps N] ...

Nets come from ``benchmarks.quality.train``. Every method is fine-tuned equally long; ``uniform`` narrows all groups
alike by the default criterion and is repaired like the others. Results are added to a JSON file, one row a run.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from benchmarks.quality import fashion
from benchmarks.quality.train import CACHE
from onnxslim_learn import api
from onnxslim_learn.data.opening import open_source
from onnxslim_learn.data.options import Options
from onnxslim_learn.select.evidence import Evidence
from onnxslim_learn.train.school import Job, Training, school
from onnxslim_learn.train.shrink import Widths, fit, shrink
from onnxslim_learn.train.worlds import World

METHODS = ("morphnet", "uniform")
BATCH = 250


def accuracy(model: Path) -> float:
    """Share of test images whose class a file finds."""
    images, labels = fashion.read("t10k")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    pixels = fashion.pixels(images)
    outputs = [session.run(None, {name: pixels[k : k + BATCH]})[0] for k in range(0, len(pixels), BATCH)]
    return float((np.concatenate(outputs).argmax(1) == labels).mean())


def told(name: str, *rest: object) -> object:
    """Say which stage it is, and every hundred steps how it goes."""
    print(f"  {name}", flush=True)

    def show(step: object, numbers: object = None) -> None:
        if isinstance(step, int) and isinstance(numbers, dict) and step % 100 == 0:
            print(f"    {step}: " + ", ".join(f"{k} {v:.3g}" for k, v in numbers.items()), flush=True)

    return show


def one(net: Path, method: str, share: float, options: argparse.Namespace) -> dict[str, object]:
    """One run of one method."""
    start, cpu = time.perf_counter(), time.process_time()
    found = api.analyze(net)
    images, _ = fashion.read("train")
    arrays = {str(found.graph.model.graph.inputs[0].name): fashion.pixels(images)}
    source = open_source(arrays, found.graph, Options(samples=options.samples, batch_size=64))
    with tempfile.TemporaryDirectory() as folder:
        training = Training(
            options.steps, options.finetune_steps, seed=options.seed, folder=Path(folder), every=10**9, bf16=False
        )
        taught = school(found, source, training, World(), stage=told, watch=told)
        wanted, output = Widths({"macs": share}), Path(folder) / "out.onnx"
        job = Job(found, source, wanted, taught, output, told)
        if method == "morphnet":
            made = shrink(job)
        else:
            plan = api.plan(found, {"macs": share}, evidence=Evidence(found.coupling, source, 512, seconds=0.0))
            made = fit(job, taught.module(found), plan, {"history": []})
        assert made is not None
        price = made[0].analysis.price(made[0].removal)["macs"] / found.price(found.whole)["macs"]
        return {
            "net": net.stem,
            "method": method,
            "share": share,
            "macs": price,
            "accuracy": accuracy(output),
            "dense": accuracy(net),
            "widths": {name: len(kept) for name, kept in made[0].plan.groups.items()},
            "steps": options.steps,
            "finetune_steps": options.finetune_steps,
            "samples": options.samples,
            "seed": options.seed,
            "seconds": round(time.perf_counter() - start),
            "cpu_seconds": round(time.process_time() - cpu),
        }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", default="resnet20_bn", help="file in the cache, without .onnx")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"where the nets are (default {CACHE})")
    parser.add_argument("--shares", default="0.5,0.3", help="of the MACs")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", type=int, default=600, help="of structure learning")
    parser.add_argument("--finetune-steps", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=60000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("learn.json"), help="results are added to it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for share in map(float, options.shares.split(",")):
        for method in options.methods.split(","):
            print(f"{options.net}, {method}, {share:.0%} of the MACs", flush=True)
            row = one(options.cache / f"{options.net}.onnx", method, share, options)
            print(f"  {row['accuracy']:.2%} (dense {row['dense']:.2%}), {row['cpu_seconds']} s", flush=True)
            rows = json.loads(options.json.read_text()) if options.json.is_file() else []
            options.json.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
