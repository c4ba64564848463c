"""Times models on onnxruntime: latency, paired ratios, and the share of every node.

Latency and ratios come from paired rounds: a round runs every model once, in a fresh order, so a slow moment of the
machine hits them all. Profiling costs 3 to 35 % of the time, so shares of nodes come from a session of their own.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxslim_learn.costs.attribution import Key, attribute
from onnxslim_learn.errors import InputError, reason

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto
    from onnxruntime import InferenceSession, SessionOptions

Model: TypeAlias = str | Path | bytes
Feeds: TypeAlias = Mapping[str, npt.NDArray[Any]]
_Runs: TypeAlias = list[tuple["InferenceSession", Feeds]]

CPU = "CPUExecutionProvider"

# The first run takes 2 to 6 times the steady state; between medians of three runs, 5 % is noise.
_WARM_UPS, _MOST_WARM_UPS, _SETTLED = 5, 50, 0.05
_ROUNDS, _MOST_ROUNDS = 10, 2000
_MOST_BYTES = 1_500_000_000  # a named copy and the optimised graph must stay below the 2 GB of a protobuf message


@dataclass(frozen=True)
class Latency:
    """Time of one run of one model.

    Attributes:
        median_ms, low_ms, high_ms: Median, 10 % and 90 % quantile of the wall-clock time of a run, milliseconds.
        runs, load_ms: Timed runs, and the time to read the file and build the session, milliseconds.
        threads, provider: Threads one operator may use, and the onnxruntime execution provider.
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
    """Median of a model's time over a base's, paired by round, and its 95 % interval; below 1 the model is faster."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Timings:
    """Raw times of paired rounds.

    Attributes:
        ms: Wall-clock times, milliseconds, ``(rounds, models)``.
        load_ms: Time to read and build each model, milliseconds.
        threads, provider: As in ``Latency``.
    """

    ms: npt.NDArray[np.float64]
    load_ms: tuple[float, ...]
    threads: int
    provider: str

    def latencies(self) -> list[Latency]:
        """Summarise every column, in the order of the models."""
        columns = zip(*np.quantile(self.ms, (0.5, 0.1, 0.9), axis=0).tolist(), self.load_ms, strict=True)
        rest = (len(self.ms), self.threads, self.provider)
        return [Latency(middle, low, high, *rest, load_ms) for middle, low, high, load_ms in columns]


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
    options = _options(threads, True, None)
    runs: _Runs = []
    load_ms: list[float] = []
    for model, feed in zip(models, feeds, strict=True):
        start = perf_counter()
        runs.append((_create(model, options, provider), feed))
        load_ms.append((perf_counter() - start) * 1e3)
        _warm_up(model, *runs[-1], seconds)
    return Timings(_rounds(runs, seconds, progress or (lambda part: None)), tuple(load_ms), threads, provider)


def compare(timings: Timings, model: int, base: int = 0, *, resamples: int = 2000, seed: int = 0) -> Ratio:
    """Compare two columns by the median of their paired ratios, with a bootstrap interval that ``seed`` repeats."""
    ratios = timings.ms[:, model] / timings.ms[:, base]
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(resamples, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return Ratio(float(np.median(ratios)), float(low), float(high))


def per_node(model: Model, feeds: Feeds, *, threads: int = 1, provider: str = CPU, runs: int = 20) -> list[NodeTime]:
    """Profile a model and lay the time of onnxruntime's nodes on the nodes of the file, slowest first.

    A fused node counts for the node it is built around; nodes folded or absorbed have no row, those of subgraphs have.
    Times are medians over ``runs`` after warming up; on a device, of launching the kernels only.

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
        dumped = _read(dump).graph.node if dump.is_file() else ()
        return _summarise(taken, attribute(set(chain.from_iterable(taken)), [*_nodes(proto.graph)], dumped))


def _options(threads: int, optimize: bool, profile_to: Path | None) -> SessionOptions:
    import onnxruntime as ort

    if threads < 1:
        raise InputError(f"threads: a whole number of at least 1 is needed, but got {threads}.")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads must not slow other sessions
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling, options.profile_file_prefix = profile_to is not None, str(profile_to or "")
    return options


def check_provider(provider: str) -> None:
    """Refuse an execution provider that this onnxruntime does not have."""
    import onnxruntime as ort

    if provider not in (available := ort.get_available_providers()):
        raise InputError(f"--provider {provider}: choose one that this onnxruntime has, {', '.join(available)}.")


def _create(model: Model, options: SessionOptions, provider: str) -> InferenceSession:
    import onnxruntime as ort

    check_provider(provider)
    ort.disable_telemetry_events()
    with _saying(model, "onnxruntime must accept the model", "Export it for this onnxruntime, or update it."):
        session = ort.InferenceSession(model, options, providers=[provider])
    if provider not in session.get_providers():
        raise InputError(f"provider: {provider} must start on this machine, but it does not.")
    return session


@contextmanager
def _saying(model: Model, need: str, advice: str) -> Iterator[None]:
    """Turn any exception, for onnxruntime's share no base, into one sentence without codes and source lines."""
    try:
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise FileNotFoundError("no file at this path")
        yield
    except Exception as error:
        raise InputError(
            f"{'model' if isinstance(model, bytes) else model}: {need}, but got: {reason(error)}. {advice}"
        ) from error


def _run(session: InferenceSession, feeds: Feeds) -> float:
    start = perf_counter()
    session.run(None, feeds)
    return (perf_counter() - start) * 1e3


def _warm_up(model: Model, session: InferenceSession, feeds: Feeds, seconds: float) -> None:
    """Run at least five times, until the running median settles or the time is up."""
    wanted = ", ".join(f"{x.name} {x.type} {x.shape}" for x in session.get_inputs())
    end = perf_counter() + seconds
    with _saying(model, f"feeds for {wanted} are needed", "Give sizes that fit with --input."):
        times = [_run(session, feeds) for _ in range(_WARM_UPS)]
        while len(times) < _MOST_WARM_UPS and perf_counter() < end:
            before, now = sorted(times[-5:-2])[1], sorted(times[-3:])[1]
            if abs(now - before) <= _SETTLED * before:
                return
            times.append(_run(session, feeds))


def _rounds(runs: _Runs, seconds: float, progress: Callable[[float], None]) -> npt.NDArray[np.float64]:
    """Run every model once per round, in a fresh order each, until the time is used."""
    order, start, part = np.random.default_rng(0), perf_counter(), 0.0
    rounds: list[list[float]] = []
    while part < 1:
        times = {model: _run(*runs[model]) for model in order.permutation(len(runs))}
        rounds.append([times[model] for model in range(len(runs))])
        spent = (perf_counter() - start) / seconds if seconds > 0 else 1.0
        part = max(min(spent, len(rounds) / _ROUNDS, 1.0), len(rounds) / _MOST_ROUNDS)
        progress(part)
    return np.array(rounds)


def _read(model: Model) -> ModelProto:
    """Read a model without the weights it keeps in other files."""
    import onnx

    with _saying(model, "an ONNX model is needed", "Give a whole .onnx file."):
        return onnx.load_model_from_string(model if isinstance(model, bytes) else Path(model).read_bytes())


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for held in node.attribute:
            for inner in (held.g, *held.graphs):
                yield from _nodes(inner)


def _named(model: Model, proto: ModelProto) -> tuple[Model, bool]:
    """Name all nodes of ``proto``; return it if that changed a small model, else the model; and whether it is small."""
    from onnx.external_data_helper import load_external_data_for_model

    changed = _give_names([*_nodes(proto.graph), *(node for body in proto.functions for node in body.node)])
    folder = Path("model" if isinstance(model, bytes) else model).parent
    entries = chain.from_iterable(tensor.external_data for tensor in proto.graph.initializer)
    files = {folder / entry.value for entry in entries if entry.key == "location"}
    small = proto.ByteSize() + sum(file.stat().st_size for file in files if file.is_file()) < _MOST_BYTES
    if changed and small:
        with _saying(model, "the files of its weights are needed", "Put them beside the model."):
            load_external_data_for_model(proto, str(folder))
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


def _record(model: Model, session: InferenceSession, feeds: Feeds, runs: int) -> list[dict[Key, float]]:
    """Run, and return the microseconds of every node in each of the last ``runs`` runs."""
    try:
        _warm_up(model, session, feeds, seconds=1.0)
        for _ in range(runs):
            session.run(None, feeds)
    finally:
        profile = Path(session.end_profiling())
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


def _summarise(runs: Sequence[Mapping[Key, float]], rows: Mapping[Key, Key]) -> list[NodeTime]:
    times: defaultdict[Key, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(runs)))
    for index, run in enumerate(runs):
        for key, us in run.items():
            times[rows[key]][index] += us
    medians = {row: float(np.median(us)) for row, us in times.items()}
    total = sum(medians.values()) or 1.0
    return [NodeTime(*row, us / 1e3, us / total) for row, us in sorted(medians.items(), key=lambda item: -item[1])]
