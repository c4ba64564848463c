"""Times models on onnxruntime: latency, paired ratios, and the share of every node.

Latency and ratios come from paired rounds: a round runs every model once, in a fresh order, so a slow moment of the
machine hits them all. Profiling costs 3 to 35 % of the time, so shares of nodes come from a session of their own.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto
    from onnxruntime import InferenceSession, SessionOptions

Model: TypeAlias = str | Path | bytes
Feeds: TypeAlias = Mapping[str, npt.NDArray[Any]]
_Key: TypeAlias = tuple[str, str]  # name and operator, of an event in a profile or of a row

CPU = "CPUExecutionProvider"
LAYOUT = "layout"
OTHER = "(other)"

# The first run takes 2 to 6 times the steady state; between medians of three runs, 5 % is noise.
_WARM_UPS, _MOST_WARM_UPS, _SETTLED = 5, 50, 0.05
_ROUNDS, _MOST_ROUNDS = 10, 2000
# A named copy and the optimised graph must stay well below the 2 GB one protobuf message may hold.
_MOST_BYTES = 1_500_000_000
# Operators onnxruntime inserts only to rearrange or move data.
_MOVES = {"ReorderInput", "ReorderOutput", "MemcpyFromHost", "MemcpyToHost"}
_MOVES |= {"Transpose", "Reshape", "Squeeze", "Unsqueeze"}
# What it adds to the name of a node it rewrites, as in "fused fc" or "mm/MatmulTransposeFusion//MatMulScaleFusion/".
_REWRITTEN = re.compile(r"^fused |(/\w+Fusion/?)+$|_new_reshape$|_token_\d+$")
# A blocked node is named after the tensor it computes; one made of BatchNormalization, Mul or Add carries a mark more.
_BLOCKED = re.compile(r"(_bn|_mul|_add)?_nchwc$")


@dataclass(frozen=True)
class Latency:
    """Time of one run of one model.

    Attributes:
        median_ms, low_ms, high_ms: Median, 10 % and 90 % quantile of the wall-clock time of a run, milliseconds.
        runs: Number of timed runs, warm-ups not counted.
        threads, provider: Threads one operator may use, and the onnxruntime execution provider.
        load_ms: Time to read the file and build the session, milliseconds, once.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int
    threads: int
    provider: str
    load_ms: float

    def throughput(self, batch: int = 1) -> float:
        """Return the samples per second when one run computes ``batch`` samples."""
        return batch * 1e3 / self.median_ms


@dataclass(frozen=True)
class Ratio:
    """Time of a model over that of a base, paired by round; below 1 the model is faster.

    Attributes:
        median, low, high: Median of the ratios, and the ends of its 95 % bootstrap interval.
        rounds: Number of paired rounds.
    """

    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True, eq=False)
class Timings:
    """Raw times of paired rounds.

    Attributes:
        ms: Wall-clock times, milliseconds, ``(rounds, models)``, read-only.
        load_ms: Time to build each session, milliseconds, one per model.
        threads, provider: As in ``Latency``.
    """

    ms: npt.NDArray[np.float64]
    load_ms: tuple[float, ...]
    threads: int
    provider: str

    def latency(self, model: int = 0) -> Latency:
        """Summarise the column of one model."""
        low, middle, high = (float(q) for q in np.quantile(self.ms[:, model], (0.1, 0.5, 0.9)))
        return Latency(middle, low, high, len(self.ms), self.threads, self.provider, self.load_ms[model])

    def latencies(self) -> list[Latency]:
        """Summarise every column, in the order of the models."""
        return [self.latency(model) for model in range(self.ms.shape[1])]


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


def open_session(
    model: Model, *, threads: int = 1, provider: str = CPU, optimize: bool = True, profile_to: Path | None = None
) -> InferenceSession:
    """Open a model, a path or bytes, in onnxruntime with a fixed number of threads; only errors are logged.

    What the provider lacks runs on the CPU. ``optimize=False`` runs the file as written, for verification. A session
    opened with ``profile_to`` writes a profile whose path begins so, and ``end_profiling()`` returns that path.

    Raises:
        InputError: If the model is missing or refused, or the provider is not available.
    """
    return _create(model, _options(threads, optimize, profile_to), provider)


def measure(
    models: Sequence[str | Path],
    feeds: Sequence[Feeds],
    *,
    threads: int = 1,
    provider: str = CPU,
    seconds: float = 2.0,
    progress: Callable[[float], None] | None = None,
) -> Timings:
    """Time models side by side in shuffled rounds, one session each, after warming up.

    ``feeds`` are the inputs by name for each model; their shapes fix its dynamic dimensions. ``seconds`` are for the 10
    to 2000 rounds of all models together. Copies to and from a device are part of the time. ``progress`` is called
    after every round with the part done, 0 to 1.

    Raises:
        InputError: If a model, its feeds, the threads, the seconds or the provider cannot be used.
    """
    if not models or len(models) != len(feeds):
        raise InputError(f"feeds: one set for each model is needed, but got {len(feeds)} for {len(models)} models.")
    if not seconds >= 0:
        raise InputError(f"seconds: a time of at least 0 is needed, but got {seconds}.")
    options = _options(threads, True, None)
    runs: list[tuple[InferenceSession, Feeds]] = []
    load_ms: list[float] = []
    for model, feed in zip(models, feeds, strict=True):
        start = perf_counter()
        runs.append((_create(model, options, provider), feed))
        load_ms.append((perf_counter() - start) * 1e3)
        _warm_up(model, *runs[-1], seconds)
    return Timings(_rounds(runs, seconds, progress or (lambda part: None)), tuple(load_ms), threads, provider)


def compare(timings: Timings, model: int, base: int = 0, *, resamples: int = 2000, seed: int = 0) -> Ratio:
    """Compare two columns by the median of their paired ratios, with a 95 % bootstrap interval.

    The same times, ``resamples`` (of the rounds) and ``seed`` give the same interval.
    """
    ratios = timings.ms[:, model] / timings.ms[:, base]
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(resamples, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))


def per_node(model: Model, feeds: Feeds, *, threads: int = 1, provider: str = CPU, runs: int = 20) -> list[NodeTime]:
    """Profile a model and lay the time of onnxruntime's nodes on the nodes of the file, slowest first.

    A fused node counts for the node it is built around; nodes folded or absorbed have no row. A subgraph's nodes have
    rows of their own. Times are medians over ``runs`` after warming up; on a device, of launching the kernels only.

    Raises:
        InputError: If the model, its feeds, the runs, the threads or the provider cannot be used.
    """
    if runs < 1:
        raise InputError(f"runs: a whole number of at least 1 is needed, but got {runs}.")
    proto = _read(model)
    source, small = _named(model, proto)
    with tempfile.TemporaryDirectory() as folder:
        options, dump = _options(threads, True, Path(folder, "profile")), Path(folder, "optimised.onnx")
        if small and provider == CPU:  # other providers may compile the graph and cannot write it
            options.optimized_model_filepath = str(dump)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        taken = _record(model, _create(source, options, provider), feeds, runs)
        optimised = _graph(_read(dump).graph.node if dump.is_file() else ())
    return _summarise(taken, _attribute(set(chain.from_iterable(taken)), _graph(_nodes(proto.graph)), optimised))


def _options(threads: int, optimize: bool, profile_to: Path | None) -> SessionOptions:
    import onnxruntime as ort

    if threads < 1:
        raise InputError(f"threads: a whole number of at least 1 is needed, but got {threads}.")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Idle threads of one session would otherwise spin while another is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile_to is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile_to)
    return options


def _create(model: Model, options: SessionOptions, provider: str) -> InferenceSession:
    import onnxruntime as ort

    if provider not in (available := ort.get_available_providers()):
        raise InputError(f"provider: one of {', '.join(available)} is needed, but got {provider}.")
    with _saying(f"{_where(model)}: onnxruntime must accept the model"):
        source = model if isinstance(model, bytes) else str(model)
        session = ort.InferenceSession(source, options, providers=list(dict.fromkeys((provider, CPU))))
    if provider not in session.get_providers():
        raise InputError(f"provider: {provider} must start on this machine, but it does not.")
    return session


def _where(model: Model) -> str:
    """Name a model for messages, which a missing file has already."""
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise InputError(f"{model}: the path of an ONNX file is needed, but there is no such file.")
    return "model" if isinstance(model, bytes) else str(model)


@contextmanager
def _saying(need: str) -> Iterator[None]:
    """Turn any exception, for onnxruntime's share no base, into one sentence without codes and source lines."""
    try:
        yield
    except Exception as error:
        text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (/\S+:\d+ [^()]*\([^()]*\))?", "", str(error))
        text = " ".join(re.sub(r"[.!?]\s+(?=\S)", "; ", text).split())[:400].rstrip(".")
        raise InputError(f"{need}, but the answer is: {text}.") from error


def _run(session: InferenceSession, feeds: Feeds) -> float:
    start = perf_counter()
    session.run(None, feeds)
    return (perf_counter() - start) * 1e3


def _warm_up(model: Model, session: InferenceSession, feeds: Feeds, seconds: float) -> None:
    """Run at least five times, until the running median settles or the time is up."""
    wanted = ", ".join(f"{x.name} {x.type} {x.shape}" for x in session.get_inputs())
    end = perf_counter() + seconds
    times: list[float] = []
    with _saying(f"{_where(model)}: feeds for {wanted} are needed"):
        while len(times) < _MOST_WARM_UPS:
            times.append(_run(session, feeds))
            before, now = median(times[-5:-2] or [0.0]), median(times[-3:])
            if len(times) >= _WARM_UPS and (abs(now - before) <= _SETTLED * before or perf_counter() > end):
                return


def _rounds(
    runs: Sequence[tuple[InferenceSession, Feeds]], seconds: float, progress: Callable[[float], None]
) -> npt.NDArray[np.float64]:
    """Run every model once per round, in a fresh order each, until the time is used."""
    order, start, part = np.random.default_rng(0), perf_counter(), 0.0
    rounds: list[list[float]] = []
    while part < 1:
        row = [0.0] * len(runs)
        for model in order.permutation(len(runs)):
            row[model] = _run(*runs[model])
        rounds.append(row)
        spent = (perf_counter() - start) / seconds if seconds else 1.0
        part = max(min(spent, len(rounds) / _ROUNDS, 1.0), len(rounds) / _MOST_ROUNDS)
        progress(part)
    ms = np.array(rounds)
    ms.setflags(write=False)
    return ms


def _read(model: Model) -> ModelProto:
    """Read a model without the weights it keeps in other files."""
    import onnx

    with _saying(f"{_where(model)}: an ONNX model is needed"):
        return onnx.load_model_from_string(model if isinstance(model, bytes) else Path(model).read_bytes())


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _named(model: Model, proto: ModelProto) -> tuple[Model, bool]:
    """Name all nodes of ``proto``; return it if that changed a small model, else the model; and whether it is small."""
    from onnx.external_data_helper import load_external_data_for_model

    changed = _give_names([*_nodes(proto.graph), *(node for body in proto.functions for node in body.node)])
    folder = Path("model" if isinstance(model, bytes) else model).parent
    entries = chain.from_iterable(tensor.external_data for tensor in proto.graph.initializer)
    files = {folder / entry.value for entry in entries if entry.key == "location"}
    small = proto.ByteSize() + sum(file.stat().st_size for file in files if file.is_file()) < _MOST_BYTES
    if not (changed and small):
        return model, small
    load_external_data_for_model(proto, str(folder))
    return proto.SerializeToString(), small


def _give_names(nodes: Sequence[NodeProto]) -> bool:
    """Name nameless nodes after their first output, number repeated names, and say whether any changed."""
    taken, seen, changed = {node.name for node in nodes}, {""}, False
    for node in nodes:
        if node.name in seen:
            stem = node.name or next(filter(None, node.output), node.op_type)
            node.name = next(n for n in chain([stem], (f"{stem}_{i}" for i in count(2))) if n not in taken)
            taken.add(node.name)
            changed = True
        seen.add(node.name)
    return changed


def _record(model: Model, session: InferenceSession, feeds: Feeds, runs: int) -> list[dict[_Key, float]]:
    """Run, and return the milliseconds of every node in each of the last ``runs`` runs."""
    try:
        _warm_up(model, session, feeds, seconds=1.0)
        for _ in range(runs):
            session.run(None, feeds)
    finally:
        profile = Path(session.end_profiling())
    events = sorted(json.loads(profile.read_text(encoding="utf-8")), key=lambda event: (event["ts"], -event["dur"]))
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run"][-runs:]
    nodes = [event for event in events if event["cat"] == "Node"]
    return [_own_times([node for node in nodes if start <= node["ts"] < end]) for start, end in spans]


def _own_times(events: Sequence[Mapping[str, Any]]) -> dict[_Key, float]:
    """Sum the events of one run, sorted by start, by node, less the events inside each (those of a subgraph)."""
    times: defaultdict[_Key, float] = defaultdict(float)
    around: list[tuple[float, _Key]] = []
    for event in events:
        key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
        while around and around[-1][0] <= event["ts"]:
            around.pop()
        if around:
            times[around[-1][1]] -= event["dur"] / 1e3
        times[key] += event["dur"] / 1e3
        around.append((event["ts"] + event["dur"], key))
    return dict(times)


class _Graph(NamedTuple):
    """Nodes by name and by the tensors they compute."""

    nodes: dict[str, NodeProto]
    makers: dict[str, NodeProto]


def _graph(nodes: Iterable[NodeProto]) -> _Graph:
    nodes = [node for node in nodes if node.name]
    return _Graph({node.name: node for node in nodes}, {name: node for node in nodes for name in node.output if name})


def _attribute(keys: Iterable[_Key], file: _Graph, optimised: _Graph) -> dict[_Key, _Key]:
    """Map the nodes of a profile to rows: nodes of the file, ``layout`` or ``(other)``."""
    rows = {key: (LAYOUT if key[1] in _MOVES else OTHER, key[1]) for key in keys}
    named = {key: _by_name(key[0], file) for key in rows}
    found = {key: node or _by_result(*key, file, optimised) for key, node in named.items()}
    owned = {node.name for node in found.values() if node}
    for key, node in found.items():
        if node:
            core = named[key] or _core(node, key[1], file, owned)
            rows[key] = core.name, core.op_type
    return rows


def _by_name(name: str, file: _Graph) -> NodeProto | None:
    """Find the node a name comes from; blocked nodes are named after tensors instead."""
    while name not in file.nodes and not _BLOCKED.search(name) and (shorter := _REWRITTEN.sub("", name)) != name:
        name = shorter
    return file.nodes.get(name)


def _by_result(name: str, op_type: str, file: _Graph, optimised: _Graph) -> NodeProto | None:
    """Find the maker of the tensor in a name, else of the first tensor of the file after an optimised node."""
    queue = [] if op_type in _MOVES else [name]
    for tensor in (name.removesuffix("_nchwc"), _BLOCKED.sub("", name)):
        if queue and tensor in file.makers:
            return file.makers[tensor]
    for current in queue:  # grows by the readers without a name in the file
        for tensor in optimised.nodes[current].output if current in optimised.nodes else ():
            if tensor in file.makers:
                return file.makers[tensor]
            readers = [node.name for node in optimised.nodes.values() if tensor and tensor in node.input]
            queue += [reader for reader in readers if reader not in queue and not _by_name(reader, file)]
    return None


def _core(node: NodeProto, op_type: str, file: _Graph, owned: set[str]) -> NodeProto:
    """Walk back from the result of a fused node, over absorbed nodes, to the operator it is built around."""
    seen, queue = set(owned), [node]
    for current in queue:
        if current.op_type == op_type.removeprefix("Fused"):
            return current
        for maker in filter(None, map(file.makers.get, current.input)):
            if maker.name not in seen:
                seen.add(maker.name)
                queue.append(maker)
    return node


def _summarise(runs: Sequence[Mapping[_Key, float]], rows: Mapping[_Key, _Key]) -> list[NodeTime]:
    times: defaultdict[_Key, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(runs)))
    for index, run in enumerate(runs):
        for key, ms in run.items():
            times[rows[key]][index] += ms
    medians = {row: float(np.median(ms)) for row, ms in times.items()}
    total = sum(medians.values()) or 1.0
    return [NodeTime(*row, ms, ms / total) for row, ms in sorted(medians.items(), key=lambda item: -item[1])]
