"""Learners and their options: what ``learn`` takes is what every learner takes, and what the chosen one does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.settings import LearnSettings
from onnxslim_learn.registry import LEARNERS, imported
from onnxslim_learn.settings import Keywords, assembled, options, values, with_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxslim_learn.settings import Declared


def known() -> dict[str, Declared]:
    """The options of all learners; where several have one, the first tells what it means."""
    options_known = dict(options(LearnSettings))
    for row in LEARNERS.values():
        options_known |= {
            name: one for name, one in options(imported(row.settings)).items() if name not in options_known
        }
    return options_known


def build(given: Mapping[str, Any]) -> tuple[LearnSettings, Any]:
    """What is asked of every learner, and of the chosen one.

    Raises:
        InputError: If a keyword is no option, cannot be used, or is not for this learner.
    """
    named = given.get("learner")
    merged = with_file({**known(), **(options(imported(LEARNERS.row(named).settings)) if named else {})}, given)
    row = LEARNERS.row(merged.get("learner") or LearnSettings().learner)
    kind = imported(row.settings)
    read = values({**known(), **options(kind)}, merged)
    shared, mine = options(LearnSettings), options(kind)
    for option, value in read.items():
        declared = known().get(option)
        if option not in shared and option not in mine and declared is not None and value != declared.default:
            purpose = declared.option.purpose
            raise InputError(f"⟨{option}⟩: is for {purpose}, not for ⟨learner⟩ {row.name}. Leave it out.")
    wanted = assembled(kind(), {option: value for option, value in read.items() if option in mine})
    return assembled(LearnSettings(), {k: v for k, v in read.items() if k in shared}), wanted


KEYWORDS = Keywords(known(), build)
