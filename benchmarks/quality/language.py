"""What is left of a small model of language with a quarter of its parameters cut, ours and peers that cut decoders.

    pip install tokenizers; apt-get install manpages manpages-dev
    python -m benchmarks.quality.language [METHOD ...] [--target 0.75] [--cache FOLDER] [--seeds N] [--samples N]
        [--work W] [--json FILE]

A decoder of two million parameters is trained on manual pages (once: some minutes of one core) and exported; everyone
starts from those weights, sees the same text of the pages trained on, and is judged by the perplexity of pages that
nobody saw. Nothing is trained after a cut.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality import language_net, language_peers, manuals
from benchmarks.quality.train import CACHE
from onnxslim_learn.bases.principal import CHOICES
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.runtime.session import open_session
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim as api

JUDGED = 512  # stretches of held-back text
METHODS = {**{name: f"ours, --bases {name}" for name in CHOICES}, **{name: name for name in language_peers.PEERS}}
"""How a method is asked for -> how it is called in the report."""


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        method: Who cut it.
        seed: Of the samples.
        perplexity: Of held-back text.
        parameters: Share that is left.
        seconds: Of processor time that choosing, cutting and repairing took.
        widths: What is left of every group that was cut, where ours tells it.
    """

    method: str
    seed: int
    perplexity: float
    parameters: float
    seconds: float
    widths: dict[str, str]


@dataclass(frozen=True)
class Bench:
    """What all rows share.

    Attributes:
        net: The model as trained.
        path: The model as exported.
        trained: Tokens it was trained on.
        held_back: Tokens that nobody saw.
        target: Share of the parameters.
        count: Stretches of text to choose and to repair with.
        work: Multiply-accumulates to find widths with, as ``slim`` takes it; ``None`` for what is usual.
    """

    net: language_net.Language
    path: Path
    trained: NDArray[np.int64]
    held_back: NDArray[np.int64]
    target: float
    count: int
    work: float | None

    def perplexity(self, path: Path) -> float:
        """Of held-back text, each token told by those before it in a stretch."""
        session, lost = open_session(path), []
        for rows in np.split(language_net.windows(self.held_back, JUDGED, 0), JUDGED // 8):
            (logits,) = session.run(None, {"tokens": rows[:, :-1]})
            sure = torch.from_numpy(logits).log_softmax(-1).gather(2, torch.from_numpy(rows[:, 1:, None]))
            lost.append(-float(sure.mean()))
        return float(np.exp(np.mean(lost)))

    def samples(self, seed: int) -> NDArray[np.int64]:
        """Text to choose and to repair with."""
        return language_net.windows(self.trained, self.count, 1_000_000 + seed)[:, :-1]

    def ours(self, bases: str, seed: int, output: Path) -> dict[str, str]:
        """Cut as a user would; returns what is left of every group."""
        analysis = api.analyze(self.path, inputs={"tokens": (1, language_net.LENGTH)})
        settings = DataSettings(samples=self.count, batch_size=8)
        source = open_source({"tokens": self.samples(seed)}, analysis.graph, settings)
        calibration = Calibration(analysis.coupling, source, work=self.work)
        target = {"params": self.target}
        slimmed, _ = api.slim_to(analysis, target, output, calibration=calibration, bases=bases, multiple="auto")
        widths = {group.name: group.width for group in slimmed.analysis.groups}
        return {name: f"{len(kept)} of {widths[name]}" for name, kept in slimmed.plan.groups.items()}

    def row(self, method: str, seed: int) -> Row:
        """One result."""
        whole = parameters(self.path)
        with tempfile.TemporaryDirectory() as folder:
            output, widths, start = Path(folder) / "cut.onnx", {}, time.process_time()
            if method in CHOICES:
                widths = self.ours(method, seed, output)
            else:
                tables = whole - language_peers.parameters(self.net)  # of positions, which the file counts, too
                bound, tokens = self.target * whole - tables, torch.from_numpy(self.samples(seed))
                cut = language_peers.at_parameters(self.net, tokens, bound, method)
                language_net.export(cut, output)
            seconds, left = time.process_time() - start, parameters(output) / whole
            return Row(METHODS[method], seed, self.perplexity(output), left, seconds, widths)


def parameters(path: Path) -> int:
    """Numbers in all weights of a file."""
    analysis = api.analyze(path, inputs={"tokens": (1, language_net.LENGTH)})
    return analysis.price(analysis.whole)["params"]


def make(cache: Path, **asked: Any) -> Bench:
    """Train the model unless the cache has it, and export it."""
    weights, text = cache / "language.pt", cache / "language.npz"
    cache.mkdir(parents=True, exist_ok=True)
    if not text.is_file():
        trained, held_back, _ = manuals.tokens(manuals.pages())
        np.savez(text.with_suffix(".part.npz"), trained=trained, held_back=held_back)
        text.with_suffix(".part.npz").rename(text)
    tokens = np.load(text)
    if not weights.is_file():
        torch.save(language_net.train(tokens["trained"]).state_dict(), weights.with_suffix(".part"))
        weights.with_suffix(".part").rename(weights)
    net = language_net.Language()
    net.load_state_dict(torch.load(weights, weights_only=True))
    net.eval()
    if not (cache / "language.onnx").is_file():
        language_net.export(net, cache / "language.onnx")
    return Bench(net, cache / "language.onnx", tokens["trained"], tokens["held_back"], **asked)


def summary(rows: list[Row]) -> list[dict[str, Any]]:
    """Mean and spread over seeds, method by method."""
    told = []
    for method in dict.fromkeys(row.method for row in rows):
        found = [row for row in rows if row.method == method]
        values = [row.perplexity for row in found]
        entry = {"method": method, "perplexity": statistics.fmean(values), "seeds": len(values)}
        entry |= {"spread": statistics.stdev(values) if len(values) > 1 else 0.0}
        told.append(entry | {"parameters": found[0].parameters, "seconds": max(row.seconds for row in found)})
    return told


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", default=list(METHODS), help=", ".join(METHODS))
    parser.add_argument("--target", type=float, default=0.75, help="share of the parameters (default 0.75)")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"where the model is kept (default {CACHE})")
    parser.add_argument("--seeds", type=int, default=3, help="text is drawn so many times (default 3)")
    parser.add_argument("--samples", type=int, default=256, help="stretches of text to cut with (default 256)")
    parser.add_argument("--work", type=float, help="multiply-accumulates to find widths with; 0: all groups alike")
    parser.add_argument("--json", type=Path, help="write all rows here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = make(options.cache, target=options.target, count=options.samples, work=options.work)
    dense = bench.perplexity(bench.path)
    rows = [Row("dense", 0, dense, 1.0, 0.0, {})]
    print(f"dense: {dense:.2f}", flush=True)
    for method in options.methods:
        for seed in range(1 if method == "magnitude" else options.seeds):
            rows.append(bench.row(method, seed))
            row = rows[-1]
            print(f"{row.method}, {seed}: {row.perplexity:.2f}, {row.parameters:.1%}, {row.seconds:.0f} s", flush=True)
    print("\n| method | parameters | perplexity | s |\n| --- | --- | --- | --- |")
    for one in summary(rows):
        told = f"{one['perplexity']:.2f} ± {one['spread']:.2f}" if one["seeds"] > 1 else f"{one['perplexity']:.2f}"
        print(f"| {one['method']} | {one['parameters']:.1%} | {told} | {one['seconds']:.0f} |")
    if options.json:
        told = {"target": options.target, "summary": summary(rows), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
