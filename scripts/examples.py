"""Run the examples: three are written as notebooks, and what each prints stands in the README of their folder.

    python -m scripts.examples [NAME ...]     # all (the last take what packages ship), or these

An example is Python in cells, each after a line ``# %%``, which may go on with what the cell is for; its docstring is
the head of its notebook.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent.parent / "examples"
NOTEBOOKS = ("classifier", "morphnet", "sparsity")
BY_HAND = ("detector", "text_lines", "sentences", "olive_pass")  # which take what packages ship
EXAMPLES = (*NOTEBOOKS, "custom_operator", "language_model", *BY_HAND)
CELL = re.compile(r"^# %% ?(.*)\n", re.MULTILINE)
KEPT = re.compile(r"(<!-- printed: (\w+) -->\n```text\n)(.*?)(```\n)", re.DOTALL)


def cells(name: str) -> list[tuple[str, str]]:
    """The cells of an example, each as ``markdown`` or ``code`` and what stands in it."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    head = ast.get_docstring(ast.parse(text)) or ""
    title, _, rest = head.partition("\n")
    _, *parts = CELL.split(text)
    found = [("markdown", f"# {title}\n{rest}".replace("``", "`").strip())]
    for purpose, code in zip(parts[::2], parts[1::2], strict=True):
        found += [("markdown", purpose)] if purpose else []
        found.append(("code", code.strip()))
    return found


def notebook(name: str) -> NotebookNode:
    """An example as a notebook that was not run yet."""
    from nbformat import v4

    made = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
    numbered = enumerate(cells(name))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return v4.new_notebook(cells=[made[kind](text, id=f"cell-{k}") for k, (kind, text) in numbered], metadata=kernel)


def executed(name: str, folder: Path) -> NotebookNode:
    """A notebook that was run in a folder, of which what it printed is kept; pages of results would be large."""
    from nbclient import NotebookClient

    book = notebook(name)
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # times of day
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") == "stdout"]
    return book


def printed(book: NotebookNode) -> str:
    """What the cells of a notebook printed."""
    code = (cell for cell in book.cells if cell.cell_type == "code")
    return "".join(one["text"] for cell in code for one in cell.outputs)


def run(name: str, folder: Path) -> str:
    """What an example prints, run in a folder."""
    command = [sys.executable, "-W", "ignore", str(FOLDER / f"{name}.py")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def kept() -> dict[str, str]:
    """What the README says that examples print, by name."""
    return {name: text for _, name, text, _ in KEPT.findall((FOLDER / "README.md").read_text(encoding="utf-8"))}


def main(names: list[str]) -> None:
    """Run examples and keep what they print."""
    import nbformat

    page = FOLDER / "README.md"
    for name in names or EXAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            if name in NOTEBOOKS:
                book = executed(name, Path(folder))
                nbformat.write(book, FOLDER / f"{name}.ipynb")
            told = printed(book) if name in NOTEBOOKS else run(name, Path(folder))
        print(f"{name}\n{told}", flush=True)
        text = page.read_text(encoding="utf-8")
        page.write_text(
            KEPT.sub(lambda m, told={name: told}: f"{m[1]}{told.get(m[2], m[3])}{m[4]}", text), encoding="utf-8"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
