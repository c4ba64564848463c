"""Arrays in temporary files, which the system keeps in memory as long as there is room."""

from __future__ import annotations

import mmap
import tempfile
import weakref
from functools import cached_property
from threading import Lock
from typing import IO

import numpy as np

from onnxslim_learn.array_types import Array


def on_disk(array: Array) -> Array:
    """A copy in a temporary file that goes with the array; texts stay in memory, and what is in a file there."""
    return Scratch().put(array)


class Scratch:
    """A temporary file for arrays, which goes with the last of them.

    Where an array lay that is gone, another is written: to write where the system has pages already takes a fraction of
    the time.
    """

    def __init__(self) -> None:
        """Nothing lies in it yet."""
        self._idle: list[tuple[int, int]] = []  # bytes of what may be written over, and where they begin
        self._end, self._lock = 0, Lock()

    @cached_property
    def _file(self) -> IO[bytes]:
        return tempfile.TemporaryFile(prefix="onnxslim-")

    def put(self, array: Array) -> Array:
        """A copy of an array in the file; texts stay in memory, and what is in a file there."""
        if not array.nbytes or array.dtype.hasobject or isinstance(array, np.memmap):
            return array
        with self._lock:
            place = self._place(array.nbytes)
            self._file.seek(place[1])
            self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            self._file.flush()
            copy: Array = np.memmap(self._file, array.dtype, "r", place[1], array.shape)
        weakref.finalize(copy.base, self._idle.append, place).atexit = False  # views, too, hold what is mapped
        return copy

    def _place(self, size: int) -> tuple[int, int]:
        """The smallest place that does for so many bytes, or a new one."""
        fits = [place for place in list(self._idle) if place[0] >= size]
        if fits:
            self._idle.remove(min(fits))
            return min(fits)
        size = -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._end += size
        return size, self._end - size
