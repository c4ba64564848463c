"""Mutants of what couples, prices, cuts and repairs: does a test notice each of them?

A line of a function is drawn, and one of the mutants that cosmic-ray has for it. A record, made once, says which tests
run the line. A mutant is given those tests, of every law the cheapest first; one that they all let pass survives.
"""

from __future__ import annotations

import ast
import difflib
import functools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from coverage import CoverageData

from scripts.reliability import forks
from scripts.reliability.trial import ROOT, Trial

FOLDERS = ("coupling", "costs", "rewrite", "repair")
ROOMS = (*FOLDERS, "bases", "lossless_cuts", "select")
ALONE = ("api", "axis_probe", "contrib", "decoders", "fused", "labels", "laws", "plans")
COMMANDS = ("analyze", "slim")
TESTS = (
    *(f"tests/{name}" for name in ROOMS),
    *(f"tests/test_{name}.py" for name in ALONE),
    *(f"tests/cli/test_{name}.py" for name in COMMANDS),
)
PART = 200  # tests whose lines are recorded at once
SECONDS = 15  # of a processor for the tests that run a mutant
REACH = ROOT / "build" / "reliability" / "reach.db"


@dataclass(frozen=True)
class Mutant:
    """A module with one change: its path in the checkout, the line, what is said of it, and the text."""

    path: str
    line: int
    what: str
    text: str


def trial(number: int, folder: Path) -> Trial:
    """One mutant, given the tests that run its line."""
    mutant = draw(np.random.default_rng(number))
    if not (tests := reaching(mutant)):
        return Trial(mutant.what, "no test runs it")
    ran = ask(forks.Asked(tests, SECONDS, mutant.path, mutant.text))
    if not ran[-1][1]:
        return Trial(f"{mutant.what}; noticed by {ran[-1][0]}, number {len(ran)} of {len(tests)}")
    return Trial(mutant.what, f"{len(tests)} tests run it, {len(ran)} had {SECONDS} s, and none notices")


# --- mutants ----------------------------------------------------------------------------------------------------------


def draw(rng: np.random.Generator) -> Mutant:
    """A random line of a function that has mutants, and one of them; what changes no more than annotations is none."""
    lines = [(path, line) for path, text in _modules().items() for line in sorted(_judged(path, text))]
    while True:
        path, line = lines[int(rng.integers(len(lines)))]
        if not (known := [one for one in _mutants(path) if one[2] == line]):
            continue
        name, occurrence, _ = known[int(rng.integers(len(known)))]
        source = _modules()[path]
        text = mutate_code(source, plugins.get_operator(name)(), occurrence)
        if text is not None and _bare(text) != _bare(source):
            return Mutant(path, line, f"{path}:{line}: {_changed(source, text)}", text)


@functools.cache
def _modules() -> dict[str, str]:
    """The texts of the modules, by their paths in the checkout."""
    files = sorted(file for name in FOLDERS for file in (ROOT / "onnxslim_learn" / name).rglob("*.py"))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


@functools.cache
def _judged(path: str, text: str) -> set[int]:
    """The lines of the bodies of functions, but for those that run when modules are imported and never in a test."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    lines = {line for node in functions for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)}
    return {line for line in lines if _reach().get(path, {}).get(line) or not _imported(path, text, line)}


@functools.cache
def _mutants(path: str) -> list[tuple[str, int, int]]:
    """The mutants of a module: operator, which of its places, and the line."""
    names = [name for name in plugins.operator_names() if not plugins.get_operator(name).arguments()]
    tree, mutants = get_ast(_modules()[path]), []
    for name in sorted(names):
        operator = plugins.get_operator(name)()
        places = (start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node))
        mutants += [(name, occurrence, start[0]) for occurrence, start in enumerate(places)]
    return mutants


def _bare(text: str) -> str:
    """A module without its annotations, which nothing evaluates."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


def _changed(before: str, after: str) -> str:
    """The lines that differ, in one."""
    differing = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    lines = [" ".join(line.split()) for line in differing if not line.startswith(("---", "+++", "@@"))]
    return " ".join(lines)


# --- tests ------------------------------------------------------------------------------------------------------------


def reaching(mutant: Mutant) -> list[str]:
    """The tests that run the statement of a mutant: of every law the cheapest, then of every law the next."""
    reach, seconds = _reach().get(mutant.path, {}), _seconds()
    tests = {test for line in _statement(_modules()[mutant.path], mutant.line) for test in reach.get(line, ())} - {""}
    ordered = sorted(tests & {*_served()[1]}, key=lambda test: (seconds[test], test))
    turns = Counter[str]()
    return [test for _, _, test in sorted((_turn(turns, test), place, test) for place, test in enumerate(ordered))]


def _turn(turns: Counter[str], test: str) -> int:
    """How many tests of its law came before a test."""
    law = test.partition("[")[0]
    turns[law] += 1
    return turns[law]


def _imported(path: str, text: str, line: int) -> bool:
    """Whether the statement on a line runs when modules are imported."""
    ran = _lines_of_imports().get(path, ())
    return any(one in ran for one in _statement(text, line))


@functools.cache
def _lines_of_imports() -> dict[str, list[int]]:
    file = REACH.with_name("imports.db")
    if not file.is_file():
        modules = [path.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for path in _modules()]
        forks.import_watched(modules, file)
    data = CoverageData(str(file))
    data.read()
    return {Path(one).relative_to(ROOT).as_posix(): data.lines(one) or [] for one in data.measured_files()}


@functools.cache
def _statements(text: str) -> list[ast.stmt]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]


def _statement(text: str, line: int) -> range:
    """The lines of the innermost statement on a line; of one with a body, those of its head."""
    over = [node for node in _statements(text) if node.lineno <= line <= (node.end_lineno or 0)]
    least = min(over, key=lambda node: (node.end_lineno or 0) - node.lineno)
    body = getattr(least, "body", None)
    return range(least.lineno, body[0].lineno if body else (least.end_lineno or 0) + 1)


@functools.cache
def _served() -> tuple[Connection, list[str]]:
    """A process that runs tests, and what they are called."""
    REACH.parent.mkdir(parents=True, exist_ok=True)
    pipe = forks.start(TESTS, REACH.with_suffix(".log"))
    return pipe, pipe.recv()


def ask(asked: forks.Asked) -> forks.Ran:
    """How the tests went."""
    pipe, _ = _served()
    pipe.send(asked)
    ran: forks.Ran = pipe.recv()
    return ran


@functools.cache
def _reach() -> dict[str, dict[int, list[str]]]:
    """The tests that run each line of each module."""
    data = CoverageData(str(_recorded()))
    data.read()
    return {Path(file).relative_to(ROOT).as_posix(): data.contexts_by_lineno(file) for file in data.measured_files()}


@functools.cache
def _seconds() -> dict[str, float]:
    """Processor seconds of each test of the record."""
    return dict(json.loads(_recorded().with_suffix(".json").read_text(encoding="utf-8")))


@functools.cache
def _recorded() -> Path:
    """The record of which test runs which line; it is made in parts, and goes on after the last one that is there."""
    if not REACH.is_file():
        tests, parts, seconds = _served()[1], CoverageData(no_disk=True), dict[str, float]()
        for part in (_part(tests[start : start + PART], start) for start in range(0, len(tests), PART)):
            data = CoverageData(str(part))
            data.read()
            parts.update(data)
            seconds |= json.loads(part.with_suffix(".json").read_text(encoding="utf-8"))
        REACH.with_suffix(".json").write_text(json.dumps(seconds), encoding="utf-8")
        whole = CoverageData(str(REACH))
        whole.update(parts)
        whole.write()
    return REACH


def _part(tests: Sequence[str], start: int) -> Path:
    """The record of some tests.

    Raises:
        RuntimeError: If one fails: what fails unchanged shows nothing of a mutant.
    """
    part = REACH.with_name(f"reach-{start}.db")
    if not part.with_suffix(".json").is_file():
        ran = ask(forks.Asked(tests, 36000, watched=part))
        if failed := [test for test, passed, _ in ran if not passed]:
            raise RuntimeError(f"tests of the package as it is fail: {', '.join(failed)}")
        text = json.dumps({test: seconds for test, _, seconds in ran})
        part.with_suffix(".json").write_text(text, encoding="utf-8")
    return part
