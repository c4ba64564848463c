"""Write the section "Torch bridge" of ``docs/coverage.md``: node tests of the onnx package, and exported architectures.

    python -m scripts.coverage_bridge nodes [--peer FOLDER]   # every node test; FOLDER holds onnx2pytorch
    python -m scripts.coverage_bridge files [--minutes N]     # architectures that are not in the table yet

A node test passes if the bridged model gives outputs of the shapes and types that the test ships, equal to within its
own tolerances. The peer runs the same tests in the same process, under the same comparison
(``pip install --no-deps --target FOLDER onnx2pytorch``). A file passes if its module agrees with onnxruntime (graph
optimisations off) to 1e-4 of the output's magnitude and every weight gets a gradient, but for
those that only choose indices.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes

from onnxslim_learn.bridge import initializers
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.errors import InputError
from scripts.coverage_architectures import DOCUMENT, ROWS, Row, order, preload, run, write
from scripts.coverage_file import NotRunnableError
from scripts.coverage_section import UNABLE

if TYPE_CHECKING:
    from onnx.backend.test.case.test_case import TestCase

STORE = DOCUMENT.with_name("coverage_bridge.json")
MARKERS = ("<!-- bridge -->", "<!-- /bridge -->")
EXACT = 1e-4

STRINGS = "torch has no strings"
CLASSIC = "trees and features of classical learning"
DRAWS = "draws differ between generators"
ROUNDING = "sums rounded in another order, in half precision or near zero"
REASONS: dict[str, str] = {
    **dict.fromkeys(
        ["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Equal"], STRINGS
    ),
    **dict.fromkeys(["LabelEncoder", "TreeEnsemble", "ArrayFeatureExtractor", "Binarizer"], CLASSIC),
    **dict.fromkeys(["Bernoulli", "Dropout"], DRAWS),
    **dict.fromkeys(["Attention", "DeformConv", "DFT"], ROUNDING),
    "ImageDecoder": "decodes a file",
    "several": f"bodies of functions: {ROUNDING}, {DRAWS}, {STRINGS}",
}
"""Operator -> why some of its tests fail."""

Run = Callable[[onnx.ModelProto, Sequence[Any]], Sequence[Any]]


@dataclass
class Tally:
    """Node tests of an operator: how many, how many pass here and with the peer, and which fail here."""

    tests: int = 0
    passed: int = 0
    peer: int = 0
    failed: list[str] = field(default_factory=list)


# --- node tests -------------------------------------------------------------------------------------------------------


def normal(proto: onnx.ModelProto) -> ir.Model:
    """The normal form as far as it needs no shapes, which a node test that computes its sizes does not have."""
    model = ir.from_proto(proto)
    if model.functions:
        passes.InlinePass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveInitializersFromInputsPass()(model)
    return model


def bridged(proto: onnx.ModelProto, inputs: Sequence[Any]) -> Sequence[Any]:
    """Run a model by the bridge, in the precision of the file."""
    module = bridge(normal(proto), master=False)
    return list(module(*inputs).values())


def peer(folder: Path) -> Run:
    """Run a model by onnx2pytorch."""
    from nets import exports

    exports.torchvision_models()  # which it imports, and which may lack its compiled half
    sys.path.insert(0, str(folder))
    from onnx2pytorch import ConvertModel

    def converted(proto: onnx.ModelProto, inputs: Sequence[Any]) -> Sequence[Any]:
        found = ConvertModel(proto, experimental=True)(*inputs)
        several = isinstance(found, list | tuple) and len(proto.graph.output) > 1
        return list(found) if several else [found]

    return converted


def as_tensor(value: Any) -> Any:
    """What a test ships as tensors, lists of them, or nothing."""
    if isinstance(value, list | tuple):
        return [as_tensor(part) for part in value]
    if value is None:
        return None
    array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.array(value)
    if array.dtype.kind in "OSU":
        raise InputError("input: torch has no strings. Cut the model so that it stays outside.")
    return initializers.to_torch(ir.tensor(array))


def assert_equal(found: Any, wanted: Any, case: TestCase) -> None:
    """Assert that an output has the shape and type a test ships, and its values within the test's tolerances."""
    if isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_equal(one, other, case)
        return
    if wanted is None:
        assert found is None
        return
    right = as_tensor(wanted)
    left = found.detach()
    wide = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
    left = left.to(wide.get(left.dtype, left.dtype))
    assert left.shape == right.shape, (left.shape, right.shape)
    assert left.dtype == right.dtype, (left.dtype, right.dtype)
    one, other = (x.to(torch.float64 if not x.is_complex() else torch.complex128).numpy() for x in (left, right))
    np.testing.assert_allclose(one, other, rtol=case.rtol, atol=case.atol)


def outcome(case: TestCase, execute: Run) -> str:
    """Run a node test; returns "" or what is wrong, in one line."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for inputs, outputs in case.data_sets:
                found = execute(case.model, [as_tensor(value) for value in inputs])
                for one, other in zip(found, outputs, strict=True):
                    assert_equal(one, other, case)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return ""


def node_tests(other: Run | None = None) -> dict[str, Tally]:
    """Run all node tests; tallies by operator, those of several nodes together."""
    from onnx.backend.test.case.node import collect_testcases

    tallies = defaultdict[str, Tally](Tally)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for case in cases:
        nodes = case.model.graph.node
        tally = tallies[nodes[0].op_type if len(nodes) == 1 else "several"]
        complaint = outcome(case, bridged)
        tally.tests += 1
        tally.passed += not complaint
        tally.failed += [f"{case.name}: {complaint}"] * bool(complaint)
        tally.peer += other is not None and not outcome(case, other)
    return dict(tallies)


# --- files ------------------------------------------------------------------------------------------------------------


def measure(path: Path) -> Row:
    """Bridge a file, compare it with onnxruntime, and take the gradients of all weights."""
    from onnxslim_learn.data.random_inputs import random_inputs
    from onnxslim_learn.workflow import slim

    found = slim.analyze(path)
    started = time.perf_counter()
    module = bridge(found)
    row: Row = {"seconds": round(time.perf_counter() - started, 2)}
    feeds = random_inputs(found.coupling, found.graph.shapes.nominal)
    wanted = _onnxruntime(path, feeds)
    outputs = module(*(torch.from_numpy(feeds[name]) for name in module.meta["inputs"]))
    row["worst"] = max(_apart(value, wanted[name]) for name, value in outputs.items())
    row["noise"] = _noise(path, feeds, wanted)
    torch.manual_seed(0)
    loss = sum((v * torch.randn_like(v)).sum() for v in outputs.values() if v.is_floating_point() and v.requires_grad)
    if isinstance(loss, torch.Tensor):
        loss.backward()
    trained = initializers.parameters(module)
    reached = _reached(found.graph.model)
    row |= {
        "parameters": len(trained),
        "without": [name for name, p in trained.items() if p.grad is None and name in reached],
        "indices": [name for name in trained if name not in reached],
    }
    allowed = max(EXACT, 20 * row["noise"])
    row["status"] = "ok" if row["worst"] <= allowed and not row["without"] else "apart" if trained else "nothing trains"
    return row


def _reached(model: ir.Model) -> set[str]:
    """Names of the values that outputs depend on through floats alone; what only picks indices has no gradient."""
    typed = passes.ShapeInferencePass()(model.clone()).model
    waiting = [value for value in typed.graph.outputs if _floats(value)]
    found: set[ir.Value] = set()
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        found.add(value)
        node = value.producer()
        waiting += [v for v in node.inputs if v is not None and _floats(v)] if node is not None else []
    return {str(value.name) for value in found}


def _floats(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _onnxruntime(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(str(path), options)
    except Exception as error:
        raise NotRunnableError(str(error)) from error
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _apart(found: Any, wanted: Any) -> float:
    """Largest difference, of the output's largest magnitude."""
    array = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    if array.shape != wanted.shape:
        return float("inf")
    scale = max(float(np.abs(wanted).astype(np.float64).max(initial=0)), 1e-6)
    return float(np.abs(array.astype(np.float64) - wanted).max(initial=0) / scale)


def _noise(path: Path, feeds: dict[str, Any], wanted: dict[str, Any]) -> float:
    """What one rounding error in the inputs does to onnxruntime's own outputs."""
    shaken = {k: np.nextafter(v, np.inf, dtype=v.dtype) if v.dtype.kind == "f" else v for k, v in feeds.items()}
    return max(_apart(value, wanted[name]) for name, value in _onnxruntime(path, shaken).items())


def files(minutes: float) -> Iterator[Row]:
    """Measure the architectures that are not in the store yet."""
    from scripts.architectures import catalogue

    preload()
    nets, known = catalogue(), {(row["architecture"], row["exporter"]) for row in stored()["files"]}
    ends = time.monotonic() + 60 * minutes
    work = Path(tempfile.mkdtemp())
    wanted = (pair for pair in order(nets) if pair not in known and time.monotonic() < ends)
    yield from run(wanted, nets, work, measure)


# --- the document -----------------------------------------------------------------------------------------------------


def stored() -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(STORE.read_text()) if STORE.exists() else {"nodes": {}, "files": [], "versions": {}}


def section(found: dict[str, Any]) -> str:
    """The section in Markdown."""
    tallies = {name: Tally(**row) for name, row in found["nodes"].items()}
    tests, passed, others = (sum(getattr(t, key) for t in tallies.values()) for key in ("tests", "passed", "peer"))
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "## Torch bridge\n",
        f"{passed} of the {tests} node tests that the onnx package ships pass ({versions});",
        f"onnx2pytorch passes {others} in the same run. `scripts/coverage_bridge.py` wrote this;",
        "its docstring says what passing means.\n",
    ]
    rows = [row for row in found["files"] if row["status"] not in UNABLE]
    if rows:
        good = sum(row["status"] == "ok" for row in rows)
        exact = sum(row.get("worst", 1) <= EXACT for row in rows)
        lines += [
            f"{len(rows)} exported files were tried, {_listed(rows)} of the {_exported()} of the architectures above:",
            f"{good} load, run and train. {exact} are within {EXACT:.0e} of onnxruntime,",
            "the others within 20 times what one rounding error in their inputs does.\n",
        ]
        lines += [
            f"- {row['architecture']} ({row['exporter']}): {_fault(row)}" for row in rows if row["status"] != "ok"
        ]
        chosen = sorted({row["architecture"] for row in rows if row.get("indices")})
        if chosen:
            lines.append(f"Some weights only choose indices, so they have no gradient: {', '.join(chosen)}.")
    lines += ["", "| operator | node tests | pass | onnx2pytorch | why not all |", "|---|---|---|---|---|"]
    for name, tally in sorted(tallies.items()):
        why = "" if tally.passed == tally.tests else REASONS.get(name, "**unexplained**")
        lines.append(f"| {name} | {tally.tests} | {tally.passed} | {tally.peer} | {why} |")
    return "\n".join(lines) + "\n"


def _listed(rows: Sequence[Row]) -> int:
    """How many rows are of files that the table of architectures has."""
    known = {(row["architecture"], row["exporter"]) for row in json.loads(ROWS.read_text())}
    return sum((row["architecture"], row["exporter"]) in known for row in rows)


def _exported() -> int:
    """How many files the table of architectures has."""
    return sum(row["status"] not in UNABLE for row in json.loads(ROWS.read_text()))


def _fault(row: Row) -> str:
    if row["status"] == "apart":
        return f"{row['worst']:.0e} apart, {len(row['without'])} parameters without gradient"
    return f"{row['status']}. {row.get('error', '')[:160]}".rstrip()


def publish(found: dict[str, Any]) -> None:
    """Store what was measured and write the section between its markers."""
    write(STORE, json.dumps(found, indent=1) + "\n")
    text = DOCUMENT.read_text()
    first, last = MARKERS
    if first not in text:
        text = f"{text.rstrip()}\n\n{first}\n{last}\n"
    head, tail = text.split(first)[0], text.split(last)[1]
    write(DOCUMENT, f"{head}{first}\n{section(found)}{last}{tail}")


def main() -> None:
    """Measure, store, and write the section."""
    from importlib.metadata import version

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["nodes", "files", "render"])
    parser.add_argument("--peer", type=Path, help="folder with onnx2pytorch")
    parser.add_argument("--minutes", type=float, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = stored()
    if options.what == "nodes":
        tallies = node_tests(peer(options.peer) if options.peer else None)
        found["nodes"] = {name: asdict(tally) for name, tally in sorted(tallies.items())}
        names = ("onnx", "torch", *(["onnx2pytorch"] if options.peer else []))
        found["versions"] = {name: version(name).split("+")[0] for name in names}
    if options.what == "files":
        for row in files(options.minutes):
            found["files"].append(row)
            print(f"{row['architecture']} ({row['exporter']}): {row['status']} {row.get('worst', '')}", flush=True)
            write(STORE, json.dumps(found, indent=1) + "\n")
    publish(found)


if __name__ == "__main__":
    main()
