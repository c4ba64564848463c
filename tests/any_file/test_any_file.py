"""Whatever a file or an option says: the exit code is one of the design's, and a refusal is one sentence.

The table of cases is made by rules (:mod:`tests.any_file.model_files` and those beside it). The default run looks at a
part of it, the slow run at a larger one, ``pytest -m slow --every-case tests/any_file`` at all.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import onnx
import pytest

from onnxslim_learn.cli.commands import main
from onnxslim_learn.errors import InputError
from onnxslim_learn.train import checkpoints
from tests.any_file import texts
from tests.any_file.case import Case
from tests.any_file.model_files import rich

KINDS = {"model_files": (75, 4), "arrays": (14, 1), "options": (35, 1), "texts": (40, 2), "large": (7, 1)}
"""Modules of cases; of how many the default run looks at one, and the slow run."""

CODES = {0, 1, 2, 3}
MEMORY = 2 << 30  # bytes of address space beyond what the process has
WORK = 20  # seconds of processor time: a case takes a hundredth of that
LONGEST = 20_000  # characters of a sentence: shapes may have a thousand axes


def contents(folder: Path) -> dict[str, bytes | None]:
    """What lies in a folder, whatever it is called."""
    listed = [(place, name) for place, _, names in os.walk(os.fsencode(folder)) for name in names]
    files = [os.path.join(place, name) for place, name in listed]
    return {os.fsdecode(file): Path(os.fsdecode(file)).read_bytes() if os.path.isfile(file) else None for file in files}


@contextmanager
def bounded() -> Iterator[None]:
    """Let a block have so much memory and work; both are measured by the system, whatever else the machine does."""

    def stop(*_: object) -> None:
        raise AssertionError("takes too long")

    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, stop)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, WORK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, handler)


def complaints(case: Case, folder: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What of the law does not hold for a case."""
    case.write(folder)
    before = contents(folder)
    with bounded():
        code = main(case.line.split() if isinstance(case.line, str) else list(case.line))
    out, err = capfd.readouterr()
    after = contents(folder)
    wrong = [f"exit code {code}: {err}"] if code not in CODES else []
    wrong += ["control characters"] if "\x1b" in out + err else []
    wrong += ["what was there has changed"] if any(after.get(name) != one for name, one in before.items()) else []
    if code in (1, 2):
        sentence, *following = err.splitlines() or [""]
        wrong += ["something is written"] if after != before or out else []
        wrong += ["not one sentence"] if not sentence.startswith("onnxslim-learn: ") or len(sentence) > LONGEST else []
        wrong += (
            ["more than a command follows"] if any(not one.startswith("  onnxslim-learn ") for one in following) else []
        )
        wrong += ["no bound is told"] if "out of memory" in sentence else []
        wrong += ["the file is not named"] if not any(name in sentence for name in case.names) else []
        wrong = [f"{one}: {err[:300]}" for one in wrong]
    return wrong


def looked_at(kind: str, part: slice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> tuple[int, list[str]]:
    """How many cases of a kind were looked at, and what was wrong."""
    cases = list(import_module(f"tests.any_file.{kind}").cases())[part]
    wrong = []
    for number, case in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        wrong += [f"{case.name}: {one}" for one in complaints(case, folder, capfd)]
    return len(cases), wrong


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_and_no_option_is_answered_but_as_designed(kind, tmp_path, monkeypatch, capfd):
    count, wrong = looked_at(kind, slice(0, None, KINDS[kind][0]), tmp_path, monkeypatch, capfd)
    assert count > 2
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_none_of_many_is_answered_but_as_designed(kind, request, tmp_path, monkeypatch, capfd):
    step = 1 if request.config.getoption("--every-case") else KINDS[kind][1]
    count, wrong = looked_at(kind, slice(0, None, step), tmp_path, monkeypatch, capfd)
    assert count > 15
    assert wrong == []


def test_what_cases_damage_is_right(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    onnx.save(rich(), "m.onnx")
    assert main(["analyze", "m.onnx"]) == 0
    Path("good.json").write_text(json.dumps(texts.plan()[0]))
    if texts.plan()[1]:
        Path("good.bases.npz").write_bytes(texts.plan()[1])
    assert main(["apply", "m.onnx", "good.json", "-o", "new.onnx", "--no-latency", "--no-repair"]) == 0


def test_damaged_checkpoints_are_refused(tmp_path):
    for name, folder in texts.damaged_checkpoints(tmp_path):
        with bounded(), pytest.raises(InputError, match="no checkpoint") as refused:
            checkpoints.load(folder)
        assert str(folder) in str(refused.value), name
        assert len(str(refused.value)) < LONGEST, name
