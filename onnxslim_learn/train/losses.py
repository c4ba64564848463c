"""What training minimises: distance to the original's outputs, to labels, or what the user's function says.

Without labels a net is taught by its own original (Hinton et al. 2015, arXiv:1503.02531): the Kullback-Leibler
divergence of softened class probabilities where an output is one of a classifier, else the squared error. Tensors
inside may be compared, too (:mod:`onnxslim_learn.train.feature_distillation`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812

from onnxslim_learn import output_kinds
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.registry import LOSSES
from onnxslim_learn.rows import require

if TYPE_CHECKING:
    from torch import Tensor

    from onnxslim_learn.registry import LossRow
    from onnxslim_learn.train.samples import Portion

Outputs: TypeAlias = "Mapping[str, Tensor]"
Loss: TypeAlias = "Callable[[Outputs, Portion], Tensor]"
Spec: TypeAlias = "str | Callable[..., Any] | Mapping[str | Callable[..., Any], float]"

TEMPERATURE = 4.0
DISTRIBUTIONS = ("logits", "probabilities", "labels")
SMALL = 1e-12
PORTION = "portion"  # the parameter of a loss that is given all there is of a batch


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses.

    Attributes:
        terms: Name -> weight and loss.
        taught: Whether a loss looks at what the teacher makes of samples.
    """

    terms: Mapping[str, tuple[float, Loss]]
    taught: bool = False

    def __call__(self, outputs: Outputs, portion: Portion) -> dict[str, Tensor]:
        """Every loss by name, weighted."""
        return {name: weight * loss(outputs, portion) for name, (weight, loss) in self.terms.items()}


@dataclass(frozen=True)
class Taught:
    """What an output is, as the teacher's numbers tell.

    Attributes:
        kind: ``logits`` or ``probabilities`` ``(..., classes)``, ``labels`` ``(..., labels)`` that each stand alone, or
            ``numbers``.
        variance: Of all its numbers.
    """

    kind: str
    variance: float


def taught(target: Tensor, name: str = "", hint: str = "") -> Taught:
    """Tell what an output is from what the teacher puts out (see :func:`onnxslim_learn.output_kinds.kind`)."""
    target = target.detach().to(torch.float32)
    spread = float(target.var(correction=0))
    variance = max(spread if spread > SMALL else float(target.square().mean()), SMALL)  # one number has no variance
    kind = output_kinds.kind(target.cpu().numpy(), name, hint)
    return Taught(kind if kind in DISTRIBUTIONS else "numbers", variance)


def objective(
    spec: Spec,
    outputs: Mapping[str, Taught],
    *,
    temperature: float = TEMPERATURE,
    labelled: bool = False,
    features: Mapping[str, float] | None = None,
) -> Objective:
    """Read a loss: a name, a function, ``module:function``, or several with weights, ``distill=1,cross-entropy=0.5``.

    Args:
        spec: See :data:`onnxslim_learn.registry.LOSSES`. A function takes the outputs by name and the labels
            of the batch or, where it calls that ``portion``, a :class:`~onnxslim_learn.train.samples.Portion`.
            The keywords that it takes of ``known`` (what outputs are), ``temperature`` and ``features`` are given, too.
        outputs: What the float outputs of the original are.
        temperature: By which logits are divided in distillation.
        labelled: Whether samples have labels.
        features: Tensors inside that are compared -> their variance.

    Raises:
        InputError: If it is no loss, or asks for what is not there.
    """
    terms: dict[str, tuple[float, Loss]] = {}
    rows = [(LOSSES.row(value), weight) for value, weight in _parts(spec)]
    given = {"known": outputs, "temperature": temperature, "features": features or {}}
    for row, weight in rows:
        name = row.name
        if name in terms:
            raise InputError(f"⟨loss⟩ {spec}: names {name} twice. Give it once, with the sum as its weight.")
        if row.labels and not labelled:
            raise InputError(f"⟨loss⟩ {name}: needs labels, but the samples have none. Use distill, or give labels.")
        if row.features and not features:
            raise InputError(f"⟨loss⟩ {name}: there is no tensor to compare inside the model. Use distill alone.")
        if row.teacher and not row.features and not outputs:
            raise InputError(f"⟨loss⟩ {name}: the model has no output of floats. Give labels and another loss.")
        terms[name] = weight, _loss(row, given)
    return Objective(terms, any(row.teacher for row, _ in rows))


def compares_features(spec: Spec) -> bool:
    """Whether a loss compares tensors inside."""
    return any(LOSSES.row(value).features for value, _ in _parts(spec))


def told(spec: Spec) -> str:
    """A loss as it is named on the command line."""
    if isinstance(spec, str):
        return spec
    parts = [(LOSSES.row(value).name, weight) for value, weight in _parts(spec)]
    return ",".join(name if weight == 1 else f"{name}={weight:g}" for name, weight in parts)


def _parts(spec: Spec) -> list[tuple[str | Callable[..., Any], float]]:
    """Losses and their weights."""
    if callable(spec):
        return [(spec, 1.0)]
    if not isinstance(spec, str):
        return [(value, _weight(str(spec), str(weight))) for value, weight in spec.items()]
    parts = [part.strip().partition("=") for part in spec.split(",")]
    return [(name, _weight(spec, number) if equals else 1.0) for name, equals, number in parts]


def _weight(spec: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = -1.0
    if not 0 < weight < float("inf"):
        raise InputError(f"⟨loss⟩ {spec}: {number!r} is no weight. For example distill=1,cross-entropy=0.5.")
    return weight


def _loss(row: LossRow, given: Mapping[str, Any]) -> Loss:
    """A loss with the keywords it takes; a user's own with its result checked."""
    require(row.extra, f"⟨loss⟩ {row.name}")
    function = row.load()
    parameters = list(inspect.signature(function).parameters.values())
    keywords = {p.name: given[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in given}
    bound: Loss = partial(function, **keywords) if keywords else function
    if function.__module__ == __name__:
        return bound
    return _checked(row.name, bound, of_labels=len(parameters) > 1 and parameters[1].name != PORTION)


def _checked(name: str, function: Callable[..., Any], *, of_labels: bool) -> Loss:
    """A user's loss, whose result is checked."""

    def loss(outputs: Outputs, portion: Portion) -> Tensor:
        try:
            value = function(outputs, portion.labels if of_labels else portion)
        except Exception as error:
            raise InputError(
                f"⟨loss⟩ {name}: it raised {type(error).__name__} ({reason(error)}). Correct it."
            ) from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.is_floating_point():
            what = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise InputError(f"⟨loss⟩ {name}: expected one number as a tensor, but got {what}. Correct it.")
        if torch.is_grad_enabled() and not value.requires_grad:
            raise InputError(f"⟨loss⟩ {name}: it does not depend on the outputs. Correct it.")
        return value.reshape(())

    return loss


# --- losses -----------------------------------------------------------------------------------------------------------


def distillation(
    outputs: Outputs, portion: Portion, *, known: Mapping[str, Taught], temperature: float = TEMPERATURE
) -> Tensor:
    """Mean over outputs of the distance to the teacher's.

    Logits: KL divergence at a temperature T, times T² so that gradients keep their size. Probabilities: KL divergence.
    Labels that stand alone: the sum of their KL divergences. Other numbers: squared error over the teacher's variance.
    Integers do not count, nor do outputs of which numbers decide how many rows there are while they are others than the
    teacher's.

    Raises:
        InputError: If no output has the teacher's rows.
    """
    alike = [(n, one) for n, one in known.items() if outputs[n].shape == portion.targets[n].shape]
    if not alike:
        name = next(iter(known))
        raise InputError(
            f"⟨loss⟩ distill: output {name} is {tuple(outputs[name].shape)} and the original's "
            f"{tuple(portion.targets[name].shape)}, for numbers decide how many rows there are. Give ⟨loss⟩ features."
        )
    return torch.stack([_distance(outputs[n], portion.targets[n], one, temperature) for n, one in alike]).mean()


def _distance(output: Tensor, target: Tensor, one: Taught, temperature: float) -> Tensor:
    output, target = output.to(torch.float32), target.to(torch.float32)
    if one.kind == "numbers":
        return F.mse_loss(output, target) / one.variance
    output, target = (x.reshape(-1, x.shape[-1]) for x in (output, target))
    if one.kind == "logits":
        wanted = F.log_softmax(target / temperature, 1)
        got = F.log_softmax(output / temperature, 1)
        return F.kl_div(got, wanted, reduction="batchmean", log_target=True) * temperature**2
    if one.kind == "labels":
        entropy = F.binary_cross_entropy(target, target, reduction="sum")
        return (F.binary_cross_entropy(output.clamp(0, 1), target, reduction="sum") - entropy) / len(target)
    return F.kl_div(output.clamp_min(SMALL).log(), target, reduction="batchmean")


def inner(outputs: Outputs, portion: Portion, *, features: Mapping[str, float]) -> Tensor:
    """Mean over tensors inside of the squared error to the teacher's over their variance.

    Those that are not compared at the moment, or that a cut took away, count as reproduced.
    """
    names = [name for name in features if name in portion.targets and name in outputs]
    parts = [_distance(outputs[n], portion.targets[n], Taught("numbers", features[n]), 1.0) for n in names]
    nothing = next(iter(outputs.values())).to(torch.float32).sum() * 0.0
    return torch.stack([nothing, *parts]).sum() / len(features)


def _rows(name: str, labels: Any) -> Tensor:
    """Labels as a tensor."""
    if not isinstance(labels, torch.Tensor):
        kind = "several parts" if isinstance(labels, dict | tuple) else "differently many numbers"
        raise InputError(f"⟨loss⟩ {name}: labels of samples have {kind}. Give a loss of your own, module:function.")
    return labels


def cross_entropy(outputs: Outputs, portion: Portion) -> Tensor:
    """Cross-entropy of the first output ``(samples, classes, ...)`` with labels: classes or shares."""
    output, labels = next(iter(outputs.values())).to(torch.float32), _rows("cross-entropy", portion.labels)
    shares = labels.is_floating_point()
    labels = labels if shares else labels.to(torch.int64)
    if output.ndim < 2 or labels.shape != (output.shape if shares else output.shape[:1] + output.shape[2:]):
        kind = "shares of classes (fractions)" if shares else "classes"
        raise InputError(
            f"⟨loss⟩ cross-entropy: labels {tuple(labels.shape)}, {kind}, do not fit outputs {tuple(output.shape)}. "
            "Give an integer class for each sample."
        )
    if not labels.is_floating_point() and not 0 <= int(labels.min()) <= int(labels.max()) < output.shape[1]:
        raise InputError(f"⟨loss⟩ cross-entropy: labels must lie between 0 and {output.shape[1] - 1}. Correct them.")
    if output_kinds.distributed(output.detach(), 1):
        output = output.clamp_min(SMALL).log()
    return F.cross_entropy(output, labels)


def squared_error(outputs: Outputs, portion: Portion) -> Tensor:
    """Mean squared error of the first output to labels of its shape."""
    output, labels = next(iter(outputs.values())).to(torch.float32), _rows("mse", portion.labels)
    if labels.numel() != output.numel():
        raise InputError(
            f"⟨loss⟩ mse: labels {tuple(labels.shape)} do not fit outputs {tuple(output.shape)}. Give them alike."
        )
    return F.mse_loss(output, labels.to(torch.float32).reshape(output.shape))
