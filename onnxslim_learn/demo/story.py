"""The demo: analyze, slim, verify and time the shipped network, and count what it still gets right."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn import demo as shipped
from onnxslim_learn.array_types import Stage, Watcher, staged
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import Result
from onnxslim_learn.data.open import open_source
from onnxslim_learn.readers import AUTO
from onnxslim_learn.report import records
from onnxslim_learn.report.blocks import Block, Text
from onnxslim_learn.report.format import percent, share
from onnxslim_learn.report.sections import slim as pages
from onnxslim_learn.runtime import timing
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim
from onnxslim_learn.workflow.settings import DemoSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGET = {"macs": 0.4}
BATCH = 32  # images per timed run: one alone takes too little time to compare


@command("demo", DemoSettings)
def demo(*, progress: Watcher | None = None, settings: DemoSettings) -> Result:
    """Tell the whole story on the net that ships with the package.

    Args:
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.
    """
    claim(settings)
    report = tell(Path(settings.output) if settings.output else None, staged(progress))
    title = " ".join(filter(None, ["demo", settings.output]))
    return Result(title, report, blocks, lambda told: told["groups"])


def tell(output: Path | None, stage: Stage) -> dict[str, Any]:
    """Run the demo; returns what it found as plain data.

    Args:
        output: Where to keep the slimmed model, or ``None`` to throw it away.
        stage: Called with the name of each stage.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = output or Path(folder) / "digits-slim.onnx"
        model = shipped.model_path()
        stage("analyzing")
        analysis = slim.analyze(model)
        overview = records.overview(analysis)
        held = shipped.held_out()
        source = open_source({"image": shipped.calibration()["image"]}, analysis.graph)
        slimmed, check = slim.slim_to(
            analysis,
            TARGET,
            path,
            stage=stage,
            multiple=AUTO,
            real=[{"image": held["image"]}],
            calibration=Calibration(analysis.coupling, source),
        )
        feeds = {"image": held["image"][:BATCH]}
        timings = timing.measure([model, path], [feeds, feeds], progress=stage("timing"))
        result = records.outcome(slimmed, path, check, timings, feeds)
        for side, file in (("before", model), ("after", path)):
            result[side]["accuracy"] = accuracy(file, held["image"], held["labels"])
    told = {"target": TARGET, "images": len(held["labels"]), "kept": str(output) if output else None}
    return {"analysis": overview, **result, **told}


def accuracy(model: Path, images: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of images that a model classifies right."""
    (logits,) = timing.open_session(model).run(None, {"image": images})
    return float((np.asarray(logits).argmax(axis=1) == labels).mean())


def blocks(result: dict[str, Any]) -> list[Block]:
    """What the demo reports."""
    before, after = result["before"]["accuracy"], result["after"]["accuracy"]
    kept = f"\nThe slimmed model is {result['kept']}." if result["kept"] else ""
    return [
        Text("A network trained on handwritten digits, from its .onnx file alone.\n"),
        *pages.analysis(result["analysis"], settable=False),
        Text(f"\nCut to {percent(TARGET['macs'])} of its MACs, without labels or training, on 256 images:"),
        *pages.outcome(result),
        Text(f"Accuracy on {result['images']} held-out images: {share(before)} before, {share(after)} after.{kept}"),
    ]
