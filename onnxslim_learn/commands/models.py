"""What commands take as a model: a file, a model in memory, or what an analysis made of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from onnxslim_learn.analysis import Analysis, analyze
from onnxslim_learn.costs import devices
from onnxslim_learn.costs.roofline import roofline
from onnxslim_learn.data.open import single
from onnxslim_learn.errors import InputError, OtherSizesError
from onnxslim_learn.graph.load import check_file
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.workflow.samples import given

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx

    from onnxslim_learn.costs.devices import Device
    from onnxslim_learn.data.options import SampleSettings
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


def sampled(
    model: Model,
    at: InputSettings,
    samples: SampleSettings,
    *,
    sensitive: bool = False,
    machine: Device | None = None,
) -> tuple[Analysis, Source | None]:
    """The analysis of a model at the shapes of samples, where its file leaves them open, and the samples.

    Args:
        model: A file, a model in memory, or its analysis, which stays.
        at: Shapes and values of its inputs; shapes that are given stay, too.
        samples: The samples, if some were given; the first batch tells.
        sensitive: Whether normalised axes may be cut.
        machine: To estimate latency for.

    Raises:
        InputError: As :func:`understood`, or if the samples do not fit the model.
    """

    def at_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Analysis:
        return understood(model, replace(at, input=shapes), sensitive=sensitive, machine=machine)

    def instead(shapes: Mapping[str, tuple[int, ...]], error: InputError) -> Analysis:
        if fixed or not shapes:
            raise error
        try:
            return at_shapes(shapes)
        except InputError:
            raise error from None

    fixed = isinstance(model, Analysis) or bool(at.input)
    try:
        analysis = understood(model, at, sensitive=sensitive, machine=machine)
    except InputError as error:  # no usual shapes fit
        analysis = instead(single(samples.data), error)
    try:
        source = given(analysis, samples)
    except OtherSizesError as error:
        analysis = instead(error.shapes, error)
        source = given(analysis, samples)
    if source is None or fixed:
        return analysis, source
    return _at_samples(analysis, source, at_shapes), source


def _at_samples(
    analysis: Analysis, source: Source, at_shapes: Callable[[Mapping[str, tuple[int, ...]]], Analysis]
) -> Analysis:
    """An analysis at the shapes of samples, where there is one."""
    nominal = analysis.graph.shapes.nominal.inputs
    shapes = dict(nominal)
    for name, array in next(iter(source.batches(1))).inputs.items():
        axis = source.declared.inputs[name].axis
        shapes[name] = tuple(nominal[name][k] if k == axis else size for k, size in enumerate(array.shape))
    if shapes == nominal:
        return analysis
    with suppress(InputError):
        return at_shapes(shapes)
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


def analysed_for(
    model: Model, plan: Plan, at: InputSettings, samples: SampleSettings
) -> tuple[Analysis, Source | None]:
    """The analysis of a model as that of which a plan was made, at the shapes of samples, and these."""
    if isinstance(model, Analysis):
        return model, given(model, samples)
    return sampled(model, at, samples, sensitive=bool(plan.provenance.get("allow_sensitive", False)))
