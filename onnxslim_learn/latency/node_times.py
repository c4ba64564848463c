"""The share of every node of a file in a run: onnxruntime's profile, laid on the nodes that were written.

Profiling costs 3 to 35 % of the time, so shares of nodes come from a session of their own.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxslim_learn.array_types import Feeds
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph import external_files
from onnxslim_learn.latency.attribution import Key, attribute
from onnxslim_learn.runtime.node import inside
from onnxslim_learn.runtime.session import CPU, Model, create, runner, saying, session_options
from onnxslim_learn.runtime.timing import warm_up

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto
    from onnxruntime import InferenceSession

_MOST_BYTES = 1_500_000_000  # a named copy and the optimised graph must stay below the 2 GB of a protobuf message


@dataclass(frozen=True)
class NodeTime:
    """Time one node of the file takes in a run.

    Attributes:
        name: Its name in the file, or its first output if it has none, numbered where names repeat; ``layout`` for
            inserted rearrangements, ``(other)`` for what belongs to no node.
        op_type: Its operator in the file; onnxruntime's operator for ``layout`` and ``(other)``.
        ms, share: Median time per run in milliseconds, counted in microseconds, and its part of all rows, 0 to 1.
    """

    name: str
    op_type: str
    ms: float
    share: float


@dataclass(frozen=True)
class _Profiled:
    """A model in a session that writes a profile: its nodes by name, and where the optimised graph goes."""

    model: Model
    proto: ModelProto
    session: InferenceSession
    dump: Path

    def rows(self, runs: int, quantile: float) -> list[NodeTime]:
        """End the session, and summarise its last runs."""
        taken = _taken(Path(self.session.end_profiling()), runs)
        dumped = _read(self.dump).graph.node if self.dump.is_file() else ()
        return _summarise(
            taken, attribute(set(chain.from_iterable(taken)), [*_nodes(self.proto.graph)], dumped), quantile
        )


def per_node(
    models: Sequence[Model],
    feeds: Sequence[Feeds],
    *,
    threads: int = 1,
    provider: str = CPU,
    runs: int = 20,
    quantile: float = 0.5,
) -> list[list[NodeTime]]:
    """Profile models in turns and lay the time of onnxruntime's nodes on the nodes of each file, slowest first.

    A fused node counts for the node it is built around; nodes folded or absorbed have no row, those of subgraphs have.
    Times are medians, or another quantile, over ``runs`` rounds after warming up; on a device, of launching the kernels
    only.

    Raises:
        InputError: If a model, its feeds, the runs, the threads or the provider cannot be used.
    """
    if runs < 1:
        raise InputError(f"runs: a whole number of at least 1 is needed, but got {runs}.")
    with tempfile.TemporaryDirectory() as folder:
        opened: list[_Profiled] = []
        try:
            for number, model in enumerate(models):
                opened.append(_opened(model, Path(folder, str(number)), threads, provider))
            ready = [runner(one.session, feed) for one, feed in zip(opened, feeds, strict=True)]
            for one, run in zip(opened, ready, strict=True):
                warm_up(one.model, one.session, run, seconds=1.0)
            for run in ready * runs:
                run()
        except BaseException:
            for one in opened:
                one.session.end_profiling()  # or it would write its profile later, where nobody removes it
            raise
        return [one.rows(runs, quantile) for one in opened]


def _opened(model: Model, stem: Path, threads: int, provider: str) -> _Profiled:
    """Open a model whose profile and optimised graph go to files that begin as told."""
    proto = _read(model)
    source, small = _named(model, proto)
    options, dump = session_options(threads, True, stem), stem.with_suffix(".onnx")
    if small and provider == CPU:  # other providers may compile the graph and cannot write it
        options.optimized_model_filepath = str(dump)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{stem.name}.w")
    return _Profiled(model, proto, create(source, options, provider), dump)


def _read(model: Model) -> ModelProto:
    """Read a model without the weights it keeps in other files."""
    import onnx

    with saying(model, "an ONNX model is needed", "Give a whole .onnx file."):
        return onnx.load_model_from_string(model if isinstance(model, bytes) else Path(model).read_bytes())


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        yield from inside(node)


def _named(model: Model, proto: ModelProto) -> tuple[Model, bool]:
    """Name all nodes of ``proto``; return it if that changed a small model, else the model; and whether it is small."""
    changed = _give_names([*_nodes(proto.graph), *(node for body in proto.functions for node in body.node)])
    file = Path("model" if isinstance(model, bytes) else model)
    entries = chain.from_iterable(tensor.external_data for tensor in proto.graph.initializer)
    files = {file.parent / entry.value for entry in entries if entry.key == "location"}
    small = proto.ByteSize() + sum(part.stat().st_size for part in files if part.is_file()) < _MOST_BYTES
    if changed and small:
        with saying(model, "the files of its weights are needed", "Put them beside the model."):
            external_files.read_in(proto, file)
    return proto.SerializeToString() if changed and small else model, small


def _give_names(nodes: Sequence[NodeProto]) -> bool:
    """Name nameless nodes after their first output, number repeated names, and say whether any changed."""
    taken, seen = {node.name for node in nodes}, {""}
    changed = len(taken - seen) < len(nodes)
    for node in nodes:
        if node.name in seen:
            stem = node.name or next(filter(None, node.output), node.op_type)
            node.name = next(n for n in chain([stem], (f"{stem}_{i}" for i in count(2))) if n not in taken)
            taken.add(node.name)
        seen.add(node.name)
    return changed


def _taken(profile: Path, runs: int) -> list[dict[Key, float]]:
    """The microseconds of every node in each of the last runs of a profile."""
    events = sorted(json.loads(profile.read_text(encoding="utf-8")), key=lambda event: (event["ts"], -event["dur"]))
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run"][-runs:]
    nodes = [event for event in events if event["name"].endswith("_kernel_time")]
    return [_own_times([node for node in nodes if start <= node["ts"] < end]) for start, end in spans]


def _own_times(events: Sequence[Mapping[str, Any]]) -> dict[Key, float]:
    """Sum the microseconds of one run's events, sorted by start, less those of the events inside (of a subgraph)."""
    times: defaultdict[Key, float] = defaultdict(float)
    around: list[tuple[float, Key]] = []
    for event in events:
        key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
        around = [(end, outer) for end, outer in around if end > event["ts"]]
        for _, outer in around[-1:]:
            times[outer] -= event["dur"]
        times[key] += event["dur"]
        around.append((event["ts"] + event["dur"], key))
    return dict(times)


def _summarise(runs: Sequence[Mapping[Key, float]], rows: Mapping[Key, Key], quantile: float) -> list[NodeTime]:
    times: defaultdict[Key, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(runs)))
    for index, run in enumerate(runs):
        for key, us in run.items():
            times[rows[key]][index] += us
    medians = {row: float(np.quantile(us, quantile)) for row, us in times.items()}
    total = sum(medians.values()) or 1.0
    return [NodeTime(*row, us / 1e3, us / total) for row, us in sorted(medians.items(), key=lambda item: -item[1])]
