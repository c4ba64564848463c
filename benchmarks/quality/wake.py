"""Phrases that someone says, "hey jarvis" or others, and a network of features behind which a small one tells which.

Sound becomes a spectrogram, windows of it features, and 16 of these in a row how sure it is that the phrase was said,
as openWakeWord does it. The network of features (Google's speech_embedding) is what is cut.

apt-get install espeak-ng
"""

from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.quality import speech
from nets.pretrained import extract
from onnxslim_learn.runtime.session import open_session

PACKAGE, FOLDER = "openwakeword==0.4.0", "openwakeword/resources/models"
EMBEDDING = (PACKAGE, f"{FOLDER}/embedding_model.onnx")
SAID = "hey jarvis"
OTHERS = ("hey charles", "say jasmine", "hey there service", "hello world", "the jar is full", "hey", "play it again")
VOICES = (("en-us", "en-gb-scotland", "en-gb+f2"), ("en-us+f3", "en-gb-x-rp", "en-gb+m3"))
SECONDS, WINDOW, STEP, HISTORY = 3, 76, 8, 16  # of a recording; frames seen, between windows; windows in a row

Outputs = dict[str, np.ndarray]


def _sound(rng: np.random.Generator, part: int, text: str) -> speech.Floats:
    """A phrase that ends shortly before the recording does, over noise, in amplitudes of 16 bits."""
    heard = np.zeros(SECONDS * speech.RATE, np.float32)
    said = speech.said(rng, str(rng.choice(VOICES[part])), text)[: len(heard) - speech.RATE // 2]
    end = len(heard) - int(rng.integers(speech.RATE // 10, speech.RATE // 3))
    heard[end - len(said) : end] = said * rng.uniform(0.2, 0.9) / max(float(np.abs(said).max()), 1e-6)
    heard += rng.standard_normal(len(heard)) * 10 ** rng.uniform(-4, -2.5)
    return (2**15 * np.clip(heard, -1, 1)).astype(np.float32)


@cache
def recordings(count: int, part: int) -> tuple[speech.Floats, np.ndarray]:
    """Windows of spectrograms ``(count, windows, 76, 32, 1)``, and in which of the recordings the phrase is said."""
    rng = np.random.default_rng((12, part))
    wanted, spectrum = rng.random(count) < 0.5, open_session(extract(PACKAGE, f"{FOLDER}/melspectrogram.onnx"))
    windows = []
    for one in wanted:
        sound = _sound(rng, part, SAID if one else str(rng.choice(OTHERS)))
        frames = spectrum.run(None, {"input": sound[None]})[0].reshape(-1, 32) / 10 + 2
        windows.append(np.lib.stride_tricks.sliding_window_view(frames, WINDOW, 0)[::STEP].swapaxes(1, 2)[..., None])
    return np.stack(windows).astype(np.float32), wanted


def windows(count: int) -> Outputs:
    """So many windows of the recordings to repair with."""
    seen, _ = recordings(-(-count // 8), 0)
    every = seen.reshape(-1, *seen.shape[2:])
    return {"input_1": every[np.random.default_rng(0).permutation(len(every))[:count]]}


def judged(count: int) -> tuple[Outputs, np.ndarray]:
    """Recordings in other voices, and in which of them the phrase is said."""
    seen, wanted = recordings(count, 1)
    return {"input_1": seen}, wanted


def listen(model: Path, feeds: Outputs) -> Outputs:
    """How sure it is of the phrase at the surest moment of every recording."""
    session, last = open_session(model), open_session(extract(PACKAGE, f"{FOLDER}/hey_jarvis_v0.1.onnx"))
    sure = []
    for one in feeds["input_1"]:
        features = session.run(None, {"input_1": one})[0].reshape(len(one), -1)
        rows = np.lib.stride_tricks.sliding_window_view(features, HISTORY, 0).swapaxes(1, 2)
        sure.append(max(float(last.run(None, {"x.1": np.ascontiguousarray(row)[None]})[0].max()) for row in rows))
    return {"sure": np.array(sure)}


def told(outputs: Outputs, wanted: np.ndarray) -> float:
    """How often it is surer of a recording in which the phrase is said than of another: the area under the curve."""
    return float((outputs["sure"][wanted][:, None] > outputs["sure"][~wanted]).mean())
