"""Samples in ``.npy`` and ``.npz`` files, or in memory."""

from __future__ import annotations

import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.data.batch import Batch
from onnxslim_learn.data.signature import LABELS, UNNAMED, Declared, accept, check, named
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.labels import rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


PART = f"{LABELS}."
LOCAL_HEADER = 30  # bytes before the name in a zip file; two lengths follow at 26 (PKWARE APPNOTE 4.3.7)


def read(path: Path) -> dict[str, Array]:
    """The arrays of a file, mapped rather than read where they are not compressed.

    Raises:
        InputError: If the file holds no plain arrays.
    """
    try:
        if path.suffix == ".npy":
            return {UNNAMED: np.load(path, mmap_mode="r", allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {info.filename.removesuffix(".npy"): _member(path, archive, info) for info in members}
    except (ValueError, EOFError, zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise InputError(f"{path}: holds no arrays that can be read ({reason(error)}). Write it with numpy.") from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as stream:
        if info.compress_type != zipfile.ZIP_STORED:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        header = stream.tell()
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds Python objects")
    with path.open("rb") as raw:
        raw.seek(info.header_offset)
        lengths = struct.unpack("<HH", raw.read(LOCAL_HEADER)[26:])
    start = info.header_offset + LOCAL_HEADER + sum(lengths) + header
    if 0 in shape or shape == ():
        with archive.open(info) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


def portions(where: str, samples: Batch, declared: Declared, order: Array, size: int) -> Iterator[Batch]:
    """The samples at some positions, in that order, in portions.

    Args:
        where: The source, for errors.
        samples: All samples, not yet cast.
        declared: What the model declares.
        order: Positions of samples.
        size: Samples in a portion.

    Raises:
        InputError: If a value does not fit the model.
    """
    for chosen in np.array_split(order, range(size, len(order), size)):
        inputs = {
            name: array if (axis := declared.inputs[name].axis) is None else array.take(chosen, axis)
            for name, array in samples.inputs.items()
        }
        yield accept(where, inputs, declared, None if samples.labels is None else samples.labels[chosen])


def _labels(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Those arrays that are labels, or parts of them: ``labels.boxes``."""
    return {name: array for name, array in arrays.items() if name == LABELS or name.startswith(PART)}


def whole(where: str, arrays: Mapping[str, Any], declared: Declared) -> Batch:
    """All samples that named arrays hold, their shapes and types checked, nothing read.

    ``labels`` may be among them, or parts of them (``labels.boxes``).

    Raises:
        InputError: If a name, a rank, a size or a type does not fit.
    """
    apart = {} if LABELS in declared.inputs else _labels(arrays)
    inputs = named(where, {name: a for name, a in arrays.items() if name not in apart}, declared)
    parts = {name.removeprefix(PART): value for name, value in apart.items()}
    labels = rows(where, parts.pop(LABELS) if len(parts) == 1 and LABELS in parts else parts or None)
    return Batch(inputs, labels, check(where, inputs, declared, labels))
