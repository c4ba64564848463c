"""Examples run, and print what their README says that they print, but for digits."""

import re

import nbformat
import pytest

from scripts import examples

FIGURE = re.compile(r"-?[\d,.]+(e[+-]?\d+)?")


def without_figures(text):
    """The words of what was printed."""
    return re.sub(r"\s+", " ", FIGURE.sub("#", text)).strip()


@pytest.mark.parametrize("name", examples.EXAMPLES)
def test_readme_has_what_examples_print(name):
    assert examples.kept()[name].strip()


@pytest.mark.parametrize("name", examples.EXAMPLES)
def test_examples_are_short_and_say_what_they_need(name):
    text = (examples.FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert "``pip install" in text


@pytest.mark.parametrize("name", examples.NOTEBOOKS)
def test_notebooks_are_their_example(name):
    book = nbformat.read(examples.FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    assert [(cell.cell_type, cell.source) for cell in book.cells] == examples.cells(name)
    assert examples.printed(book) == examples.kept()[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in examples.EXAMPLES if name not in examples.BY_HAND])
def test_examples_print_what_readme_says(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(examples.FOLDER.parent))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    notebook = name in examples.NOTEBOOKS
    told = examples.printed(examples.executed(name, tmp_path)) if notebook else examples.run(name, tmp_path)
    assert without_figures(told) == without_figures(examples.kept()[name])
