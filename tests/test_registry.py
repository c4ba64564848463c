"""Registries: what is named is found, what is misspelt is told, what was added goes again."""

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from onnxslim_learn import registry, rows
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import CRITERIA, DEVICES, METHODS, CriterionRow
from onnxslim_learn.rows import Registry
from scripts import options, registries

ROOT = Path(__file__).parents[1]

REGISTRIES = {name: value for name, value in vars(registry).items() if isinstance(value, Registry) and value}


def halves(analysis, groups, samples):
    """Score by halves.

    The rest of the text is no summary.
    """


class Entry:
    """An entry point of an installed package."""

    def __init__(self, name, held):
        self.name, self.held, self.value, self.dist = name, held, f"elsewhere:{name}", None

    def load(self):
        if isinstance(self.held, Exception):
            raise self.held
        return self.held


@pytest.fixture
def installed(monkeypatch):
    """Install entry points of criteria, and take what they registered out again."""
    before, entries = set(CRITERIA), []

    def entry_points(*, group, name=None):
        assert group == "onnxslim_learn.criteria"
        return [entry for entry in entries if name in (None, entry.name)]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    yield entries
    for name in set(CRITERIA) - before:
        CRITERIA.remove(name)


@pytest.mark.parametrize("name", REGISTRIES)
def test_rows_say_what_they_are_in_one_line(name):
    for key, row in REGISTRIES[name].items():
        assert key == row.name
        assert row.help
        assert "\n" not in row.help
        assert not row.help.endswith(".")


def test_a_function_is_found_by_name_by_itself_and_by_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "my_criteria.py").write_text('def mine(analysis, groups, samples):\n    """Say nothing."""\n')
    monkeypatch.chdir(tmp_path)
    assert CRITERIA.load(halves) is halves
    assert CRITERIA.row(halves).help == "Score by halves"
    assert CRITERIA.row(halves).name == f"{__name__}:halves"
    assert CRITERIA.load("my_criteria:mine").__doc__ == "Say nothing."
    assert CRITERIA.row("my_criteria:mine").name == "my_criteria:mine"
    assert METHODS.load("magnitude").__name__ == "magnitude"


def test_what_is_registered_is_found_with_its_data_until_it_is_removed():
    before = list(CRITERIA)
    with CRITERIA.having("halves", halves, samples=True) as row:
        assert list(CRITERIA) == [*before, "halves"]
        assert CRITERIA.row("halves") is CRITERIA.row(halves) is row
        assert (row.samples, row.labels, row.help) == (True, False, "Score by halves")
        with pytest.raises(InputError, match="halves: there is one of this name already"):
            CRITERIA.register("halves", len)
    assert list(CRITERIA) == before


def test_register_decorates():
    try:

        @CRITERIA.register("ones", labels=True)
        def ones(analysis, groups, samples):
            """All alike."""

        assert CRITERIA.load("ones") is ones
        assert CRITERIA["ones"].labels
    finally:
        CRITERIA.remove("ones")


def test_what_is_misspelt_is_told_with_what_there_is():
    with pytest.raises(InputError) as refused:
        CRITERIA.load("enrgy")
    said = str(refused.value)
    assert said.startswith("criterion enrgy: ")
    assert [name for name in CRITERIA if name not in said] == []
    assert said.endswith("Did you mean energy?")
    with pytest.raises(InputError, match=r"--other thing: .*module:function"):
        CRITERIA.load("thing", "--other")
    with pytest.raises(InputError, match="a file that calibrate wrote"):
        DEVICES.load("nothing")


def test_what_an_installed_package_brings_is_found_and_named(installed):
    row = CriterionRow("unused", halves, "halves of a package", samples=True)
    installed += [Entry("plain", halves), Entry("whole", row), Entry("broken", ValueError("no luck"))]
    assert CRITERIA.load("plain") is halves
    assert CRITERIA.load("whole") is halves
    assert CRITERIA["whole"].samples
    with pytest.raises(InputError, match=r"criterion broken: elsewhere:broken raised ValueError \(no luck\)"):
        CRITERIA.load("broken")
    with pytest.raises(InputError, match="Did you mean whole"):
        CRITERIA.load("whol")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(rows.EXTRAS, "train", ("no_such_module",))
    with (
        CRITERIA.having("halves", halves, extra="train"),
        pytest.raises(InputError, match=r"criterion halves: needs no_such_module. Install onnxslim-learn\[train\]"),
    ):
        CRITERIA.load("halves")


def test_nothing_that_a_row_points_to_is_imported_before_it_is_used():
    script = "import sys, onnxslim_learn.registry\nprint([m for m in ('numpy', 'onnx', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("page", [registries, options])
def test_pages_that_are_made_are_current(page):
    name = f"docs/{page.__name__.rpartition('.')[2]}.md"
    assert (ROOT / name).read_text(encoding="utf-8") == page.page(), f"python -m {page.__name__} > {name}"


def collections(tree):
    """Yield the texts that stand together in a tuple, a list, a set or as keys of a dict."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            inside = node.keys if isinstance(node, ast.Dict) else node.elts
            yield {one.value for one in inside if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def test_no_other_list_of_these_names_is_left():
    """Reports as data are keyed by name; everywhere else two names of one registry together are a second list."""
    found = []
    for path in sorted((ROOT / "onnxslim_learn").rglob("*.py")):
        if path.name == "registry.py" or "report" in path.parts:
            continue
        for texts in collections(ast.parse(path.read_text(encoding="utf-8"))):
            found += [
                (path.name, sorted(texts & set(rows))) for rows in REGISTRIES.values() if len(texts & set(rows)) > 1
            ]
    assert found == []
