"""Options of the commands that train, and their file."""

from __future__ import annotations

import argparse
import math
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.registry import COSTS, LEARNERS

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = ("learn", "expand")  # that take a file of options
FIXED = ("config", "help")


def number(text: str) -> float:
    """Read a positive number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a positive number, but got {text!r}")
    return value


def _bound(text: str) -> float:
    return 0.0 if text == "0" else number(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, but got {text!r}")
    return value


def whole(text: str) -> int:
    """Read a whole number."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a whole number, but got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if whole(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, but got {text!r}")
    return int(text)


def learning(parser: argparse.ArgumentParser) -> None:
    """What is learnt."""
    group = parser.add_argument_group("structure", "what is learnt; see --learner")
    group.add_argument(
        "--learner",
        choices=tuple(LEARNERS),
        default="morphnet",
        help="morphnet (default): widths. weight-sparse: zeros. finetune: only weights, after slim or expand",
    )
    group.add_argument("--target", metavar="COST=NUMBER", action="append", default=[], help="as in slim (repeatable)")
    group.add_argument("--strength", type=number, metavar="X", help="weight of the cost in the loss, for a --target")
    group.add_argument("--sweep", type=_positive, metavar="N", help="try N strengths on a log scale around --strength")
    group.add_argument(
        "--cycles", type=_positive, default=1, metavar="N", help="shrink and widen in turns, N times shrink"
    )
    group.add_argument("--cost", choices=tuple(COSTS), help="what units are charged for (default: the first target's)")
    group.add_argument(
        "--regularizer",
        choices=("gamma", "group-lasso", "gates"),
        default="gamma",
        help="what tells a unit's strength (default gamma: scales of normalisations, virtual ones where none are)",
    )
    group.add_argument("--combine", choices=("max", "l2", "probabilistic"), default="max", help="of coupled layers")
    group.add_argument("--threshold", type=_share, metavar="X", help="units whose strength is above are alive")
    group.add_argument("--l1-fraction", type=_share, default=0.0, metavar="X", help="group-lasso: share of the L1 norm")
    group.add_argument("--tau", type=number, default=1e-3, metavar="X", help="gates: temperature (default 0.001)")
    exact = group.add_mutually_exclusive_group()
    exact.add_argument("--proximal", action="store_true", default=None, help="lower strengths to exact zeros (default)")
    exact.add_argument("--no-proximal", action="store_false", dest="proximal", help="by gradients, as MorphNet does")
    group.add_argument(
        "--least-width",
        type=_share,
        metavar="X",
        help="with a target: share of the width narrowing all alike would leave that every group keeps (default 0.75)",
    )
    group.add_argument("--no-calibration", action="store_true", help="with a target: by strengths and costs alone")
    group.add_argument("--count-depthwise-twice", action="store_true", help="as MorphNet does")
    group.add_argument("--force-group", metavar="REGEX", action="append", default=[], help="ties the groups it matches")


def training(parser: argparse.ArgumentParser) -> None:
    """How it is trained."""
    group = parser.add_argument_group("training")
    group.add_argument("--teacher", metavar="MODEL", help="model whose outputs are wanted (default: the one given)")
    group.add_argument("--val-data", metavar="SRC", help="samples to judge by (default: a tenth of --data)")
    group.add_argument("--steps", type=_positive, metavar="N", help="steps of learning (default: two epochs)")
    group.add_argument("--epochs", type=number, metavar="X", help="the same in epochs")
    group.add_argument("--finetune-steps", type=whole, metavar="N", help="steps after that (default: four epochs)")
    group.add_argument("--finetune-epochs", type=number, metavar="X", help="the same in epochs")
    group.add_argument("--learning-rate", "--lr", type=number, metavar="X", help="the highest (default: by the model)")
    group.add_argument("--finetune-rate", type=number, metavar="X", help="of fine-tuning (default: the same)")
    group.add_argument("--optimizer", choices=("sgd", "adam"), help="(default: by the model)")
    group.add_argument("--norms", choices=("auto", "frozen", "batch"), default="auto", help="batch normalisation")
    group.add_argument(
        "--loss",
        default="distill",
        metavar="LOSS",
        help="distill (default), features (tensors inside), cross-entropy, mse, "
        "module:function, or several with weights: distill=1,cross-entropy=0.5",
    )
    group.add_argument(
        "--features",
        metavar="REGEX",
        action="append",
        default=[],
        help="tensors that --loss features compares (default: the sums of residual branches, else what layers read)",
    )
    group.add_argument("--temperature", type=number, default=4.0, metavar="T", help="of distillation (default 4)")
    group.add_argument("--accumulate", type=_positive, default=1, metavar="N", help="portions of a batch")
    group.add_argument("--clip", type=_bound, default=5.0, metavar="X", help="largest norm of gradients; 0 for any")
    group.add_argument("--bf16", action="store_true", help="compute in bfloat16 where that is safe")
    group.add_argument("--train-on", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU, if any")
    group.add_argument("--from-scratch", action="store_true", help="draw weights anew before fine-tuning")
    group.add_argument("--checkpoint-dir", metavar="DIR", help="keep checkpoints, summaries and structures here")
    group.add_argument("--checkpoint-every", type=_positive, default=500, metavar="N", help="steps (default 500)")
    group.add_argument("--resume", action="store_true", help="go on from --checkpoint-dir")
    group.add_argument("--config", metavar="FILE", help="options in a TOML file; those given here win")
    group.add_argument("--plan-out", metavar="FILE", help="write the plan as JSON")


def expanding(parser: argparse.ArgumentParser) -> None:
    """How far a model is widened."""
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="where to write the wider model")
    parser.add_argument(
        "--target",
        metavar="COST=NUMBER",
        action="append",
        required=True,
        help="budget: macs=, params=, bytes=, memory=; at most 1 is a fraction of --like, more is absolute; latency=4ms"
        " on this machine, or on that of --device (repeatable)",
    )
    parser.add_argument("--like", metavar="MODEL", help="the model that fractions are of: the original, before slim")
    parser.add_argument(
        "--multiple", type=_positive, default=1, metavar="N", help="widths are multiples of N (default 1)"
    )
    parser.add_argument("--protect", metavar="REGEX", action="append", default=[], help="groups that keep their width")
    parser.add_argument("--fresh", action="store_true", help="draw the weights that grow anew, to train from scratch")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of how weights are shared out (default 0)")
    parser.add_argument("--config", metavar="FILE", help="options in a TOML file; those given here win")


def from_file(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Arguments with those of ``--config FILE.toml`` before them, so that what is given on the command line wins.

    Keys are option names without the dashes; lists repeat an option that may be given several times, or are the parts
    of one that has several.

    Raises:
        InputError: If the file cannot be read, or an entry is no option or does not fit it.
    """
    given = list(arguments)
    place = next((k for k, text in enumerate(given) if text == "--config" or text.startswith("--config=")), None)
    if place is None or given[0] not in COMMANDS:
        return given
    name = given[place].partition("=")[2] or (given[place + 1] if place + 1 < len(given) else "")
    if not name:
        return given
    try:
        found = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        said = getattr(error, "strerror", None) or reason(error)
        raise InputError(f"--config {name}: cannot be read ({said}). Give a TOML file.") from error
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    known = {flag: action for action in commands[given[0]]._actions for flag in action.option_strings}
    texts = []
    for key, value in found.items():
        flag = f"--{key.replace('_', '-')}"
        if flag not in known or key in FIXED:
            raise InputError(f"--config {name}: {key} is no option that can be set there. See {given[0]} --help.")
        try:
            texts += _texts(flag, value, known[flag])
        except TypeError as error:
            raise InputError(f"--config {name}: {key} = {value!r}: {error}.") from error
    return [given[0], *texts, *given[1:]]


def _texts(flag: str, value: Any, action: argparse.Action) -> list[str]:
    """One entry as arguments.

    Raises:
        TypeError: If it does not fit.
    """
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise TypeError("expected true or false")
        return [flag] if value else []
    parts = isinstance(value, list) and "," in str(action.metavar) and not any(isinstance(one, list) for one in value)
    if isinstance(value, list) and not parts:
        if not isinstance(action, argparse._AppendAction):
            raise TypeError("expected one value, not a list")
        return [text for one in value for text in _texts(flag, one, action)]
    if isinstance(value, (bool, dict)):
        raise TypeError("expected a number or a text")
    return [f"{flag}={','.join(map(str, value)) if parts else value}"]
