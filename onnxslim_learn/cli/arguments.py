"""The command line's options: one parser, typed results, no logic."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from onnxslim_learn.cli import learn_arguments, sparse_arguments
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import CRITERIA, DEVICES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxslim_learn.data.options import Options


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors instead of exiting, and takes no abbreviations."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})
        self._negative_number_matcher = re.compile(r"-\.?\d")  # as in Python 3.14: -1,1 is a value, no option

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message}. See {self.prog} --help.")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: If it cannot be understood.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    return (main := parser()).parse_args(learn_arguments.from_file(given, main))


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    main = _Parser(
        prog="onnxslim-learn",
        description="Find what an ONNX model can lose, say what each cut buys, and write the smaller, verified model.",
    )
    main.add_argument("--version", action="store_true", help="print the version and stop")
    commands = main.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _analyze(commands.add_parser("analyze", help="show what can be cut, what cannot and why"))
    _slim(commands.add_parser("slim", help="cut a model to a target, verify it, write it"))
    _learn(commands.add_parser("learn", help="learn what can go while training, cut, fine-tune, write it"))
    _expand(commands.add_parser("expand", help="widen a model to a budget without changing what it computes"))
    sparse = commands.add_parser("sparsify", help="zero weights in one go, refit the others, say what that buys")
    for add in (_model, _result, sparse_arguments.one_shot, _inputs, _data, _runtime, _report):
        add(sparse)
    _apply(commands.add_parser("apply", help="carry out a plan that slim wrote"))
    _verify(commands.add_parser("verify", help="check a slimmed model against its original under a plan"))
    _profile(commands.add_parser("profile", help="time one or several models on onnxruntime"))
    _calibrate(commands.add_parser("calibrate", help="measure this machine, to estimate and bound latency"))
    _demo(commands.add_parser("demo", help="the whole story on a trained net that ships with the package"))
    return main


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a positive whole number, but got {text!r}")
    return int(text)


def _threads(text: str) -> int:
    most = 4 * (os.cpu_count() or 1)
    if _positive(text) > most:
        raise argparse.ArgumentTypeError(f"expected at most {most} on this machine, but got {text}")
    return int(text)


def _seconds(text: str, *, least: float = math.ulp(0.0)) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= 3600:
        above = "from" if least == 0 else "above"
        raise argparse.ArgumentTypeError(f"expected seconds {above} 0 and up to 3600, but got {text!r}")
    return value


def _some_seconds(text: str) -> float:
    return _seconds(text, least=0.0)


def _provider(text: str) -> str:
    return f"{text.upper()}ExecutionProvider" if text.lower() in ("cpu", "cuda") else text


def _listed(one: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A reader of values with commas between them."""

    def read(text: str) -> list[Any]:
        return [one(part) for part in text.split(",")]

    return read


def _pattern(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a regular expression, but got an empty one, which would match all")
    return text


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")


def _inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        metavar="NAME:1x3x224x224",
        action="append",
        default=[],
        help="shape of an input whose dimensions the file leaves open, for costs and latency (repeatable)",
    )
    parser.add_argument(
        "--value",
        metavar="NAME=16000",
        action="append",
        default=[],
        help="value of an input that chooses a branch of the model: that branch is analysed, cut and checked"
        " (repeatable; numbers with commas for an input of several)",
    )


def _report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", metavar="FILE", help="write the result as a page with charts")
    parser.add_argument("--json", metavar="FILE|-", help="write the result as JSON to a file, or - for standard output")


def _runtime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=_threads, default=1, metavar="N", help="threads of onnxruntime (default 1)")
    parser.add_argument(
        "--provider",
        type=_provider,
        default="CPUExecutionProvider",
        metavar="P",
        help="cpu (default), cuda, or full name",
    )
    _measuring(parser)


def _measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=_seconds, default=2.0, metavar="S", help="time to measure for (default 2)")


def _clock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--measure-seconds",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="with --target latency: time to measure what widths are worth on this machine (default 30)",
    )
    _device(parser)


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        metavar="FILE|NAME",
        help="estimate latency for a machine: a file that calibrate wrote, or one of " + ", ".join(DEVICES),
    )


def _data(parser: argparse.ArgumentParser) -> None:
    """Options about samples; their names are those of :class:`onnxslim_learn.data.options.Options`."""
    group = parser.add_argument_group("samples", "inputs to choose, repair and check on; made up without --data")
    group.add_argument("--data", metavar="SRC", help=".npz or .npy file, folder of images, or module:function")
    group.add_argument("--samples", type=_positive, metavar="N", help="use at most so many (default 512)")
    group.add_argument("--batch-size", type=_positive, metavar="N", help="run so many at a time (default 32)")
    group.add_argument("--seed", type=learn_arguments.whole, metavar="N", help="chooses and orders samples (default 0)")
    group.add_argument(
        "--input-range",
        type=_pair,
        action="append",
        metavar="LOW,HIGH",
        help="without --data: range of the inputs to make up; once, or once for each channel",
    )
    group.add_argument("--image-size", type=_size, metavar="HxW", help="images: size, where the model leaves it open")
    group.add_argument(
        "--scale", type=float, choices=(255.0, 1.0), metavar="255|1", help="images: what pixels are divided by"
    )
    group.add_argument("--mean", type=_numbers, metavar="R,G,B", help="images: taken out of scaled pixels")
    group.add_argument("--std", type=_numbers, metavar="R,G,B", help="images: divides scaled pixels")
    group.add_argument("--layout", choices=("nchw", "nhwc"), help="images: order of axes")
    group.add_argument("--colour", choices=("rgb", "bgr", "grey"), help="images: order of channels")


def _repair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-repair", action="store_true", help="leave the weights that stay as they are")
    parser.add_argument(
        "--match-statistics",
        action="store_true",
        help="without --data: fit made-up inputs to the statistics of batch normalisations (needs the extra train)",
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise argparse.ArgumentTypeError(f"expected numbers as in 0.485,0.456,0.406, but got {text!r}")
    return found


def _pair(text: str) -> tuple[float, ...]:
    found = _numbers(text)
    if len(found) != 2 or not found[0] < found[1]:
        raise argparse.ArgumentTypeError(f"expected a smaller and a larger number as in 0,1, but got {text!r}")
    return found


def _size(text: str) -> tuple[int, ...]:
    found = tuple(_positive(part) for part in text.split("x"))
    if len(found) > 2:
        raise argparse.ArgumentTypeError(f"expected HxW or one number, but got {text!r}")
    return found * 2 if len(found) == 1 else found


def data_options(options: argparse.Namespace) -> Options:
    """How samples are read.

    Raises:
        InputError: If an option was given that has no effect on what was asked for.
    """
    from dataclasses import fields

    from onnxslim_learn.data.options import Options

    given: dict[str, Any] = {f.name: v for f in fields(Options) if (v := getattr(options, f.name)) is not None}
    found = Options(**{**given, "input_range": tuple(given.get("input_range", ()))})
    if options.data is None and found.for_images:
        raise InputError(f"{found.for_images[0]}: is for folders of images. Give one with --data.")
    if options.data is not None and vars(options).get("match_statistics"):
        raise InputError(
            "--match-statistics: is for made-up inputs, but --data gives real ones. Leave one of them out."
        )
    if options.data is not None and found.input_range:
        raise InputError("--input-range: is for made-up inputs, but --data gives real ones. Leave one out.")
    return found


def _result(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="where to write the slimmed model")
    parser.add_argument("--no-latency", action="store_true", help="do not time the models")


def _analyze(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _inputs(parser)
    parser.add_argument(
        "--why",
        metavar="GROUP|AXIS,AXIS",
        action="append",
        default=[],
        help="only explain by a path why a group or axis (name:axis) cannot go, or why two are coupled (repeatable)",
    )
    parser.add_argument("--allow-sensitive", action="store_true", help="treat normalised axes as cuttable (not exact)")
    _device(parser)
    _report(parser)


def _slim(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _result(parser)
    parser.add_argument(
        "--target",
        metavar="COST=NUMBER",
        action="append",
        default=[],
        help="macs=, params=, bytes=, memory= (of activations); at most 1 is a fraction, more is absolute: macs=300M;"
        " latency=0.6 or latency=4ms (repeatable)",
    )
    parser.add_argument("--lossless", action="store_true", help="no target: cut exactly what changes no output")
    parser.add_argument(
        "--criterion",
        metavar="NAME",
        help=f"what scores units: {', '.join(CRITERIA)} (default obs; energy with --no-repair and no --data)",
    )
    _limits(parser)
    parser.add_argument("--plan-out", metavar="FILE", help="write the plan as JSON")
    parser.add_argument(
        "--sensitivity-seconds",
        type=_some_seconds,
        metavar="S",
        help="time to measure what each group's width is worth (default 60 with --data; else 0: not measured)",
    )
    for add in (_clock, _repair, _inputs, _data, _runtime, _report):
        add(parser)


def _limits(parser: argparse.ArgumentParser) -> None:
    """What may be cut, and how far."""
    parser.add_argument(
        "--multiple", type=_positive, default=1, metavar="N", help="keep widths a multiple of N (default 1)"
    )
    parser.add_argument(
        "--protect",
        type=_pattern,
        metavar="REGEX",
        action="append",
        default=[],
        help="groups whose name or members match stay whole",
    )
    parser.add_argument("--allow-sensitive", action="store_true", help="also cut normalised axes (not exact)")
    parser.add_argument("--allow-empty", action="store_true", help="whole branches may go; else one unit always stays")


def _learn(parser: argparse.ArgumentParser) -> None:
    own, sparse, how = learn_arguments.learning, sparse_arguments.learnt, learn_arguments.training
    for add in (_model, _result, own, sparse, _limits, _clock, how, _repair, _inputs, _data, _runtime, _report):
        add(parser)


def _expand(parser: argparse.ArgumentParser) -> None:
    for add in (_model, learn_arguments.expanding, _inputs, _device, _runtime, _report):
        add(parser)


def _apply(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    parser.add_argument("plan", metavar="PLAN", help="a plan that slim wrote with --plan-out")
    for add in (_result, _repair, _inputs, _data, _runtime, _report):
        add(parser)


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("original", metavar="ORIGINAL", help="the original .onnx file")
    parser.add_argument("slimmed", metavar="SLIMMED", help="the slimmed .onnx file")
    parser.add_argument("--plan", metavar="PLAN", required=True, help="the plan that made it")
    for add in (_inputs, _data, _report):
        add(parser)


def _profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help=".onnx files; several are timed in turns and compared"
    )
    _inputs(parser)
    several = "N[,N...]"
    parser.add_argument("--threads", type=_listed(_threads), default=[1], metavar=several, help="threads (default 1)")
    parser.add_argument(
        "--provider",
        type=_listed(_provider),
        default=["CPUExecutionProvider"],
        dest="providers",
        metavar="P[,P...]",
        help="cpu (default), cuda, or full names",
    )
    parser.add_argument(
        "--batch",
        type=_listed(_positive),
        default=[],
        metavar=several,
        help="samples per run, where the file leaves the first axis of inputs open",
    )
    parser.add_argument("--io-binding", action="store_true", help="keep inputs and outputs on the device")
    parser.add_argument("--per-node", action="store_true", help="also show the time of every node")
    parser.add_argument("--compare", action="store_true", help="exit with 1 unless all are faster than the first")
    _measuring(parser)
    _report(parser)


def _calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="write the device as TOML, for --device")
    parser.add_argument("--name", type=_name, default="this machine", metavar="NAME", help="what to call it")
    _runtime(parser)
    _report(parser)
    parser.set_defaults(seconds=10.0)


def _name(text: str) -> str:
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected a name, but got {text!r}")
    return text


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="OUT", help="keep the slimmed demo model here")
    _report(parser)
