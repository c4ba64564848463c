"""The command line: what is asked for is given to the public function of that name, and what it finds is shown."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from onnxslim_learn.cli import guard, parser, progress, shell
from onnxslim_learn.cli.table import COMMANDS
from onnxslim_learn.settings import with_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.cli.parser import Call


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. The arguments of this process run in a process of their own."""
    if arguments is None and not os.environ.get(shell.DEBUG):
        guard.split()
    with shell.errors_only("onnx_ir"):
        return shell.answer(lambda: _run(parser.parse(arguments)))


def _run(call: Call) -> int:
    if call.version:
        from importlib.metadata import version

        print(version("onnxslim-learn"))
        return 0
    if call.completion:
        from onnxslim_learn.cli import completion

        print(completion.script(call.completion))
        return 0
    if not call.command:
        parser.parser().print_help()
        return 0
    return _act(call)


def _act(call: Call) -> int:
    """Carry out a command, and show what it found."""
    from onnxslim_learn.commands import stages
    from onnxslim_learn.rows import imported

    command, printed = COMMANDS[call.command], call.options.get("json") == "-"
    options = {name: value for name, value in call.options.items() if not (printed and name == "json")}
    given = with_file(command.keywords.where(options), options)
    told = call.shell
    with progress.logging(told.log_file) as log, shell.logged(log):
        act, listed = imported(command.act), stages.listed(call.command, given)
        with progress.progress(listed, quiet=told.quiet, verbose=told.verbose, log=log) as watcher:
            result = act(*call.files, progress=watcher, **options)
        if result is None:  # a process that does not lead
            return 0
        shell.show(result, told, log, printed=printed)
        result.stay(lambda text: print(text, file=sys.stderr if printed else sys.stdout, flush=True))
    return 0 if result.passed else int(result.failure)


if __name__ == "__main__":
    raise SystemExit(main())
