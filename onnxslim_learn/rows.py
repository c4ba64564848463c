"""Registries: what users choose by name, as rows that say where a thing is, what it needs and how it is told.

Wherever a name is accepted, so are a function, ``module:function``, and the name of an entry point that an installed
package declares in the registry's group (``onnxslim_learn.criteria`` and so on). A function that stands in no row says
by its attributes what a row would: ``score.samples = True``, ``prune.settings = PruneSettings``.

Registering in Python changes a registry for the whole process; nothing else in this package has such a state.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

from onnxslim_learn.errors import InputError, meant
from onnxslim_learn.runtime.functions import by_name, is_name

DISTRIBUTION = "onnxslim-learn"
EXTRAS = {
    "train": ("torch", "safetensors"),
    "rl": ("gymnasium", "stable_baselines3"),
    "tensorboard": ("tensorboard",),
    "cluster": ("distributed",),
    "report": ("vl_convert",),
    "parquet": ("pyarrow",),
}
"""Extra of the distribution -> the modules that it brings."""


@dataclass(frozen=True)
class Row:
    """One thing that users may name.

    Attributes:
        name: What it is called.
        where: ``module:attribute``, imported on first use, or the thing itself.
        help: What it is, in one line.
        extra: The extra of the distribution that it needs, if any: a key of :data:`EXTRAS`.
        also: Other names that users know it by.
    """

    name: str
    where: str | Callable[..., Any]
    help: str = ""
    extra: str = ""
    also: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import what the row points to."""
        return imported(self.where)


def imported(where: Any) -> Any:
    """What ``module:attribute`` of this package names; anything else is the thing itself."""
    if not isinstance(where, str):
        return where
    module, _, path = where.partition(":")
    module_loaded: Any = importlib.import_module(module)
    for part in path.split("."):
        module_loaded = getattr(module_loaded, part)
    return module_loaded


R = TypeVar("R", bound=Row)


class Registry(Mapping[str, R], Generic[R]):
    """Rows by name, in the order in which they are told.

    Attributes:
        parameter: What users give a name for; errors begin with it.
        group: The group of entry points that adds to the rows.
    """

    def __init__(self, parameter: str, group: str, kind: type[R], rows: Iterable[R], *, also: str = "") -> None:
        """Take up the rows, all of one kind; ``also`` is what else the parameter takes, in words."""
        self.parameter, self.group, self._kind, self._also = parameter, f"onnxslim_learn.{group}", kind, also
        self._rows = {row.name: row for row in rows}

    def __getitem__(self, name: str) -> R:
        also = (row for row in self._rows.values() if name in row.also)
        row = self._rows.get(name) or next(also, None)
        if row is None:
            raise KeyError(name)
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: R) -> R:
        """Add a row for the rest of the process.

        Raises:
            InputError: If its name is taken.
        """
        if row.name in self:
            raise InputError(f"{self.parameter} {row.name}: there is one of this name already. Choose another name.")
        self._rows[row.name] = row
        return row

    def installed(self) -> dict[str, str]:
        """Names that installed packages add to the rows -> the packages; nothing of them is imported."""
        from importlib.metadata import entry_points

        names = {entry.name: entry.dist.name if entry.dist else "" for entry in entry_points(group=self.group)}
        return {name: names[name] for name in sorted(set(names) - set(self._rows))}

    def names(self) -> list[str]:
        """All names that are accepted: those of rows, and those that installed packages add."""
        return [*self._rows, *self.installed()]

    def find(self, name: str) -> R | None:
        """The row of a name, an installed package's included; ``None`` if there is none."""
        return self.get(name) or self._entry(name)

    def listed(self, which: Callable[[R], bool] = lambda row: True) -> str:
        """Rows in words, for help: ``name (what it is), name (what it is), name (of an installed package)``."""
        told = {" or ".join((row.name, *row.also)): row.help for row in self._rows.values() if which(row)}
        told |= {name: f"of {package}" for name, package in self.installed().items()}
        return ", ".join(f"{name} ({said})" for name, said in told.items())

    def register(self, name: str, where: str | Callable[..., Any] | None = None, /, **data: Any) -> Any:
        """Add a function under a name for the rest of the process; without a function, decorate one.

        Args:
            name: What it is called.
            where: The function, or where it is.
            **data: The other attributes of a row.

        Raises:
            InputError: If the name is taken.
        """
        if where is None:
            return lambda function: (self.register(name, function, **data), function)[1]
        return self.add(self._kind(name, where, **{"help": summary(where), **data}))

    def remove(self, name: str) -> None:
        """Take a row out again."""
        del self._rows[name]

    @contextmanager
    def having(self, name: str, where: str | Callable[..., Any], /, **data: Any) -> Iterator[R]:
        """Have a row for as long as a block runs."""
        row: R = self.register(name, where, **data)
        try:
            yield row
        finally:
            self.remove(name)

    def row(self, value: str | Callable[..., Any], parameter: str = "") -> R:
        """The row of what a user gave: a name, a function, ``module:function``, or an entry point.

        Args:
            value: What was given.
            parameter: What it was given for, if not for the registry's parameter.

        Raises:
            InputError: If it is none of these.
        """
        if callable(value):
            return self._of(value, f"{value.__module__}:{getattr(value, '__qualname__', type(value).__qualname__)}")
        asked = parameter or self.parameter
        if value not in self and is_name(value):
            return self._of(by_name(value, asked), value)
        return self.find(value) or self._refuse(value, asked)

    def checked(self, value: str) -> str:
        """A name as it was given, for options that are read before any work.

        Raises:
            InputError: If there is nothing of this name.
        """
        self.row(value)
        return value

    def load(self, value: str | Callable[..., Any], parameter: str = "") -> Any:
        """What a user gave, imported; see :meth:`row`.

        Raises:
            InputError: If there is no such thing, or it needs an extra that is not installed.
        """
        row = self.row(value, parameter)
        require(row.extra, f"{parameter or self.parameter} {row.name}")
        return row.load()

    def told(self, value: str | Callable[..., Any]) -> str:
        """How reports call what a user gave: a name as it is, a function by its row."""
        return self.row(value).name if callable(value) else value

    def _of(self, function: Callable[..., Any], name: str) -> R:
        """The row of a function: the one that it was registered with, or of what its attributes say."""
        known = (row for row in self._rows.values() if row.where is function)
        return next(known, None) or self._kind(name, function, summary(function), **_attributes(self._kind, function))

    def _entry(self, name: str) -> R | None:
        """The row of an entry point, which may hold a function or a row."""
        from importlib.metadata import entry_points

        for entry in entry_points(group=self.group, name=name):
            try:
                loaded = entry.load()
            except Exception as error:
                said = f"{type(error).__name__} ({error})"
                raise InputError(f"{self.parameter} {name}: {entry.value} raised {said}. Correct it.") from error
            return self.add(replace(loaded, name=name) if isinstance(loaded, self._kind) else self._of(loaded, name))
        return None

    def _refuse(self, value: str, parameter: str) -> R:
        known = self.names()
        names = [*known, *(also for row in self._rows.values() for also in row.also)]
        expected = ", ".join(filter(None, [*known, self._also]))
        guess = meant(value, names) or "Use one of them."
        raise InputError(f"{parameter} {value}: expected {expected}, or module:function. {guess}")


def require(extra: str, what: str) -> None:
    """Refuse to go on without what an extra brings.

    Args:
        extra: The extra; nothing is needed for an empty one.
        what: What needs it; the error begins with it.

    Raises:
        InputError: If it is not installed.
    """
    for module in EXTRAS.get(extra, ()):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{what}: needs {module}. Install {DISTRIBUTION}[{extra}].")


def summary(function: object) -> str:
    """The first line of a function's documentation."""
    return (getattr(function, "__doc__", None) or "").strip().partition("\n")[0].rstrip(".")


def _attributes(kind: type[Row], function: object) -> dict[str, Any]:
    """What a function says of itself by attributes that are named, and of the kind, as those of a row."""
    told = {}
    for one in fields(kind):
        value = getattr(function, one.name, None)
        if one.name not in ("name", "where", "help") and isinstance(value, type(one.default) | type):
            told[one.name] = value
    return told
