"""The commands: what they are for, which files they take, and whose options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from onnxslim_learn.keywords import keywords
from onnxslim_learn.learners import table
from onnxslim_learn.settings import option
from onnxslim_learn.workflow.options import OUTPUT
from onnxslim_learn.workflow.settings import (
    AnalyzeSettings,
    ApplySettings,
    CachesSettings,
    CalibrateSettings,
    DemoSettings,
    ExpandSettings,
    ProfileSettings,
    SlimSettings,
    SparsifySettings,
    VerifySettings,
    ViewSettings,
)

if TYPE_CHECKING:
    from onnxslim_learn.keywords import Keywords


@dataclass(frozen=True)
class ShellSettings:
    """How any command answers.

    Attributes:
        quiet: Whether it says its verdict in one line, and on standard error only errors.
        verbose: Whether stages are told as they run, and every one of repeated blocks has a row.
        log_file: Where progress and report are written, with times.
    """

    TITLE: ClassVar = OUTPUT

    quiet: bool = option(False, "print the verdict in one line, and on standard error only errors")
    verbose: bool = option(False, "name every stage as it runs, and every one of repeated blocks")
    log_file: str | None = option(
        None, "write progress and report to a file, with times", metavar="FILE", writes=True, decides=False
    )


@dataclass(frozen=True)
class Place:
    """A file that is given by its place.

    Attributes:
        name: What it is.
        help: In a few words.
        several: Whether there may be more than one.
    """

    name: str
    help: str
    several: bool = False

    @property
    def metavar(self) -> str:
        """How the help shows it."""
        return "MODEL" if self.several else self.name.upper()


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        act: Where the public function is.
        help: What it does, in a few words.
        keywords: Its options.
        places: The files that it takes.
    """

    act: str
    help: str
    keywords: Keywords
    places: tuple[Place, ...] = (Place("model", "an .onnx file"),)


_ACTS = "onnxslim_learn.commands"
COMMANDS = {
    "analyze": Command(
        f"{_ACTS}.analyze:analyze", "show what can be cut, what cannot and why", keywords(AnalyzeSettings)
    ),
    "slim": Command(f"{_ACTS}.slim:slim", "cut a model to a target, verify it, write it", keywords(SlimSettings)),
    "learn": Command(
        f"{_ACTS}.learn:learn", "learn what can go while training, cut, fine-tune, write it", table.KEYWORDS
    ),
    "expand": Command(
        f"{_ACTS}.expand:expand",
        "widen a model to a budget without changing what it computes",
        keywords(ExpandSettings),
    ),
    "sparsify": Command(
        f"{_ACTS}.sparsify:sparsify",
        "zero weights in one go, refit the others, say what that buys",
        keywords(SparsifySettings),
    ),
    "apply": Command(
        f"{_ACTS}.slim:apply",
        "carry out a plan that slim wrote",
        keywords(ApplySettings),
        (Place("model", "an .onnx file"), Place("plan", "a plan that slim wrote with --plan-out")),
    ),
    "verify": Command(
        f"{_ACTS}.verify:verify",
        "check a slimmed model against its original under a plan",
        keywords(VerifySettings),
        (Place("original", "the original .onnx file"), Place("slimmed", "the slimmed .onnx file")),
    ),
    "profile": Command(
        f"{_ACTS}.timing:profile",
        "time one or several models on onnxruntime",
        keywords(ProfileSettings),
        (Place("models", ".onnx files; several are timed in turns and compared", several=True),),
    ),
    "view": Command(
        f"{_ACTS}.view:view",
        "choose widths by hand on a page that this machine serves to you alone; two models side by side",
        keywords(ViewSettings),
        (Place("models", "an .onnx file; with a second one, both side by side", several=True),),
    ),
    "caches": Command(
        f"{_ACTS}.caches:caches",
        "let heads go that caches of keys and values have, where these are inputs and outputs of a model",
        keywords(CachesSettings),
    ),
    "calibrate": Command(
        f"{_ACTS}.timing:calibrate",
        "measure this machine, to estimate and bound latency",
        keywords(CalibrateSettings),
        (),
    ),
    "demo": Command(
        "onnxslim_learn.demo.story:demo",
        "the whole story on a trained net that ships with the package",
        keywords(DemoSettings),
        (),
    ),
}
