"""Measure how much of well-known architectures can be cut, and whether cutting them is exact: docs/coverage.md.

Every architecture of ``scripts/architectures.py`` is built small, randomly initialised, jittered (``tests/exports.py``),
exported by both exporters of PyTorch, and analysed. Of every file are measured:

* *nodes*, *groups*, and *cuttable*: the groups that can lose a unit by themselves.
* *share*: the parameters that go, of all, in the largest valid cut: every cuttable group loses every step of units but
  the last (a step takes the same number from each stratum, so that rows stay even; rows, such as attention heads, and
  their cells are both cut). Groups that cannot be cut to one step together with those before them stay whole. A
  parameter counts once, whatever many groups it belongs to, and parameters are counted as the cost ``params`` does.
* *worst*: the largest difference between the slimmed and the masked model, relative to the output's magnitude, over
  random inputs in onnxruntime without graph optimisations, for a random valid plan that takes about 30 % of every
  cuttable group, rows and strata included. It *passes* by the rule of ``slim`` itself, and must be priced right: a new
  analysis of the slimmed file gives the predicted cost.
* *seconds* of analysis, and *unknown* operators, which pin what they touch.
* *reasons* where the share is low: for every reason (operator and rule) that pins groups, the share of the parameters
  that would go on top of the largest cut if all groups pinned for it went too, but for one unit each.

    python -m scripts.coverage_architectures                      # what is not in docs/coverage_architectures.json yet
    python -m scripts.coverage_architectures --fresh NAME ...     # these again ("failed": all that did not succeed)
    python -m scripts.coverage_architectures --render             # the document only

Files that fail are kept in ``WORK/fail``, all others are deleted. Needs the libraries of ``scripts/architectures.py``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import re
import shutil
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnxslim_learn import api
    from onnxslim_learn.graph.coupling import Group, Removal
    from scripts.architectures import Architecture

Row = dict[str, Any]
Columns = Callable[["Group"], np.ndarray]

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "docs" / "coverage_architectures.json"
DOCUMENT = ROOT / "docs" / "coverage.md"
MARKERS = ("<!-- architectures -->", "<!-- /architectures -->")
EXPORTERS = ("legacy", "dynamo")
PROCESSES = 2
EXPORT_SECONDS, ANALYSIS_SECONDS = 90, 60
SHARE = 0.3  # of every group in the random plan
LOW = 0.6  # shares below are explained


# --- one file ---------------------------------------------------------------------------------------------------------


def export(architecture: Architecture, exporter: str, path: Path) -> None:
    """Build, jitter and write one net; randomness is seeded."""
    import torch
    from torch import nn

    from tests.exports import LEGACY_OPSET, jitter

    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    network = architecture.network
    net = network.build().eval()
    with torch.no_grad():
        jitter(net, network.inputs(4))
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm3d) and norm.running_mean is not None:
                norm.running_mean.normal_(0, 0.2)
                norm.running_var.uniform_(0.5, 1.5)
        inputs = network.inputs(1)
        options: Row = {"opset_version": LEGACY_OPSET} if exporter == "legacy" else {"verbose": False}
        options |= {"external_data": False} if exporter == "dynamo" else {}
        torch.onnx.export(
            net, tuple(inputs.values()), path, dynamo=exporter == "dynamo", input_names=list(inputs), **options
        )


def measure(path: Path) -> Row:
    """Analyse one file and slim it by a random plan."""
    from onnxslim_learn import api

    _runnable(path)
    started = time.perf_counter()
    found = api.analyze(path)
    seconds = time.perf_counter() - started
    free = [group for group in found.groups if group.pin is None]
    total = found.price(found.whole)["params"]
    row: Row = {
        "nodes": len(found.graph.nodes),
        "groups": len(found.groups),
        "cuttable": len(free),
        "params": total,
        "seconds": round(seconds, 2),
        "unknown": found.opaque,
    }
    largest = combined(found, free, _all_but_one_step)
    left = found.price(largest)["params"]
    row["share"] = round(1 - left / max(total, 1), 4)
    row["alone"] = _left_out(largest, free)
    if row["share"] < LOW:
        row["reasons"] = reasons(found, largest)
    if free:
        rng = np.random.default_rng(0)
        row |= compare(found, combined(found, free, lambda group: _random_units(group, rng)), path)
    return row


class NotRunnableError(Exception):
    """Raised when onnxruntime cannot even run the exported file."""


def _runnable(path: Path) -> None:
    import onnxruntime as ort

    try:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        ort.InferenceSession(str(path), options)
    except Exception as error:
        raise NotRunnableError(str(error)) from None


def _all_but_one_step(group: Group) -> np.ndarray:
    return group.units[np.concatenate([part[max(1, len(part) // group.levels) :] for part in group.strata])]


def _random_units(group: Group, rng: np.random.Generator) -> np.ndarray:
    level = min(max(1, round(group.levels * SHARE)), group.levels - 1)
    parts = [rng.permutation(part)[: len(part) * level // group.levels] for part in group.strata]
    return group.units[np.concatenate(parts)]


def combined(found: api.Analysis, groups: Sequence[Group], columns: Columns) -> Removal:
    """The removal of columns of many groups; those with which it would be invalid are left out, by halving."""
    chosen = [columns(group) for group in groups]

    def add(before: list[np.ndarray], more: list[np.ndarray]) -> list[np.ndarray]:
        if not more or not found.coupling.faults(_closed(found, [*before, *more]).gone):
            return [*before, *more]
        if len(more) == 1:
            return before
        half = len(more) // 2
        return add(add(before, more[:half]), more[half:])

    return _closed(found, add([], chosen))


def _closed(found: api.Analysis, columns: list[np.ndarray]) -> Removal:
    from onnxslim_learn.graph.coupling import Removal

    chosen = np.zeros(found.coupling.columns, bool)
    if columns:
        chosen[np.concatenate(columns)] = True
    return Removal(found.coupling, found.coupling.close(chosen))


def _left_out(largest: Removal, free: Sequence[Group]) -> int:
    """Groups that lose nothing in the largest cut, although they can alone."""
    coupling = largest.coupling
    gone = np.zeros(coupling.columns, bool)
    gone[coupling.column[largest.gone]] = True
    return sum(not gone[group.units].any() for group in free)


def reasons(found: api.Analysis, largest: Removal) -> list[list[Any]]:
    """Why parameters stay: ``[operator and reason, share]``, the two largest."""
    coupling, pinned = found.coupling, {}
    for group in found.groups:
        if group.pin is not None:
            pinned.setdefault(_reason(found, group), []).append(group.units[1:])
    total, left = found.price(found.whole)["params"], found.price(largest)["params"]
    shares = []
    for text, columns in pinned.items():
        chosen = np.zeros(coupling.columns, bool)
        chosen[np.concatenate(columns)] = True
        gone = coupling.close(chosen) | largest.gone
        alive = (~gone).astype(float)
        shares.append([text, round((left - found.costs["params"].value(alive)) / max(total, 1), 4)])
    return sorted(shares, key=lambda pair: -pair[1])[:2]


def _reason(found: api.Analysis, group: Group) -> str:
    """Operator and rule, without names and numbers."""
    pin = group.pin
    assert pin is not None
    op_type = found.graph.nodes[pin.node].op_type if pin.node >= 0 else ""
    text = re.sub(r"node \S+ \((\w+)\): ", r"\1: ", pin.reason)
    text = re.sub(r"is the graph output .*", "graph output", text)
    text = re.sub(r"\S+: nothing would be left of it", "nothing would be left of a parameter", text)
    text = re.sub(r"\d+", "n", text)
    return f"{op_type}: {text}" if op_type else text


def compare(found: api.Analysis, removal: Removal, path: Path) -> Row:
    """Slim and judge by the masked original."""
    import onnx

    from onnxslim_learn import api
    from onnxslim_learn.rewrite import verify as checking

    target = path.with_suffix(".slim.onnx")
    api.slim(found, api.describe(found, removal, {})).save(target, check=False)
    onnx.checker.check_model(str(target))
    check = checking.verify(removal, target)
    again = api.analyze(target)
    wanted, priced = found.price(removal), again.price(again.whole)
    row: Row = {"worst": check.max_rel_diff, "allowed": check.tolerance, "noise": check.noise, "change": check.change}
    row["cut"] = round(1 - wanted["params"] / max(found.price(found.whole)["params"], 1), 4)
    chaotic = check.noise is not None and check.noise > checking.WORST / checking.AMPLIFIED
    row["status"] = "ok" if check.passed else "chaotic" if chaotic else "wrong result"
    if check.passed and priced != wanted:
        row |= {"status": "wrong price", "error": f"predicted {wanted}, found {priced}"}
    return row


# --- many files, each in a process of its own with a time limit --------------------------------------------------------


@dataclass
class Job:
    """One architecture by one exporter, on its way: exported first, then analysed."""

    name: str
    exporter: str
    architecture: Architecture
    folder: Path
    process: Any = None
    exported: bool = False

    @property
    def path(self) -> Path:
        """The exported file."""
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', self.name).strip('_')}.{self.exporter}.onnx"

    def start(self) -> None:
        """Start the next step."""
        self.process = multiprocessing.get_context("fork").Process(target=self._work)
        self.process.start()

    def _work(self) -> None:
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        try:
            if self.exported:
                found: Row = {"status": "ok", **measure(self.path)}
            else:
                export(self.architecture, self.exporter, self.path)
                found = {}
        except BaseException as error:
            frames = traceback.format_exception(error)
            text = _words(error)
            status = "not runnable" if isinstance(error, NotRunnableError) else "crash" if self.exported else "export failed"
            found = {
                "status": status,
                "error": text,
                "trace": "".join(frames)[-3000:],
            }
        (self.folder / "row.json").write_text(json.dumps(found))
        os._exit(0)

    def step(self) -> Row | None:
        """Look after the running step; the row, once there is one."""
        late = _cpu_seconds(self.process) > (ANALYSIS_SECONDS if self.exported else EXPORT_SECONDS)
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
    return re.sub(r"\x1b\[\d+m|\s+", " ", f"{type(error).__name__}: {error}")[:300]


def _cpu_seconds(process: Any) -> float:
    """Processor time that a child has used, so that a busy machine does not count."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def preload() -> None:
    """Import what every process needs once, before they are forked."""
    import networkx  # noqa: F401
    import onnx_ir.passes.common
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401
    import scipy.sparse.csgraph
    import torch
    import torch._dynamo
    import torch.onnx._internal.exporter._core  # noqa: F401

    torch.set_num_threads(1)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


def run(wanted: Sequence[tuple[str, str]], nets: dict[str, Architecture], work: Path) -> Iterator[Row]:
    """Measure pairs of architecture and exporter, a few at a time."""
    waiting = iter(wanted)
    running: list[Job] = []
    while True:
        while len(running) < PROCESSES and (pair := next(waiting, None)):
            job = Job(*pair, nets[pair[0]], Path(tempfile.mkdtemp(dir=work)))
            job.start()
            running.append(job)
        if not running:
            return
        time.sleep(0.05)
        for job in list(running):
            row = job.step()
            if row is not None:
                running.remove(job)
                yield job.finish(row, work)


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


def render(rows: Sequence[Row]) -> str:
    """The section in Markdown."""
    measured = [row for row in rows if "share" in row]
    unable = [row for row in rows if row["status"] in ("export failed", "export timeout")]
    files = [row for row in rows if row not in unable]
    bad = [row for row in files if row["status"] != "ok"]
    shares = sorted(row["share"] for row in measured)
    names = {row["architecture"] for row in files}
    exact = sum(row["status"] == "ok" and row.get("worst", 0) <= 1e-4 for row in files)
    parts = [
        "## Architectures\n",
        f"{len(names)} architectures in {len(files)} files by the two exporters of PyTorch ({_versions()}), built small with "
        f"random weights by `scripts/coverage_architectures.py`, whose docstring defines the columns.\n",
        f"- {len(files) - len(bad)} of {len(files)} files are analysed, cut and checked without fault; of a random cut of "
        f"about 30 % of every group, the slimmed model is within 1e-4 of the masked one in {exact}.",
        f"- Median share of the parameters that can go: {_percent(float(np.median(shares or [0])))}; "
        f"{sum(share < LOW for share in shares)} files are under {_percent(LOW)}, with their reasons below.",
        f"- Median time of an analysis: {np.median([row['seconds'] for row in measured] or [0]):.1f} s on one CPU core.",
        f"- {sum(bool(row['unknown']) for row in measured)} files have operators without a rule.\n",
        "Each cell: legacy exporter / dynamo exporter; a dash where the exporter itself fails.\n",
        "| architecture | library | nodes | groups, cuttable | share | worst difference | seconds |",
        "|---|---|---|---|---|---|---|",
        *_table(rows),
    ]
    for title, lines in (
        (f"Under {_percent(LOW)}: what holds the parameters", _low(measured)),
        ("Operators without a rule", _unknown(measured)),
        ("Above 1e-4, where the net itself amplifies rounding", _amplified(files)),
        ("Faults", [f"- {_who(row)}: {row['status']}. {row.get('error', '')}".rstrip() for row in bad]),
        ("Not exported", _unexported(unable)),
    ):
        if lines:
            parts += ["", f"### {title}\n", *lines]
    return "\n".join(parts) + "\n"


def _versions() -> str:
    from importlib.metadata import version

    names = ("torch", "torchvision", "timm", "transformers", "segmentation-models-pytorch", "ultralytics", "diffusers")
    return ", ".join(f"{name} {version(name).split('+')[0]}" for name in names)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _who(row: Row) -> str:
    return f"{row['architecture']} ({row['library']}, {row['exporter']})"


def _table(rows: Sequence[Row]) -> list[str]:
    nets: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        nets.setdefault((row["library"], row["architecture"]), {})[row["exporter"]] = row
    lines = []
    for (library, name), by in sorted(nets.items(), key=lambda pair: (pair[0][0], pair[0][1].lower())):
        if not any("share" in row for row in by.values()):
            continue
        both = [by.get(exporter, {}) for exporter in EXPORTERS]
        cells = [
            [str(row["nodes"]) if "share" in row else "-" for row in both],
            [f"{row['groups']}, {row['cuttable']}" if "share" in row else "-" for row in both],
            [_percent(row["share"]) if "share" in row else "-" for row in both],
            [f"{row['worst']:.0e}" if row.get("worst") is not None else "-" for row in both],
            [f"{row['seconds']:.1f}" if "share" in row else "-" for row in both],
        ]
        lines.append(f"| {name} | {library} | " + " | ".join(" / ".join(cell) for cell in cells) + " |")
    return lines


def _low(measured: Sequence[Row]) -> list[str]:
    lines = []
    for row in measured:
        if row["share"] < LOW:
            held = "; ".join(f"{text} ({_percent(share)})" for text, share in row.get("reasons", []) if share > 0.005)
            lines.append(f"- {_who(row)}, {_percent(row['share'])}: {held or 'parameters without removable axes'}")
    return lines


def _unknown(measured: Sequence[Row]) -> list[str]:
    where: dict[str, list[str]] = {}
    for row in measured:
        for op_type in row["unknown"]:
            where.setdefault(op_type, []).append(row["architecture"])
    return [f"- {op_type}: {', '.join(dict.fromkeys(names))}" for op_type, names in sorted(where.items())]


def _amplified(files: Sequence[Row]) -> list[str]:
    return [
        f"- {_who(row)}: {row['worst']:.0e}; one rounding error in the inputs gives {row['noise']:.0e}"
        for row in files
        if row["status"] == "ok" and row.get("worst", 0) > 1e-4
    ]


def _unexported(unable: Sequence[Row]) -> list[str]:
    return [f"- {_who(row)}: {row.get('error', row['status'])[:160]}" for row in unable]


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
            if n[0] in options.fresh or ("failed" in options.fresh and row["status"] != "ok")
        }
        wanted = [pair for pair in order(nets) if pair in again or (pair not in rows and not options.fresh)]
        wanted = [pair for pair in wanted if not options.only or pair[0] in options.only]
        options.work.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(run(wanted, nets, options.work), 1):
            rows[row["architecture"], row["exporter"]] = row
            store(rows)
            print(
                f"{number}/{len(wanted)} {_who(row)}: {row['status']} {row.get('share', '')} {row.get('error', '')}",
                flush=True,
            )
    ordered = sorted(rows.values(), key=lambda row: (row["library"], row["architecture"].lower(), row["exporter"]))
    publish(render(ordered))
    print(dict(Counter(row["status"] for row in ordered)))


if __name__ == "__main__":
    main()
