"""What to try next after a command: of the rows of :data:`NEXT` the first that fits is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnxslim_learn.commands.asked import line
from onnxslim_learn.commands.case import CUTS, Case, beside, compared
from onnxslim_learn.readers import AUTO
from onnxslim_learn.registry import MICROSECONDS
from onnxslim_learn.report.sections import quality

STRONGER = 10  # times the highest strength that left everything: the middle of the next ones
SMALLER, NEARER = 0.8, 0.5  # the next target: this share of it, or so far on the way back to the original
SAMPLES = "SAMPLES"  # where a command line needs them
GIVE = "(SAMPLES: a folder of images, an .npz file, or module:function)"

Line: TypeAlias = Callable[[Case], str]


@dataclass(frozen=True)
class Next:
    """A command to try next.

    Attributes:
        after: The commands after which.
        when: Whether it helps.
        why: What it is for; of ``case`` in it, numbers are told.
        line: The command line.
    """

    after: tuple[str, ...]
    when: Callable[[Case], bool]
    why: str
    line: Line


def _targets(factor: Callable[[Mapping[str, Any]], float]) -> Line:
    """The same command with targets that are so many times what they were."""

    def line_of(case: Case) -> str:
        return case.again(target=[f"{row['cost']}={_moved(row, factor(row))}" for row in case.bounds])

    return line_of


def _moved(row: Mapping[str, Any], factor: float) -> str:
    """A bound that is moved: a share in whole per cent, an amount in three digits."""
    if row["relative"]:
        return f"{round(factor * row['asked'], 2):g}"
    moved = f"{factor * float(str(row['asked']).removesuffix('ms')):.3g}"
    return moved + ("ms" if row["unit"] == MICROSECONDS else "")


def _tune(case: Case) -> str:
    """Fine-tuning of what was written."""
    return line(
        "learn",
        case.output,
        output=beside(case.output, "tuned"),
        learner="finetune",
        teacher=case.asked.value("like") or case.model,
        data=case.asked.value("data") or SAMPLES,
        **case.kept("mean", "std", "size", "input_range", "scale", "layout"),
    )


def _cut(case: Case) -> str:
    """Half of a model."""
    kept = case.kept("input", "value", "device")
    kept |= {"allow_sensitive": True} if case.asked.options.get("allow_sensitive") else {}
    return line("slim", case.model, output=beside(case.model, "slim"), target="macs=0.5", data=SAMPLES, **kept)


def _bounded(case: Case) -> bool:
    return bool(case.bounds)


def _relative(case: Case) -> bool:
    return all(row["relative"] for row in case.bounds)


def _delicate(case: Case) -> bool:
    return any(row["delicate"] for row in case.report["pinned"]) and not case.asked.options.get("allow_sensitive")


_ROOM = "There may be room to cut more"
_SLOW = "It is not faster"

NEXT: tuple[Next, ...] = (
    Next(
        ("analyze",),
        lambda case: not case.report["groups"] and _delicate(case),
        "Nothing can be cut exactly. To cut normalised axes, too, which is not exact",
        lambda case: case.again(allow_sensitive=True),
    ),
    Next(
        ("analyze",),
        lambda case: bool(case.report["groups"]),
        f"To cut half of the multiply-accumulates, judged on inputs of your own {GIVE}",
        _cut,
    ),
    Next(
        ("slim", "learn"),
        lambda case: _bounded(case) and not all(row["met"] for row in case.bounds),
        "To meet the target, ask for less",
        _targets(lambda row: 1.0 if row["met"] else row["bound"] / row["got"]),
    ),
    Next(
        (*CUTS, "sparsify"),
        lambda case: bool(case.cure),
        "To prepare samples as those that the model was trained on",
        lambda case: case.again(**case.cure),
    ),
    Next(
        (*CUTS, "sparsify"),
        lambda case: case.unknown,
        f"To know how good it is, and to make it better, give {{case.needed}} or more real inputs {GIVE}",
        lambda case: case.again(data=SAMPLES),
    ),
    Next(
        ("slim", "apply"),
        lambda case: case.lacking and bool(case.asked.options.get("no_repair")),
        "To win back most of what was lost, let the weights that stay be refitted",
        lambda case: case.again(no_repair=None),
    ),
    Next(
        ("slim", "apply", "sparsify"),
        lambda case: case.lacking and "targets" not in case.report,
        "To win back what was lost, give more samples, or train it to do as the original does",
        _tune,
    ),
    Next(
        ("slim", "learn"),
        lambda case: case.lacking and _bounded(case) and _relative(case),
        "To keep more, cut less",
        _targets(lambda row: 1 + NEARER * (1 / row["asked"] - 1)),
    ),
    Next(
        ("slim", "learn"),
        lambda case: not case.faster and case.report.get("multiple", AUTO) not in (AUTO, 8),
        f"{_SLOW}. At widths that kernels like",
        lambda case: case.again(multiple=None),
    ),
    Next(
        CUTS,
        lambda case: not case.faster and "sparsity" not in case.report and case.asked.value("output") is not None,
        f"{_SLOW}. To see where the time goes",
        lambda case: line("profile", case.model, case.output, per_node=True),
    ),
    Next(
        ("slim",),
        lambda case: bool(case.report.get("lossless")),
        "To cut more than what changes nothing",
        lambda case: case.again(lossless=None, target="macs=0.5", data=case.asked.value("data") or SAMPLES),
    ),
    Next(
        ("learn",),
        lambda case: bool(case.several) and not case.outputs,
        "No unit went at any of them. At higher strengths, with more --steps",
        lambda case: case.again(strength=f"{STRONGER * max(row['strength'] for row in case.several):g}"),
    ),
    Next(
        ("slim", "learn"),
        lambda case: bool(case.several) and not any(compared(one.report) for one in case.each),
        "To see how fast they are",
        lambda case: line("profile", case.model, *case.outputs),
    ),
    Next(
        ("learn",),
        lambda case: quality.smallest_good(case.several) is not None,
        "To try strengths around the smallest that is good",
        lambda case: case.again(strength=f"{(quality.smallest_good(case.several) or {})['strength']:.3g}"),
    ),
    Next(
        ("learn",),
        lambda case: bool(case.several),
        "To cut less, and keep more",
        lambda case: case.again(strength=f"{min(row['strength'] for row in case.several) / STRONGER:.3g}"),
    ),
    Next(("slim", "learn"), _bounded, _ROOM, _targets(lambda row: SMALLER)),
    Next(
        ("apply",),
        lambda case: case.asked.value("output") is not None and len(case.asked.files) > 1,
        "To check it again",
        lambda case: line("verify", case.model, case.output, plan=case.asked.files[1]),
    ),
    Next(
        ("learn", "sparsify"),
        lambda case: case.asked.value("output") is not None,
        "To make it faster, too, cut channels",
        lambda case: line(
            "slim", case.output, output=beside(case.output, "slim"), target="macs=0.5", data=case.asked.value("data")
        ),
    ),
    Next(("expand",), lambda case: True, f"To train it to do more with its new units {GIVE}", _tune),
    Next(
        ("verify",),
        lambda case: not case.result.passed,
        "To make it anew",
        lambda case: line("apply", case.model, case.asked.value("plan") or "PLAN", output=case.asked.files[1]),
    ),
    Next(
        ("verify",),
        lambda case: "data" not in case.asked.options,
        f"To check it on inputs of your own, too {GIVE}",
        lambda case: case.again(data=SAMPLES),
    ),
    Next(("verify",), lambda case: True, "To see how fast it is", lambda case: line("profile", *case.asked.files)),
    Next(
        ("profile",),
        lambda case: "per_node" not in case.asked.options,
        "To see where the time goes",
        lambda case: case.again(per_node=True),
    ),
    Next(
        ("profile",),
        lambda case: True,
        f"To cut it to half of its time {GIVE}",
        lambda case: line("slim", case.model, output=beside(case.model, "slim"), target="latency=0.5", data=SAMPLES),
    ),
    Next(
        ("calibrate",),
        lambda case: case.asked.value("output") is not None,
        "To see where the time of a model goes on it",
        lambda case: line("analyze", "MODEL.onnx", device=case.output),
    ),
    Next(
        ("caches",),
        lambda case: case.asked.value("narrow") is None,
        "To cut heads of keys and values with their caches, and narrow these afterwards",
        lambda case: line("slim", case.output, output=beside(case.output, "slim"), target="params=0.7"),
    ),
    Next(
        ("caches",),
        lambda case: True,
        "To see what else can go",
        lambda case: line("analyze", case.output),
    ),
    Next(("calibrate",), lambda case: True, "To keep it", lambda case: case.again(output="device.toml")),
    Next(("demo",), lambda case: True, "To look at a model of your own", lambda case: line("analyze", "MODEL.onnx")),
)
"""The first row that fits is told."""
