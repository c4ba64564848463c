"""Measures a machine on onnxruntime: its peak, its bandwidth, what every call takes, and the steps of its kernels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from onnxslim_learn.array_types import Feeds
from onnxslim_learn.costs.devices import CONVOLUTION, DEPTHWISE, PRODUCT, Device
from onnxslim_learn.runtime import timing as measure
from onnxslim_learn.runtime.session import CPU

if TYPE_CHECKING:
    from onnx import ModelProto

# Models, and milliseconds of a round of them on a usual machine -> microseconds of a run of each, side by side.
Timer: TypeAlias = Callable[[Sequence["ModelProto"], float], Sequence[float]]

SIDE = 384  # of the matrices whose product shows the peak
CHANNELS, IMAGE = 64, 56  # of the convolution that shows it as well: the faster of both counts
FLOATS = 1 << 22  # of the tensor whose negation shows the bandwidth: more than caches keep of input and output together
LARGE_MS = 9  # milliseconds that a round of these takes on a usual machine
CHAIN = 64  # nodes that do nothing, to see what every node takes
WIDE = 64  # channels that probes of steps are narrowed from, to a half
ROW = 4  # nodes of a probe
STEPS = (32, 16, 8, 4, 2)  # that are tried, coarsest first
FREE = 1 / 3  # of what channels cost where time is in proportion to them: less, and rounding up is free


@dataclass(frozen=True)
class Probe:
    """A node whose time tells a step.

    Attributes:
        kind: The entry of the table of steps.
        node: The node in ONNX's text format, with ``{n}`` for its channels.
        data: Shape of its input, -1 for channels.
        weight: Shape of its weight, likewise.
        ms: Milliseconds that a round over all widths takes on a usual machine, idle.
    """

    kind: str
    node: str
    data: tuple[int, ...]
    weight: tuple[int, ...]
    ms: float


PROBES = (
    Probe(CONVOLUTION, "Conv <pads = [1, 1, 1, 1]>", (1, -1, 28, 28), (-1, -1, 3, 3), 72),
    Probe(DEPTHWISE, "Conv <pads = [1, 1, 1, 1], group = {n}>", (1, -1, 56, 56), (-1, 1, 3, 3), 50),
    Probe(PRODUCT, "MatMul", (256, -1), (-1, -1), 2.6),
)


def calibrate(
    name: str,
    *,
    threads: int = 1,
    provider: str = CPU,
    seconds: float = 5.0,
    timer: Timer | None = None,
) -> Device:
    """Measure this machine as onnxruntime uses it.

    Args:
        name: What to call it.
        threads: Threads one operator may use.
        provider: The onnxruntime execution provider.
        seconds: Time that all rounds take on a usual machine, idle: so many there are on any.
        timer: How to time models, for tests.

    Raises:
        InputError: If the threads or the provider cannot be used.
    """
    import onnxruntime as ort

    measure.check_provider(provider)
    timed = timer or timing(threads=threads, provider=provider, seconds=seconds / (1 + len(PROBES)))
    matmul, conv, moving, one, many = timed([*_large(), *(chain(n) for n in (1, 1 + CHAIN))], LARGE_MS)
    node_us = max(many - one, 0.0) / CHAIN
    run_us = max(one - node_us, 0.0)
    work = ((2 * SIDE**3, matmul), (2 * 9 * CHANNELS**2 * IMAGE**2, conv))
    peak = max(flops / max(us - one, 1e-3) for flops, us in work) / 1e3
    bandwidth = 2 * 4 * FLOATS / max(moving - one, 1e-3) / 1e3
    steps = {probe.kind: _step(probe, timed, one) for probe in PROBES}
    about: dict[str, str | int] = {"provider": provider, "threads": threads, "onnxruntime": ort.__version__}
    peak, bandwidth, node_us, run_us = (float(f"{number:.4g}") for number in (peak, bandwidth, node_us, run_us))
    return Device(name, peak, bandwidth, node_us, run_us, steps, about)


def timing(*, threads: int, provider: str, seconds: float) -> Timer:
    """A timer of models side by side on onnxruntime: the least of all rounds, since other work only slows them."""

    def timer(models: Sequence[ModelProto], ms: float) -> Sequence[float]:
        rounds = measure.Rounds(max(measure.ROUNDS, round(1e3 * seconds / ms)), seconds, counted=True)
        feeds = [inputs(model) for model in models]
        files = [model.SerializeToString() for model in models]
        clock = measure.steady_clock(threads, provider)
        timings = measure.measure(files, feeds, threads=threads, provider=provider, seconds=rounds, clock=clock)
        return [1e3 * least for least in timings.ms.min(axis=0).tolist()]

    return timer


def _step(probe: Probe, timed: Timer, idle: float) -> int:
    """The coarsest step at which rounding widths up, by half a step and more, takes little time.

    Compared is with the fastest width that is no less: odd widths, which kernels without steps are for, say nothing.
    """
    widths = range(WIDE // 2 + 1, WIDE + 1)
    taken = timed([_probed(probe, width) for width in widths], probe.ms)
    idle = min(idle, 0.8 * min(taken))  # what a run takes without any work
    least = np.minimum.accumulate([us - idle for us in reversed(taken)])[::-1]
    times = dict(zip(widths, least.tolist(), strict=True))
    for step in STEPS:
        pairs = [(width, width + -width % step) for width in widths if -width % step >= step // 2]
        prices = [(times[wide] / times[narrow] - 1) / (wide / narrow - 1) for narrow, wide in pairs]
        if np.median(prices) < FREE:
            return step
    return 1


def _probed(probe: Probe, width: int) -> ModelProto:
    """A model of some nodes in a row with so many channels: in a net, layouts change at the ends of a row only."""
    x, w = (tuple(width if size < 0 else size for size in shape) for shape in (probe.data, probe.weight))
    names = ["x", *(f"v{k}" for k in range(1, ROW)), "y"]
    node = probe.node.format(n=width)
    return _net(x, x, " ".join(f"{b} = {node} ({a}, w)" for a, b in itertools.pairwise(names)), w)


def _large() -> list[ModelProto]:
    """Models that compute much, and one that moves much."""
    image, square = (1, CHANNELS, IMAGE, IMAGE), (SIDE, SIDE)
    return [
        _net(square, square, "y = MatMul (x, w)", square),
        _net(image, image, "y = Conv <pads = [1, 1, 1, 1]> (x, w)", (CHANNELS, CHANNELS, 3, 3)),
        _net((FLOATS,), (FLOATS,), "y = Neg(x)"),
    ]


def chain(length: int) -> ModelProto:
    """So many nodes one after the other, each of a single number."""
    names = ["x", *(f"v{k}" for k in range(1, length)), "y"]
    # two operators in turns: onnxruntime would drop a pair of equal ones
    nodes = [f"{b} = {'Cos' if k % 2 else 'Sin'}({a})" for k, (a, b) in enumerate(itertools.pairwise(names))]
    return _net((1,), (1,), " ".join(nodes))


def _net(x: Sequence[int], y: Sequence[int], body: str, weight: Sequence[int] = ()) -> ModelProto:
    from onnx import numpy_helper, parser

    sizes = [",".join(map(str, shape)) for shape in (x, y)]
    head = f"net (float[{sizes[0]}] x) => (float[{sizes[1]}] y)"
    net = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {head} {{ {body} }}')
    if weight:
        values = np.random.default_rng(0).normal(size=tuple(weight)).astype(np.float32)
        net.graph.initializer.append(numpy_helper.from_array(values, "w"))
    return net


def inputs(model: ModelProto) -> Feeds:
    """Numbers for the input of a model made here."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
