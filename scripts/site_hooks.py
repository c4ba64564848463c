"""What the site shows otherwise than the sources have it: roles of docstrings, and bars within code of tables."""

import re
from typing import Any

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(<code>)~?(?:[\w.]*\.)?(\w+)(</code>)")
CODE = re.compile(r"<code>[^<]*</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Leave of ``:class:`~a.b.C``` its last name, and of a bar that a table needs escaped the bar.

    Args:
        html: What is written of a page.
    """
    return CODE.sub(lambda code: code[0].replace("\\|", "|"), ROLE.sub(r"\1\2\3", html))
