"""The table of results has a row for every model of its script, and the page shows what is kept of them."""

import json

from benchmarks.results import CASES, PAGE, ROWS, table


def test_every_model_has_a_row_and_the_page_shows_the_rows():
    rows = json.loads(ROWS.read_text(encoding="utf-8"))
    assert [row["model"] for row in rows] == list(CASES)
    assert len({row["architecture"] for row in rows}) >= 20
    assert table(rows) in PAGE.read_text(encoding="utf-8")
