"""Time models, and measure this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.array_types import Watcher, staged
from onnxslim_learn.commands import models
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import Result
from onnxslim_learn.errors import InputError
from onnxslim_learn.latency import calibrate as measuring
from onnxslim_learn.latency import profile as profiling
from onnxslim_learn.report.network import grown, network
from onnxslim_learn.report.sections import latency
from onnxslim_learn.report.sections import profile as pages
from onnxslim_learn.runtime import atomic, session
from onnxslim_learn.workflow.settings import CalibrateSettings, ProfileSettings

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.commands.models import Model
    from onnxslim_learn.costs.devices import Device


@command("profile", ProfileSettings)
def profile(*given: Model, progress: Watcher | None = None, settings: ProfileSettings) -> Result:
    """Time one or several models on onnxruntime, in turns.

    Args:
        given: Paths of ``.onnx`` files; the first is what the others are compared with.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.

    Raises:
        InputError: If a model, a shape or a setting cannot be used.
    """
    given = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
    files = [models.present(one) for one in given]
    if not given or None in files:
        raise InputError("profile: models are timed from their files. Give paths of .onnx files.")
    claim(settings, *files)
    if settings.compare and len(given) < 2:
        raise InputError("⟨compare⟩: compares models with the first one, but there is only one. Give two.")
    for provider in settings.provider:
        session.check_provider(provider)
    asked = profiling.settings(settings.threads, settings.provider, settings.batch, bind=settings.io_binding)
    stage = staged(progress)
    stage("reading")
    paths = [Path(str(file)) for file in files]
    analyses = profiling.understood(paths, settings.inputs.input, settings.inputs.value)
    report = profiling.profile(analyses, asked, seconds=settings.seconds, per_node=settings.per_node, stage=stage)
    report["network"] = _network(analyses, report["settings"][0]["timings"])
    every = [one["faster"] for setting in report["settings"] for one in setting["comparisons"]]
    title = " ".join(["profile", *map(str, files)])
    return Result(title, report, pages.profile, _timings, passed=not settings.compare or all(every))


def _network(analyses: Sequence[Analysis], timings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The layers of the first model, of two with the other beside it; with times where nodes were timed."""
    layers = []
    for analysis, timed in zip(analyses, timings, strict=True):
        times = {one["name"]: (one["ms"], one["ms"]) for one in timed.get("nodes", ())}
        layers.append(network(analysis, times=times))
    both = grown(*layers) if len(layers) == 2 else layers[0]
    return [{**node, "group": None} for node in both]


def _timings(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """A row for every model under every setting."""
    alike = ("threads", "provider", "batch")
    return [
        {**{key: setting[key] for key in alike}, **{k: v for k, v in one.items() if k != "nodes"}}
        for setting in report["settings"]
        for one in setting["timings"]
    ]


@dataclass(frozen=True, eq=False, repr=False)
class CalibrateResult(Result):
    """This machine as a few constants.

    Attributes:
        device: The machine; every ``device=`` takes it.
    """

    device: Device = field(kw_only=True)

    def save(self, path: str | Path) -> CalibrateResult:
        """Write the machine as TOML, for ``device=``.

        Raises:
            InputError: If the place cannot be written.
        """
        atomic.write_text(Path(path), self.device.to_toml())
        return self

    def __repr__(self) -> str:
        one = self.device
        return f"<{self.title}: {one.name}, {one.gflops:.4g} GFLOP/s, {one.gbytes:.4g} GB/s>"


@command("calibrate", CalibrateSettings)
def calibrate(*, progress: Watcher | None = None, settings: CalibrateSettings) -> CalibrateResult:
    """Measure this machine, to estimate and bound latency.

    Args:
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.

    Raises:
        InputError: If a keyword cannot be used.
    """
    claim(settings)
    staged(progress)("measuring this machine")
    runtime = settings.runtime
    device = measuring.calibrate(
        settings.name, threads=runtime.threads, provider=runtime.provider, seconds=runtime.seconds
    )
    blocks = partial(latency.device, output=settings.output)
    title = " ".join(filter(None, ["calibrate", settings.output]))
    result = CalibrateResult(title, asdict(device), blocks, lambda told: [told], device=device)
    if settings.output is not None:
        result.save(settings.output)
    return result
