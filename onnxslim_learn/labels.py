"""Labels: an array with a row for each sample or, where a row says too little, an array of entries.

An entry is an array of any length (boxes, of which images have differently many), or a dict, list or tuple of such. A
function that judges or trains gets a batch of them collated: dicts and tuples of what their parts are, an array where
all samples have one shape, else a list of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import InputError

KINDS = "fiub"
ADVICE = "Give one number, or one row, a sample, or for each a dict, list or tuple of arrays"


def rows(where: str, labels: Any) -> Array | None:
    """Labels as users give them, sample by sample.

    Args:
        where: The source, for errors.
        labels: An array; a list of what samples have each; a dict or tuple of such, or ``None``.

    Raises:
        InputError: If they hold no numbers, or parts of them differ in the number of samples.
    """
    if isinstance(labels, Mapping):
        parts = {str(name): _part(where, name, value) for name, value in labels.items()}
        return _entries([dict(zip(parts, one, strict=True)) for one in _side_by_side(where, parts)])
    if isinstance(labels, tuple) and all(np.ndim(one) or isinstance(one, Mapping) for one in map(_plain, labels)):
        several = {str(k): _part(where, k, value) for k, value in enumerate(labels)}
        return _entries([tuple(one) for one in _side_by_side(where, several)])
    return None if labels is None else _array(labels)


def _plain(value: Any) -> Any:
    """A list as something that numpy can tell the rank of, however long its parts are."""
    return _array(value) if isinstance(value, list) else value


def _part(where: str, name: object, value: Any) -> Array:
    part = rows(where, value)
    if part is None or part.ndim == 0:
        raise InputError(f"{where}: labels {name} are {type(value).__name__}. {ADVICE}.")
    return part


def _side_by_side(where: str, parts: Mapping[str, Array]) -> list[tuple[Any, ...]]:
    """What belongs to each sample, part by part."""
    counts = {name: len(part) for name, part in parts.items()}
    if len(set(counts.values())) != 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        raise InputError(f"{where}: labels disagree on the number of samples ({said}). Give as many of each.")
    return list(zip(*parts.values(), strict=True))


def _array(labels: Any) -> Array:
    """A list or array as an array, of entries where rows are not alike."""
    if not isinstance(labels, list):
        return np.asanyarray(labels)
    entries = [_entry(one) for one in labels]
    shapes = {one.shape if isinstance(one, np.ndarray) and one.dtype.kind != "O" else None for one in entries}
    if len(shapes) > 1 or None in shapes:
        return _entries(entries)
    return np.stack(entries) if entries else np.zeros(0)


def _entry(one: Any) -> Any:
    """What a sample has: arrays in place of lists and numbers."""
    if isinstance(one, Mapping):
        return {str(name): _entry(value) for name, value in one.items()}
    return tuple(map(_entry, one)) if isinstance(one, tuple) else np.asarray(one)


def _entries(entries: list[Any]) -> Array:
    array = np.empty(len(entries), object)
    array[:] = entries
    return array


def numeric(labels: Array) -> bool:
    """Whether there are numbers for each sample."""
    if labels.dtype.kind == "O" and labels.ndim == 1:
        return all(map(_numbers, labels))
    return labels.ndim > 0 and labels.dtype.kind in KINDS


def _numbers(entry: Any) -> bool:
    if isinstance(entry, dict | tuple):
        return all(map(_numbers, entry.values() if isinstance(entry, dict) else entry))
    return np.asarray(entry).dtype.kind in KINDS


def structured(labels: Array | None) -> bool:
    """Whether samples have entries in place of rows."""
    return labels is not None and labels.dtype.kind == "O"


def collated(labels: Array, leaf: Callable[[Array], Any] = lambda array: array) -> Any:
    """A batch of labels as functions get them.

    Args:
        labels: Of the samples of a batch.
        leaf: What makes of an array what the function works with.

    Raises:
        InputError: If samples have other parts than the first.
    """
    if not structured(labels):
        return leaf(labels)
    return _together(list(labels), leaf)


def _together(entries: list[Any], leaf: Callable[[Array], Any]) -> Any:
    first = entries[0]
    if isinstance(first, dict):
        if any(not isinstance(one, dict) or one.keys() != first.keys() for one in entries):
            raise InputError(f"labels: not all samples have {', '.join(first)}. Give each sample the same parts.")
        return {name: _together([one[name] for one in entries], leaf) for name in first}
    if isinstance(first, tuple):
        if any(not isinstance(one, tuple) or len(one) != len(first) for one in entries):
            raise InputError(f"labels: not all samples have {len(first)} parts. Give each sample the same parts.")
        return tuple(_together(list(parts), leaf) for parts in zip(*entries, strict=True))
    arrays = [np.asarray(one) for one in entries]
    return leaf(np.stack(arrays)) if len({one.shape for one in arrays}) == 1 else [leaf(one) for one in arrays]
