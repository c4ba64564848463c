"""What a shell proposes while a command line is typed: a script for it, which runs none of this package."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from onnxslim_learn import registry
from onnxslim_learn.cli import parser
from onnxslim_learn.cli.table import COMMANDS, ShellSettings
from onnxslim_learn.errors import InputError
from onnxslim_learn.rows import DISTRIBUTION, Registry
from onnxslim_learn.settings import options

if TYPE_CHECKING:
    import argparse

    from onnxslim_learn.settings import Declared

SHELLS = ("bash", "zsh", "tcsh")
FILES = re.compile(r"FILE|MODEL|PLAN|OUT|SRC|PATH|DIR")  # in what a value looks like
REGISTRIES = {one.parameter.strip("⟨⟩"): one for one in vars(registry).values() if isinstance(one, Registry)}


def script(shell: str) -> str:
    """The script that a shell reads to complete commands, options, files and names.

    Raises:
        InputError: If the shell is unknown, or the library that writes scripts is not installed.
    """
    if shell not in SHELLS:
        raise InputError(f"--print-completion {shell}: expected one of {', '.join(SHELLS)}. Use one of them.")
    try:
        shtab: Any = importlib.import_module("shtab")
    except ImportError as error:
        raise InputError(f"--print-completion: needs shtab. Install it beside {DISTRIBUTION}.") from error
    main = parser.parser()
    (commands,) = (action for action in main._actions if isinstance(action.choices, dict))
    assert isinstance(commands.choices, dict)
    for name, one in commands.choices.items():
        declared = {**COMMANDS[name].keywords.options, **options(ShellSettings)}
        for action in one._actions:
            _complete(action, declared.get(action.dest), shtab.FILE)
    return str(shtab.complete(main, shell=shell, root_prefix=f"_{parser.PROGRAM.replace('-', '_')}"))


def _complete(action: argparse.Action, one: Declared | None, files: dict[str, str]) -> None:
    """Say what may stand for an argument: the names there are, else files where it is one."""
    names = [] if one is None else [*one.option.choices, *REGISTRIES.get(one.name, {})]
    if one is not None and one.option.keys:
        names += [f"{key}=" for key in list(one.option.keys)]  # type: ignore[call-overload]
    if names:
        action.choices = names
    elif FILES.search(str(action.metavar or "")):
        action.complete = files  # type: ignore[attr-defined]
