"""The parser of the command line, made of the options that commands declare; nothing else knows argparse.

It tells flags from files; what their texts mean is read by :mod:`onnxslim_learn.settings`.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn import settings
from onnxslim_learn.cli.table import COMMANDS, ShellSettings
from onnxslim_learn.errors import InputError, meant
from onnxslim_learn.runtime import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnxslim_learn.keywords import Keywords
    from onnxslim_learn.settings import Declared

PROGRAM = "onnxslim-learn"
MAIN = ["help", "version", "print-completion"]  # options without a command


@dataclass(frozen=True)
class Call:
    """What a command line says.

    Attributes:
        command: What to do; empty for nothing, or for the version.
        files: What is given by its place.
        options: What is given by flags: keyword -> text, ``True``, or a list of texts.
        version: Whether the version is asked for.
        completion: The shell for which a script is asked for that completes commands; empty for none.
        shell: How it is answered.
    """

    command: str
    files: tuple[Any, ...]
    options: dict[str, Any]
    version: bool = False
    completion: str = ""
    shell: ShellSettings = field(default_factory=ShellSettings)


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors instead of exiting, and takes no abbreviations."""

    def __init__(self, **about: Any) -> None:
        super().__init__(**{**about, "allow_abbrev": False})
        self._negative_number_matcher = re.compile(r"-\.?\d")  # as in Python 3.14: -1,1 is a value, no option

    def error(self, message: str) -> None:  # type: ignore[override]
        command = re.match(r"argument COMMAND: invalid choice: '([^']*)'", message)
        if command:
            known = ", ".join(COMMANDS)
            guess = _meant(command[1], COMMANDS, self.prog)
            raise InputError(f"{command[1]}: is no command, expected {known}. {guess}")
        raise InputError(f"{message}. See {self.prog} --help.")


def parse(arguments: Sequence[str] | None = None) -> Call:
    """Read the command line.

    Raises:
        InputError: If it cannot be understood.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    space, rest = parser(arguments).parse_known_args(arguments)
    parsed = vars(space)
    name = parsed.pop("command", None) or ""
    if rest:
        flags = [*COMMANDS[name].keywords.where(parsed), *settings.options(ShellSettings)] if name else MAIN
        _refuse(name, rest, flags)
    version, completion = parsed.pop("version"), parsed.pop("print_completion") or ""
    if not name:
        return Call("", (), {}, version, completion)
    command = COMMANDS[name]
    told = {name: parsed.pop(name) for name in settings.options(ShellSettings) if name in parsed}
    files = [parsed.pop(place.name) for place in command.places]
    files = files[0] if any(place.several for place in command.places) else files
    known = command.keywords.where(parsed)
    given = settings.with_file(known, parsed)
    for option in known.values():
        if option.option.required and option.name not in given:
            both = "/".join(filter(None, [option.option.short, f"--{option.name.replace('_', '-')}"]))
            raise InputError(f"the following arguments are required: {both}. See {PROGRAM} {name} --help.")
    return Call(name, tuple(files), parsed, version, completion, _shell(told, files, known, parsed))


def _shell(
    told: Mapping[str, Any], files: Iterable[str], known: Mapping[str, Declared], parsed: Mapping[str, Any]
) -> ShellSettings:
    """How a command answers, by its flags.

    Raises:
        InputError: If they contradict each other, or its file is one that the command uses.
    """
    shell = settings.build(ShellSettings, told)
    if shell.quiet and shell.verbose:
        raise InputError("--quiet: says less, and --verbose more. Leave one of them out.")
    if shell.log_file is not None:
        used = [*files, *(text for name, text in parsed.items() if known[name].option.writes)]
        if Path(shell.log_file).resolve() in [Path(file).resolve() for file in used]:
            raise InputError(f"--log-file {shell.log_file}: is a file of the command itself. Give another name.")
        atomic.check_target(Path(shell.log_file), "--log-file")
    return shell


def _refuse(name: str, rest: Sequence[str], known: Iterable[str]) -> None:
    """Refuse arguments of a command that are none of its options."""
    flags = [f"--{one.replace('_', '-')}" for one in known]
    said = f"unrecognized arguments: {' '.join(rest)}."
    raise InputError(f"{said} {_meant(rest[0].partition('=')[0], flags, f'{PROGRAM} {name}'.strip())}")


def _meant(word: str, known: Iterable[str], program: str) -> str:
    """What was meant by a word, or where to read what there is."""
    return meant(word, known) or f"See {program} --help."


def flag(parameter: str) -> str:
    """How the command line calls a parameter; the bound of a cost, ``target.macs``, is part of a flag's value."""
    name, _, cost = parameter.partition(".")
    known = (command.keywords.options for command in COMMANDS.values())
    declared = next((options[name] for options in known if name in options), None)
    shown = f"--{name.replace('_', '-')}" if declared is None else declared.flag
    return f"{shown} {cost}" if cost else shown


def parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of all commands, with the options that there are where arguments choose about them.

    Raises:
        InputError: If what they choose cannot be used.
    """
    asked = next((argument for argument in arguments if not argument.startswith("-")), "")
    main = _Parser(
        prog=PROGRAM,
        description="Find what an ONNX model can lose, say what each cut buys, and write the smaller, verified model.",
    )
    main.add_argument("--version", action="store_true", help="print the version and stop")
    said = "print a script that completes commands in bash, zsh or tcsh, and stop"
    main.add_argument("--print-completion", metavar="SHELL", help=said)
    commands = main.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.help, argument_default=argparse.SUPPRESS)
        for place in command.places:
            one.add_argument(place.name, metavar=place.metavar, help=place.help, nargs="+" if place.several else None)
        keywords = command.keywords
        known = keywords.where(_first(one.prog, keywords, arguments)) if name == asked else keywords.options
        _fill(one, [*known.values(), *settings.options(ShellSettings).values()])
    return main


def _first(program: str, keywords: Keywords, arguments: Sequence[str]) -> dict[str, Any]:
    """What arguments give for the options that decide about others; the rest of them is passed over."""
    scan = _Parser(prog=program, add_help=False, argument_default=argparse.SUPPRESS)
    _fill(scan, [keywords.options[name] for name in keywords.first])
    return vars(scan.parse_known_args(arguments)[0])


def _fill(parser: argparse.ArgumentParser, declared: Iterable[Declared]) -> None:
    """Add options, under the headings that they ask for."""
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    for one in declared:
        title, about = one.title
        if title not in groups:
            groups[title] = parser.add_argument_group(title, about or None)
        _add(groups[title], one)


def _add(container: argparse._ActionsContainer, one: Declared) -> None:
    """Add an option."""
    about, name = one.option, one.name.replace("_", "-")
    flags = [*filter(None, [about.short]), f"--{name}", *(f"--{also}" for also in about.also if also != f"{name}s")]
    if one.switch:
        container = container.add_mutually_exclusive_group() if about.opposite else container
        container.add_argument(*flags, dest=one.name, action="store_true", help=about.help)
        if about.opposite:
            container.add_argument(f"--no-{name}", dest=one.name, action="store_false", help="the opposite")
        return
    more: dict[str, Any] = {"action": "append"} if about.repeat else {}
    metavar = f"{{{','.join(about.choices)}}}" if about.choices else about.metavar
    container.add_argument(*flags, dest=one.name, metavar=metavar, help=_help(one), **more)


def _help(one: Declared) -> str:
    """What an option does, and its default."""
    said, usual = one.option.help.replace("%", "%%"), one.default
    number = isinstance(usual, int | float) and not isinstance(usual, bool) and "default" not in said
    return f"{said} (default {usual:g})" if number else said
