"""Arrays that are written one after another and read as one, through a file that is mapped rather than loaded."""

from __future__ import annotations

import tempfile
from collections import defaultdict, deque
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

Key: TypeAlias = "tuple[Hashable, np.dtype[Any]]"


class MappedBuffer:
    """A file for each name and type, which has no name of its own and vanishes with the last array that shows it.

    First everything is added, then it is taken in the same order. What is no plain numbers (texts) stays in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Begin; the files will lie in a folder, by default in that of temporary files."""
        self.folder = folder
        self.files: dict[Key, IO[bytes]] = {}
        self.listed: dict[Key, deque[Array]] = defaultdict(deque)
        self.mapped: dict[Key, Array] = {}
        self.taken: dict[Key, int] = defaultdict(int)

    @property
    def place(self) -> str:
        """Where the files lie."""
        return str(self.folder or tempfile.gettempdir())

    def add(self, name: Hashable, array: Array) -> None:
        """Write rows behind what has this name.

        Raises:
            OSError: If there is no room.
        """
        key = (name, array.dtype)
        if array.dtype.hasobject:
            self.listed[key].append(array)
            return
        if key not in self.files:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            self.files[key] = tempfile.TemporaryFile(dir=self.folder, prefix="samples-")  # noqa: SIM115
        self.files[key].write(array.tobytes())
        self.files[key].flush()

    def take(self, name: Hashable, like: Array, count: int) -> Array:
        """The next rows of a name, so many (all of some that were added), like those of an empty array."""
        key = (name, like.dtype)
        if like.dtype.hasobject:
            parts = [like]
            while sum(map(len, parts)) < count:
                parts.append(self.listed[key].popleft())
            return np.concatenate(parts)
        if key not in self.mapped:
            self.mapped[key] = self._map(key)
        size = count * int(np.prod(like.shape[1:], dtype=np.int64))
        start = self.taken[key]
        self.taken[key] += size
        return self.mapped[key][start : start + size].reshape(count, *like.shape[1:])

    def _map(self, key: Key) -> Array:
        """All numbers of a file in a row."""
        file = self.files[key]
        if not file.tell():  # nothing can be mapped of nothing
            return np.zeros(0, key[1])
        return np.asarray(np.memmap(file, key[1], "r"))
