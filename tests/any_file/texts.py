"""Damaged plans, files of options, devices and checkpoints by rules: every entry of every kind, and the text itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import onnxslim_learn as osl
from onnxslim_learn import settings
from onnxslim_learn.costs.devices import Device
from onnxslim_learn.train import checkpoints
from onnxslim_learn.train.checkpoints import Checkpoint
from onnxslim_learn.workflow.settings import ExpandSettings
from tests.any_file import arrays
from tests.any_file.case import Case

DEEP = 100_000
OTHERS = (None, True, -1, 10**40, 1.5, 1e308, "", "no\x1b[31mthing\n", [], [None], {}, {"a": 1}, [[[1]]])
"""Values of other kinds."""


# --- plans ------------------------------------------------------------------------------------------------------------


@cache
def plan() -> tuple[dict[str, Any], bytes]:
    """A plan, and the rotations beside it."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        arrays.model(folder)
        where = {"output": str(folder / "new.onnx"), "plan_out": str(folder / "bad.json")}
        osl.slim(str(folder / "m.onnx"), macs=0.6, no_repair=True, no_latency=True, work="1k", samples=4, **where)
        beside = folder / "bad.bases.npz"
        return json.loads((folder / "bad.json").read_text()), beside.read_bytes() if beside.is_file() else b""


def places(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every entry of a document but the first entries of lists, from the top down."""
    if place:
        yield place
    inner = data.items() if isinstance(data, dict) else enumerate(data[:1]) if isinstance(data, list) else ()
    for key, value in inner:
        yield from places(value, (*place, key))


def changed(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A document with another value at a place; ``...`` takes it out."""
    if not place:
        return value
    copy = data.copy()
    if len(place) == 1 and value is ...:
        del copy[place[0]]
    else:
        copy[place[0]] = changed(copy[place[0]], place[1:], value)
    return copy


def plan_cases() -> Iterator[Case]:
    """Plans in which something is missing or of another kind."""
    line = "apply m.onnx bad.json -o new.onnx --no-latency --no-repair"
    data, _ = plan()
    for turn, place in enumerate(places(data)):
        top = len(place) < 2
        yield Case(f"plan without {place}", line, _plan(lambda data, p=place: changed(data, p, ...)))
        for value in OTHERS if top else OTHERS[turn % 4 :: 4]:
            change = lambda data, p=place, v=value: changed(data, p, v)  # noqa: E731
            yield Case(f"plan with {place}: {value!a}", line, _plan(change), ("bad", "m.onnx", "group", "block"))
    for name, text in documents("[", "{", "]").items():
        yield Case(f"plan: {name}", line, _text("bad.json", text))


def _plan(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        data, beside = plan()
        arrays.model(folder)
        (folder / "bad.json").write_text(json.dumps(change(data)))
        if beside:
            (folder / "bad.bases.npz").write_bytes(beside)

    return write


def documents(opens: str, other: str, closes: str) -> dict[str, bytes]:
    """Texts that are no documents of their kind."""
    return {
        "empty": b"",
        "not UTF-8": b"\xff\xfe\x00",
        "a thousand deep": (opens * 1000 + closes * 1000).encode(),
        "very deep": (f"a = {opens * DEEP}" if opens == "[" and other == "=" else opens * DEEP).encode(),
        "a number of 10**6 digits": b"9" * 10**6,
        "a key of control characters": b'{"\\u001b[31m": 1}' if other == "{" else b'"\\u001b[31m" = 1',
        "a zero byte": b"\x00",
        "a megabyte of blanks": b" " * 2**20,
        "another kind": b"<xml/>",
    }


def _text(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        arrays.model(folder)
        np.savez(folder / "d.npz", x=arrays.good())
        (folder / name).write_bytes(content)

    return write


# --- files of options and devices -------------------------------------------------------------------------------------

TOML = {
    "true": "true",
    "-1": "-1",
    "a large number": "1" + "0" * 40,
    "a float": "1.5",
    "nan": "nan",
    "-inf": "-inf",
    "an empty text": '""',
    "a text": '"no\\u001b[31mthing"',
    "a list": "[[1]]",
    "a table": "{a = {b = 1}}",
    "a date": "2026-01-01",
}


def config_cases() -> Iterator[Case]:
    """Options of a file that are none, or of other kinds."""
    line = "expand m.onnx -o new.onnx --target macs=0.0001 --config bad.toml"
    for turn, name in enumerate(settings.options(ExpandSettings)):
        for said, value in list(TOML.items())[turn % 4 :: 4]:
            content = f"{name} = {value}\n".encode()
            yield Case(
                f"config with {name} of {said}",
                line,
                _text("bad.toml", content),
                ("bad.toml", "m.onnx", "--", "1000000", ".:"),
            )
    for name, text in documents("[", "=", "]").items():
        yield Case(f"config: {name}", line, _text("bad.toml", text), ("bad.toml", "--target"))


def device_cases() -> Iterator[Case]:
    """Devices with properties that are none, or of other kinds."""
    line = "analyze m.onnx --device bad.toml"
    right = Device("d", 10.0, 10.0, 1.0, 1.0, {"Conv": 8}, {"threads": 1}).to_toml()
    for name in ("name", "gflops", "gbytes", "node_us", "run_us", "steps", "about", "colour"):
        kept = "\n".join(
            each for each in right.splitlines() if not each.startswith((name, f"[{name}", "Conv", "threads"))
        )
        kept = "\n".join(each for each in kept.splitlines() if not each.startswith("["))
        yield Case(f"device without {name}", line, _text("bad.toml", kept.encode()))
        for said, value in TOML.items():
            yield Case(f"device with {name} of {said}", line, _text("bad.toml", f"{kept}\n{name} = {value}\n".encode()))
    for key in ("", "Conv", "a b", "\\u001b[31m"):
        for said, value in TOML.items():
            text = f'gflops = 1.0\ngbytes = 1.0\n[steps]\n"{key}" = {value}\n'
            yield Case(f"device with steps of {key!r}: {said}", line, _text("bad.toml", text.encode()))
    for name, text in documents("[", "=", "]").items():
        yield Case(f"device: {name}", line, _text("bad.toml", text))


# --- checkpoints ------------------------------------------------------------------------------------------------------


def checkpoint_cases() -> Iterator[Case]:
    """Folders of checkpoints that are of something else, or damaged. None is read before it is known whose it is."""
    line = (
        "learn m.onnx -o new.onnx --target macs=0.5 --data d.npz --steps 2 --checkpoint-dir bad --resume --no-latency"
    )
    index, tensors = "step_00000001.json", "step_00000001.safetensors"
    for name, files in {
        "with files of others": {"mine.txt": b"mine"},
        "with a folder of others": {"mine/a.onnx": b"mine"},
        "of another program": {"run.json": b"{}"},
        "with run.json of lists": {"run.json": b"[" * DEEP},
        "with run.json that is no text": {"run.json": b"\xff\x00"},
        "with run.json of another mark": {"run.json": b'{"made by": ["onnxslim-learn"]}'},
        "with a checkpoint alone": {index: b"{}", tensors: b""},
        "with a mark and other options": {"run.json": b'{"made by": "onnxslim-learn", "\\u001b[31m": 1}'},
        "with a mark and deep options": {
            "run.json": b'{"made by": "onnxslim-learn", "x": ' + b"[" * 500 + b"]" * 500 + b"}"
        },
    }.items():
        yield Case(f"checkpoints {name}", line, _checkpoints(files), ("bad", "--resume"))


def _checkpoints(files: dict[str, bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        arrays.model(folder)
        np.savez(folder / "d.npz", x=arrays.good())
        (folder / "bad").mkdir()
        for name, content in files.items():
            (folder / "bad" / name).parent.mkdir(exist_ok=True)
            (folder / "bad" / name).write_bytes(content)

    return write


def damaged_checkpoints(folder: Path) -> Iterator[tuple[str, Path]]:
    """Checkpoints that are read: name of the damage, and the folder."""
    for number, (name, change) in enumerate(DAMAGES.items()):
        place = folder / str(number)
        checkpoints.save(place, Checkpoint({"w": torch.ones(4)}, {"step": 1}))
        change(place / "step_00000001.json", place / "step_00000001.safetensors")
        yield name, place


def _edited(**changes: Any) -> Callable[[Path, Path], None]:
    return lambda index, tensors: index.write_text(json.dumps({**json.loads(index.read_text()), **changes}))  # type: ignore[func-returns-value]


DAMAGES: dict[str, Callable[[Path, Path], Any]] = {
    **{
        f"index: {name}": lambda i, t, text=text: i.write_bytes(text) for name, text in documents("[", "{", "]").items()
    },
    **{f"facts of {value!a}": _edited(facts=value) for value in OTHERS},
    **{f"sha256 of {value!a}": _edited(sha256=value) for value in OTHERS},
    "tensors: none": lambda i, t: t.unlink(),
    "tensors: empty": lambda i, t: t.write_bytes(b""),
    "tensors: a header of 2**60 bytes": lambda i, t: t.write_bytes((2**60).to_bytes(8, "little")),
    "tensors: a folder": lambda i, t: (t.unlink(), t.mkdir()),
    "tensors: a pipe": lambda i, t: (t.unlink(), os.mkfifo(t)),
    "tensors: a link to itself": lambda i, t: (t.unlink(), t.symlink_to(t.name)),
    "tensors: a link elsewhere": lambda i, t: (t.unlink(), t.symlink_to("/dev/zero")),
}


def cases() -> Iterator[Case]:
    """All cases of texts."""
    for make in (plan_cases, config_cases, device_cases, checkpoint_cases):
        yield from make()
