"""What repair on made-up inputs does to nets whose real data is known: never worse than no repair by over a point.

    python -m benchmarks.quality.made_up [NET ...] [--targets 0.7 0.5] [--samples 32] [--multiple N]

Nets are trained on first use (two minutes on an idle core). Columns: accuracy of the original on held-out real samples,
cut without repair (``slim --no-repair``), repaired on made-up inputs (``slim``), and on so many real ones (``--data``);
all at any width (``slim --multiple 1``) unless ``--multiple`` says otherwise.
Exits with 1 where the rule is broken.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality import small
from onnxslim_learn import demo
from onnxslim_learn.analysis import Analysis, analyze
from onnxslim_learn.data.class_balance import confident
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.source import Source
from onnxslim_learn.readers import multiple_of
from onnxslim_learn.runtime.session import open_session
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim
from onnxslim_learn.workflow.samples import affordable, topped_up

ALLOWED = 0.01  # of accuracy, under no repair
DEMO = "demo"


@dataclass(frozen=True)
class Net:
    """A trained net with its data."""

    name: str
    path: Path
    data: small.Data

    def accuracy(self, path: Path) -> float:
        """Share of held-out samples that a model of it gets right."""
        (logits,) = open_session(path).run(None, {"image": self.data.test})
        return float((np.asarray(logits).argmax(axis=1) == self.data.classes).mean())


@dataclass(frozen=True)
class Row:
    """Accuracy of a net before and after a cut.

    Attributes:
        net: Its name.
        target: Share of its MACs that is left.
        dense: Accuracy of the original.
        plain: That of the cut net without repair.
        made_up: Repaired on made-up inputs.
        real: Repaired on real ones.
    """

    net: str
    target: float
    dense: float
    plain: float
    made_up: float
    real: float

    @property
    def held(self) -> bool:
        """Whether repair on made-up inputs did no harm."""
        return self.made_up >= self.plain - ALLOWED

    def __str__(self) -> str:
        numbers = "".join(f"{100 * x:11.1f}" for x in (self.dense, self.plain, self.made_up, self.real))
        return f"{self.net:34}{self.target:6.0%}{numbers}{'' if self.held else '   HARM'}"


HEAD = f"{'net':34}{'MACs':>6}{'original':>11}{'no repair':>11}{'made-up':>11}{'real':>11}"


def net(name: str, cache: Path = small.CACHE) -> Net:
    """A net by name, trained unless the cache has it."""
    if name != DEMO:
        return Net(name, small.model(name, cache), small.SMALL[name].data())
    held, known = demo.held_out(), demo.calibration()["image"]
    return Net(
        name, demo.model_path(), small.Data(known, np.zeros(len(known), np.int64), held["image"], held["labels"])
    )


def rows(one: Net, targets: list[float], samples: int, multiple: int | str = 1) -> Iterator[Row]:
    """Cut a net to every target."""
    analysis = analyze(one.path)
    made_up = confident(analysis.coupling, DataSettings(samples=affordable(analysis.coupling)))
    real = open_source({"image": one.data.images[:samples]}, analysis.graph)
    dense = one.accuracy(one.path)
    for target in targets:
        found = [cut(one, analysis, target, source, multiple) for source in (None, made_up, real)]
        yield Row(one.name, target, dense, *found)


def cut(one: Net, analysis: Analysis, target: float, source: Source | None, multiple: int | str = 1) -> float:
    """Accuracy after a cut, without repair where there are no samples, as the command line does it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "slim.onnx"
        calibration = None
        if source is not None:
            calibration = topped_up(Calibration(analysis.coupling, source, work=0), DataSettings())
        slim.slim_to(analysis, {"macs": target}, output, calibration=calibration, multiple=multiple)
        return one.accuracy(output)


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [DEMO, *small.SMALL]
    parser.add_argument("nets", nargs="*", metavar="NET", default=names, help=", ".join(names))
    parser.add_argument("--targets", type=float, nargs="+", default=[0.7, 0.5], help="shares of the MACs")
    parser.add_argument("--samples", type=int, default=32, help="real samples (default 32)")
    parser.add_argument("--multiple", type=multiple_of, default=1, help="of widths, as slim takes it (default 1)")
    parser.add_argument("--cache", type=Path, default=small.CACHE, help="where nets are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(HEAD)
    held = True
    for name in options.nets:
        for row in rows(net(name, options.cache), options.targets, options.samples, options.multiple):
            print(row, flush=True)
            held &= row.held
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
