"""Recordings of speech between silence, synthesized and laid over noise, and a detector of speech that keeps a state.

apt-get install espeak-ng
"""

import io
import subprocess
import wave
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from benchmarks.quality import passages
from nets.pretrained import extract
from onnxslim_learn.runtime.session import open_session

DETECTOR = ("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k_op15.onnx")
RATE, CHUNK, BEFORE = 16_000, 512, 64  # samples a second, of a step, and of the step before that are seen again
STEPS = 320  # of a recording: ten seconds
STATE = (2, 128)
VOICES = (("en-us", "en-gb", "de", "fr", "ru"), ("en-us+f3", "es", "it", "pl", "pt"))  # to repair with, to judge on
WINDOW, QUIET = 480, 0.02  # samples, and share of the largest amplitude under which a window holds no speech

Floats = NDArray[np.float32]


@cache
def _sentences(part: int) -> tuple[str, ...]:
    return passages.pairs(part, 400, packages=())[0]


def said(rng: np.random.Generator, voice: str, text: str) -> Floats:
    """A text in a voice, at some speed and pitch."""
    words = ["-v", voice, "-s", str(rng.integers(120, 220)), "-p", str(rng.integers(10, 90))]
    sound = subprocess.run(["espeak-ng", *words, "--stdout", "--", text[:200]], capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(sound)) as file:
        whole, rate = file.readframes(1 << 30), file.getframerate()
    heard = np.frombuffer(whole[: len(whole) // 2 * 2], np.int16) / 2**15
    return signal.resample_poly(heard, RATE // 50, rate // 50).astype(np.float32)


def recording(rng: np.random.Generator, part: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Chunks of a recording, ``(STEPS, BEFORE + CHUNK)``, and in which of them someone speaks."""
    heard = np.zeros(STEPS * CHUNK, np.float32)
    start = int(rng.integers(0, 2 * RATE))
    while start < len(heard) - RATE // 2:
        voice, text = rng.choice(VOICES[part]), rng.choice(_sentences(part))
        sentence = said(rng, voice, text)[: len(heard) - start]
        loudest = max(float(np.abs(sentence).max()), 1e-6)
        heard[start : start + len(sentence)] = sentence * rng.uniform(0.2, 1.0) / loudest
        start += len(sentence) + int(rng.integers(RATE // 2, 3 * RATE))
    loud = np.sqrt(np.convolve(heard**2, np.full(WINDOW, 1 / WINDOW), "same"))
    speaks = (loud > QUIET).reshape(STEPS, CHUNK).mean(1) > 0.5
    noise = rng.standard_normal(len(heard))
    noise = signal.lfilter([1.0], [1.0, -rng.uniform(0.0, 0.98)], noise)
    heard = heard + noise / noise.std() * 10 ** rng.uniform(-3.5, -1.7)
    lines = np.lib.stride_tricks.sliding_window_view(np.append(np.zeros(BEFORE), heard), BEFORE + CHUNK)[::CHUNK]
    return lines.astype(np.float32), speaks


def recordings(count: int, part: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Recordings ``(count, STEPS, BEFORE + CHUNK)`` and where someone speaks, ``(count, STEPS)``."""
    lines, speaks = zip(*(recording(np.random.default_rng((5, part, k)), part) for k in range(count)), strict=True)
    return np.stack(lines), np.stack(speaks)


def detector() -> Path:
    """The path of the detector; its package is downloaded where it is not there yet."""
    return extract(*DETECTOR)


def listen(model: Path, lines: Floats) -> tuple[Floats, Floats]:
    """What a detector says of every chunk, ``(count, STEPS)``, and the state before it, ``(STEPS, 2, count, 128)``."""
    session, state = open_session(model), np.zeros((STATE[0], len(lines), STATE[1]), np.float32)
    told, states = [], []
    for chunk in lines.swapaxes(0, 1):
        states.append(state)
        said, state = session.run(None, {"input": chunk, "state": state, "sr": np.array(RATE)})
        told.append(said[:, 0])
    return np.stack(told, 1), np.stack(states)


def moments(count: int) -> dict[str, np.ndarray]:
    """So many steps of recordings to repair with, each with the state that the original is in."""
    lines, _ = recordings(-(-count // 16), 0)
    _, states = listen(detector(), lines)
    rng = np.random.default_rng(0)
    which, step = rng.integers(0, len(lines), count), rng.integers(0, STEPS, count)
    state = np.ascontiguousarray(states[step, :, which].swapaxes(0, 1))
    return {"input": lines[which, step], "state": state, "sr": np.array(RATE)}
