"""Whether verdicts agree with the task: pretrained models cut by one command each, on inputs of their kind and made up.

    pip install scikit-image scikit-learn matplotlib tokenizers
    python -m benchmarks.quality.verdicts [MODEL ...] [--target 0.6] [--samples N] [--work W] [--json FILE]

What the task says is no part of the tool: the score of faces, text read exactly, kinds of files named rightly, passages
found by their first sentence. It is computed from the files before and after, on inputs that the command never saw.
Exits with 1 where a verdict disagrees.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.quality import kinds, passages, real
from nets.pretrained import MODELS, extract, fetch
from onnxslim_learn.runtime.session import open_session

JUDGED = 192  # inputs that the task is measured on
FACES = (1, 12)  # the classes of faces
SEVERAL = ("insightface==2.1", "insightface/data/images")  # photographs of people
PEOPLE = (  # of either part: a photograph, the middle of a face in it, and half a side around that; none is in both
    (
        ("astronaut.png", 225, 120, 130),
        ("t1.jpg", 327, 219, 100),
        ("t1.jpg", 512, 358, 100),
        ("t1.jpg", 792, 426, 100),
        ("t1.jpg", 961, 141, 100),
    ),
    (
        ("grace_hopper.jpg", 260, 170, 150),
        ("Tom_Hanks_54745.png", 46, 60, 60),
        ("t1.jpg", 117, 346, 100),
        ("t1.jpg", 1177, 347, 100),
    ),
)
KINDS = {
    ".py": "python",
    ".pyc": "pythonbytecode",
    ".so": "elf",
    ".txt": "txt",
    ".json": "json",
    ".h": "c",
    ".html": "html",
    ".png": "png",
    ".jpg": "jpeg",
    ".gz": "gzip",
    ".npz": "npz",
    ".toml": "toml",
    ".md": "markdown",
    ".css": "css",
}
BILINEAR = Image.Resampling.BILINEAR
GOOD, LOST = 0.9, 0.5  # of what the task says is left


@dataclass(frozen=True)
class Task:
    """What a model is for.

    Attributes:
        says: What is measured.
        samples: So many inputs of its kind to cut with.
        shapes: How large inputs are where the file leaves that open, as on the command line.
        inputs: So many inputs to measure on, and what is right of each.
        score: That of outputs by name, given what is right.
    """

    says: str
    samples: Callable[[int], dict[str, np.ndarray]]
    shapes: tuple[str, ...]
    inputs: Callable[[int], tuple[dict[str, np.ndarray], Any]]
    score: Callable[[dict[str, np.ndarray], Any], float]


def drawn(name: str) -> Callable[[int], dict[str, np.ndarray]]:
    """Inputs of a model's kind, of the part to repair with."""
    kind = real.MODELS[name]
    return lambda count: {kind.input: kind.samples(count, part=0)}


@cache
def photograph(name: str) -> Image.Image:
    """A photograph of people, by its name."""
    known = {photo: path for part in (0, 1) for photo, path in kinds.paths(part)}
    path = known.get(name) or extract(SEVERAL[0], f"{SEVERAL[1]}/{name}")
    return Image.open(path).convert("RGB")


def faced(rng: np.random.Generator, part: int) -> np.ndarray:
    """A part of a photograph around the face of someone."""
    name, x, y, half = PEOPLE[part][rng.integers(len(PEOPLE[part]))]
    side, middle = half * rng.uniform(0.6, 1.1), np.array([x, y]) + rng.uniform(-0.2, 0.2, 2) * half
    corners = (*(middle - side), *(middle + side))
    image = photograph(name).transform((320, 320), Image.Transform.EXTENT, corners, BILINEAR)
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 255


def people(count: int) -> dict[str, np.ndarray]:
    """Photographs, half of them of the face of someone."""
    shown = [faced(np.random.default_rng((4, k)), 0) for k in range(count - count // 2)]
    return {"images": np.concatenate([real.MODELS["yolov8n"].samples(count // 2, part=0), np.stack(shown)])}


def faces(count: int) -> tuple[dict[str, np.ndarray], None]:
    """Faces of the people of the other part."""
    return {"images": np.stack([faced(np.random.default_rng((1, k)), 1) for k in range(count)])}, None


def face_score(outputs: dict[str, np.ndarray], _: None) -> float:
    """The mean score of the surest face."""
    return float(outputs["output0"][:, [4 + k for k in FACES]].max(axis=(1, 2)).mean())


def lines(count: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Lines of text in fonts of the other part, and what they say."""
    pixels, texts = [], []
    for k in range(20 * count):
        image, text = kinds.written(np.random.default_rng((2, k)), 1, (48, 320))
        if text and len(texts) < count:
            pixels.append((np.asarray(image, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5)
            texts.append(text)
    return {"x": np.stack(pixels).astype(np.float32)}, texts


@cache
def alphabet(model: Path) -> list[str]:
    """The characters that a reader of PP-OCR tells apart, as its file names them."""
    return ["", *open_session(model).get_modelmeta().custom_metadata_map["character"].splitlines(), " "]


def exact(outputs: dict[str, np.ndarray], texts: list[str], characters: list[str] | None = None) -> float:
    """Share of lines that are read exactly, spaces aside."""
    characters = characters or alphabet(fetch("ppocr_rec"))
    (chosen,) = (output.argmax(axis=-1) for output in outputs.values())
    read = ["".join(characters[c] for c, before in zip(row, [0, *row], strict=False) if c != before) for row in chosen]
    return float(np.mean([a.replace(" ", "") == b.replace(" ", "") for a, b in zip(read, texts, strict=True)]))


def files(count: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Beginnings and ends of files of the other part, and their suffixes."""
    rows = [kinds.file(np.random.default_rng((3, k)), 1) for k in range(count)]
    return {"bytes": np.stack([row for row, _ in rows])}, [suffix for _, suffix in rows]


def named(outputs: dict[str, np.ndarray], suffixes: list[str]) -> float:
    """Share of files whose kind is named rightly."""
    told = extract(MODELS["magika"][0], "magika/models/standard_v3_3/config.min.json")
    labels = json.loads(told.read_text())["target_labels_space"]
    (chosen,) = (output.argmax(axis=-1) for output in outputs.values())
    return float(np.mean([labels[k] == KINDS[suffix] for k, suffix in zip(chosen, suffixes, strict=True)]))


def searched(count: int) -> tuple[dict[str, np.ndarray], None]:
    """First sentences of passages, each with what follows it."""
    return passages.tokens([text for pair in zip(*passages.pairs(1, count), strict=True) for text in pair]), None


def retrieval(outputs: dict[str, np.ndarray], _: None) -> float:
    """Share of first sentences to which their own passage is the nearest of the ``JUDGED`` beside it."""
    rows = outputs["461"] / np.linalg.norm(outputs["461"], axis=1, keepdims=True)
    several = [rows[n : n + 2 * JUDGED] for n in range(0, len(rows), 2 * JUDGED)]
    nearest = [(one[0::2] @ one[1::2].T).argmax(axis=1) for one in several]
    return float(np.concatenate([places == np.arange(len(places)) for places in nearest]).mean())


def texts(count: int) -> dict[str, np.ndarray]:
    """Sentences and passages of the part to repair with."""
    return passages.tokens([text for pair in zip(*passages.pairs(0, count // 2), strict=True) for text in pair])


TASKS = {
    "yolov8n": Task("score of faces", people, ("images:1x3x320x320",), faces, face_score),
    "ppocr_rec": Task("text read exactly", drawn("ppocr_rec"), ("x:1x3x48x320",), lines, exact),
    "magika": Task("kind of file", drawn("magika"), (), files, named),
    "minilm": Task(
        "passage found",
        texts,
        (f"input_ids:1x{passages.LENGTH}", f"attention_mask:1x{passages.LENGTH}"),
        searched,
        retrieval,
    ),
}


def outputs_of(model: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a model puts out, 8 samples at a time."""
    session = open_session(model)
    names = [one.name for one in session.get_outputs()]
    count = len(next(iter(feeds.values())))
    runs = [session.run(None, {k: x[n : n + 8] for k, x in feeds.items()}) for n in range(0, count, 8)]
    return {name: np.concatenate([run[k] for run in runs]) for k, name in enumerate(names)}


def agrees(verdict: Mapping[str, Any], given: bool, left: float) -> bool:
    """Whether words fit what is left of the task; of made-up inputs nothing is claimed, and real ones are asked for."""
    word = str(verdict["quality"]).removeprefix("looks ").split(maxsplit=1)[0].strip(",.:")
    if not given:
        return word == "unknown" and "--data" in (verdict["next"] or {}).get("command", "")
    allowed = {"good": left >= GOOD, "lower": left >= LOST, "DESTROYED": left < GOOD}
    return allowed.get(word, False)


def cut(name: str, given: bool, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Cut a model by one command, and ask the task."""
    task, model, output = TASKS[name], fetch(name), folder / "slim.onnx"
    words = ["slim", str(model), "-o", str(output), "--target", f"macs={options.target:g}"]
    words += [word for shape in task.shapes for word in ("--input", shape)]
    if given:
        np.savez(folder / "samples.npz", **task.samples(options.samples))
        words += ["--data", str(folder / "samples.npz")]
        words += ["--work", options.work] if options.work else []
    command = [sys.executable, "-m", "onnxslim_learn", *words, "--no-latency", "--json", str(folder / "report.json")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{name}: {ended.stderr.strip()[-1500:]}")
    report = json.loads((folder / "report.json").read_text())
    feeds, right = task.inputs(JUDGED)
    before, after = (task.score(outputs_of(file, feeds), right) for file in (model, output))
    told = report["verdict"]["quality"]
    line = " ".join(words).replace(str(model), model.name).replace(f"{folder}/", "")
    agree = agrees(report["verdict"], given, after / before)
    row = {"model": name, "given": given, "command": line, "verdict": told, "says": task.says}
    return {**row, "before": before, "after": after, "agree": agree, "next": report["verdict"]["next"]}


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(TASKS), help=", ".join(TASKS))
    parser.add_argument("--target", type=float, default=0.6, help="share of the MACs (default 0.6)")
    parser.add_argument("--samples", type=int, default=128, help="of its kind to cut with (default 128)")
    parser.add_argument("--work", help="multiply-accumulates to choose widths with (default: that of slim)")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    rows = []
    print("| command | verdict | task | before | after | agree |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    for name in options.models:
        for given in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                row = cut(name, given, options, Path(folder))
            rows.append(row)
            agree = "yes" if row["agree"] else "NO"
            print(
                f"| `{row['command']}` | {row['verdict']} | {row['says']} | {row['before']:.3f} | {row['after']:.3f} |"
                f" {agree} |",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"target": options.target, "rows": rows}, indent=1) + "\n")
    return int(not all(row["agree"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
