"""What a sparsified model is like and what its zeros buy: plain data, and the report made of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.analysis import analyze
from onnxslim_learn.array_types import Array
from onnxslim_learn.quality.judgement import of_outputs
from onnxslim_learn.registry import MACS, METHODS, PARAMS, PROTOCOLS
from onnxslim_learn.report.blocks import Bar, Bars, Block, Section, Table, Text
from onnxslim_learn.report.format import count, held_back, loss, ms, plural, shapes, share, size, times
from onnxslim_learn.report.format import provider as runtime
from onnxslim_learn.report.network import grown, network, times_of
from onnxslim_learn.report.records import counted, files, latency, side
from onnxslim_learn.report.sections.latency import stopped
from onnxslim_learn.report.sections.training import learner, rollouts, taken_back, watched
from onnxslim_learn.sparse import patterns, storage
from onnxslim_learn.sparse.maskable import maskable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.report.network import Times
    from onnxslim_learn.runtime.timing import Timings
    from onnxslim_learn.sparse.maskable import Layer
    from onnxslim_learn.workflow.sparsify import Sparsified, Stored

ANYWHERE = (
    "OpenVINO keeps matrices of 8 bits packed on processors with AMX (CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE), and "
    "XNNPACK skips zeros of 1x1 convolutions in TensorFlow Lite where two thirds of them are zero"
)
RUNTIMES = {
    "2:4": "TensorRT skips them on NVIDIA GPUs from Ampere on (trtexec --sparsity=enable, or trt_sparsity_enable of "
    "its provider in onnxruntime)",
    patterns.FREE: ANYWHERE,
    patterns.UNITS: "all, once slim --lossless has cut the units",
}
"""Pattern -> which runtimes gain by such zeros; other patterns have none of their own."""


def outcome(
    sparsified: Sparsified,
    output: Path,
    stored: Stored,
    timings: Timings | None,
    timed: Mapping[str, Any],
    *,
    nodes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A finished sparsification as plain data, as :func:`onnxslim_learn.report.records.outcome`."""
    analysis = sparsified.analysis
    both: list[Any] = [None, None] if timings is None else [one.median_ms for one in timings.latencies()]
    rows = [_row(sparsified, layer) for layer in sparsified.layers]
    shapes, values = analysis.graph.shapes.nominal.inputs, analysis.graph.values
    written = analyze(output, inputs=shapes, values=values) if stored.cut else analysis
    model = written.graph.model if stored.cut else sparsified.model
    before = side(analysis, analysis.whole, analysis.graph.source, both[0]) | _nonzero(analysis, analysis.graph.model)
    after = side(written, written.whole, output, both[1]) | _nonzero(written, model)
    return {
        **files(analysis, output),
        "asked": _asked(sparsified),
        "trials": sparsified.trials,
        "counted": counted(written.counted),
        "before": before,
        "after": after,
        "cut": [{"name": name, "width": width, "kept": kept} for name, (width, kept) in stored.cut.items()],
        "sparsity": sum(row["zeros"] for row in rows) / max(sum(row["weights"] for row in rows), 1),
        "files": _stored(sparsified, stored, model),
        "empty": {key: sum(row["empty"][key] for row in rows) for key in ("output_channels", "input_channels")},
        "latency": None if timings is None else latency(timings, timed),
        "samples": _samples(sparsified.data),
        "training": sparsified.training,
        **_judged(sparsified),
        "layers": rows,
        "dense": _dense(sparsified),
        "node_times": list(nodes),
        "network": _network(analysis, written, times_of(nodes)),
    }


def _judged(sparsified: Sparsified) -> dict[str, Any]:
    """How far outputs and detections are from the original's, and what that says."""
    apart = {name: asdict(one) for name, one in sparsified.deviation.items()}
    matched = None if sparsified.detections is None else asdict(sparsified.detections)
    return {"deviation": apart, "detections": matched, "quality": of_outputs(apart, matched, sparsified.data)}


def _samples(used: Mapping[str, Any]) -> dict[str, Any]:
    """How many samples there were, and what for."""
    judged, fitted, apart = used["samples"], used["fitted"], used["held_back"]
    count = judged + fitted if apart else max(judged, fitted)
    return {"data": used["data"], "count": count, "judged": judged, "fitted": fitted, "held_back": apart}


def _network(analysis: Analysis, written: Analysis, times: Times | None) -> list[dict[str, Any]]:
    """The layers, with those units gone that were cut."""
    layers = network(analysis, times=times)
    return layers if written is analysis else grown(layers, network(written))


def _asked(sparsified: Sparsified) -> dict[str, Any]:
    """What was asked for."""
    asked = sparsified.asked
    named = {"method": METHODS.told(asked.method), "protocol": PROTOCOLS.told(sparsified.protocol)}
    return {
        "ratio": asked.ratio,
        "pattern": asked.pattern,
        **named,
        "protect": list(asked.protect),
        "work": asked.search_work,
        "seconds": asked.search_seconds,
    }


def _dense(sparsified: Sparsified) -> list[str]:
    """Weights that were left as they are."""
    names, left = {layer.name for layer in sparsified.layers}, []
    for name, value in sparsified.analysis.graph.model.graph.initializers.items():
        tensor = value.const_value
        if name not in names and tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) > 1:
            left.append(str(name))
    return left


def _row(sparsified: Sparsified, layer: Layer) -> dict[str, Any]:
    array, done = sparsified.array(layer), sparsified.done[layer.name]
    others = {key: tuple(a for a in range(array.ndim) if a not in axes) for key, axes in _channels(layer).items()}
    return {
        "name": layer.name,
        "nodes": list(layer.nodes),
        "shape": list(layer.shape),
        "weights": layer.size,
        "zeros": int((array == 0).sum()),
        "asked": sparsified.ratios[layer.name],
        "holds": patterns.holds(array, patterns.parse(sparsified.asked.pattern), layer),
        "empty": {key: int((~array.any(axis=axes)).sum()) for key, axes in others.items()},
        **asdict(done),
    }


def _channels(layer: Layer) -> dict[str, tuple[int, ...]]:
    return {"output_channels": layer.outputs, "input_channels": layer.inputs}


def _nonzero(analysis: Analysis, model: ir.Model) -> dict[str, int]:
    """Parameters that are not zero, and multiply-accumulates by weights that are not, of a model like the analysed."""
    owners, whole = set(analysis.costs[PARAMS].owners), np.ones(analysis.coupling.size)
    zeros = sum(int((_values(model, name) == 0).sum()) for name in owners & set(model.graph.initializers))
    kept: dict[str, list[int]] = {}
    for layer in maskable(analysis.graph.model):
        for node in layer.nodes:
            counts = kept.setdefault(node, [0, 0])
            counts[0] += int(np.count_nonzero(_values(model, layer.name)))
            counts[1] += layer.size
    macs = analysis.costs[MACS].by_node(whole)
    shares = {node: counts[0] / counts[1] for node, counts in kept.items()}
    return {
        "nonzero_params": analysis.price(analysis.whole)[PARAMS] - zeros,
        "nonzero_macs": round(sum(work * shares.get(node, 1) for node, work in macs.items())),
    }


def _values(model: ir.Model, name: str) -> Array:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return np.asarray(tensor.numpy())


def _stored(sparsified: Sparsified, stored: Stored, model: ir.Model) -> dict[str, Any]:
    held, pattern = [], patterns.parse("2:4")
    if sparsified.asked.pattern == pattern.name:
        names = {layer.name for layer in sparsified.layers}
        kept = [layer for layer in maskable(model) if layer.name in names]
        whole = [layer for layer in kept if patterns.groups_of(pattern, layer).size == layer.size]
        held = [_values(model, x.name) for x in whole if patterns.holds(_values(model, x.name), pattern, x)]
    rest = stored.plain - sum(a.nbytes for a in held)
    return {
        "plain": stored.plain,
        **stored.compressed,
        "sparse_initializers": stored.sparse,
        "sparse_tensors": stored.tensors,
        "sparse_read_by_onnxruntime": stored.same,
        "two_of_four": rest + storage.two_of_four(held) if held else None,
    }


def blocks(data: Mapping[str, Any]) -> list[Block]:
    """The report."""
    said = Text("\n".join([*learner(data), *_said(data), *_files(data), *_timed(data), *_used(data)]))
    training = data["training"] or {}
    return [
        Section("change", (_table(data), said)),
        Section("training", (*watched("training", training.get("history") or ()), *rollouts(training.get("search")))),
        Section("layers", tuple(_layers(data))),
    ]


def _table(data: Mapping[str, Any]) -> Table:
    before, after = data["before"], data["after"]
    rows = [
        ("weights that are not zero", count(before["nonzero_params"]), count(after["nonzero_params"])),
        ("MACs by them", count(before["nonzero_macs"]), count(after["nonzero_macs"])),
        ("MACs onnxruntime computes", count(before["macs"]), count(after["macs"])),
        ("bytes on disk", size(before["bytes"]), size(after["bytes"])),
    ]
    keys = ("nonzero_params", "nonzero_macs", "macs", "bytes")
    parts = [f"{after[key] / before[key]:.3f}" if before[key] else "-" for key in keys]
    cells = [(*row, part) for row, part in zip(rows, parts, strict=True)]
    if data["latency"]:
        timed = data["latency"]
        ratio = times(timed["ratio"], timed["low"], timed["high"])
        cells.append(("latency", ms(before["latency_ms"]), ms(after["latency_ms"]), ratio))
    return Table("", ("", "before", "after", "ratio"), tuple(cells))


def _said(data: Mapping[str, Any]) -> list[str]:
    asked, rows = data["asked"], data["layers"]
    lines = [
        f"{share(data['sparsity'])} of the weights of {plural(len(rows), 'layer')} are zero"
        f" ({asked['pattern']}, {asked['method']}, shares: {asked['protocol']})."
    ]
    dense = [row["name"] for row in rows if asked["ratio"] != 0 and not row["zeros"]]
    if dense:
        lines.append(f"Dense: {_listed(dense)} (too few channels, or read along several axes).")
    if data["dense"]:
        why = "protected, depthwise, looked up, or of units that cannot be cut"
        lines.append(f"Left as they are: {_listed(data['dense'])} ({why}).")
    unfit = [row["name"] for row in rows if row["method"] not in (asked["method"], "training")]
    if unfit:
        lines.append(f"By magnitude, for want of a matrix form: {_listed(unfit)}.")
    for name, one in data["deviation"].items():
        where = held_back(data["samples"])
        text = f"Output {name} on {where}: off by {share(one['relative'])}"
        lines.append(text + ("" if one["agreement"] is None else f", same class on {share(one['agreement'])}") + ".")
    lines += _trained(data["training"])
    empty, cut = data["empty"], data["cut"]
    if empty["output_channels"] or empty["input_channels"]:
        lines.append(
            f"{plural(empty['output_channels'], 'output channel')} and"
            f" {plural(empty['input_channels'], 'input channel')} are all zero."
        )
    if cut:
        gone = sum(group["width"] - group["kept"] for group in cut)
        lines.append(f"{plural(gone, 'dead unit')} of {plural(len(cut), 'group')} cut; outputs stay the same.")
    return lines


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" and more" if len(names) > 4 else "")


def _trained(training: Mapping[str, Any] | None) -> list[str]:
    """What training did."""
    if training is None:
        return []
    lines, history, judged = [], training["history"], training["result"]
    if training["search"]:
        best = training["search"]["best"]
        lines.append(
            f"{plural(training['search']['rollouts'], 'roll-out')}: the best choice scores {best['score']:.4f}."
        )
    if history:
        steps = plural(int(history[-1]["step"]) + 1, "step")
        lines.append(f"{steps} of training: loss {loss(history[0]['loss'])} to {loss(history[-1]['loss'])}.")
        lines += taken_back(training)
    if judged["accuracy"] is not None:
        both = f"{judged['accuracy']:.2%} of samples held back; the original on {judged['original_accuracy']:.2%}"
        lines.append(f"Right on {both}.")
    return lines


def _files(data: Mapping[str, Any]) -> list[str]:
    files = data["files"]
    parts = [f"{name} {size(files[name])}" for name in ("gzip", "zstd") if files[name] is not None]
    if files["sparse_tensors"]:
        where = (
            "read by onnxruntime, which makes them dense" if files["sparse_read_by_onnxruntime"] else "NOT read by it"
        )
        sparse = plural(files["sparse_tensors"], "sparse initializer")
        parts.append(f"with {sparse} {size(files['sparse_initializers'])} ({where})")
    if files["two_of_four"] is not None:
        parts.append(f"as sparse tensor cores store it {size(files['two_of_four'])}")
    return [f"On disk {size(files['plain'])} dense; {'; '.join(parts)}."]


def _timed(data: Mapping[str, Any]) -> list[str]:
    timed = data["latency"]
    if not timed:
        return []
    where = f"{plural(timed['threads'], 'thread')} of {runtime(timed['provider'])}"
    line = f"Latency at {shapes(timed['inputs'])} on {where}: medians of {timed['rounds']} paired rounds."
    line += stopped(timed)
    if timed["faster"] is not True:
        line += " Not faster: onnxruntime multiplies by zeros. Cut units with slim where milliseconds matter."
    return [line]


def _used(data: Mapping[str, Any]) -> list[str]:
    """Which runtimes gain by the zeros, where not all units of them are cut already."""
    pattern = patterns.parse(data["asked"]["pattern"])
    if data["cut"]:
        return []
    who = RUNTIMES.get(pattern.name, f"none known skips zeros of {pattern.name} as such; {RUNTIMES[patterns.FREE]}")
    return [f"Runtimes that gain by such zeros (not measured): {who}."]


def _layers(data: Mapping[str, Any]) -> list[Block]:
    rows = []
    for row in data["layers"]:
        error = "-" if row["after"] is None else f"{row['after']:.2g}"
        shape = "x".join(map(str, row["shape"]))
        rows.append((row["name"], shape, share(row["zeros"] / row["weights"]), row["method"], error))
    bars = [Bar(r["name"], r["zeros"] / r["weights"], share(r["zeros"] / r["weights"])) for r in data["layers"]]
    table = Table("Layers", ("weight", "shape", "zero", "chosen by", "error of its output"), tuple(rows), (0, 1, 3))
    return [table, Bars("Share of zeros in each layer", ("zero",), tuple(bars))]
