"""Samples in ``.parquet`` files: columns named as the model's inputs, or a column of images as Hugging Face writes it.

Rows are read by row groups, the parts that a file is compressed in, and only those that are wanted: what lies in a
window of a few groups is taken together, so that memory holds no more than that, and each group is read once a pass.
(See https://parquet.apache.org/docs/concepts/.)
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.data.signature import LABELS, Declared, accept
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.rows import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from onnxslim_learn.data.batch import Batch
    from onnxslim_learn.data.signature import Input

PARQUET, EXTRA = ".parquet", "parquet"
CLASSES = (LABELS, "label", "cls")  # what a column of classes is called
WINDOW = 8  # row groups that are read together


@dataclass(frozen=True)
class Group:
    """A row group.

    Attributes:
        file: Where it is.
        number: Its place there.
        start: The place of its first row among those of all files.
        count: Rows.
    """

    file: Path
    number: int
    start: int
    count: int

    def read(self, columns: tuple[str, ...]) -> Any:
        """Some of its columns.

        Raises:
            InputError: If it cannot be read.
        """
        return _read(self.file, self.number, columns)


@dataclass(frozen=True)
class Cell:
    """An image in a row.

    Attributes:
        group: Where.
        row: Its place there.
        column: Its column.
    """

    group: Group
    row: int
    column: str

    @property
    def parent(self) -> Path:
        """The file that it is in."""
        return self.group.file

    def open(self) -> io.BytesIO:
        """Its bytes, as a file."""
        value = self.group.read((self.column,)).column(0)[self.row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise ValueError("its row holds no bytes")
        return io.BytesIO(content)

    def __str__(self) -> str:
        return f"{self.group.file}: {self.column} of row {self.row} of group {self.group.number}"


@dataclass(frozen=True)
class Files:
    """Parquet files that go together.

    Attributes:
        place: What names them.
        groups: All row groups, in order.
        schema: Names and types of columns.
    """

    place: Path
    groups: Sequence[Group]
    schema: Any

    @property
    def count(self) -> int:
        """Rows."""
        return self.groups[-1].start + self.groups[-1].count

    def where(self, rows: Array) -> Array:
        """The groups that rows lie in."""
        starts = [group.start for group in self.groups]
        groups: Array = np.searchsorted(starts, rows, side="right") - 1
        return groups

    def near(self, order: Array) -> tuple[Array, tuple[int, ...]]:
        """The same rows with those of a window of groups together, in the order given; and how many are in each.

        Which groups share a window follows from the order, too.
        """
        groups = self.where(order)
        _, first = np.unique(groups, return_index=True)
        met = groups[np.sort(first)]
        window = np.empty(len(self.groups), int)
        window[met] = np.arange(len(met)) // WINDOW
        together = np.argsort(window[groups], kind="stable")
        return order[together], tuple(np.bincount(window[groups]).tolist())

    @property
    def images(self) -> str | None:
        """The first column of encoded images: bytes, or records that have ``bytes``."""
        import pyarrow

        def encoded(kind: Any) -> bool:
            if pyarrow.types.is_struct(kind):
                return any(field.name == "bytes" and encoded(field.type) for field in kind)
            return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

        return next((field.name for field in self.schema if encoded(field.type)), None)

    def labels(self, declared: Declared) -> str | None:
        """The column of classes, if there is one that is no input."""
        return next((name for name in CLASSES if name in self.schema.names and name not in declared.inputs), None)

    def pictures(self, column: str, label: str | None) -> tuple[list[Cell], list[int] | None]:
        """All images, not yet read, and their classes.

        Raises:
            InputError: If a class is no whole number.
        """
        cells = [Cell(group, row, column) for group in self.groups for row in range(group.count)]
        if label is None:
            return cells, None
        classes = np.concatenate([_array(group.file, group.read((label,)), label) for group in self.groups])
        if classes.dtype.kind not in "iu" or classes.ndim != 1:
            raise InputError(f"{self.place}: column {label} holds {classes.dtype.name}, no numbers of classes.")
        return cells, classes.tolist()


@dataclass(frozen=True)
class Rows:
    """Samples in columns.

    Attributes:
        files: Where they are.
        order: Which rows are used, in order.
        declared: What the model declares.
    """

    files: Files
    order: Array
    declared: Declared

    def pick(self, places: Sequence[int] | Array) -> Batch:
        """The samples at some places of the order.

        Raises:
            InputError: If they cannot be read, or do not fit the model.
        """
        import pyarrow

        label, rows = self.files.labels(self.declared), self.order[np.asarray(places, int)]
        columns = (*self.declared.inputs, *([] if label is None else [label]))
        groups = self.files.where(rows)
        sorted_by_group, parts = np.argsort(groups, kind="stable"), []
        for number in np.unique(groups):
            group = self.files.groups[number]
            parts.append(group.read(columns).take(rows[groups == number] - group.start))
        table, where = pyarrow.concat_tables(parts).take(np.argsort(sorted_by_group)), str(self.files.place)
        arrays = {name: _array(self.files.place, table, name) for name in columns}
        labels = None if label is None else arrays.pop(label)
        inputs = {name: _shaped(arrays[name], one) for name, one in self.declared.inputs.items()}
        return accept(where, inputs, self.declared, labels)

    def portions(self, size: int) -> Iterator[Batch]:
        """All samples, so many at a time."""
        for start in range(0, len(self.order), size):
            yield self.pick(np.arange(start, min(start + size, len(self.order))))


def parquets(place: Path) -> list[Path]:
    """The files that a path names: a ``.parquet`` file, or all of those in a folder, in order."""
    if place.is_dir():
        return sorted(path for path in place.iterdir() if path.suffix == PARQUET and path.is_file())
    return [place] if place.suffix == PARQUET else []


def find(place: Path) -> Files:
    """What the files of a path hold; only their ends are read, which tell it.

    Raises:
        InputError: If they cannot be read, hold nothing or differ in their columns, or the extra is not installed.
    """
    require(EXTRA, f"{place}")
    from pyarrow import parquet

    groups: list[Group] = []
    schema: Any = None
    for file in parquets(place):
        try:
            with parquet.ParquetFile(file) as opened:
                here, told = opened.schema_arrow.remove_metadata(), opened.metadata
        except Exception as error:  # pyarrow's errors have no base in common
            raise InputError(f"{file}: no .parquet file that can be read ({reason(error)}). Write it anew.") from error
        if schema is not None and here != schema:
            raise InputError(f"{file}: its columns are not those of {groups[0].file}. Give files of one kind.")
        schema = here
        for number in range(told.num_row_groups):
            start = groups[-1].start + groups[-1].count if groups else 0
            groups.append(Group(file, number, start, told.row_group(number).num_rows))
    groups = [group for group in groups if group.count]
    if not groups:
        raise InputError(f"{place}: its .parquet files hold no rows. Give some that do.")
    return Files(place, groups, schema)


@lru_cache(maxsize=2 * WINDOW)
def _read(file: Path, number: int, columns: tuple[str, ...]) -> Any:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:
            return opened.read_row_group(number, columns=list(columns), use_threads=False)
    except Exception as error:
        raise InputError(f"{file}: group {number} cannot be read ({reason(error)}). Write it anew.") from error


def _array(place: Path, table: Any, name: str) -> Array:
    """A column of numbers, or of lists of equally many, as an array."""
    import pyarrow.compute
    from pyarrow import types

    values = table.column(name).combine_chunks()
    shape, nulls = [len(values)], values.null_count
    if isinstance(values.type, pyarrow.FixedShapeTensorType):
        shape, values = [*shape, *values.type.shape], values.storage.flatten()
    while any(is_kind(values.type) for is_kind in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        lengths = pyarrow.compute.list_value_length(values).unique()
        if values.null_count or len(lengths) != 1:
            raise InputError(f"{place}: lists of column {name} are not equally long. Pad them.")
        shape, values = [*shape, lengths[0].as_py()], values.flatten()
        nulls += values.null_count
    if nulls or not types.is_primitive(values.type):
        raise InputError(
            f"{place}: column {name} holds {table.column(name).type}, and not all are numbers. Fill it in."
        )
    array: Array = values.to_numpy(zero_copy_only=False).reshape(shape)
    return array


def _shaped(array: Array, one: Input) -> Array:
    """An input as the model takes it, also where a row holds all of its numbers in one list."""
    sizes = [size for axis, size in enumerate(one.dims) if axis != one.axis]
    whole = [size for size in sizes if isinstance(size, int)]
    if array.ndim == 2 < len(one.dims) and whole == sizes and math.prod(whole) == array.shape[1]:
        array = array.reshape(len(array), *whole)
    return np.moveaxis(array, 0, one.axis) if one.axis and array.ndim == len(one.dims) else array
