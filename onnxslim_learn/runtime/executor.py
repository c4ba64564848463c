"""Run a model in stretches of nodes over all samples, holding only the values that are still needed.

However many samples there are and however large the model, memory is bounded: values beyond a limit lie in temporary
files, batch by batch as they are put out, and no stretch reads more weights than one node or so many bytes.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx_ir as ir

from onnxslim_learn import metrics
from onnxslim_learn.array_types import Array, sample_count
from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime.node import reads
from onnxslim_learn.runtime.part import bytes_read, part, say_lengths, weights
from onnxslim_learn.runtime.session import FAITHFUL, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from onnxruntime import InferenceSession


IN_MEMORY = 1 << 27  # bytes of activations that one runner holds; what is over goes to a temporary file
WEIGHTS = 1 << 28  # bytes of weights that nodes which are run together read, unless it is one node
HANDED = 1 << 28  # bytes of values of one batch that are handed out at once
NOTHING: Array = np.zeros(0, np.float32)  # stands where a value was read for the last time
LOOKED_AT = 8  # stretches of the first batch, which tells how many bytes there are


Handed: TypeAlias = tuple[int, dict[str, Array]]
_Opened: TypeAlias = tuple["InferenceSession | None", Sequence[str], Sequence[str], Sequence[str]]


class Runner:
    """A model stopped between two nodes, with the values that later nodes need, one array per batch.

    Weights are read when a stretch of nodes is run, so that they may change until then.

    Attributes:
        optimize: How sessions are opened; where stretches end decides about rounding unless that is ``False``.
    """

    def __init__(
        self, model: ir.Model, feeds: Sequence[Mapping[str, Array]], keep: Iterable[str], threads: int | None = None
    ) -> None:
        """Stop before the first node.

        Args:
            model: The model, in normal form.
            feeds: Its inputs by name, a mapping per batch.
            keep: Names of values that stay until they are dropped.
            threads: Threads of onnxruntime; ``None`` for all cores.
        """
        self.threads = threads or os.cpu_count() or 1
        self.optimize: bool | str = FAITHFUL
        self.position = 0
        self.batches, self.samples = len(feeds), [sample_count([feed]) for feed in feeds]
        self.sessions: dict[tuple[int, int], _Opened] | None = None  # those that stay open
        self._take(model, keep)
        given = (str(v.name) for v in model.graph.inputs)
        self._held: dict[str, list[Array]] = {name: [np.asarray(feed[name]) for feed in feeds] for name in given}
        stated = ((str(v.name), v.const_value) for v in model.graph.outputs if v.is_initializer())
        self._held |= {name: [tensor.numpy()] * len(feeds) for name, tensor in stated if tensor is not None}

    def _take(self, model: ir.Model, keep: Iterable[str]) -> None:
        self.model, self.nodes = model, list(model.graph)
        self.place = {str(v.name): number for number, node in enumerate(self.nodes) for v in node.outputs if v.name}
        self.outputs = {str(v.name) for v in model.graph.outputs}
        self.kept = set(keep) | self.outputs
        self._reads = [set(reads(node)) for node in self.nodes]
        self._last = {name: number for number, names in enumerate(self._reads) for name in names}

    def get(self, name: str) -> list[Array]:
        """A value that is held, an array per batch."""
        return self._held[name]

    def drop(self, name: str) -> None:
        """Hold a value no longer than nodes need it; outputs stay."""
        if name in self.outputs:
            return
        self.kept.discard(name)
        if self._last.get(name, -1) < self.position:
            self._held.pop(name, None)

    def run_to(self, stop: int) -> None:
        """Run the nodes before number ``stop``."""
        for _ in self.taken(stop, ()):
            pass

    def taken(self, stop: int, names: Collection[str]) -> Iterator[Handed]:
        """Run the nodes before number ``stop``, and hand out values that they make or that are held, batch by batch.

        Only what nodes behind need is held. Values of one batch may come in several portions.
        """
        known = [name for name in names if self.place.get(name, -1) < self.position]
        for batch in range(self.batches if known else 0):
            yield batch, {name: self._held[name][batch] for name in known}
        while self.position < stop:
            yield from self._run(self._within(stop), names)
            for name in [n for n in self._held if n not in self.kept and self._last.get(n, -1) < self.position]:
                del self._held[name]

    def _within(self, stop: int) -> int:
        """How far to go at once, so that weights find room."""
        read = 0
        for place in range(self.position, stop):
            read += bytes_read(self.model, self.nodes[place])
            if read > WEIGHTS and place > self.position:
                return place
        return stop

    def _run(self, stop: int, names: Collection[str]) -> Iterator[Handed]:
        """Run the nodes before number ``stop`` together, and hand some of their values out."""
        session, wanted, fed, large = self._opened(stop, names)
        if session is not None:
            beside, room = weights(self.model, large), IN_MEMORY - self._in_memory()
            stay = [name for name in wanted if self._stays(name, stop)]
            read = [self._held[name] for name in fed if name in self.place and not self._stays(name, stop)]
            for name in stay:
                self._held[name] = []
            for batch in range(self.batches):
                outputs = session.run(wanted, beside | {name: self._held[name][batch] for name in fed})
                values = dict(zip(wanted, map(np.asarray, outputs), strict=True))
                for arrays in read:
                    room += in_memory(arrays[batch])
                    arrays[batch] = NOTHING
                for name in stay:
                    room -= values[name].nbytes
                    self._held[name].append(values[name] if room >= 0 else on_disk(values[name]))
                if handed := {name: array for name, array in values.items() if name in names}:
                    yield batch, handed
        self.position = stop

    def _stays(self, name: str, stop: int) -> bool:
        """Whether a value is needed when the nodes before number ``stop`` have run."""
        return name in self.kept or self._last.get(name, -1) >= stop

    def _opened(self, stop: int, names: Collection[str]) -> _Opened:
        """A session of the nodes before number ``stop``, what it puts out and takes, and weights among that."""
        key = self.position, stop
        if self.sessions is not None and key in self.sessions:
            return self.sessions[key]
        nodes = self.nodes[self.position : stop]
        produced = [str(v.name) for node in nodes for v in node.outputs if v.name]
        wanted = [name for name in produced if name in names or self._stays(name, stop)]
        if not wanted:
            return None, (), (), ()
        read = {name for number in range(self.position, stop) for name in self._reads[number]} - set(produced)
        fed = [name for name in read if name in self._held]
        given = {name: self._held[name][0] for name in fed}
        alone, large = part(self.model, nodes, given, wanted)
        try:
            session = open_session(alone.SerializeToString(), threads=self.threads, optimize=self.optimize)
        except InputError:
            say_lengths(alone, given)
            session = open_session(alone.SerializeToString(), threads=self.threads, optimize=self.optimize)
        opened = session, wanted, fed, large
        if self.sessions is not None:
            self.sessions[key] = opened
        return opened

    def _in_memory(self) -> int:
        """Bytes of what nodes have put out that are held in memory."""
        return sum(in_memory(a) for name, arrays in self._held.items() if name in self.place for a in arrays)

    def run_past(self, name: str) -> None:
        """Run all nodes up to the one that makes a value."""
        self.run_to(self.place.get(name, -1) + 1)

    def finish(self) -> None:
        """Run all nodes."""
        self.run_to(len(self.nodes))

    def fork(self, batches: Sequence[int]) -> Runner:
        """A runner that goes on from here by itself, over some of the batches."""
        twin = copy.copy(self)
        twin.kept, twin.batches, twin.samples = set(self.kept), len(batches), [self.samples[k] for k in batches]
        twin._held = {name: [arrays[k] for k in batches] for name, arrays in self._held.items()}
        return twin

    def disturbed(self, name: str, change: Callable[[list[Array]], list[Array]]) -> Runner:
        """A runner that goes on from here with other numbers in a value that is held."""
        twin = self.fork(range(self.batches))
        twin._held[name] = change(twin._held[name])
        return twin

    def branch(self, model: ir.Model) -> Runner | None:
        """A runner of another model, whose nodes before this position are the same, that goes on from here.

        ``None`` if what is held here is not enough for it.
        """
        twin = copy.copy(self)
        twin._take(model, ())
        twin._held = {name: list(arrays) for name, arrays in self._held.items()}
        produced = {name for name, place in twin.place.items() if place < self.position}
        produced |= {str(value.name) for value in model.graph.inputs}
        needed = {name for names in twin._reads[self.position :] for name in names} & produced
        return twin if needed <= self._held.keys() else None


def streamed(model: ir.Model, feeds: Sequence[Mapping[str, Array]], names: Iterable[str]) -> Iterator[Handed]:
    """Values of a model by name, some of one batch at a time: each is handed out once, and held no longer.

    Sessions stay open for all batches; a model whose weights are too many for that is run over all batches at once.

    Args:
        model: The model, in normal form.
        feeds: Its inputs by name, a mapping per batch.
        names: Names of the values.

    Yields:
        The number of a batch, and values of it.
    """
    runner = Runner(model, feeds, ())
    stops: dict[int, list[str]] = {}
    for name in sorted(set(names), key=lambda name: (runner.place.get(name, -1), name)):
        stops.setdefault(runner.place.get(name, -1) + 1, []).append(name)
    if sum(bytes_read(model, node) for node in runner.nodes) > WEIGHTS:
        for stop, told in stops.items():
            yield from runner.taken(stop, told)
        return
    together, size, first = dict[int, list[str]](), HANDED + 1, runner.fork([0])
    listed, many = list(stops.items()), max(1, -(-len(stops) // LOOKED_AT))  # nothing may be asked for
    for several in (listed[start : start + many] for start in range(0, len(listed), many)):
        stop, told, here = several[-1][0], [name for _, names_there in several for name in names_there], 0
        for _, values in first.taken(stop, told):
            here += sum(array.nbytes for array in values.values())
            yield 0, values
        before = [] if size + here > HANDED else together.popitem()[1]
        size = here + (size if before else 0)
        together[stop] = [*before, *told]
    opened: dict[tuple[int, int], _Opened] = {}
    for batch in range(1, len(feeds)):
        runner = Runner(model, [feeds[batch]], ())
        runner.sessions = opened
        for stop, told in together.items():
            for _, values in runner.taken(stop, told):
                yield batch, values


def common(one: ir.Model, other: ir.Model) -> int:
    """How many nodes two models have alike from the beginning, weights included."""
    weights = one.graph.initializers, other.graph.initializers
    for place, (a, b) in enumerate(zip(one.graph, other.graph, strict=False)):
        read = sorted(reads(a))
        held = [[side[name].const_value if name in side else None for name in read] for side in weights]
        told = [ir.serde.serialize_node(node) for node in (a, b)]
        if any(x is not y for x, y in zip(*held, strict=True)) or told[0] != told[1]:
            return place
    return min(len(list(one.graph)), len(list(other.graph)))


def outputs(runner: Runner, batches: Sequence[int]) -> dict[str, Array]:
    """The outputs of a finished run on some batches, by name: those that can be compared, numbers in float32."""
    names = [str(value.name) for value in runner.model.graph.outputs]
    counts = [runner.samples[k] for k in batches]
    return joined({name: [runner.get(name)[k] for k in batches] for name in names}, counts)


def joined(arrays: Mapping[str, Sequence[Array]], counts: Sequence[int]) -> dict[str, Array]:
    """Arrays of several batches of so many samples as one, by name, where they can be compared; numbers in float32."""
    every = metrics.comparable(arrays, counts)
    return {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in every.items()}


def in_memory(array: Array) -> int:
    """Bytes of an array that is not in a file."""
    return 0 if isinstance(array, np.memmap) else array.nbytes


def on_disk(array: Array) -> Array:
    """A copy in a temporary file that goes with the array; texts stay in memory, and what is in a file there."""
    if not array.nbytes or array.dtype.hasobject or isinstance(array, np.memmap):
        return array
    with tempfile.TemporaryFile(prefix="onnxslim-") as file:
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return np.memmap(file, array.dtype, "r", shape=array.shape)
