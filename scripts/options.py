"""Write every option of every command, as a page: ``python -m scripts.options > docs/options.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn import settings
from onnxslim_learn.cli.table import COMMANDS, Command, ShellSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.settings import Declared

HEAD = """# Options

Made from the parser of the command line. In Python every option is a keyword of the function of that name, with `_` for
`-`; in a file for `--config`, a TOML file, an entry. `onnxslim-learn COMMAND --help` says the same.
"""
TABLE = "| option | what it does | default |\n| --- | --- | --- |"


def page() -> str:
    """The page of all commands."""
    parts = [HEAD]
    for name, command in COMMANDS.items():
        parts += [f"## {name}\n", f"{command.help[0].upper()}{command.help[1:]}.\n", _usage(name, command)]
        for title, listed in _parts(command.keywords.options.values()).items():
            parts += [f"### {name}: {title}\n"] if title else []
            parts.append("\n".join([TABLE, *map(_row, listed)]) + "\n")
    parts += ["## Every command\n", "\n".join([TABLE, *map(_row, settings.options(ShellSettings).values())]) + "\n"]
    return "\n".join(parts)


def _usage(name: str, command: Command) -> str:
    """How a command is called, with what must be given."""
    needed = [_flags(one) for one in command.keywords.options.values() if one.option.required]
    places = [place.metavar + (" ..." if place.several else "") for place in command.places]
    return "\n".join(["```text", " ".join(["onnxslim-learn", name, *places, *needed, "[options]"]), "```", ""])


def _parts(listed: Iterable[Declared]) -> dict[str, list[Declared]]:
    """Options under the titles that the help has for them."""
    parts: dict[str, list[Declared]] = {}
    for one in listed:
        parts.setdefault(one.title[0], []).append(one)
    return parts


def _flags(one: Declared) -> str:
    """An option with what its value looks like."""
    about = one.option
    value = "" if one.switch else f" {'|'.join(about.choices) or about.metavar}"
    short = f"{about.short}, " if about.short else ""
    opposite = f", --no-{one.name.replace('_', '-')}" if about.opposite else ""
    return f"{short}--{one.name.replace('_', '-')}{value}{opposite}"


def _row(one: Declared) -> str:
    """An option as a row of its table."""
    usual = one.default
    told = "" if isinstance(usual, bool) or usual in (None, "", (), {}) else f"`{_text(usual)}`"
    said = one.option.help.replace("|", "\\|").replace("<", "&lt;")
    many = " (repeatable)" if one.option.repeat and "repeatable" not in said else ""
    return f"| `{_flags(one).replace('|', chr(92) + '|')}` | {said}{many} | {told} |"


def _text(usual: object) -> str:
    """A default as it would be given."""
    if isinstance(usual, tuple | list):
        return ",".join(map(str, usual))
    return f"{usual:g}" if isinstance(usual, float) else str(usual)


if __name__ == "__main__":
    print(page(), end="")
