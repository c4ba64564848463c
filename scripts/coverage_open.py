"""Cut well-known architectures as the older exporter leaves them: batch and sequence, or height and width, open.

Every architecture of ``scripts/architectures`` is exported with open axes (its files then carry no shapes inside),
cut to 0.6 of its parameters, and run at other sizes of its open axes, where the original itself can. A row tells

* *status*: ``ok``; ``refused`` (a sentence that names what is in the way), ``crash``, ``wrong result``, ``timeout``,
  ``not verified`` (the original does not run on made-up inputs).
* *others*: sizes of the open axes, other than those of the analysis, at which the slimmed model did as the masked one,
  and *worst*, the largest difference in all runs.

    python -m scripts.coverage_open ROWS.jsonl [NAME ...]       # what has no row yet; or these again

Needs the libraries of ``scripts/architectures``.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import coverage_architectures as architectures
from scripts.coverage_file import Row

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Feeds
    from onnxslim_learn.workflow.slim import Slimmed

TARGET = 0.6  # of the parameters
OTHERS: tuple[dict[str, float], ...] = (  # numbers, or as parts of the size that costs are counted at
    {"batch": 3, "height": 96, "width": 128, "length": 7},
    {"height": 160, "width": 96, "length": 21},
    {"height": 1.5, "width": 1.25},
    {"batch": 3},
)
ENOUGH = 2  # sizes at which a file is run, besides those of the analysis


def measure(path: Path) -> Row:
    """Analyse one file, cut it, and run it at other sizes of its open axes."""
    from onnxslim_learn.errors import SlimError, TargetError
    from onnxslim_learn.workflow import slim

    started = time.perf_counter()
    try:
        analysis = slim.analyze(path)
        free = [group for group in analysis.groups if group.pin is None]
        row: Row = {"seconds": round(time.perf_counter() - started, 2), "cuttable": len(free)}
        row["pinned"] = Counter(group.pin.reason for group in analysis.groups if group.pin is not None).most_common(3)
        row["sizes at"] = analysis.graph.shapes.nominal.sizes
        if not free:
            return row | {"status": "nothing to cut"}
        try:
            plan = slim.plan(analysis, {"params": TARGET})
        except TargetError as error:  # what is pinned is told by the row
            least, _ = error.missed["params"]
            plan = slim.plan(analysis, {"params": (least + analysis.price(analysis.whole)["params"]) / 2})
        slimmed = slim.slim(analysis, plan)
        slimmed.save(path.with_suffix(".slim.onnx"))
    except SlimError as error:
        return {"status": "refused", "error": str(error), "seconds": round(time.perf_counter() - started, 2)}
    return row | verified(slimmed, path.with_suffix(".slim.onnx"))


def verified(slimmed: Slimmed, path: Path) -> Row:
    """How far the slimmed and the masked model are apart: at the sizes of the analysis, and at a few others."""
    from onnxslim_learn.errors import InputError
    from onnxslim_learn.rewrite.comparison import UnusableError
    from onnxslim_learn.rewrite.verify import verify

    inputs = dict(itertools.islice(runnable(slimmed), ENOUGH))
    try:
        check = verify(slimmed.removal, path, list(inputs.values()), seeds=1)
    except UnusableError as error:  # the original does not run on what is made up
        return {"status": "not verified", "error": error.message}
    except InputError as error:
        return {"status": "wrong result", "error": error.message}
    row: Row = {"others": list(inputs), "runs": check.runs, "worst": check.max_rel_diff}
    if check.passed or check.undecided == check.runs:
        return row | {"status": "ok"}
    return row | {"status": "wrong result", "error": check.complaint}


def runnable(slimmed: Slimmed) -> Iterator[tuple[str, Feeds]]:
    """Other sizes of the open axes at which the original runs, in words, and random inputs of them."""
    from onnxslim_learn.data.random_inputs import random_inputs
    from onnxslim_learn.errors import InputError
    from onnxslim_learn.graph import input_sizes
    from onnxslim_learn.rewrite.comparison import ready

    graph = slimmed.analysis.graph
    assert graph.source is not None
    original, nominal = ready(graph.source), {}
    for value in graph.model.graph.inputs:
        for axis in input_sizes.open_axes(value):
            nominal[input_sizes.dim_key(value, axis)] = graph.shapes.nominal.inputs[str(value.name)][axis]
    symbols, tried = input_sizes.symbols(graph.model, {}), [nominal]
    for others in OTHERS:
        wanted = {key: others.get(symbols[key].kind, size) for key, size in nominal.items()}
        sizes = {k: int(n if isinstance(n, int) else nominal[k] * n) for k, n in wanted.items()}
        if sizes in tried:
            continue
        tried.append(sizes)
        sample = replace(graph.shapes.nominal, inputs=input_sizes.shapes_at(graph.model, sizes))
        feed = random_inputs(slimmed.removal.coupling, sample)
        with suppress(InputError):
            original(feed)
            yield sample.sizes, feed


def main() -> None:
    """Measure what has no row yet, or the named architectures."""
    from scripts.architectures import catalogue

    target, names = Path(sys.argv[1]), sys.argv[2:]
    known = {json.loads(line)["architecture"] for line in target.read_text().splitlines()} if target.exists() else set()
    architectures.preload()
    nets = catalogue()
    wanted = [(n, "open") for n, e in architectures.order(nets) if e == "legacy" and (n in names or not names)]
    wanted = [pair for pair in wanted if names or pair[0] not in known]
    work = Path(tempfile.gettempdir()) / "open_architectures"
    work.mkdir(exist_ok=True)
    for number, row in enumerate(architectures.run(wanted, nets, work, measure), 1):
        with target.open("a") as rows:
            rows.write(json.dumps(row) + "\n")
        print(f"{number}/{len(wanted)} {row['architecture']}: {row['status']} {row.get('error', '')}", flush=True)


if __name__ == "__main__":
    main()
