"""What is left of what pretrained models are for, at 70 and 50 % of their MACs, nothing trained.

    pip install scikit-image scikit-learn matplotlib tokenizers; apt-get install espeak-ng
    python -m benchmarks.quality.pretrained [MODEL ...] [--targets 0.7,0.5] [--samples N] [--work W] [--json FILE]

Each is cut by one command on inputs of its kind, and judged from the files on inputs that the command never saw, drawn
from other photographs, fonts, files, texts and voices. Detections are held against those of the original; everything
else against what is right.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.quality import kinds, passages, real, speech, verdicts
from nets.pretrained import fetch

Outputs = dict[str, np.ndarray]
Boxes = np.ndarray  # (n, 4): left, top, right, bottom

SURE, FAINT, OVERLAP = 0.25, 0.01, 0.45  # scores of detections that count, that are held against them; NMS
MATCH = 0.5  # intersection over union
OFTEN = 10  # detections of a class by the original; of fewer, a precision says nothing
INK, TEXT, GROWN = 0.3, 0.6, 1.5  # PP-OCR: probability of a pixel, mean of a box, and how far its borders lie outside
SMALLEST = 3  # pixels of a side


@dataclass(frozen=True)
class Aim:
    """What a model is for, and how little of it may be lost.

    Attributes:
        says: What is measured.
        samples: So many inputs of its kind to cut with.
        inputs: So many inputs to judge on, and what is right of each; ``None`` where the original tells that.
        score: That of outputs by name, given what is right, or the original's outputs.
        lost: How much less than the original's it may be at 70 % of the MACs.
        shapes: How large inputs are where the file leaves that open, as on the command line.
        judged: How many inputs it is judged on.
        run: What a model makes of inputs.
    """

    says: str
    samples: Callable[[int], Outputs]
    inputs: Callable[[int], tuple[Outputs, Any]]
    score: Callable[[Outputs, Any], float]
    lost: float
    shapes: tuple[str, ...] = ()
    judged: int = verdicts.JUDGED
    run: Callable[[Path, Outputs], Outputs] = verdicts.outputs_of


def overlaps(first: Boxes, second: Boxes) -> np.ndarray:
    """Intersection over union of all pairs, ``(n, m)``."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return inside / np.maximum(areas[0][:, None] + areas[1][None] - inside, 1e-9)


def detections(rows: np.ndarray, least: float) -> list[tuple[int, float, np.ndarray]]:
    """Class, score and box of what a YOLOv8 finds in an image, ``(4 + classes, n)``, overlapping ones suppressed."""
    middle, half = rows[:2].T, rows[2:4].T / 2
    boxes, found = np.concatenate([middle - half, middle + half], 1), []
    for kind, scores in enumerate(rows[4:]):
        left = np.flatnonzero(scores >= least)
        left = left[np.argsort(-scores[left], kind="stable")]
        while len(left):
            found.append((kind, float(scores[left[0]]), boxes[left[0]]))
            left = left[1:][overlaps(boxes[left[:1]], boxes[left[1:]])[0] < OVERLAP]
    return found


def precision(outputs: Outputs, wanted: Outputs) -> float:
    """Mean average precision at an overlap of a half against the original's detections, over classes it finds often."""
    true = [detections(rows, SURE) for rows in wanted["output0"]]
    told = [detections(rows, FAINT) for rows in outputs["output0"]]
    often = Counter(kind for image in true for kind, _, _ in image)
    return float(np.mean([_average(kind, true, told) for kind, count in sorted(often.items()) if count >= OFTEN]))


def _average(kind: int, true: list[Any], told: list[Any]) -> float:
    """The area under precision by recall of one class, precision made monotone."""
    hits: list[tuple[float, bool]] = []
    total = 0
    for wanted, found in zip(true, told, strict=True):
        left = [box for k, _, box in wanted if k == kind]
        total += len(left)
        for score, box in ((score, box) for k, score, box in found if k == kind):
            shared = overlaps(box[None], np.array(left))[0] if left else np.zeros(0)
            hit = bool(len(shared)) and shared.max() >= MATCH
            hits.append((score, hit))
            if hit:
                left.pop(int(shared.argmax()))
    right = np.array([hit for _, hit in sorted(hits, key=lambda one: -one[0])], float)
    precisions = right.cumsum() / np.arange(1, len(right) + 1)
    return float((np.maximum.accumulate(precisions[::-1])[::-1] * right).sum() / total)


def lines_of(probabilities: np.ndarray) -> Boxes:
    """Upright boxes of the lines of text in a map of probabilities ``(1, H, W)`` (DB, arXiv:1911.08947)."""
    found = []
    for part in ndimage.find_objects(ndimage.label(probabilities[0] > INK, np.ones((3, 3)))[0]):
        height, width = (one.stop - one.start for one in part)
        if min(height, width) < SMALLEST or probabilities[0][part].mean() < TEXT:
            continue
        more = height * width * GROWN / (2 * (height + width))
        found.append((part[1].start - more, part[0].start - more, part[1].stop + more, part[0].stop + more))
    return np.array(found, float).reshape(-1, 4)


def hmean(outputs: Outputs, wanted: Outputs) -> float:
    """Harmonic mean of precision and recall of lines of text against the original's."""
    both, told, true = 0, 0, 0
    for found, right in zip(*(next(iter(one.values())) for one in (outputs, wanted)), strict=True):
        boxes = lines_of(found), lines_of(right)
        shared = overlaps(*boxes)
        told, true = told + len(boxes[0]), true + len(boxes[1])
        while shared.size and shared.max() >= MATCH:
            row, column = np.unravel_index(shared.argmax(), shared.shape)
            shared[row], shared[:, column], both = 0, 0, both + 1
    return 2 * both / max(told + true, 1)


def pages(count: int) -> tuple[Outputs, None]:
    """Pages of text of the other part."""
    return {"x": real.MODELS["ppocr_det"].samples(count, part=1)}, None


def photographs(count: int) -> tuple[Outputs, None]:
    """Photographs of the other part, half of them of the face of someone."""
    shown = [verdicts.faced(np.random.default_rng((6, k)), 1) for k in range(count - count // 2)]
    return {"images": np.concatenate([real.MODELS["yolov8n"].samples(count // 2, part=1), np.stack(shown)])}, None


def turned(count: int, kind: real.Kind = real.MODELS["ppocr_cls"]) -> tuple[Outputs, np.ndarray]:
    """Lines of text of the other part, half of them upside down, and which."""
    rng, pixels = np.random.default_rng(7), []
    down = rng.random(count) < 0.5
    for k in range(count):
        image = kinds.line(np.random.default_rng((7, k)), 1, kind.shape[1:]).rotate(180 if down[k] else 0)
        pixels.append(kind.prepared(image))
    return {kind.input: np.stack(pixels)}, down


def direction(outputs: Outputs, down: np.ndarray) -> float:
    """Share of lines whose direction is found."""
    (told,) = outputs.values()
    return float((told.argmax(-1) == down).mean())


def voices(count: int) -> tuple[Outputs, np.ndarray]:
    """Recordings of the other part, and where someone speaks."""
    lines, speaks = speech.recordings(count, 1)
    return {"input": lines}, speaks


def heard(outputs: Outputs, speaks: np.ndarray) -> float:
    """Share of steps in which it is told rightly whether someone speaks."""
    return float(((outputs["output"] > 0.5) == speaks).mean())


LENGTH = passages.LENGTH
TASKS, SAMPLES = verdicts.TASKS, verdicts.drawn
AIMS = {
    "silero_vad": Aim(
        "steps told rightly",
        speech.moments,
        voices,
        heard,
        0.003,
        shapes=("input:1x576", "state:2x1x128"),
        judged=48,
        run=lambda model, feeds: {"output": speech.listen(model, feeds["input"])[0]},
    ),
    "magika": Aim("kind of file", SAMPLES("magika"), verdicts.files, verdicts.named, 0.005, judged=1000),
    "ppocr_cls": Aim(
        "direction of a line", SAMPLES("ppocr_cls"), turned, direction, 0.01, ("x:1x3x48x192",), judged=1000
    ),
    "minilm": Aim(
        "passage found",
        TASKS["minilm"].samples,
        verdicts.searched,
        verdicts.retrieval,
        0.01,
        TASKS["minilm"].shapes,
        judged=16 * verdicts.JUDGED,
    ),
    "ppocr_rec": Aim(
        "text read exactly", SAMPLES("ppocr_rec"), verdicts.lines, verdicts.exact, 0.01, TASKS["ppocr_rec"].shapes
    ),
    "yolov8n": Aim("mAP by the original's", verdicts.people, photographs, precision, 0.05, TASKS["yolov8n"].shapes),
    "ppocr_det": Aim(
        "hmean by the original's", SAMPLES("ppocr_det"), pages, hmean, 0.03, ("x:1x3x320x320",), judged=64
    ),
}


def cut(name: str, target: float, options: argparse.Namespace, folder: Path) -> tuple[Path, str, float]:
    """Cut a model by one command; returns the file, the command and its seconds."""
    aim, model, output = AIMS[name], _file(name), folder / "slim.onnx"
    np.savez(folder / "samples.npz", **aim.samples(options.samples))
    words = ["slim", str(model), "-o", str(output), "--target", f"macs={target:g}", "--multiple", options.multiple]
    words += [word for shape in aim.shapes for word in ("--input", shape)]
    words += ["--data", str(folder / "samples.npz"), *(["--work", options.work] if options.work else [])]
    start = time.perf_counter()
    command = [sys.executable, "-m", "onnxslim_learn", *words, "--no-latency", "--json", str(folder / "report.json")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{name}: {ended.stderr.strip()[-1500:]}")
    line = " ".join(words).replace(str(model), model.name).replace(f"{folder}/", "")
    return output, line, time.perf_counter() - start


def rows(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A model at all targets."""
    aim = AIMS[name]
    feeds, right = aim.inputs(aim.judged)
    whole = aim.run(_file(name), feeds)
    right = whole if right is None else right
    before, told = aim.score(whole, right), []
    for target in options.targets:
        with tempfile.TemporaryDirectory() as folder:
            output, line, seconds = cut(name, target, options, Path(folder))
            after = aim.score(aim.run(output, feeds), right)
        allowed = aim.lost if target == max(options.targets) else None
        row = {"model": name, "says": aim.says, "target": target, "before": before, "after": after, "allowed": allowed}
        told.append(row | {"seconds": seconds, "command": line})
        bound = "" if allowed is None else f"{allowed:g}{'' if before - after <= allowed else ', missed'}"
        print(
            f"| {name} | {target:.0%} | {aim.says} | {before:.3f} | {after:.3f} | {bound} | {seconds:.0f} |", flush=True
        )
    return told


def _file(name: str) -> Path:
    return speech.detector() if name == "silero_vad" else fetch(name)


def _shares(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(AIMS), help=", ".join(AIMS))
    parser.add_argument("--targets", type=_shares, default=(0.7, 0.5), help="shares of the MACs (default 0.7,0.5)")
    parser.add_argument("--samples", type=int, default=256, help="of its kind to cut with (default 256)")
    parser.add_argument("--multiple", default="auto", help="of widths, as slim takes it (default auto)")
    parser.add_argument("--work", help="multiply-accumulates to choose widths with (default: that of slim)")
    parser.add_argument("--json", type=Path, help="write the result here, and keep what it has of other models")
    options = parser.parse_args()
    print("| model | MACs | task | before | after | may be lost | s |\n| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.models:
        told = rows(name, options)
        if options.json:
            known = json.loads(options.json.read_text()) if options.json.is_file() else []
            kept = [
                row for row in known if (row["model"], row["target"]) not in {(r["model"], r["target"]) for r in told}
            ]
            options.json.write_text(json.dumps(kept + told, indent=1) + "\n")


if __name__ == "__main__":
    main()
