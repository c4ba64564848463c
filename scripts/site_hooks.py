"""What the site shows otherwise than the sources: roles, bars within code, options, and long tables folded."""

import re
from typing import Any

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(<code>)~?(?:[\w.]*\.)?(\w+)(</code>)")
CODE = re.compile(r"<code>[^<]*</code>")
SETTINGS = re.compile(
    r"<td>\s*<code>settings</code>\s*</td>\s*<td>.*?</td>(?P<said>.*?)Its keywords, below(?P<more>.*?)"
    r"<em>required</em>",
    re.DOTALL,
)
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
MANY = 60  # rows of a table that is folded
OPTIONS = '<a href="../options/">The options of the command, as keywords</a>'


def on_page_content(html: str, **_: Any) -> str:
    """Leave of ``:class:`~a.b.C``` its last name, and of a bar that a table needs escaped the bar.

    What functions of commands have as one dataclass, users give as keywords. Tables of very many rows are folded.

    Args:
        html: What is written of a page.
    """
    html = TABLE.sub(_folded, html)
    html = SETTINGS.sub(rf"<td><code>**options</code></td><td></td>\g<said>{OPTIONS}\g<more>", html)
    return CODE.sub(lambda code: code[0].replace("\\|", "|"), ROLE.sub(r"\1\2\3", html))


def _folded(table: re.Match[str]) -> str:
    """A table, which has to be opened where it is long."""
    rows = table[0].count("<tr>") - 1
    return f"<details><summary>A table of {rows} rows</summary>{table[0]}</details>" if rows > MANY else table[0]
