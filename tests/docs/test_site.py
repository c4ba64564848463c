"""The site is built without a warning, and shows no marks of the sources."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.site_hooks import on_page_content

ROOT = Path(__file__).parents[2]


def test_roles_and_escaped_bars_are_written_as_they_are_read():
    source = "then this is :func:<code>apply</code>, a :class:<code>~onnxslim_learn.commands.results.ModelResult</code>"
    assert on_page_content(source) == "then this is <code>apply</code>, a <code>ModelResult</code>"
    assert on_page_content(r"<code>--device FILE\|NAME</code> \|") == r"<code>--device FILE|NAME</code> \|"


@pytest.mark.parametrize(("rows", "folded"), [(60, False), (61, True)])
def test_long_tables_are_folded(rows, folded):
    table = "<table><tr><th>a</th></tr>" + "<tr><td>1</td></tr>" * rows + "</table>"
    shown = on_page_content(f"<p>before</p>{table}<p>after</p>")
    assert table in shown
    assert (f"<details><summary>A table of {rows} rows</summary><table>" in shown) == folded


@pytest.mark.slow
def test_the_site_is_built_without_marks_of_the_sources(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = html.unescape(page.read_text(encoding="utf-8"))
        assert "Its keywords, below" not in text, page
        assert re.findall(r":(?:attr|class|data|func|meth|mod):.{30}|<code>[^<]*\\\|", text) == [], page
