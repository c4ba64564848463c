"""What commands take as a model: a file, a model in memory, or what an analysis made of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from onnxslim_learn.analysis import Analysis, analyze
from onnxslim_learn.costs import devices
from onnxslim_learn.costs.roofline import roofline
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph.load import check_file
from onnxslim_learn.plans.plan import Plan

if TYPE_CHECKING:
    import onnx

    from onnxslim_learn.costs.devices import Device
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.workflow.options import InputSettings

    Model: TypeAlias = str | Path | onnx.ModelProto | Analysis


def device(given: str | Path | Device | None) -> Device | None:
    """The machine that was given: a file, a name, or itself."""
    return devices.load(str(given)) if isinstance(given, str | Path) else given


def understood(
    model: Model,
    at: InputSettings,
    *,
    sensitive: bool = False,
    machine: Device | None = None,
) -> Analysis:
    """The analysis of a model.

    Args:
        model: A file, a model in memory, or its analysis.
        at: Shapes and values of its inputs.
        sensitive: Whether normalised axes may be cut.
        machine: To estimate latency for.

    Raises:
        InputError: If the model cannot be used, or was analysed otherwise than is asked for.
    """
    if not isinstance(model, Analysis):
        return analyze(model, inputs=at.input, values=at.value, allow_sensitive=sensitive, device=machine)
    for name in ("input", "value"):
        if getattr(at, name):
            raise InputError(f"⟨{name}⟩: the model is analysed already. Give it to analyze.")
    if sensitive and not model.sensitive:
        raise InputError("⟨allow_sensitive⟩: the model is analysed already, without it. Give it to analyze.")
    return model if machine is None else replace(model, latency=roofline(model.coupling, machine))


def at_samples(
    model: Model, analysis: Analysis, source: Source | None, at: InputSettings, *, machine: Device | None = None
) -> Analysis:
    """The analysis of a model at the shapes of samples, where its file leaves them open and nothing else is said.

    Args:
        model: A file, a model in memory, or its analysis, which stays.
        analysis: Its analysis at usual shapes.
        source: The samples, if some were given; the first batch tells.
        at: Shapes and values of its inputs.
        machine: To estimate latency for.
    """
    nominal = analysis.graph.shapes.nominal.inputs
    if source is None or isinstance(model, Analysis) or at.input:
        return analysis
    shapes = dict(nominal)
    for name, array in next(iter(source.batches(1))).inputs.items():
        axis = source.declared.inputs[name].axis
        shapes[name] = tuple(nominal[name][k] if k == axis else size for k, size in enumerate(array.shape))
    if shapes == nominal:
        return analysis
    with suppress(InputError):
        return understood(model, replace(at, input=shapes), sensitive=analysis.sensitive, machine=machine)
    return analysis


def named(model: Model) -> str:
    """How a model is called in a title."""
    if isinstance(model, Analysis):
        return str(model.graph.source or "model")
    return str(model) if isinstance(model, str | Path) else "model"


def read(model: Model) -> str | Path | None:
    """The file of a model, if it is one."""
    if isinstance(model, Analysis):
        return model.graph.source
    return model if isinstance(model, str | Path) else None


def present(model: Model) -> str | Path | None:
    """The file of a model, if it is one.

    Raises:
        InputError: If it is missing, a folder, or not readable.
    """
    file = read(model)
    if file is not None and not isinstance(model, Analysis):
        check_file(Path(file), "an .onnx model")
    return file


def planned(plan: str | Path | Plan) -> Plan:
    """A plan, or that of a file."""
    return plan if isinstance(plan, Plan) else Plan.load(plan)


def analysed_for(model: Model, plan: Plan, at: InputSettings) -> Analysis:
    """The analysis of a model as that of which a plan was made."""
    if isinstance(model, Analysis):
        return model
    return understood(model, at, sensitive=bool(plan.provenance.get("allow_sensitive", False)))
