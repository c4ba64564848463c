"""Machines as a few constants: what they compute and move in a second, and what every call takes."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.registry import DEVICES

CONVOLUTION, DEPTHWISE, PRODUCT = "Conv", "depthwise", "MatMul"  # kinds of kernels whose steps a device states


@dataclass(frozen=True)
class Device:
    """A machine as a roofline sees it.

    Attributes:
        name: What it is called.
        gflops: Peak, 10⁹ floating-point operations per second (a multiply-accumulate is two).
        gbytes: Memory bandwidth, 10⁹ bytes per second.
        node_us: Time every node takes whatever it does, microseconds.
        run_us: Time every run of a model takes whatever it does, microseconds.
        steps: Operator (``depthwise`` for convolutions of one channel per group) -> channels in one step of its
            kernels: a width between two multiples of it takes the time of the larger.
        about: How it was measured: provider, threads, version of onnxruntime.
    """

    name: str
    gflops: float
    gbytes: float
    node_us: float = 0.0
    run_us: float = 0.0
    steps: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, str | int] = field(default_factory=dict)

    def to_toml(self) -> str:
        """The device as a file that :func:`load` reads."""
        import tomli_w

        return tomli_w.dumps(asdict(self))


_LEAST = {"gflops": 1e-9, "gbytes": 1e-9, "node_us": 0.0, "run_us": 0.0}
_TABLES = ("steps", "about")


def load(text: str) -> Device:
    """A device by its name in :data:`~onnxslim_learn.registry.DEVICES`, or from a TOML file.

    The keys of the file are the attributes of :class:`Device`.

    Raises:
        InputError: If there is neither, or the file does not describe a device.
    """
    path = Path(text)
    if text in DEVICES or not path.is_file():
        return named(text)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no TOML file ({reason(error)}). Write it with calibrate.") from error
    return _checked(path, data)


def named(text: str) -> Device:
    """A device that is registered, or that a function makes: ``module:function``, called without arguments.

    Raises:
        InputError: If there is none of this name.
    """
    row, make = DEVICES.row(text), DEVICES.load(text)
    device = make(row.name, row.gflops, row.gbytes) if row.gflops else make()
    if not isinstance(device, Device):
        raise InputError(f"⟨device⟩ {text}: expected a Device, but got a {type(device).__name__}. Return a Device.")
    return device


def _checked(path: Path, data: Mapping[str, Any]) -> Device:
    """The device that a file describes."""

    def refuse(name: str, wanted: str) -> InputError:
        return InputError(f"{path}: {name} must be {wanted}, but is {data.get(name)!r}. Write the file with calibrate.")

    if unknown := sorted(set(data) - {f.name for f in fields(Device)}):
        raise InputError(f"{path}: {unknown[0]} is no property of a device. Leave it out.")
    for name, least in _LEAST.items():
        value = data.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            raise refuse(name, "a positive number" if least else "a number of at least 0")
    for name in _TABLES:
        if not isinstance(data.get(name, {}), dict):
            raise refuse(name, "a table")
    if not all(type(step) is int and step > 0 for step in data.get("steps", {}).values()):
        raise refuse("steps", "a table of positive whole numbers")
    return Device(**{"name": path.stem, **data})
