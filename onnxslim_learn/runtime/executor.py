"""Run a model node by node in stretches over all samples, holding only the values that are still needed."""

from __future__ import annotations

import copy
import os
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.runtime.node import model_of, reads
from onnxslim_learn.runtime.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


IN_MEMORY = 1_500_000_000  # bytes of activations that one runner holds; what is over goes to a temporary file


class Runner:
    """A model stopped between two nodes, with the values that later nodes need, one array per batch.

    Weights are read when a stretch of nodes is run, so that they may change until then.
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
        self.position = 0
        self.batches = len(feeds)
        self._take(model, keep)
        self._held: dict[str, list[Array]] = {}
        for name in (str(v.name) for v in model.graph.inputs):
            self._hold(name, [np.asarray(feed[name]) for feed in feeds])

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
        if stop <= self.position:
            return
        nodes = self.nodes[self.position : stop]
        produced = [str(v.name) for node in nodes for v in node.outputs if v.name]
        wanted = [name for name in produced if name in self.kept or self._last.get(name, -1) >= stop]
        if wanted:
            read = {name for number in range(self.position, stop) for name in self._reads[number]} - set(produced)
            session = open_session(self._part(nodes, read, wanted), threads=self.threads, optimize=False)
            fed = [name for name in read if name in self._held]
            results: list[list[Array]] = [[] for _ in wanted]
            for batch in range(self.batches):
                outputs = session.run(wanted, {name: self._held[name][batch] for name in fed})
                for one, array in zip(results, outputs, strict=True):
                    one.append(np.asarray(array))
            for name, arrays in zip(wanted, results, strict=True):
                self._hold(name, arrays)
        self.position = stop
        for name in list(self._held):
            if name not in self.kept and self._last.get(name, -1) < stop:
                del self._held[name]

    def run_past(self, name: str) -> None:
        """Run all nodes up to the one that makes a value."""
        self.run_to(self.place.get(name, -1) + 1)

    def finish(self) -> None:
        """Run all nodes."""
        self.run_to(len(self.nodes))

    def fork(self, batches: Sequence[int]) -> Runner:
        """A runner that goes on from here by itself, over some of the batches."""
        twin = copy.copy(self)
        twin.kept, twin.batches = set(self.kept), len(batches)
        twin._held = {name: [arrays[k] for k in batches] for name, arrays in self._held.items()}
        return twin

    def branch(self, model: ir.Model) -> Runner | None:
        """A runner of another model, whose nodes before this position are the same, that goes on from here.

        ``None`` if what is held here is not enough for it.
        """
        twin = copy.copy(self)
        twin._take(model, ())
        twin._held = dict(self._held)
        produced = {name for name, place in twin.place.items() if place < self.position}
        produced |= {str(value.name) for value in model.graph.inputs}
        needed = {name for names in twin._reads[self.position :] for name in names} & produced
        return twin if needed <= self._held.keys() else None

    def _hold(self, name: str, arrays: list[Array]) -> None:
        held = sum(a.nbytes for arrays in self._held.values() for a in arrays if not isinstance(a, np.memmap))
        if held + sum(a.nbytes for a in arrays) > IN_MEMORY:
            arrays = [_on_disk(a) for a in arrays]
        self._held[name] = arrays

    def _part(self, nodes: Sequence[ir.Node], read: set[str], wanted: Sequence[str]) -> bytes:
        """A stretch of nodes as a serialized model of its own."""
        graph = self.model.graph
        initializers = [_tensor(name, graph.initializers[name]) for name in sorted(read) if name in graph.initializers]
        inputs = {name: self._held[name][0] for name in sorted(read) if name in self._held}
        protos = [ir.to_proto(node) for node in nodes]
        model = model_of(protos, inputs, wanted, self.model.opset_imports, initializers)
        model.functions.extend(ir.to_proto(function) for function in self.model.functions.values())
        return bytes(model.SerializeToString())


def common(one: ir.Model, other: ir.Model) -> int:
    """How many nodes two models have alike from the beginning, weights included."""
    weights = one.graph.initializers, other.graph.initializers
    for place, (a, b) in enumerate(zip(one.graph, other.graph, strict=False)):
        read = sorted(reads(a))
        held = [[side[name].const_value if name in side else None for name in read] for side in weights]
        if any(x is not y for x, y in zip(*held, strict=True)) or ir.to_proto(a) != ir.to_proto(b):
            return place
    return min(len(list(one.graph)), len(list(other.graph)))


def outputs(runner: Runner, batches: Sequence[int]) -> dict[str, Array]:
    """The floating outputs of a finished run on some batches, by name."""
    joined = {}
    for value in runner.model.graph.outputs:
        arrays = [runner.get(str(value.name))[k] for k in batches]
        if arrays[0].dtype.kind == "f" and len({a.shape[1:] for a in arrays}) == 1:
            joined[str(value.name)] = np.concatenate([np.atleast_1d(a) for a in arrays]).astype(np.float32)
    return joined


def _tensor(name: str, value: ir.Value) -> onnx.TensorProto:
    tensor = value.const_value
    assert tensor is not None
    kind, dims = int(tensor.dtype), [int(n) for n in tensor.shape]  # type: ignore[arg-type]
    if tensor.dtype == ir.DataType.STRING:
        return onnx.helper.make_tensor(name, kind, dims, tensor.numpy().reshape(-1).tolist())
    return onnx.TensorProto(name=name, data_type=kind, dims=dims, raw_data=tensor.tobytes())


def _on_disk(array: Array) -> Array:
    """A copy in a temporary file that goes with the array."""
    if not array.nbytes:
        return array
    with tempfile.TemporaryFile(prefix="onnxslim-") as file:
        mapped = np.memmap(file, array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    return mapped
