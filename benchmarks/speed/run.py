"""What analysing, choosing widths and cutting take for large models: seconds of processor time, and memory.

    python -m benchmarks.speed.run [PART ...] [--json FILE]

Every part runs in a process of its own; its peak of memory is told without what is mapped from files. Parts:

* ``nodes``: residual blocks of 1,000, 10,000 and 100,000 nodes, analysed.
* ``decoder``: 8 billion parameters in half precision, analysed; their file has nothing written in it.
* ``search``: widths for 5,000 groups, narrowed alike and by curves.
* ``cut``: a decoder of a billion parameters cut to 0.7 of them, against a copy of as many bytes, and the cut verified.
* ``fused``: the same in onnxruntime's operators, with key-value heads, query heads and hidden units to cut.
* ``large``: the decoder of 8 billion parameters cut to 0.7 of them, against a copy of as many bytes.
* ``pruning``, only where named: ten networks of torchvision, analysed from their files, against what Torch-Pruning
  takes for its graph and all groups of the module; needs ``torch-pruning`` (``pip install --no-deps torch-pruning``).
"""

import argparse
import json
import multiprocessing
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from onnx import TensorProto

from nets.large import Decoder, FusedDecoder, chain
from onnxslim_learn.analysis import Analysis
from onnxslim_learn.rewrite.verify import verify
from onnxslim_learn.select import budget, search
from onnxslim_learn.workflow import slim

EIGHT_BILLION = Decoder(32, 4096, 32, 8, 14336, 128256, TensorProto.FLOAT16)
SHAPE = (16, 2048, 32, 8, 8192, 32000, TensorProto.FLOAT)
ONE_BILLION, ONE_BILLION_FUSED = Decoder(*SHAPE), FusedDecoder(*SHAPE)
NETWORKS = """
    resnet18 resnet50 vgg11_bn densenet121 mobilenet_v2 mobilenet_v3_large efficientnet_b0 convnext_tiny vit_b_16
    squeezenet1_1
""".split()  # noqa: SIM905
Told = Iterator[tuple[str, float]]  # what was done, and seconds of processor time


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """What a piece of work returns, and its seconds of processor time."""
    start = time.process_time()
    return work(), time.process_time() - start


def nodes(folder: Path) -> Told:
    """Analyse chains."""
    for count in (1_000, 10_000, 100_000):
        path = chain(folder / f"chain{count}.onnx", count)
        yield f"{count:,} nodes analysed", timed(lambda path=path: slim.analyze(path))[1]


def decoder(folder: Path) -> Told:
    """Analyse a decoder."""
    path = EIGHT_BILLION.write(folder / "decoder.onnx")
    yield "8 B parameters analysed", timed(lambda: slim.analyze(path))[1]


def widths(folder: Path) -> Told:
    """Find widths for many groups, with random scores and curves."""
    analysis = slim.analyze(chain(folder / "chain.onnx", 20_000))
    coupling, rng = analysis.coupling, np.random.default_rng(0)
    choices = budget.choices(coupling, analysis.groups, rng.random(coupling.columns), budget.Freedom())
    cost = analysis.cost("params")
    bounds = {"params": (cost, 0.6 * cost.value(np.ones(coupling.size)))}
    alike = budget.Search(coupling, choices, bounds, {"params": 0.6})
    yield f"{len(choices):,} groups narrowed alike", timed(lambda: search.solve(alike))[1]
    curved = [replace(c, curve=np.append(np.sort(rng.random(len(c.kept) - 1))[::-1], 0.0)) for c in choices]
    yield f"{len(choices):,} groups by curves", timed(lambda: search.solve(replace(alike, choices=curved)))[1]


def cut(folder: Path, net: Decoder = ONE_BILLION, name: str = "1 B parameters", *, check: bool = True) -> Told:
    """Cut a decoder, copy as many bytes, and verify."""
    path = net.write(folder / "decoder.onnx")
    analysis: Analysis = slim.analyze(path)
    plan, seconds = timed(lambda: slim.plan(analysis, {"params": 0.7}))
    yield f"{name}: widths chosen", seconds
    slimmed = slim.slim(analysis, plan)  # type: ignore[arg-type]
    target = folder / "slim.onnx"
    yield f"{name}: cut and written", timed(lambda: slimmed.save(target, check=False))[1]
    data = folder / "slim.onnx.data"
    yield f"copy of {data.stat().st_size / 1e9:.1f} GB", timed(lambda: shutil.copyfile(data, folder / "copy"))[1]
    (folder / "copy").unlink()
    if check:
        yield f"{name}: verified in stretches", timed(lambda: verify(slimmed.removal, target))[1]


def pruning(folder: Path) -> Told:
    """Analyse networks from files, and their modules by Torch-Pruning: twice each, the faster time of both."""
    import torch
    import torch_pruning

    from nets.exports import build, export

    torch.set_num_threads(1)
    for name in NETWORKS:
        net, inputs = build(name)
        path = export(name, "legacy", folder / f"{name}.onnx")

        def traced(net: torch.nn.Module = net, inputs: tuple[torch.Tensor, ...] = tuple(inputs.values())) -> int:
            graph = torch_pruning.DependencyGraph().build_dependency(net, example_inputs=inputs)
            return sum(1 for _ in graph.get_all_groups())

        yield f"{name}: Torch-Pruning", min(timed(traced)[1] for _ in range(2))
        yield f"{name}: analysed", min(timed(lambda path=path: slim.analyze(path).groups)[1] for _ in range(2))
        path.unlink()


ALWAYS: dict[str, Callable[[Path], Told]] = {
    "nodes": nodes,
    "decoder": decoder,
    "search": widths,
    "cut": cut,
    "fused": partial(cut, net=ONE_BILLION_FUSED, name="1 B parameters, fused"),
    "large": partial(cut, net=EIGHT_BILLION, name="8 B parameters", check=False),
}
PARTS = {**ALWAYS, "pruning": pruning}


def anonymous() -> int:
    """Bytes of memory of this process that are not mapped from files."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def run(part: str, told: "multiprocessing.Queue[tuple[str, float, int]]") -> None:
    """Run a part and tell of each piece its seconds and the peak of memory so far."""
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, anonymous())

    threading.Thread(target=watch, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds in PARTS[part](Path(folder)):
            told.put((name, seconds, max(peak, anonymous())))
            peak = 0
    ended.set()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", default=list(ALWAYS), help=", ".join(PARTS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print("| what | seconds of processor time | peak of memory |\n| --- | --- | --- |", flush=True)
    context = multiprocessing.get_context("spawn")
    for part in options.parts:
        told = context.Queue()
        process = context.Process(target=run, args=(part, told))
        process.start()
        while process.is_alive() or not told.empty():
            if told.empty():
                time.sleep(0.1)
                continue
            name, seconds, peak = told.get()
            rows.append({"what": name, "seconds": seconds, "peak_bytes": peak})
            print(f"| {name} | {seconds:.{1 if seconds > 1 else 2}f} | {peak / 2**20:,.0f} MiB |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
