"""Cut the nets of ``nets/published`` as both exporters write them, fixed or with open axes, and run them there.

A row tells the exporter, whether axes are open, *status* (``ok``, ``wrong result``, or what was raised), how many
groups can be cut, and *worst*: the largest difference between the slimmed and the masked model, relative to the output,
at the sizes of the export and, where axes are open, at two others at which the original runs (*runs* in all).

    python -m scripts.coverage_published ROWS.jsonl [NAME ...]      # all, or these
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from pathlib import Path

from nets.exports import EXPORTERS, Exporter, Network, write
from nets.published import PUBLISHED, resized
from nets.published.configured import CONFIGURED
from nets.published.more import MORE
from onnxslim_learn.errors import SlimError, TargetError
from onnxslim_learn.rewrite import verify as checking
from onnxslim_learn.rewrite.comparison import UnusableError
from onnxslim_learn.workflow import slim
from scripts.coverage_file import Row

TARGET = 0.6  # of the parameters
NETS = {**PUBLISHED, **CONFIGURED, **MORE}


def measure(network: Network, exporter: Exporter, folder: Path, *, opened: bool) -> Row:
    """Write, analyse, cut and run one net."""
    try:
        model = write(network, exporter, opened=opened)
    except Exception as error:
        return {"status": "export failed", "error": str(error)[:200]}
    analysis = slim.analyze(model)
    try:
        plan = slim.plan(analysis, {"params": TARGET})
    except TargetError as error:  # what is pinned stays
        least, _ = error.missed["params"]
        plan = slim.plan(analysis, {"params": (least + analysis.price(analysis.whole)["params"]) / 2})
    slimmed, path = slim.slim(analysis, plan), folder / "slim.onnx"
    slimmed.save(path)
    inputs, taken = network.inputs(2), {value.name for value in model.graph.input}
    row: Row = {
        "status": "ok",
        "cuttable": sum(group.pin is None for group in analysis.groups),
        "runs": 0,
        "worst": 0.0,
    }
    for one in (inputs, *(resized(inputs, network.dynamic, which) for which in (0, 1) if opened)):
        feed = {name: tensor.numpy() for name, tensor in one.items() if name in taken}
        try:
            check = checking.verify(slimmed.removal, path, [feed], seeds=1)
        except UnusableError:  # the original does not run at these sizes
            continue
        row |= {"runs": row["runs"] + 1, "worst": max(row["worst"], check.max_rel_diff)}
        if not check.passed:
            row |= {"status": "wrong result", "error": check.complaint}
    return row


def main() -> None:
    """Measure all nets, or those that are named."""
    target, names = Path(sys.argv[1]), sys.argv[2:] or list(NETS)
    for name, exporter, opened in itertools.product(names, EXPORTERS, (False, True)):
        row: Row = {"net": name, "exporter": exporter, "open": opened}
        with tempfile.TemporaryDirectory() as folder:
            try:
                row |= measure(NETS[name], exporter, Path(folder), opened=opened)
            except SlimError as error:
                row |= {"status": "refused", "error": str(error)}
            except Exception as error:
                row |= {"status": "crash", "error": f"{type(error).__name__}: {error}"}
        with target.open("a") as rows:
            rows.write(json.dumps(row) + "\n")
        print(
            f"{name}, {exporter}, {'open' if opened else 'fixed'}: {row['status']} {row.get('error', '')}", flush=True
        )


if __name__ == "__main__":
    main()
