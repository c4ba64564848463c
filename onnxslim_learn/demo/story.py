"""The demo: analyze, slim, verify and time the shipped network, and count what it still gets right."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn import api, demo
from onnxslim_learn.costs import measure
from onnxslim_learn.report import data, tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TARGET = {"macs": 0.85}
MULTIPLE = 8  # onnxruntime is slow on CPU at other widths
BATCH = 32  # images per timed run: one alone takes too little time to compare


def tell(output: Path | None, stage: Callable[[str], Callable[[float], None]]) -> dict[str, Any]:
    """Run the demo; returns what it found as plain data.

    Args:
        output: Where to keep the slimmed model, or ``None`` to throw it away.
        stage: Called with the name of each stage.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = output or Path(folder) / "digits-slim.onnx"
        model = demo.model_path()
        stage("analyzing")
        found = api.analyze(model)
        overview = data.overview(found)
        held = demo.held_out()
        slimmed, check = api.slim_to(
            found, TARGET, path, stage=stage, multiple=MULTIPLE, real=[{"image": held["image"]}]
        )
        feeds = {"image": held["image"][:BATCH]}
        timings = measure.measure([model, path], [feeds, feeds], progress=stage("timing"))
        result = data.outcome(slimmed, path, check, timings.latencies(), measure.compare(timings, 1))
        for side, file in (("before", model), ("after", path)):
            result[side]["accuracy"] = accuracy(file, held["image"], held["labels"])
    return {"analysis": overview, **result, "target": TARGET, "kept": str(output) if output else None}


def accuracy(model: Path, images: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of images that a model classifies right."""
    (logits,) = measure.open_session(model).run(None, {"image": images})
    return float((np.asarray(logits).argmax(axis=1) == labels).mean())


def show(out: Any, result: dict[str, Any]) -> None:
    """Print the demo's result."""
    out.print("A network trained on handwritten digits, from its .onnx file alone.\n")
    tables.analysis(out, result["analysis"])
    out.print(
        f"\nCut to {TARGET['macs']:.0%} of its MACs without data, labels or training (latency of {BATCH} images):"
    )
    tables.comparison(out, result)
    before, after = result["before"]["accuracy"], result["after"]["accuracy"]
    out.print(
        f"Accuracy on {len(result_labels())} held-out images: {before:.1%} before, {after:.1%} after, not retrained."
    )
    if result["kept"]:
        out.print(f"The slimmed model is {result['kept']}.")


def result_labels() -> NDArray[Any]:
    """Labels of the held-out images."""
    return demo.held_out()["labels"]
