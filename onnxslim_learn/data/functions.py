"""Samples that a function of the user yields: ``module:function``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from onnxslim_learn.data.signature import LABELS, UNNAMED, Declared, accept
from onnxslim_learn.errors import InputError, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnxslim_learn.data.batch import Batch


def portions(where: str, function: Callable[..., Any], declared: Declared, size: int) -> Iterator[Batch]:
    """What a function yields, checked.

    Args:
        where: The source, for errors.
        function: Called with the batch size if it takes an argument; yields dicts of arrays, single arrays, or either
            with labels: ``(inputs, labels)``.
        declared: What the model declares.
        size: Samples wanted at a time; it may yield any number.

    Raises:
        InputError: If it fails, or yields what does not fit the model.
    """
    try:
        items = iter(function(size) if _takes_size(function) else function())
    except (Exception, GeneratorExit, SystemExit) as error:  # a function may say that it ends all
        raise _failed(where, error) from error
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (Exception, GeneratorExit, SystemExit) as error:
            raise _failed(where, error) from error
        arrays, labels = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        named = dict(arrays) if isinstance(arrays, dict) else {UNNAMED: arrays}
        if labels is None and LABELS not in declared.inputs:
            labels = named.pop(LABELS, None)
        yield accept(where, named, declared, labels)


def _takes_size(function: Callable[..., Any]) -> bool:
    """Whether a function takes the batch size: as a parameter of that name, or as one that must be given."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    needed = [p for p in parameters.values() if p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD]
    return len(needed) == 1 or next(iter(parameters), "") == "batch_size"


def _failed(where: str, error: BaseException) -> InputError:
    return InputError(f"{where}: the function failed with {type(error).__name__}: {reason(error)}. Correct it.")
