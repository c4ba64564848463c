"""The documentation does what it says: every block of code runs, as it stands, in the order of its page.

A page names in its first line the files that its reader has (``<!-- files: model.onnx photos -->``). Blocks of ``bash``
and ``python`` are run, those with a title are written to a file of that name. Blocks of ``text`` are output, or what
another machine would need.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from nets.exports import torchvision_models
from onnxslim_learn import demo
from onnxslim_learn.cli.table import COMMANDS
from onnxslim_learn.demo.story import accuracy
from tests.docs.world import FILES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r'^( *)```(\w+)(?: title="([^"]+)")?[^\n]*\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
HEAD = re.compile(r"<!-- files:([^>]*)-->")
KINDS = {"bash", "python", "text", "toml", "yaml", "json", "dockerfile"}


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        kind: Its language.
        title: The file that it is; empty for one that is run.
        code: What it says.
    """

    kind: str
    title: str
    code: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found = []
    for indent, kind, title, code in FENCE.findall(page.read_text(encoding="utf-8")):
        found.append(Block(kind, title, re.sub(f"^{indent}", "", code, flags=re.MULTILINE)))
    return found


def runs(page: Path) -> list[Block]:
    """Blocks that are run, or files for them."""
    return [block for block in blocks(page) if block.title or block.kind in ("bash", "python")]


def name(page: Path) -> str:
    """What a page is called."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_of_a_kind_that_is_known(page):
    assert {block.kind for block in blocks(page)} <= KINDS
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options_exist(page):
    """Each option that a command line of a page gives is one of that command."""
    for block in blocks(page):
        for line in block.code.replace("\\\n", " ").splitlines() if block.kind in ("bash", "text") else ():
            called = re.match(r".*(?:onnxslim-learn|onnxslim_learn\.cli\.commands) ([a-z]+)(.*)", line)
            if called:
                flags = re.findall(r"(?<=\s)--([a-z][a-z-]*)", called[2].partition(" #")[0])
                known = {known.replace("_", "-") for known in COMMANDS[called[1]].keywords.options}
                known |= {"quiet", "verbose", "log-file", "help"}
                assert {flag for flag in flags if flag not in known and flag.removeprefix("no-") not in known} == set()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if HEAD.search(page.read_text(encoding="utf-8"))], ids=name)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for file in HEAD.search(page.read_text(encoding="utf-8"))[1].split():
        FILES[file](tmp_path / file)
    with suppress(ImportError):  # transformers does without torchvision, but not with one that fails to load
        torchvision_models()
    space = {"__name__": "page"}
    for block in runs(page):
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
            monkeypatch.delitem(sys.modules, Path(block.title).stem, raising=False)
        elif block.kind == "python":
            exec(compile(block.code, name(page), "exec"), space)
        else:
            shell(block.code, tmp_path)


def shell(code, folder):
    """Run lines of bash, in an environment whose commands are those of this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_lines_of_python_keep_the_accuracy_of_the_net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("model.onnx", "train.npz"):
        FILES[file](tmp_path / file)
    for block in runs(ROOT / "docs/using.md"):
        exec(compile(block.code, "using.md", "exec"), {})
    shown = demo.held_out()
    assert accuracy(Path("model.onnx"), shown["image"], shown["labels"]) > 0.98
    for file, least in (("slim.onnx", 0.96), ("three.onnx", 0.94)):
        assert accuracy(Path(file), shown["image"], shown["labels"]) > least, file


def test_pages_that_run_something_say_what_their_reader_has():
    for page in PAGES:
        if page.name != "README.md" and any(block.kind in ("bash", "python") for block in blocks(page)):
            assert HEAD.search(page.read_text(encoding="utf-8")), name(page)
