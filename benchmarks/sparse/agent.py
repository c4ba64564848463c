"""Shares per layer by `heurist`, by `search` and by the agent that goes out from it, on nets that take seconds.

    python -m benchmarks.sparse.agent ["digits inception" ...] [--ratio R] [--seeds 0,1] [--rollouts N]
                                      [--augment shift] [--protocols NAME ...] [--cache FOLDER]

Nets are those of ``benchmarks.learn.nets``. Weights are zeroed in one go from 512 images without labels; roll-outs are
judged on 1,024 images more, the best of them on 4,096. What is told is of images of others: how many are right, and how
far outputs are from the original's (KL divergence, nats). Seeds draw images, and are the agent's.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from benchmarks.learn.nets import NETS
from benchmarks.quality import small
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.source import Source
from onnxslim_learn.learners.weight_sparse import pipeline
from onnxslim_learn.learners.weight_sparse.settings import WeightSparseSettings, settings
from onnxslim_learn.sparse.maskable import layers
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.trainer import Task, Training, trainer
from onnxslim_learn.workflow import slim

SAMPLES, BATCH, JUDGED, FINAL = 512, 64, 1024, 4096  # images to fit on; of a batch; that judge a roll-out, and the best


def quiet(name: str) -> Callable[..., None]:
    """Say nothing."""
    return lambda *said: None


def judged(model: ir.Model, path: Path, data: small.Data) -> str:
    """What a model gets right, and how far it is from the original."""
    with tempfile.TemporaryDirectory() as folder:
        ir.save(model, Path(folder) / "sparse.onnx")
        files = (str(path), str(Path(folder) / "sparse.onnx"))
        before, after = (onnxruntime.InferenceSession(one).run(None, {"image": data.test})[0] for one in files)
    p, q = (torch.from_numpy(x).log_softmax(1) for x in (before, after))
    right, divergence = float((after.argmax(1) == data.classes).mean()), float((p.exp() * (p - q)).sum(1).mean())
    return f"{right:.2%}, {divergence:.4f} nats"


def one(name: str, seed: int, options: argparse.Namespace, folder: Path) -> None:
    """All spreads of one net and seed."""
    path, data = small.model(name, options.cache, NETS), NETS[name].data()
    net, order = slim.analyze(path), np.random.default_rng(seed).permutation(len(data.images))

    def source(begin: int, count: int) -> Source:
        arrays = {"image": data.images[order[begin : begin + count]]}
        return open_source(arrays, net.graph, DataSettings(samples=count, batch_size=BATCH, seed=seed))

    given = {"ws_prune_ratio": options.ratio, "ws_nb_rlouts": options.rollouts}
    given |= {"ws_nb_rlouts_min": options.rollouts // 3, "ws_nb_iters_ft": 0, "ws_nb_iters_feval": JUDGED // BATCH}
    wanted = WeightSparseSettings(settings(given), one_shot=True)
    training = Training(batch_size=BATCH, folder=folder, seed=seed, augment=options.augment)
    samples = source(0, SAMPLES)
    taught = trainer(net, samples, training, World(), stage=quiet, val=source(SAMPLES, FINAL))
    task: Task[Any] = Task(net, samples, wanted, taught, folder / "unused.onnx", quiet)
    listed = layers(net.graph.model)
    for protocol in options.protocols:
        begun = time.process_time()
        shares = pipeline._spread(protocol, task, listed)["ratios"]
        spent = time.process_time() - begun
        model = pipeline._sparsified(task, listed, shares, pipeline._record(task))
        said = judged(model, path, data)
        print(f"{name}, {options.ratio:.0%}, {seed}, {protocol}: {said}, {spent:.0f} s of CPU", flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="NET", default=["digits inception"], help=", ".join(NETS))
    parser.add_argument("--ratio", type=float, default=0.9, help="of the weights (default 0.9)")
    parser.add_argument("--rollouts", type=int, default=30, help="of the agent (default 30)")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--augment", nargs="*", default=(), help="how images are changed that roll-outs are judged on")
    parser.add_argument("--protocols", nargs="+", default=["heurist", "search", "optimal"])
    parser.add_argument("--cache", type=Path, default=small.CACHE, help="where nets are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.nets:
        for seed in map(int, options.seeds.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                one(name, seed, options, Path(folder))


if __name__ == "__main__":
    main()
