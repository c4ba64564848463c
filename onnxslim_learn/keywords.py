"""Public functions: their options are keywords, listed in signature and documentation."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from onnxslim_learn.settings import FLAG, Declared, build, options

R = TypeVar("R")


@dataclass(frozen=True)
class Keywords:
    """The options of a public function.

    Attributes:
        options: By name.
        build: Makes of keywords what the function takes.
        chosen: The options there are where some of them are given; ``None`` for the same ones whatever is given.
        first: The options that decide about others.
    """

    options: Mapping[str, Declared]
    build: Callable[[Mapping[str, Any]], Any]
    chosen: Callable[[Mapping[str, Any]], Mapping[str, Declared]] | None = None
    first: tuple[str, ...] = ()

    def where(self, given: Mapping[str, Any]) -> Mapping[str, Declared]:
        """The options there are where some of them are given."""
        return self.options if self.chosen is None else self.chosen(given)


def keywords(kind: type) -> Keywords:
    """The fields of a dataclass as keywords."""
    return Keywords(options(kind), functools.partial(build, kind))


def takes(taken: type | Keywords) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a function that takes options as its last argument their names as keywords instead.

    Its signature and its documentation list them. Keywords of the function itself stay.
    """
    accepted = taken if isinstance(taken, Keywords) else keywords(taken)

    def decorate(act: Callable[..., R]) -> Callable[..., R]:
        signature = inspect.signature(act)
        *places, last = signature.parameters.values()
        ours = {one.name for one in places}

        @functools.wraps(act)
        def public(*given: Any, **more: Any) -> R:
            mine = {name: more.pop(name) for name in ours & set(more)}
            return act(*given, **mine, **{last.name: accepted.build(more)})

        listed = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=one.default)
            for name, one in accepted.options.items()
            if name not in ours
        ]
        public.__signature__ = signature.replace(parameters=[*places, *listed])  # type: ignore[attr-defined]
        public.__doc__ = _documented(act.__doc__ or "", last.name, accepted.options)
        public.options = accepted.options  # type: ignore[attr-defined]
        return public

    return decorate


def _documented(text: str, last: str, options: Mapping[str, Declared]) -> str:
    """A docstring with a line for every option in place of the argument that holds them all."""
    kept = [line for line in text.rstrip().splitlines() if not line.startswith(f"        {last}: ")]
    helps = {name: FLAG.sub(lambda flag: flag[1].replace("-", "_"), one.option.help) for name, one in options.items()}
    lines = [f"        {name}: {said}." for name, said in helps.items()]
    for one in options.values():
        if isinstance(one.option.keys, Iterable):
            said = f"one by one, what {one.name} gives together; a time above 1 is in milliseconds"
            lines += [f"        {', '.join(one.option.keys)}: {said}."] if one.option.keys else []
    return "\n".join([*kept, "", "    Keywords:", *lines, ""])
