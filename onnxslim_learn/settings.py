"""How options are declared: once, as fields of frozen dataclasses.

A field says in its metadata what it means and how its text is read. The parser of the command line, files of options,
keywords in Python, refusals and help all read the fields. A keyword is read from the text that it would have on the
command line, so that both are refused alike; what has no text (arrays, functions, models) is taken as it is.
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from onnxslim_learn.errors import InputError, meant, reason
from onnxslim_learn.readers import Reader, no_file

FLAG = re.compile(r"--([a-z][a-z-]*[a-z])")
S = TypeVar("S")


@dataclass(frozen=True)
class Option:
    """What an option means, and how it is given.

    Attributes:
        help: What it does, in a few words.
        metavar: What its value looks like.
        read: Makes the value of its text; raises ``ValueError`` that says what was expected.
        choices: All values there are.
        short: A flag of one letter.
        also: Other names.
        required: Whether the command line needs it.
        repeat: Whether it may be given several times.
        gather: Makes one value of those; by default a tuple.
        between: What stands between the parts of one value, as in ``0.1,0.2``.
        entry: The text for a key and its value where a mapping is given, as in ``x:1x3``.
        keys: Keys that are keywords of their own in Python.
        opposite: Whether ``--no-NAME`` says the opposite.
        writes: Whether it names a file that is written.
        reads: Whether it may name a file or folder that is read.
        keeps: Whether it names a folder that is kept for the command.
        beside: For a value, how names of files end that are written beside the result: ``-0.5`` of ``m-0.5.onnx``.
        decides: Whether it decides about what comes out.
        purpose: What it is for, where only some take it.
        span: The least and the largest number.
        extra: The extra of the distribution that it needs, if any.
    """

    help: str
    metavar: str = "X"
    read: Reader = str
    choices: tuple[str, ...] = ()
    short: str = ""
    also: tuple[str, ...] = ()
    required: bool = False
    repeat: bool = False
    gather: Callable[[tuple[Any, ...]], Any] = tuple
    between: str = ""
    entry: Callable[[str, Any], str] | None = None
    keys: Container[str] = ()
    opposite: bool = False
    writes: bool = False
    reads: bool = False
    keeps: bool = False
    beside: Callable[[Any], Iterable[str]] = lambda value: ()
    decides: bool = True
    purpose: str = ""
    span: tuple[float, float] = (-math.inf, math.inf)
    extra: str = ""


@dataclass(frozen=True)
class Declared:
    """An option of a command.

    Attributes:
        name: Its keyword; its flag has hyphens.
        option: What it means.
        default: Its value where it is not given.
        switch: Whether it is given or not, without a value.
        title: Of the part of the help that lists it, with what is said there; empty for none of its own.
    """

    name: str
    option: Option
    default: Any
    switch: bool
    title: tuple[str, str] = ("", "")

    @property
    def flag(self) -> str:
        """The flag that is named in messages."""
        return self.option.short or f"--{self.name.replace('_', '-')}"


# --- declaring --------------------------------------------------------------------------------------------------------


def option(default: Any, help: str, **about: Any) -> Any:  # noqa: A002
    """A field that is an option; ``about`` are further attributes of :class:`Option`."""
    return declared(default, Option(help, **about))


def declared(default: Any, about: Option) -> Any:
    """A field that is an option of which several dataclasses have one."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"option": about})
    return field(default=default, metadata={"option": about})


def part(kind: Callable[..., S], **defaults: Any) -> S:
    """A field that holds options which several commands share, given like all others; some with other defaults."""
    field_of_part: S = field(default_factory=functools.partial(kind, **defaults))
    return field_of_part


def options(kind: Any) -> dict[str, Declared]:
    """All options of a dataclass and of its parts, by name, in the order of their declaration.

    A dataclass whose options have a part of the help of their own names it in ``TITLE``, with what is said there.
    """
    return dict(_options(kind))


@functools.cache
def _options(kind: Any) -> dict[str, Declared]:
    return dict(_walk(kind, kind()))


def _walk(kind: type, usual: Any) -> Iterator[tuple[str, Declared]]:
    """Every option of a dataclass by its name; ``usual`` has the defaults."""
    hints, title = get_type_hints(kind), getattr(kind, "TITLE", ("", ""))
    for one in fields(kind):
        value = getattr(usual, one.name)
        if is_dataclass(value) and "option" not in one.metadata:
            yield from _walk(type(value), value)
        elif "option" in one.metadata:
            switch = "bool" in str(hints[one.name])
            yield one.name, Declared(one.name, one.metadata["option"], value, switch, title)


# --- reading ----------------------------------------------------------------------------------------------------------


def build(kind: type[S], given: Mapping[str, Any]) -> S:
    """Make a dataclass of options from keywords; those that are not given, or are ``None``, have their defaults.

    Raises:
        InputError: If one is no option, or its value cannot be used; names it.
    """
    return assembled(kind(), values(options(kind), given))


def values(known: Mapping[str, Declared], given: Mapping[str, Any]) -> dict[str, Any]:
    """Read keywords: the values of the options that are given.

    Raises:
        InputError: If one is no option, or its value cannot be used; names it.
    """
    asked: dict[str, Any] = {}
    for keyword, read_value in with_file(known, given).items():
        name, value = _named(known, keyword, read_value)
        if value is not None:
            entries = known[name].option.keys and _entries(known[name].option, value)
            asked[name] = [*asked.get(name, ()), *entries] if entries else value
    return {name: read(known[name], value) for name, value in asked.items()}


def assembled(usual: S, values: Mapping[str, Any]) -> S:
    """A dataclass and its parts with other values, by name."""
    changed = {}
    for one in fields(usual):  # type: ignore[arg-type]
        value = getattr(usual, one.name)
        if is_dataclass(value) and "option" not in one.metadata:
            changed[one.name] = assembled(value, values)
        elif one.name in values:
            changed[one.name] = values[one.name]
    return replace(usual, **changed)  # type: ignore[type-var]


def _named(known: Mapping[str, Declared], keyword: str, value: Any) -> tuple[str, Any]:
    """The option that a keyword is for, and its value there: ``repair=False`` is ``no_repair=True``.

    Raises:
        InputError: If there is none.
    """
    keyword = keyword.replace("-", "_")
    if keyword in known:
        return keyword, value
    for name, one in known.items():
        if keyword in one.option.also:
            return name, value
        if keyword in one.option.keys and not isinstance(value, bool):
            return name, {keyword: value}
        if (
            isinstance(value, bool)
            and one.switch
            and (f"no_{keyword}" == name or (f"no_{name}" == keyword and one.option.opposite))
        ):
            return name, not value
    raise InputError(f"⟨{keyword}⟩: is no option here. {meant(keyword, known, '⟨{}⟩') or 'Leave it out.'}")


def read(one: Declared, value: Any) -> Any:
    """The value of an option from what was given for it: text, or what has text in Python and in files of options.

    Raises:
        InputError: If it cannot be used; names it.
    """
    try:
        return _read(one, value)
    except ValueError as error:
        fault = _fault(one.option, value)
        where = f"⟨{one.name}⟩" if " but got " in str(error) else f"⟨{one.name}⟩ {fault}"
        guess = meant(fault, one.option.choices) if isinstance(fault, str) else ""
        raise InputError(f"{where}: {error}. {guess or 'Change it.'}") from error


def _read(one: Declared, value: Any) -> Any:
    about = one.option
    if one.switch:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value
    if not about.repeat:
        return _one(about, value)
    return about.gather(tuple(_one(about, each) for each in _entries(about, value)))


def _fault(about: Option, value: Any) -> Any:
    """What of a value cannot be read: of several entries the first that cannot."""
    for each in _entries(about, value) if about.repeat else ():
        try:
            _one(about, each)
        except ValueError:
            return each
    return value


def _entries(about: Option, value: Any) -> list[Any]:
    """The single values of an option that may be given several times."""
    if isinstance(value, Mapping) and about.entry:
        return [about.entry(key if callable(key) else str(key), each) for key, each in value.items()]
    if not isinstance(value, list | tuple):
        return [value]
    parts = about.between and not about.entry and not any(isinstance(each, str | list | tuple) for each in value)
    return [value] if parts else list(value)


def _one(about: Option, value: Any) -> Any:
    """One value of an option."""
    text = _text(about, value)
    if not isinstance(text, str):
        return text
    if about.choices and text not in about.choices:
        raise ValueError(f"expected one of {', '.join(about.choices)}")
    return about.read(text)


def _text(about: Option, value: Any) -> Any:
    """What would stand for a value on the command line; the value itself where nothing would."""
    if isinstance(value, list | tuple) and about.between:
        return about.between.join(str(each) for each in value)
    if isinstance(value, str | int | float | Path | np.number):
        if isinstance(value, bool):
            raise ValueError("expected a number or a text")
        return str(value)
    if about.read is not str and isinstance(value, list | tuple):
        raise ValueError("expected one value, not a list")
    return value


def words(known: Mapping[str, Declared], given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Keywords as the command line has them: option -> its flags and their values.

    What has no text there, as arrays, is the name of its option in capitals.
    """
    told: dict[str, list[str]] = {}
    for keyword, value_given in given.items():
        name, value = _named(known, keyword, value_given)
        if value is not None:
            told[name] = [*told.get(name, ()), *_words(known[name], value)]
    return told


def _words(one: Declared, value: Any) -> list[str]:
    """An option as the command line has it."""
    about = one.option
    if one.switch:
        return [one.flag] if value else [f"--no-{one.name.replace('_', '-')}"] if about.opposite else []
    entries = _entries(about, value) if about.repeat or about.keys else [value]
    texts = [_text(about, entry) for entry in entries]
    return [word for text in texts for word in (one.flag, text if isinstance(text, str) else one.name.upper())]


def with_file(known: Mapping[str, Declared], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with those of ``config``, a TOML file, for what is not given; the names there may have hyphens.

    Raises:
        InputError: If the file cannot be read, or an entry is no option or does not fit it.
    """
    config = given.get("config")
    if config is None or "config" not in known:
        return dict(given)
    options_read = {}
    for key, value in in_file(given).items():
        try:
            name, entry = _named(known, key, value)
        except InputError as error:
            raise InputError(f"⟨config⟩ {config}: {key} is no option that can be set there. See its help.") from error
        try:
            parts = entry.values() if isinstance(entry, dict) else [entry]
            lists = 2 if known[name].option.between and not isinstance(entry, dict) else 1
            if not all(_is_plain(part, lists) for part in parts):
                raise ValueError("expected a text, a number, a list, or a table of these")
            _read(known[name], entry)
        except ValueError as error:
            raise InputError(f"⟨config⟩ {config}: {key} = {value!r}: {error}.") from error
        options_read[name] = entry
    return {**options_read, **given}


def _is_plain(value: Any, lists: int) -> bool:
    """Whether a value is a text, a number, a truth, or a list of these, or of so many lists within each other."""
    if isinstance(value, list):
        return lists > 0 and all(_is_plain(each, lists - 1) for each in value)
    return isinstance(value, str | int | float)


def in_file(given: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the file of options that keywords name; none where they name none.

    Raises:
        InputError: If it cannot be read.
    """
    config = given.get("config")
    if config is None:
        return {}
    if problem := no_file(config):
        raise InputError(f"⟨config⟩ {config}: {problem}. Give a TOML file.")
    try:
        return tomllib.loads(Path(config).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or reason(error)
        raise InputError(f"⟨config⟩ {config}: cannot be read ({said}). Give a TOML file.") from error


def given(settings: Any) -> dict[str, Any]:
    """The values of all options of a dataclass and of its parts, by name."""
    values_given: dict[str, Any] = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        values_given |= given(value) if is_dataclass(value) and "option" not in one.metadata else {one.name: value}
    return values_given
