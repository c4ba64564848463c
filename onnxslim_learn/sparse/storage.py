"""What zeros are worth on disk: a file as it is, compressed, and with sparse initializers.

A dense file is as large as before. ``sparse_initializer`` stores the weights that are not zero, each with a 64-bit
place, so that it is smaller above two thirds of zeros in 32-bit weights; onnxruntime reads it and makes it dense.
Sparse tensor cores take 2:4 weights as half of the values with two bits each that say where they were.
"""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxslim_learn.array_types import Array
from onnxslim_learn.graph import external_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


CHUNK = 1 << 22  # bytes read at a time
PLACE = 8  # bytes of a place in a sparse initializer: the format has 64-bit ones alone


def compressed(files: list[Path]) -> dict[str, int | None]:
    """Bytes of some files under compressors of the standard library; ``None`` where this Python lacks one."""
    sizes: dict[str, int | None] = {"gzip": None, "zstd": None}
    for name, make in (("gzip", _gzip), ("zstd", _zstd)):
        compressor = make()
        if compressor is not None:
            sizes[name] = sum(len(compressor.compress(part)) for part in _parts(files)) + len(compressor.flush())
    return sizes


def _gzip() -> Any:
    return zlib.compressobj(6, wbits=31)


def _zstd() -> Any:
    if sys.version_info < (3, 14):
        return None
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]

    return zstd.ZstdCompressor()


def _parts(files: list[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            while part := file.read(CHUNK):
                yield part


def with_sparse(proto: onnx.ModelProto, accepts: Callable[[str], bool] = lambda name: True) -> int:
    """Make initializers sparse in place where that is smaller; returns how many.

    Args:
        proto: A model with its weights inside.
        accepts: Whether the initializer of a name may be sparse.
    """
    count = 0
    for tensor in list(proto.graph.initializer):
        kind = tensor.data_type
        if kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE) or not tensor.dims:
            continue  # onnxruntime reads sparse halves, too, but checkers differ about them
        array = numpy_helper.to_array(tensor)
        at = np.flatnonzero(array)
        if len(at) * (PLACE + array.itemsize) >= array.nbytes or not accepts(tensor.name):
            continue
        sparse = _sparse(tensor.name, array, at)
        if sparse.ByteSize() < tensor.ByteSize():
            proto.graph.sparse_initializer.append(sparse)
            proto.graph.initializer.remove(tensor)
            count += 1
    return count


def _sparse(name: str, array: Array, at: Array) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(array.reshape(-1)[at], name)
    places = numpy_helper.from_array(at.astype(np.int64), f"{name}_indices")
    return onnx.helper.make_sparse_tensor(values, places, list(array.shape))


def inside(path: Path) -> onnx.ModelProto:
    """A model with all its weights in memory."""
    return external_files.read_in(onnx.load(path, load_external_data=False), path)


def two_of_four(arrays: list[Array]) -> int:
    """Bytes of 2:4 weights as sparse tensor cores take them: half of the values, two bits for each."""
    return sum(a.size // 2 * a.itemsize + -(-a.size // 8) for a in arrays)
