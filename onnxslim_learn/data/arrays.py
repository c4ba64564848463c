"""Samples in ``.npy`` and ``.npz`` files, or in memory."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

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
HEADER = 1 << 16  # bytes that tell what an array is, at most
UNPACKED = 1 << 34  # bytes of compressed arrays, which are held in memory


def read(path: Path) -> dict[str, Array]:
    """The arrays of a file, mapped rather than read where they are not compressed.

    Raises:
        InputError: If the file holds no plain arrays, or compressed ones of more than 16 GiB.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix == ".npy":
                return {UNNAMED: _mapped(path, raw, path.stat().st_size)}
            with zipfile.ZipFile(raw) as archive:
                members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
                if (size := sum(info.file_size for info in members if info.compress_type)) > UNPACKED:
                    raise ValueError(f"it unpacks to {size} bytes, and {UNPACKED} are the most")
                return {info.filename.removesuffix(".npy"): _member(path, raw, archive, info) for info in members}
    except Exception as error:  # what zipfile, zlib and numpy raise at damaged files has no base in common
        raise InputError(f"{path}: holds no arrays that can be read ({reason(error)}). Write it with numpy.") from error


def _member(path: Path, raw: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as stream:
        shape, fortran, dtype, header = _header(stream.read(HEADER))
        _check_size(shape, dtype, info.file_size - header)
        if info.compress_type == zipfile.ZIP_STORED and math.prod(shape) > 1:
            raw.seek(info.header_offset)
            lengths = struct.unpack("<HH", raw.read(LOCAL_HEADER)[26:])
            return _mapped(path, raw, info.file_size, info.header_offset + LOCAL_HEADER + sum(lengths))
        stream.seek(header)
        content = stream.read()
    array = np.frombuffer(content, dtype, math.prod(shape))
    return array.reshape(shape, order="F" if fortran else "C")


def _mapped(path: Path, raw: BinaryIO, size: int, start: int = 0) -> Array:
    """An array that lies in a file as it is, in so many bytes from a place on."""
    raw.seek(start)
    shape, fortran, dtype, header = _header(raw.read(min(HEADER, size)))
    _check_size(shape, dtype, min(size, path.stat().st_size - start) - header)
    if not math.prod(shape) or not shape:
        raw.seek(start + header)
        return np.frombuffer(raw.read(dtype.itemsize), dtype, math.prod(shape)).reshape(shape)
    return np.memmap(path, dtype, "r", start + header, shape, "F" if fortran else "C")


def _header(begins: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, type, and how long the header is that tells them (NEP 1)."""
    stream = io.BytesIO(begins)
    version = np.lib.format.read_magic(stream)
    told = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = told(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype, stream.tell()


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> None:
    """Refuse an array of a shape that bytes do not make up."""
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{size} bytes do not make up {dtype} of shape {list(shape)}")


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
