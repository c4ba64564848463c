"""Tests that are collected once and run in forks, each with some functions of the package replaced, or watched.

What tests compute while they are collected is that of the package as it is.
"""

from __future__ import annotations

import functools
import gc
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from coverage import Coverage
from hypothesis import Phase, settings

from scripts.reliability.trial import ROOT

HANGS = 3600  # seconds after which a fork that says nothing is killed, on a machine as busy as may be


@dataclass(frozen=True)
class Asked:
    """What a fork does: the tests it runs, in this order, until one fails.

    Attributes:
        tests: Their names.
        seconds: Of its processor; no test begins after them.
        path: A module whose functions are replaced, from the root of the checkout, with its new text.
        watched: A file for what coverage.py sees, a context for each test; None to watch nothing.
    """

    tests: Sequence[str]
    seconds: float
    path: str = ""
    text: str = ""
    watched: Path | None = None


Ran = list[tuple[str, bool, float]]
"""Of each test that ran: its name, whether it passed, and its seconds of a processor; one that ended its process is the
last, and did not pass."""


def start(words: Sequence[str], log: Path) -> Connection:
    """Collect the tests that words of pytest name; the pipe gives their names, then answers ``Asked`` with ``Ran``."""
    ours, theirs = Pipe()
    if os.fork():
        theirs.close()
        return ours
    ours.close()
    try:
        _silence(log)
        pytest.main(["-n", "0", "-p", "no:cacheprovider", "-s", *words], plugins=[_Forks(theirs)])
    finally:
        os._exit(0)


def _silence(log: Path) -> None:
    """Let this process say what it says to a file."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(stream, descriptor)


class _Forks:
    """A plugin of pytest that answers what is asked instead of running all tests."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """A counterexample is enough: hypothesis need not make it small."""
        settings.register_profile("forks", settings.default, phases=(Phase.explicit, Phase.generate))
        settings.load_profile("forks")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Answer until nobody asks."""
        items = {item.nodeid: item for item in session.items}
        self.pipe.send(list(items))
        while True:
            try:
                asked: Asked = self.pipe.recv()
            except EOFError:
                return True
            self.pipe.send(_forked(asked, items))


def _forked(asked: Asked, items: dict[str, pytest.Item]) -> Ran:
    """Do in a fork what is asked."""
    reads, writes = Pipe(duplex=False)
    process = os.fork()
    if not process:
        try:
            reads.close()
            os.setsid()
            _carry_out(asked, [items[name] for name in asked.tests], writes.send)
        finally:
            sys.stdout.flush()
            os._exit(0)
    writes.close()
    ran, last = [], ""
    while True:
        try:
            said = reads.recv() if reads.poll(HANGS) else os.killpg(process, signal.SIGKILL)
        except EOFError:
            break
        if isinstance(said, tuple):
            ran.append(said)
        last = said if isinstance(said, str) else ""
    os.waitpid(process, 0)
    return [*ran, (last, False, 0.0)] if last else ran


def _carry_out(asked: Asked, items: Sequence[pytest.Item], say: Callable[[object], None]) -> None:
    """Run tests until one fails: the name of each is said before it runs, and then how it went."""
    hard = int(10 * asked.seconds + 60)
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        if asked.path:
            _replace(ROOT / asked.path, asked.text)
        watch, stores = _watching(asked.watched) if asked.watched else None, _stores()
        for item, follower in zip(items, [*items[1:], None], strict=True):
            if (begun := time.process_time()) > asked.seconds:
                break
            say(item.nodeid)
            if watch:
                _forget(stores)
                watch.switch_context(item.nodeid)
            reports = runtestprotocol(item, nextitem=follower, log=False)
            passed = not any(report.failed for report in reports)
            say((item.nodeid, passed, time.process_time() - begun))
            if not passed and not watch:
                break
        if watch:
            watch.stop()
            watch.save()


def import_watched(modules: Sequence[str], file: Path) -> None:
    """Import modules in a fork, and write what coverage.py sees to a file."""
    process = os.fork()
    if process:
        os.waitpid(process, 0)
        return
    try:
        watch = _watching(file)
        for name in modules:
            import_module(name)
        watch.stop()
        watch.save()
    finally:
        os._exit(0)


def _watching(file: Path) -> Coverage:
    """Coverage that has begun."""
    watch = Coverage(data_file=str(file), source=[str(ROOT / "onnxslim_learn")])
    watch.start()
    return watch


def _replace(file: Path, text: str) -> None:
    """Give the functions of a module the code of another text, and forget what was computed."""
    codes = {code.co_qualname: code for code in _codes(compile(text, str(file), "exec", dont_inherit=True))}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename == str(file):
            one.__code__ = codes.get(one.__code__.co_qualname, one.__code__)
    _forget(_stores())


def _stores() -> list[Any]:
    """The functions of the package and its tests that keep what they computed."""
    stored = type(functools.cache(lambda: None))
    ours = ("onnxslim_learn", "tests")
    return [one for one in gc.get_objects() if isinstance(one, stored) and one.__module__.startswith(ours)]


def _forget(stores: Sequence[Any]) -> None:
    """Forget what was computed, so that the next test computes it."""
    for one in stores:
        one.cache_clear()


def _codes(code: CodeType) -> Iterator[CodeType]:
    """All code within code."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)
