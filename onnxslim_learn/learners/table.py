"""Learners and their options: what ``learn`` takes is what every learner takes, and what the chosen one does."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.keywords import Keywords
from onnxslim_learn.learners.settings import LearnSettings
from onnxslim_learn.registry import LEARNERS
from onnxslim_learn.rows import imported
from onnxslim_learn.settings import assembled, in_file, options, values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxslim_learn.registry import LearnerRow
    from onnxslim_learn.settings import Declared


def known() -> dict[str, Declared]:
    """The options of all learners that stand in rows; where several have one, the first tells what it means."""
    options_known = dict(options(LearnSettings))
    for row in LEARNERS.values():
        options_known |= {name: one for name, one in of(row).items() if name not in options_known}
    return options_known


def chosen(given: Mapping[str, Any]) -> dict[str, Declared]:
    """The options there are with the learner that keywords, or the file of options they name, choose.

    Raises:
        InputError: If there is no such learner, or its settings cannot be used.
    """
    return {**known(), **of(_learner(given))}


def of(row: LearnerRow) -> dict[str, Declared]:
    """The options of a learner, in the help under its name unless its settings have a title.

    Raises:
        InputError: If its settings cannot be used.
    """
    where, title = f"⟨learner⟩ {row.name}", (row.name, row.help)
    try:
        kind = imported(row.settings)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{where}: its settings {row.settings} cannot be imported ({reason(error)}).") from error
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise InputError(f"{where}: its settings are {kind!r}. Give a dataclass whose fields are options.")
    mine = {name: one if one.title[0] else replace(one, title=title) for name, one in options(kind).items()}
    if both := sorted(set(mine) & set(options(LearnSettings))):
        raise InputError(f"{where}: its option {both[0]} is one that every learner has. Give it another name.")
    return mine


def _learner(given: Mapping[str, Any]) -> LearnerRow:
    """The row of the learner that is chosen."""
    return LEARNERS.row(given.get("learner") or in_file(given).get("learner") or LearnSettings().learner)


def build(given: Mapping[str, Any]) -> tuple[LearnSettings, Any]:
    """What is asked of every learner, and of the chosen one.

    Raises:
        InputError: If a keyword is no option, cannot be used, or is not for this learner.
    """
    row, everyones = _learner(given), options(LearnSettings)
    mine, read = of(row), values(chosen(given), given)
    for name, value in read.items():
        declared = None if name in mine or name in everyones else known()[name]
        if declared is not None and value != declared.default:
            purpose = declared.option.purpose or declared.title[0]
            raise InputError(f"⟨{name}⟩: is for {purpose}, not for ⟨learner⟩ {row.name}. Leave it out.")
    wanted = assembled(imported(row.settings)(), {name: value for name, value in read.items() if name in mine})
    return assembled(LearnSettings(), {name: value for name, value in read.items() if name in everyones}), wanted


KEYWORDS = Keywords(known(), build, chosen, first=("learner", "config"))
"""What can be asked of every learner: which samples teach, for how long, and how steps are taken."""
