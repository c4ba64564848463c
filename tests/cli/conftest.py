"""A folder of good and bad models and plans, the command line inside it, and what holds of every answer."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from onnxslim_learn.cli import commands, shell
from onnxslim_learn.workflow import slim
from tests.cli.folder import contents, strict, write_bad_models, write_bad_plans, write_models


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with good and bad models and plans."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "folder").mkdir()
    write_models(folder)
    write_bad_models(folder)
    found = slim.analyze(folder / "residual.onnx")
    for name, share in (("slim", 0.6), ("thin", 0.3)):
        plan = slim.plan(found, {"macs": share})
        slim.slim(found, plan).save(folder / f"{name}.onnx", check=False)
        (folder / f"{name}.json").write_text(plan.to_json())
    write_bad_plans(folder, json.loads((folder / "slim.json").read_text()))
    other = slim.analyze(folder / "chain.onnx")
    (folder / "chain.json").write_text(slim.plan(other, {"macs": 0.5}).to_json())
    return folder


@pytest.fixture
def run(prepared, tmp_path, monkeypatch, capsys):
    """Run a line in a fresh copy of the folder; returns the exit code, standard output and standard error."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(shell.DEBUG, raising=False)

    def run(line):
        code = commands.main(shlex.split(line))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run):
    """Check that a line is refused in one sentence with all of these words, and that it changes nothing."""

    def refused(arguments, code, words):
        os.mkfifo("pipe")
        before = contents()
        found, out, err = run(arguments)
        assert (found, out) == (code, "")
        sentence, *following = err.splitlines()
        assert all(line.startswith("  onnxslim-learn ") for line in following), "only a command to copy follows"
        assert sentence.startswith("onnxslim-learn: ")
        assert sentence[-1] in ".?"
        assert [word for word in words.split() if word not in sentence] == [], sentence
        assert contents() == before

    return refused


@pytest.fixture
def shown(run):
    """Check that a line prints all of these phrases on standard output, no more, and writes nothing but new files."""

    def shown(arguments, code, phrases):
        before = contents()
        found, out, err = run(arguments)
        assert (found, err) == (code, "")
        assert [phrase for phrase in phrases if phrase not in out] == [], out
        assert "\x1b" not in out, "no colours where there is no terminal"
        after = contents()
        assert {path: after[path] for path in before} == before, "what was there stays as it was"
        assert all(path.startswith("new.") for path in set(after) - set(before))

    return shown


@pytest.fixture
def machine_read(run):
    """Check that JSON with these keys is all of standard output, or goes to a file beside the tables; returns it."""

    def machine_read(arguments, code, keys):
        found, out, err = run(f"{arguments} --json -")
        assert (found, err) == (code, "")
        assert set(keys.split()) <= set(strict(out))
        found, tables, err = run(f"{arguments} --json new.json")
        assert (found, err) == (code, "")
        assert "{" not in tables and tables
        written = strict(Path("new.json").read_text())
        assert set(written) == set(strict(out))
        return written

    return machine_read
