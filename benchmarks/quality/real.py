"""Pretrained models at 70 % of their MACs: how far their outputs move, on inputs of their kind.

pip install scikit-image scikit-learn matplotlib
python -m benchmarks.quality.real [MODEL ...] [--target 0.7] [--samples N] [--json FILE]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.quality import kinds
from nets.pretrained import fetch
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.metrics import deviation
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim

COSINE = 0.98  # wanted of every output
JUDGED = 32  # samples


@dataclass(frozen=True)
class Kind:
    """What a model takes.

    Attributes:
        input: Its only input.
        shape: Of one sample.
        draw: Draws one image of a size, from one part of what there is.
        mean: Taken out of pixels over 255.
        std: Divides them.
    """

    input: str
    shape: tuple[int, ...]
    draw: Callable[..., Any]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def sample(self, rng: np.random.Generator, part: int) -> np.ndarray:
        """One sample as the model takes it."""
        if len(self.shape) == 1:
            return self.draw(rng, part)
        return self.prepared(self.draw(rng, part, self.shape[1:]))

    def prepared(self, image: Any) -> np.ndarray:
        """An image as the model takes it."""
        pixels = np.asarray(image, np.float32) / 255
        return ((pixels - self.mean) / self.std).transpose(2, 0, 1).astype(np.float32)

    def samples(self, count: int, part: int, seed: int = 0) -> np.ndarray:
        """So many samples."""
        return np.stack([self.sample(np.random.default_rng((seed, part, k)), part) for k in range(count)])


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5,), (0.5,))
MODELS = {
    "yolov8n": Kind("images", (3, 320, 320), kinds.crop),
    "ppocr_det": Kind("x", (3, 320, 320), kinds.page, *IMAGENET),
    "ppocr_cls": Kind("x", (3, 48, 192), kinds.turned, *HALVES),
    "ppocr_rec": Kind("x", (3, 48, 320), kinds.line, *HALVES),
    "magika": Kind("bytes", (2048,), kinds.contents),
}


def outputs(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of a model, run sample by sample."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    runs = [session.run(None, {k: x[n : n + 1] for k, x in feeds.items()}) for n in range(JUDGED)]
    return {name: np.concatenate([run[k] for run in runs]) for k, name in enumerate(names)}


def measure(name: str, target: float, count: int) -> list[dict[str, Any]]:
    """A pretrained model without and with repair."""
    kind, path = MODELS[name], fetch(name)
    judged = {kind.input: kind.samples(JUDGED, part=1)}
    wanted = outputs(path, judged)
    analysis = slim.analyze(path, inputs={kind.input: (1, *kind.shape)})
    source = open_source(
        {kind.input: kind.samples(count, part=0)}, analysis.graph, DataSettings(samples=count, batch_size=8)
    )
    found = []
    for repaired in (False, True):
        start = time.perf_counter()
        calibration = Calibration(analysis.coupling, source) if repaired else None
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "slim.onnx"
            slimmed, _ = slim.slim_to(analysis, {"macs": target}, output, calibration=calibration)
            seconds = time.perf_counter() - start
            moved = deviation(wanted, outputs(output, judged))
        made = slimmed.plan.provenance
        cosine = min(one.cosine for one in moved.values())
        entry = {"model": name, "repaired": repaired, "macs": made["after"]["macs"] / made["before"]["macs"]}
        entry |= {"cosine": cosine, "met": cosine > COSINE, "seconds": seconds}
        found.append(entry | {"outputs": {k: asdict(one) for k, one in moved.items()}})
        print(
            f"{name:10} {entry['macs']:5.1%} of the MACs, {'repaired' if repaired else 'as cut  '}: "
            f"cosine {cosine:.4f}, {seconds:.0f} s",
            flush=True,
        )
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(MODELS), help=", ".join(MODELS))
    parser.add_argument("--target", type=float, default=0.7, help="share of the MACs (default 0.7)")
    parser.add_argument("--samples", type=int, default=512, help="to repair with (default 512)")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    found = [row for name in options.models for row in measure(name, options.target, options.samples)]
    if options.json:
        options.json.write_text(json.dumps({"target": options.target, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
