"""One target of the fuzzer: ``python -m scripts.reliability.fuzz_target load CORPUS -runs=1000``."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["onnxslim_learn"]):
    from onnxslim_learn import analysis, settings
    from onnxslim_learn.costs import devices
    from onnxslim_learn.data import arrays
    from onnxslim_learn.errors import SlimError
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.train import checkpoints
    from onnxslim_learn.workflow.settings import ExpandSettings

import numpy as np
import onnx

from nets.zoo import NETS

PLACE = Path(tempfile.mkdtemp(prefix="fuzz-"))
PLAN = {
    "format": "onnxslim-learn plan 1",
    "groups": {"w": [0]},
    "widths": {"w": 2},
    "provenance": {"target": {"macs": 1}},
}


def _written(name: str, content: bytes) -> Path:
    (PLACE / name).write_bytes(content)
    return PLACE / name


def _load(content: bytes) -> None:
    analysis.analyze(_written("m.onnx", content))


def _plan(content: bytes) -> None:
    Plan.load(_written("p.json", content))


def _config(content: bytes) -> None:
    settings.build(ExpandSettings, {"config": str(_written("c.toml", content))})
    devices.load(str(_written("d.toml", content)))


def _arrays(content: bytes) -> None:
    arrays.read(_written("d.npz", content))


def _checkpoint(content: bytes) -> None:
    _written("step_00000001.json", content)
    _written("step_00000001.safetensors", content[::-1])
    checkpoints.load(PLACE)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "load": _load,
    "plan": _plan,
    "config": _config,
    "arrays": _arrays,
    "checkpoint": _checkpoint,
}


def _seeds(corpus: Path) -> None:
    """Begin with files that are right."""
    if any(corpus.iterdir()):
        return
    np.savez(corpus / "a.npz", x=np.zeros((2, 3), np.float32))
    (corpus / "a.json").write_text(json.dumps(PLAN))
    (corpus / "a.toml").write_text('target = ["macs=0.5"]\nseed = 3\n')
    onnx.save(NETS["chain"].build(), corpus / "a.onnx")


def main() -> None:
    """Fuzz a target."""
    target, corpus = TARGETS[sys.argv[1]], Path(sys.argv[2])
    _seeds(corpus)

    def one(content: bytes) -> None:
        with contextlib.suppress(SlimError):
            target(content)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
