"""Measure how much of well-known architectures can be cut, and whether cutting them is exact: docs/coverage.md.

Every architecture of ``scripts/architectures`` is built small, randomly initialised, jittered
(``nets/exports.py``), exported by both exporters of PyTorch, and analysed. Of every file are measured:

* *nodes*, *groups*, and *cuttable*: the groups that can lose a unit by themselves.
* *share*: the parameters that go, of all, in the largest valid cut: every cuttable group loses every step of units but
  the last (a step takes the same number from each stratum, so that rows stay even; rows, such as attention heads, and
  their cells are both cut). Groups that cannot be cut to one step together with those before them stay whole. A
  parameter counts once, whatever many groups it belongs to, and parameters are counted as the cost ``params`` does.
* *worst*: the largest difference between the slimmed and the masked model, relative to the output's magnitude, over
  random inputs in onnxruntime without graph optimisations, for four random valid plans, rows and strata included: one
  takes about 30 % of every cuttable group, the others a random part of about half the groups. It *passes* by the rule
  of ``slim`` itself, and must be priced right: a new analysis of the slimmed file gives the predicted cost.
* *seconds* of analysis, and *unknown* operators, which pin what they touch.
* *reasons* where the share is low: for every reason (operator and rule) that pins groups, the share of the parameters
  that would go on top of the largest cut if all groups pinned for it went too, but for one unit each.

    python -m scripts.coverage_architectures                      # what is not in docs/coverage_architectures.json yet
    python -m scripts.coverage_architectures --fresh NAME ...     # these again (or failed, few plans, all)
    python -m scripts.coverage_architectures --render             # the document only

Files that fail are kept in ``WORK/fail``, all others are deleted. Needs the libraries of ``scripts/architectures``.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import re
import resource
import shutil
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.coverage_file import PLANS, NotRunnableError, Row, export, measure
from scripts.coverage_section import EXPORTERS, render, who

if TYPE_CHECKING:
    from scripts.architectures import Architecture

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything that reads it is imported

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "docs" / "coverage_architectures.json"
DOCUMENT = ROOT / "docs" / "coverage.md"
MARKERS = ("<!-- architectures -->", "<!-- /architectures -->")
PROCESSES = 2
EXPORT_SECONDS, ANALYSIS_SECONDS = 90, 240  # of processor time
MEMORY = 12 * 2**30
PRELOADED = ("networkx", "onnx_ir.passes.common", "onnxruntime", "onnxscript", "scipy.sparse.csgraph", "torch._dynamo")
WAITS = 8  # times as long at most, where the machine is busy


# --- many files, each in a process of its own with a time limit ------------------------------------------------------


Measure = Callable[[Path], Row]


@dataclass
class Job:
    """One architecture by one exporter, on its way: exported first, then measured."""

    name: str
    exporter: str
    architecture: Architecture
    folder: Path
    measure: Measure = measure
    process: Any = None
    started: float = 0.0
    exported: bool = False

    @property
    def path(self) -> Path:
        """The exported file."""
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', self.name).strip('_')}.{self.exporter}.onnx"

    def start(self) -> None:
        """Start the next step."""
        self.process = multiprocessing.get_context("fork").Process(target=self._work)
        self.process.start()
        self.started = time.monotonic()

    def _work(self) -> None:
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        try:
            if self.exported:
                found: Row = {"status": "ok", **self.measure(self.path)}
            else:
                export(self.architecture, self.exporter, self.path)
                found = {}
        except BaseException as error:
            frames = traceback.format_exception(error)
            text = _words(error)
            status = (
                "not runnable" if isinstance(error, NotRunnableError) else "crash" if self.exported else "export failed"
            )
            found = {
                "status": status,
                "error": text,
                "trace": "".join(frames)[-3000:],
            }
        (self.folder / "row.json").write_text(json.dumps(found))
        os._exit(0)

    def step(self) -> Row | None:
        """Look after the running step; the row, once there is one."""
        limit = ANALYSIS_SECONDS if self.exported else EXPORT_SECONDS
        late = _cpu_seconds(self.process) > limit or time.monotonic() - self.started > WAITS * limit
        if self.process.is_alive() and not late:
            return None
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        result = self.folder / "row.json"
        what = "analysis" if self.exported else "export"
        if late:
            return {"status": f"{what} timeout"}
        if not result.exists():
            return {"status": "crash" if self.exported else "export failed", "error": "the process died"}
        row: Row = json.loads(result.read_text())
        result.unlink()
        if self.exported or row:
            return row
        self.exported = True
        self.start()
        return None

    def finish(self, row: Row, work: Path) -> Row:
        """Keep the file if it fails, and complete the row."""
        if self.exported and row["status"] != "ok" and self.path.exists():
            (work / "fail").mkdir(exist_ok=True)
            shutil.move(self.path, work / "fail" / self.path.name)
        if trace := row.pop("trace", ""):
            (work / "traces").mkdir(exist_ok=True)
            (work / "traces" / f"{self.path.stem}.txt").write_text(trace)
        shutil.rmtree(self.folder)
        return {"architecture": self.name, "library": self.architecture.library, "exporter": self.exporter, **row}


def _words(error: BaseException) -> str:
    """What was raised first, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[\d+m|\s+", " ", f"{type(error).__name__}: {error}")
    return re.sub(r"/tmp/\S*/", "", text)[:300]


def _cpu_seconds(process: Any) -> float:
    """Processor time that a child has used, so that a busy machine does not count."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def preload() -> None:
    """Import what every process needs once, before they are forked."""
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)


def run(
    wanted: Sequence[tuple[str, str]], nets: dict[str, Architecture], work: Path, measure: Measure = measure
) -> Iterator[Row]:
    """Measure pairs of architecture and exporter, a few at a time."""
    waiting = iter(wanted)
    running: list[Job] = []
    while True:
        while len(running) < PROCESSES and (pair := next(waiting, None)):
            task = Job(*pair, nets[pair[0]], Path(tempfile.mkdtemp(dir=work)), measure)
            task.start()
            running.append(task)
        if not running:
            return
        time.sleep(0.05)
        for task in list(running):
            row = task.step()
            if row is not None:
                running.remove(task)
                yield task.finish(row, work)


def order(nets: dict[str, Architecture]) -> list[tuple[str, str]]:
    """All pairs, hand-written nets first and then the libraries in turn, so that an early end has seen every kind."""
    queues: dict[str, list[str]] = {}
    for name, net in nets.items():
        queues.setdefault(net.library, []).append(name)
    first = queues.pop("hand-written", [])
    turns = [(k, zlib.crc32(name.encode()), name) for queue in queues.values() for k, name in enumerate(_mixed(queue))]
    return list(itertools.product([*first, *(name for *_, name in sorted(turns))], EXPORTERS))


def _mixed(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: zlib.crc32(name.encode()))


# --- the document -----------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    """Replace a file at once."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def store(rows: dict[tuple[str, str], Row]) -> None:
    """Write all rows, one a line."""
    ordered = sorted(rows.values(), key=lambda row: (row["library"], row["architecture"], row["exporter"]))
    write(ROWS, "[\n" + ",\n".join(json.dumps(row) for row in ordered) + "\n]\n")


def stored() -> dict[tuple[str, str], Row]:
    """The rows that are there."""
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else []
    return {(row["architecture"], row["exporter"]): row for row in rows}


def publish(section: str) -> None:
    """Put the section between its markers and leave the rest of the document as it is."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else "# Coverage\n"
    first, last = MARKERS
    if first not in text:
        text = f"{text.rstrip()}\n\n{first}\n{last}\n"
    head, tail = text.split(first)[0], text.split(last)[1]
    write(DOCUMENT, f"{head}{first}\n{section}{last}{tail}")


def main() -> None:
    """Measure what is missing and write the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fresh", nargs="*", default=[], metavar="NAME", help="architectures to measure again")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="measure only these")
    parser.add_argument("--render", action="store_true", help="only write the document again")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "architectures")
    options = parser.parse_args()
    rows = stored()
    if not options.render:
        from scripts.architectures import catalogue

        preload()
        nets = catalogue()
        again = {
            n
            for n, row in rows.items()
            if {n[0], "all"} & set(options.fresh)
            or ("failed" in options.fresh and row["status"] != "ok")
            or ("few" in options.fresh and row.get("cuttable") and row.get("plans", 1) < PLANS)
        }
        wanted = [pair for pair in order(nets) if pair in again or (pair not in rows and not options.fresh)]
        wanted = [pair for pair in wanted if not options.only or pair[0] in options.only]
        options.work.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(run(wanted, nets, options.work), 1):
            rows[row["architecture"], row["exporter"]] = row
            store(rows)
            print(
                f"{number}/{len(wanted)} {who(row)}: {row['status']} {row.get('share', '')} {row.get('error', '')}",
                flush=True,
            )
    ordered = sorted(rows.values(), key=lambda row: (row["library"], row["architecture"].lower(), row["exporter"]))
    publish(render(ordered))
    print(dict(Counter(row["status"] for row in ordered)))


if __name__ == "__main__":
    main()
