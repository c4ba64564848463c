"""Absurd values for every option of every command, contradictions, and names that no terminal shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from onnxslim_learn import settings
from onnxslim_learn.cli.table import COMMANDS, ShellSettings
from onnxslim_learn.errors import printable
from onnxslim_learn.settings import Declared
from tests.any_file import arrays
from tests.any_file.case import Case

ABSURD = (
    "",
    "-1",
    "0",
    "nan",
    "inf",
    "1e400",
    "9" * 5000,
    "x" * 70_000,
    "a\x1b[31m\nb",
    "\udcff",
    "٣",
    "[",
    "(a+)+$",
    "a=b=c",
    "x:1x2:3",
    ",",
    "0.5,",
    "1e18",
    "nowhere.bin",
    "folder",
    "pipe",
)
EACH = 5  # values of an option
LINES = {
    "slim": "slim m.onnx -o new.onnx --target macs=0.0001 --no-latency",
    "learn": "learn m.onnx -o new.onnx --target macs=0.5 --data nowhere.npz",
    "expand": "expand m.onnx -o new.onnx --target macs=0.0001 --no-latency",
    "sparsify": "sparsify m.onnx -o new.onnx --ratio 0.5 --data nowhere.npz",
    "apply": "apply m.onnx nowhere.json -o new.onnx",
    "verify": "verify m.onnx nowhere.onnx --plan nowhere.json",
    "analyze": "analyze m.onnx --device nowhere.toml",
    "profile": "profile nowhere.onnx",
    "calibrate": "calibrate -o folder",
    "demo": "demo --output nowhere/new",
}
"""Lines that are refused whatever the value is: what comes first is told, and no work is begun."""


def option_cases() -> Iterator[Case]:
    """Some absurd values for each option, in turns; an option that several commands have is tried with the first."""
    met, turn = set[str](), 0
    for command, line in LINES.items():
        keywords = COMMANDS[command].keywords
        known = [*keywords.options.values(), *settings.options(ShellSettings).values()]
        for one in known:
            if one.switch or one.name in met or one.name == "log_file":  # which is written, whatever comes of the line
                continue
            met.add(one.name)
            for value in (ABSURD[(turn + k * 4) % len(ABSURD)] for k in range(EACH)):
                words = (*line.split(), f"--{one.name.replace('_', '-')}", value)
                yield Case(f"{command} --{one.name} {ascii(value)[:24]}", words, _place, _names(one, value))
            turn += 1


def _names(one: Declared, value: str) -> tuple[str, ...]:
    return (
        one.flag,
        f"--{one.name.replace('_', '-')}",
        "nowhere",
        "m.onnx",
        "folder",
        "--target",
        "-o",
        printable(value[:50] or "."),
    )


def _place(folder: Path) -> None:
    arrays.model(folder)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")


CONTRADICTIONS = {
    "epochs and steps": "learn m.onnx -o new.onnx --target macs=0.5 --data d.npz --epochs 1 --steps 3",
    "epochs and steps of training after": (
        "learn m.onnx -o new.onnx --target macs=0.5 --data d.npz --finetune-epochs 1 --finetune-steps 3"
    ),
    "batches of more than all samples": (
        "learn m.onnx -o new.onnx --target macs=0.5 --data d.npz --batch-size 1000000000"
    ),
    "batches beyond memory": "learn m.onnx -o new.onnx --target macs=0.5 --batch-size 1000000000000 --samples 4",
    "samples beyond memory": "slim m.onnx -o new.onnx --target macs=0.5 --samples 1000000000000",
    "a target twice": "slim m.onnx -o new.onnx --target macs=0.5 --target macs=0.6",
    "lossless to a target": "slim m.onnx -o new.onnx --lossless --target macs=0.5",
    "lossless by a criterion": "slim m.onnx -o new.onnx --lossless --criterion l1",
    "quiet and verbose": "analyze m.onnx --quiet --verbose",
    "the same file twice": "slim m.onnx -o new.onnx --target macs=0.5 --json new.onnx",
    "inputs of 2**31": "analyze m.onnx --input x:2147483648x3x8x8",
    "inputs of 2**62": "analyze m.onnx --input x:4611686018427387904x3x8x8",
    "inputs of many axes": "analyze m.onnx --input x:" + "x".join(["1"] * 500),
    "an input of no name": "analyze m.onnx --input :1x3x8x8",
    "a size that is none": "analyze m.onnx --input x:0x3x8x8",
    "a pattern that takes for ever": (
        "slim",
        "m.onnx",
        "-o",
        "new.onnx",
        "--target",
        "macs=0.5",
        "--protect",
        "(.*.*)*!",
    ),
    "a pattern of choices that takes for ever": (
        *["slim", "m.onnx", "-o", "new.onnx", "--target", "macs=0.5", "--protect"],
        "(a|a?|.)*!",
    ),
    "a pattern of 10**9 repeats": (
        *["slim", "m.onnx", "-o", "new.onnx", "--target", "macs=0.5", "--protect"],
        "((a{1000}){1000}){1000}",
    ),
    "a thousand options": ("analyze", "m.onnx", *(word for k in range(1000) for word in ("--input", f"x{k}:1"))),
    "a command in capitals": "ANALYZE m.onnx",
}
ODD_NAMES = {
    "not UTF-8": b"bad\xff.onnx",
    "control characters": b"bad\x1b[31m.onnx",
    "lines": b"bad\nonnxslim-learn: all is well.onnx",
    "a hyphen in front": b"-bad.onnx",
    "right to left": "bad\u202exnno".encode(),
    "a bracket": "⟨bad⟩.onnx".encode(),
    "255 bytes": b"bad" + b"x" * 252,
}


def contradiction_cases() -> Iterator[Case]:
    """Options that do not go together, or ask for more than there is."""
    for name, line in CONTRADICTIONS.items():
        words = line.split() if isinstance(line, str) else line
        named = tuple(word for word in words if word.startswith("-"))
        yield Case(name, line, _samples, (*named, "m.onnx", "d.npz", "ANALYZE", "x0", "input"))


def _samples(folder: Path) -> None:
    import numpy as np

    arrays.model(folder)
    np.savez(folder / "d.npz", x=arrays.good())


def name_cases() -> Iterator[Case]:
    """Files with odd names: there, and not there."""
    for name, file in ODD_NAMES.items():
        text = os.fsdecode(file)
        for there in (True, False):
            yield Case(
                f"{name}, {'text inside' if there else 'nothing there'}", ("analyze", "--", text), _odd(file, there)
            )
            words = (*["slim", "m.onnx", "--target", "macs=0.0001", "-o", "new.onnx"], f"--data={text}")
            yield Case(f"samples {name}, {'text inside' if there else 'nothing there'}", words, _odd(file, there))


def _odd(file: bytes, there: bool):
    def write(folder: Path) -> None:
        arrays.model(folder)
        if there:
            with open(os.fsencode(folder) + b"/" + file, "wb") as out:
                out.write(b"text")

    return write


def cases() -> Iterator[Case]:
    """All cases of options."""
    for make in (option_cases, contradiction_cases, name_cases):
        yield from make()
