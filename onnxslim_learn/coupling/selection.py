"""Which groups a user means: by role, by module, or by any name that occurs in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxslim_learn.coupling.groups import Group, expression
from onnxslim_learn.coupling.relations import Pin
from onnxslim_learn.coupling.residual import Block
from onnxslim_learn.coupling.titles import ROLES, Title
from onnxslim_learn.errors import InputError

SYMBOLS = "stands for symbols of the input"


BLOCKS = "blocks"  # the role that stands for residual blocks and for no group


def blocks(
    able: Sequence[Block], titles: Mapping[str, Title], protect: Iterable[str], only: Iterable[str]
) -> list[Block]:
    """The residual blocks that a user means; see :func:`protected` and :func:`only`."""
    named = [p for text in only if any(titles[b.name].lies_in(p := expression("⟨only⟩", text)) for b in able)]
    held = [expression("⟨protect⟩", text) for text in protect]
    meant = [b for b in able if not named or any(titles[b.name].lies_in(p) for p in named)]
    return [b for b in meant if not any(titles[b.name].contains(p) for p in held)]


def protected(
    groups: Sequence[Group], titles: Mapping[str, Title], patterns: Iterable[str], beside: Iterable[Title] = ()
) -> list[Group]:
    """Pin the groups of which a pattern finds the name, the role, or anything that they contain.

    Raises:
        InputError: If a pattern is invalid or finds nothing.
    """
    result = list(groups)
    for text in patterns:
        everything = [*titles.values(), *beside]
        pattern = _matched("⟨protect⟩", text, everything, lambda title, p: title.contains(p))
        hold = [titles[group.name].contains(pattern) for group in result]
        result = [_pinned(g, f"is protected by {text}") if held else g for g, held in zip(result, hold, strict=True)]
    return result


def only(
    groups: Sequence[Group], titles: Mapping[str, Title], patterns: Sequence[str], beside: Iterable[Title] = ()
) -> list[Group]:
    """Pin all groups but those that a pattern names: by name, role, title or module, or that lie in modules it finds.

    Symbols of the input are cut only where a pattern finds their role or their name: samples that happen to lack one do
    not say that nobody needs it.

    Raises:
        InputError: If a pattern is invalid or finds nothing.
    """
    if not patterns:
        return [_pinned(g, SYMBOLS) if titles[g.name].role == "symbols" else g for g in groups]
    everything = [*titles.values(), *beside]
    compiled = [_matched("⟨only⟩", text, everything, lambda title, p: title.lies_in(p)) for text in patterns]
    of_groups = [p for p in compiled if p.pattern != BLOCKS]  # a role, also where modules are called so
    meant = [any(_meant(titles[group.name], p) for p in of_groups) for group in groups]
    reason = f"is not among those to cut only: {' '.join(patterns)}"
    return [g if chosen else _pinned(g, reason) for g, chosen in zip(groups, meant, strict=True)]


def _meant(title: Title, pattern: re.Pattern[str]) -> bool:
    return any(map(pattern.search, title.names)) if title.role == "symbols" else title.lies_in(pattern)


def shares(groups: Sequence[Group], titles: Mapping[str, Title], keep: Mapping[str, float]) -> dict[str, float]:
    """The least share of its units that every group keeps which a pattern finds; the largest where several do.

    Raises:
        InputError: If a pattern is invalid or finds nothing, or a share is not between 0 and 1.
    """
    least: dict[str, float] = {}
    for text, share in keep.items():
        if not 0 <= share <= 1:
            raise InputError(f"⟨keep⟩ {text}={share:g}: expected a share from 0 to 1. For example {text}=0.7.")
        pattern = _matched("⟨keep⟩", text, titles.values(), lambda title, p: title.contains(p))
        for group in groups:
            if titles[group.name].contains(pattern):
                least[group.name] = max(least.get(group.name, 0.0), share)
    return least


def _matched(
    option: str, text: str, titles: Iterable[Title], finds: Callable[[Title, re.Pattern[str]], bool]
) -> re.Pattern[str]:
    """A pattern that finds at least one group, or block."""
    pattern = expression(option, text)
    if not any(finds(title, pattern) for title in titles):
        known = ", ".join(ROLES)
        raise InputError(f"{option} {text}: no group matches. Run analyze to see their names; roles are {known}.")
    return pattern


def _pinned(group: Group, reason: str) -> Group:
    return replace(group, pin=group.pin or Pin(-2, np.zeros(0, np.int64), reason, weak=False))
