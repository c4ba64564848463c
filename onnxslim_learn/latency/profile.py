"""Models side by side in onnxruntime: every setting is timed in paired rounds, and told as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from onnxslim_learn.analysis import analyze
from onnxslim_learn.array_types import Stage, unannounced
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph.input_sizes import open_axes
from onnxslim_learn.graph.load import read
from onnxslim_learn.latency import node_times
from onnxslim_learn.runtime import process_memory, timing
from onnxslim_learn.runtime.session import CPU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Feeds
    from onnxslim_learn.runtime.timing import Timings

    Shapes = Mapping[str, Sequence[int]]


class Runtime(TypedDict):
    """What every session is opened with."""

    threads: int
    provider: str


@dataclass(frozen=True)
class RuntimeSetting:
    """How models are run.

    Attributes:
        threads: Threads one operator may use.
        provider: The onnxruntime execution provider.
        batch: Size of the first axis of every input whose first axis the file leaves open; ``None`` leaves it.
        bind: Whether inputs and outputs stay on the device.
    """

    threads: int = 1
    provider: str = CPU
    batch: int | None = None
    bind: bool = False

    @property
    def runtime(self) -> Runtime:
        """What every session is opened with."""
        return {"threads": self.threads, "provider": self.provider}


def settings(
    threads: Sequence[int], providers: Sequence[str], batches: Sequence[int], *, bind: bool = False
) -> list[RuntimeSetting]:
    """Every combination of threads, providers and batch sizes (the model's own where none are given)."""
    return [RuntimeSetting(*combination, bind) for combination in product(threads, providers, batches or [None])]  # type: ignore[list-item]


def understood(models: Sequence[Path], shapes: Shapes, values: Mapping[str, Any] | None = None) -> list[Analysis]:
    """Models that are to be timed; of an input that one leaves open and another does not, both get the latter's sizes.

    Args:
        models: Their files.
        shapes: Graph input -> shape, for every model that has the input.
        values: Graph input -> value, likewise.

    Raises:
        InputError: If a model, a shape or a value cannot be used.
    """
    given, told = _shared(models, shapes, "⟨input⟩"), _shared(models, values or {}, "⟨value⟩")
    stated = [_stated(model) for model in models]
    fixed = {name: [*filter(None, dims)] for one in reversed(stated) for name, dims in one.items() if None not in dims}
    alike = [{name: fixed[name] for name, dims in one.items() if _fits(dims, fixed.get(name, ()))} for one in stated]
    known = zip(models, alike, given, told, strict=True)
    return [analyze(model, inputs={**sizes, **asked}, values=value) for model, sizes, asked, value in known]


def _stated(model: Path) -> dict[str, tuple[int | None, ...]]:
    """The sizes that a file states of its inputs; ``None`` for those that it leaves open."""
    graph = read(model)[0].graph
    weights = {tensor.name for tensor in graph.initializer}
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.input if value.name not in weights}
    return {name: tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims) for name, dims in shapes.items()}


def _fits(dims: Sequence[int | None], sizes: Sequence[int]) -> bool:
    """Whether sizes are what open ones may be."""
    alike = len(dims) == len(sizes) and all(one in (None, size) for one, size in zip(dims, sizes, strict=True))
    return alike and None in dims


def profile(
    analyses: Sequence[Analysis],
    asked: Sequence[RuntimeSetting],
    *,
    seconds: float = 2.0,
    per_node: bool = False,
    stage: Stage = unannounced,
) -> dict[str, Any]:
    """Time models under every setting.

    Args:
        analyses: The models, from their files; the first is what the others are compared with.
        asked: The settings.
        seconds: Time for the rounds of one setting.
        per_node: Whether to time every node, too.
        stage: Called with the name of each stage; returns what to call with the share done.

    Raises:
        InputError: If a setting cannot be used.
    """
    models = [Path(str(one.graph.source)) for one in analyses]
    results = []
    for number, setting in enumerate(asked, 1):
        turn = stage("timing" if len(asked) == 1 else f"timing {number} of {len(asked)}")
        feeds = [_feeds(one, setting.batch) for one in analyses]
        runtime = setting.runtime
        timings = timing.measure(models, feeds, bind=setting.bind, seconds=seconds, progress=turn, **runtime)
        results.append(_told(models, setting, timings))
        stage("measuring memory")
        for one, inputs, told in zip(analyses, feeds, results[-1]["timings"], strict=True):
            told["inputs"] = {name: list(array.shape) for name, array in inputs.items()}
            told["inputs_assumed"] = _assumed(one, setting.batch)
            told["peak_bytes"] = process_memory.peak(told["model"], inputs, **runtime)
        if per_node:
            stage("timing nodes")
            for told, rows in zip(results[-1]["timings"], node_times.per_node(models, feeds, **runtime), strict=True):
                told["nodes"] = [asdict(row) for row in rows]
    return {"models": [str(model) for model in models], "settings": results}


def _shared(models: Sequence[Path], shapes: Mapping[str, Any], option: str) -> list[dict[str, Any]]:
    """The shapes, or values, that belong to each model."""
    names = [{value.name for value in read(model)[0].graph.input} for model in models]
    for name in shapes:
        if not any(name in names_of_model for names_of_model in names):
            known = ", ".join(sorted(set().union(*names)))
            raise InputError(f"{option} {name}: no model has such an input. The inputs are {known}.")
    return [{name: shape for name, shape in shapes.items() if name in names_of_model} for names_of_model in names]


def _feeds(analysis: Analysis, batch: int | None) -> Feeds:
    """Random inputs at the nominal sizes, but for the batch."""
    sample = analysis.graph.shapes.nominal
    if batch is not None:
        open_ = {str(value.name) for value in analysis.graph.model.graph.inputs if 0 in open_axes(value)}
        if not open_:
            raise InputError(
                f"⟨batch⟩ {batch}: {analysis.graph.source} takes {sample.sizes} only."
                " Leave ⟨batch⟩ out, or export the model with an open first axis."
            )
        sized = {name: (batch, *shape[1:]) if name in open_ else shape for name, shape in sample.inputs.items()}
        sample = replace(sample, inputs=sized)
    return random_inputs(analysis.coupling, sample)


def _assumed(analysis: Analysis, batch: int | None) -> list[str]:
    """Inputs with sizes that neither the file nor the command gives."""
    given = set() if batch is None else {0}
    values = {str(value.name): value for value in analysis.graph.model.graph.inputs}
    return [name for name in analysis.graph.assumed if set(open_axes(values[name])) - given]


def _told(models: Sequence[Path], setting: RuntimeSetting, timings: Timings) -> dict[str, Any]:
    """What one setting's rounds say."""
    told = []
    for model, one in zip(models, timings.latencies(), strict=True):
        rates = {"runs_per_second": one.throughput(), "samples_per_second": None}
        if setting.batch is not None:
            rates["samples_per_second"] = one.throughput(setting.batch)
        times = {key: getattr(one, key) for key in ("median_ms", "low_ms", "high_ms", "load_ms")}
        told.append({"model": str(model), **times, **rates})
    ratios = [timing.compare(timings, number) for number in range(1, len(models))]
    compared = [
        {
            "model": str(model),
            "base": str(models[0]),
            "ratio": r.median,
            "low": r.low,
            "high": r.high,
            "faster": r.faster,
        }
        for model, r in zip(models[1:], ratios, strict=True)
    ]
    return {
        **asdict(setting),
        "optimizations": timings.optimizations,
        "rounds": len(timings.ms),
        "timings": told,
        "comparisons": compared,
    }
