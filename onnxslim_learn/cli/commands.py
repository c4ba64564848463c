"""The command line: what is asked for is given to the public function of that name, and what it finds is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.cli import parser, shell
from onnxslim_learn.cli.table import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.cli.parser import Call


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with shell.errors_only("onnx_ir"):
        return shell.answer(lambda: _run(parser.parse(arguments)))


def _run(call: Call) -> int:
    if call.version:
        from importlib.metadata import version

        print(version("onnxslim-learn"))
        return 0
    if not call.command:
        parser.parser().print_help()
        return 0
    return _act(call)


def _act(call: Call) -> int:
    """Carry out a command, and show what it found."""
    from onnxslim_learn.rows import imported

    act, printed = imported(COMMANDS[call.command].act), call.options.get("json") == "-"
    options = {name: value for name, value in call.options.items() if not (printed and name == "json")}
    with shell.progress() as watcher:
        result = act(*call.files, progress=watcher, **options)
    if result is None:  # a process that does not lead
        return 0
    shell.show(result, printed=printed)
    return 0 if result.passed else int(result.failure)


if __name__ == "__main__":
    raise SystemExit(main())
