"""Metrics that compare outputs with labels, or judge them by themselves: by name, or functions of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.labels import collated
from onnxslim_learn.metrics import TOP
from onnxslim_learn.registry import METRICS


@dataclass(frozen=True)
class Metric:
    """A number that tells how good outputs are.

    Attributes:
        name: As it was asked for.
        function: Takes the outputs, an array ``(samples, ...)`` or, of several, such arrays by name, and the labels of
            all samples, as :func:`onnxslim_learn.labels.collated` makes them, or ``None``.
        higher: Whether higher is better.
    """

    name: str
    function: Callable[[Any, Any], Any]
    higher: bool = True

    def __call__(self, outputs: Mapping[str, Array], labels: Sequence[Array | None]) -> float:
        """Judge outputs by name; labels come in batches.

        Raises:
            InputError: If the function fails, or gives no finite number.
        """
        known = [one for one in labels if one is not None]
        given = collated(np.concatenate(known)) if known and len(known) == len(labels) else None
        predictions = next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)
        try:
            value = float(self.function(predictions, given))
        except InputError:
            raise
        except Exception as error:
            said = f"{type(error).__name__} ({reason(error)})"
            raise InputError(f"metric {self.name}: it raised {said}. Correct it.") from error
        if not np.isfinite(value):
            raise InputError(f"metric {self.name}: it gave {value}, which is no number to compare. Correct it.")
        return value

    def lost(self, outputs: Mapping[str, Array], labels: Sequence[Array | None]) -> float:
        """The same as a number that is lower where outputs are better."""
        return -self(outputs, labels) if self.higher else self(outputs, labels)

    def ratio(self, before: float, after: float) -> float:
        """What is left of a value: 1 where nothing is lost, less the worse it is."""
        better, worse = (after, before) if self.higher else (before, after)
        if worse == better:
            return 1.0
        return better / worse if worse > 0 else float(better > worse)


def metric(spec: str | Callable[..., Any]) -> Metric:
    """The metric of a name, or of ``module:function``; higher is better unless ``higher_is_better`` of it is false.

    Raises:
        InputError: If there is none.
    """
    row = METRICS.row(spec)
    function = METRICS.load(spec)
    return Metric(row.name, function, bool(getattr(function, "higher_is_better", True)))


# --- metrics by name --------------------------------------------------------------------------------------------------


def accuracy(predictions: Any, labels: Array | None) -> float:
    """Share of samples whose label has the largest output."""
    rows, labels = _classes("accuracy", predictions, labels)
    return float((rows.argmax(axis=-1) == labels).mean())


def top5(predictions: Any, labels: Array | None) -> float:
    """Share of samples whose label is among the five largest outputs."""
    rows, labels = _classes("top5", predictions, labels)
    best = np.argsort(rows, axis=-1)[..., -TOP:]
    return float((best == labels[..., None]).any(axis=-1).mean())


def _classes(name: str, predictions: Any, labels: Array | None) -> tuple[Array, Array]:
    """The outputs ``(samples, ..., classes)`` that labels belong to, and these."""
    arrays = predictions.values() if isinstance(predictions, Mapping) else [predictions]
    if labels is None:
        raise InputError(f"metric {name}: needs labels, but the samples have none. Give them with ⟨data⟩.")
    rows = isinstance(labels, np.ndarray) and labels.dtype.kind in "iu"
    fits = [a for a in arrays if rows and a.shape[:-1] == labels.shape]
    if not fits:
        said = f"labels {labels.shape}" if rows else "these labels"
        raise InputError(f"metric {name}: no output has classes for {said}. Give module:function.")
    return fits[0], labels
