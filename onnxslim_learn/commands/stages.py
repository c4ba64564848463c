"""The stages of every command, so that they can be told before they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from onnxslim_learn.registry import LATENCY, LEARNERS, SEARCH

Given: TypeAlias = Mapping[str, Any]
Row: TypeAlias = tuple[str, Callable[[Given], Any]]


def listed(command: str, given: Given) -> list[str]:
    """The stages that a command will run, in order, as far as options tell.

    Args:
        command: Its name.
        given: Its options as they were given.
    """
    return [stage for stage, runs in STAGES[command] if runs(given)]


def _always(given: Given) -> bool:
    return True


def _has(*names: str) -> Callable[[Given], bool]:
    return lambda given: any(given.get(name) for name in names)


def _lacks(*names: str) -> Callable[[Given], bool]:
    return lambda given: not any(given.get(name) for name in names)


def _sampled(given: Given) -> bool:
    """Whether there are samples, given or made up."""
    return bool(given.get("data") or not given.get("no_repair"))


def _spends(given: Given) -> bool:
    """Whether any work is spent on losses."""
    return str(given.get("work")) != "0"


def _finetunes(given: Given) -> bool:
    """Whether weights are trained after repair."""
    return str(given.get("finetune_steps") or 0) != "0"


def _on_time(given: Given) -> bool:
    """Whether a latency is asked for."""
    targets = given.get("target") or ()
    texts = [targets] if isinstance(targets, str) else targets
    return any(str(text).startswith(LATENCY) for text in texts)


def _measured(given: Given) -> bool:
    """Whether a latency is asked for that is measured here."""
    return not given.get("device") and _on_time(given)


def _all(*conditions: Callable[[Given], Any]) -> Callable[[Given], bool]:
    return lambda given: all(condition(given) for condition in conditions)


def _learner(*names: str) -> Callable[[Given], bool]:
    return lambda given: (given.get("learner") or next(iter(LEARNERS))) in names


def _spread_by(protocol: str) -> Callable[[Given], bool]:
    """Whether zeros that are learnt are spread over layers by a protocol."""
    zeros = _learner("weight-sparse")
    return lambda given: zeros(given) and (given.get("ws_prune_ratio_prtl") or SEARCH) == protocol


_DRAWN: tuple[Row, ...] = (
    ("matching statistics", _all(_lacks("data", "no_repair", "lossless"), _has("match_statistics"))),
    ("making samples up", _lacks("data", "no_repair", "lossless", "match_statistics")),
)
_FINETUNED: tuple[Row, ...] = tuple(
    (stage, _all(_lacks("lossless", "no_repair"), _finetunes))
    for stage in ("reading samples", "running the original", "finetune")
)
_TIMED: Row = ("timing", _lacks("no_latency"))

STAGES: dict[str, tuple[Row, ...]] = {
    "analyze": (("analyzing", _always),),
    "slim": (
        ("analyzing", _always),
        ("looking for what changes nothing", _has("lossless")),
        ("measuring this machine", _measured),
        ("measuring widths", _measured),
        *_DRAWN,
        ("rotating", _all(_lacks("lossless"), _sampled, lambda given: given.get("bases") != "none")),
        ("choosing", _lacks("lossless")),
        ("repairing", _lacks("lossless", "no_repair")),
        *_FINETUNED,
        ("cutting and verifying", _always),
        ("judging", _all(_lacks("lossless"), _sampled)),
        _TIMED,
    ),
    "apply": (
        ("analyzing", _always),
        ("cutting and verifying", _always),
        *_DRAWN,
        ("repairing", _lacks("no_repair")),
        *_FINETUNED,
        _TIMED,
    ),
    "learn": (
        ("analyzing", _always),
        ("measuring this machine", _measured),
        ("measuring widths", _measured),
        ("reading samples", _always),
        ("running the original", _lacks("augment")),
        ("structure", _learner("morphnet")),
        ("timing widths", _all(_learner("morphnet"), _lacks("no_latency"), lambda given: not _on_time(given))),
        ("measuring", _spread_by(SEARCH)),
        ("roll-outs", _spread_by("optimal")),
        ("weight-sparse", _learner("weight-sparse")),
        ("cutting", _learner("morphnet", "finetune")),
        ("repairing", _all(_learner("morphnet"), _lacks("no_repair"))),
        ("finetune", _learner("morphnet", "finetune")),
        ("verifying", _always),
        _TIMED,
    ),
    "expand": (
        ("analyzing", _always),
        ("measuring this machine", _measured),
        ("widening and verifying", _always),
        _TIMED,
    ),
    "sparsify": (
        ("analyzing", _always),
        ("making samples up", _lacks("data")),
        ("measuring", lambda given: given.get("protocol") == "search"),
        ("sparsifying", _always),
        ("verifying", _always),
        _TIMED,
    ),
    "verify": (("verifying", _always),),
    "view": (
        ("analyzing", _always),
        ("measuring this machine", _has("measure")),
        ("measuring widths", _has("measure")),
        ("making samples up", _all(_lacks("data"), _spends)),
        ("finding losses", _spends),
    ),
    "profile": (
        ("reading", _always),
        ("timing", _always),
        ("measuring memory", _always),
        ("timing nodes", _has("per_node")),
    ),
    "caches": (("rewriting", _always),),
    "calibrate": (("measuring this machine", _always),),
    "demo": tuple(
        (stage, _always)
        for stage in ("analyzing", "choosing", "repairing", "cutting and verifying", "judging", "timing")
    ),
}
"""Command -> its stages, each with whether options let it run."""
