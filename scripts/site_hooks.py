"""What the site shows otherwise than the sources: roles, bars within code of tables, and options of commands."""

import re
from typing import Any

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(<code>)~?(?:[\w.]*\.)?(\w+)(</code>)")
CODE = re.compile(r"<code>[^<]*</code>")
SETTINGS = re.compile(
    r"<td>\s*<code>settings</code>\s*</td>\s*<td>.*?</td>(?P<said>.*?)Its keywords, below(?P<more>.*?)"
    r"<em>required</em>",
    re.DOTALL,
)
OPTIONS = '<a href="../options/">The options of the command, as keywords</a>'


def on_page_content(html: str, **_: Any) -> str:
    """Leave of ``:class:`~a.b.C``` its last name, and of a bar that a table needs escaped the bar.

    What functions of commands have as one dataclass, users give as keywords.

    Args:
        html: What is written of a page.
    """
    html = SETTINGS.sub(rf"<td><code>**options</code></td><td></td>\g<said>{OPTIONS}\g<more>", html)
    return CODE.sub(lambda code: code[0].replace("\\|", "|"), ROLE.sub(r"\1\2\3", html))
