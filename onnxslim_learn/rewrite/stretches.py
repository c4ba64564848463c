"""A model in stretches that are checked one after the other: for models that are too large, or overflow, as a whole.

A stretch begins and ends between two nodes where every number that is still to be read is a floating tensor with a
layout. What a slimmed model computes there is what stays of the original's tensors; so each stretch of both gets the
same tensors, cut for the slimmed one, and must put out the same, cut likewise. That all stretches agree says that the
models do, without ever holding one as a whole.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from onnxslim_learn.array_types import Array, Feeds
from onnxslim_learn.graph.load import release
from onnxslim_learn.rewrite import chance
from onnxslim_learn.rewrite.comparison import Model, Models, ready
from onnxslim_learn.rewrite.mask import OPEN, mask
from onnxslim_learn.rewrite.merge import merged
from onnxslim_learn.rewrite.slim import cut
from onnxslim_learn.runtime import atomic
from onnxslim_learn.runtime.node import reads
from onnxslim_learn.runtime.part import bytes_read, part, weights

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.rewrite.comparison import Check

Dimension = onnx.TensorShapeProto.Dimension
LARGEST = 1 << 30  # bytes of weights of a model that is scored, rotated and repaired in trials by what samples say
NODES = 200  # of a stretch, if nothing else is said
BYTES = 1 << 28  # of a stretch's weights, before the next place to end is taken
SMALL = 1 << 20  # bytes of weights of a node that every stretch runs that needs what it makes
LARGE, TINY = 1e4, 1e-4  # magnitudes beyond which a tensor is drawn anew, so that long models do not overflow


def stretches(coupling: Coupling, present: Collection[str], least: int) -> Iterator[list[str]]:
    """Cut a graph into stretches, each as short as its size and what is read later allow; yields what each puts out.

    Args:
        coupling: The model.
        present: Names of the values that the slimmed model has, too.
        least: Nodes of a stretch, unless its weights are large.
    """
    graph, last, settled = coupling.graph, _last_reads(coupling), _settled(coupling)
    outputs = [str(v.name) for v in graph.model.graph.outputs]
    living = dict[str, None]()
    nodes = held = 0
    for index, node in enumerate(coupling.nodes):
        living |= dict.fromkeys(str(v.name) for v in node.outputs if v.name)
        nodes += 1
        held += bytes_read(graph.model, node)
        living = {name: None for name in living if last.get(name, -1) > index}
        passing = [name for name in living if _passes(coupling, name)]
        again = settled.intersection(living).difference(passing)
        if index + 1 == len(coupling.nodes):
            yield outputs
        elif (
            (nodes >= least or held >= BYTES)
            and passing
            and len(passing) + len(again) == len(living)
            and all(name in present for name in living)
        ):
            yield passing
            nodes = held = 0


def _settled(coupling: Coupling) -> set[str]:
    """What inputs and small constants settle, whatever is cut: masks, lengths, places. Every stretch makes it anew."""
    graph = coupling.graph.model.graph
    known = {str(value.name) for value in graph.inputs} | set(coupling.graph.initializers)
    settled = set[str]()
    for node in coupling.nodes:
        names = [str(value.name) for value in node.outputs if value.name]
        cut = any(coupling.values[name].firm for name in names if name in coupling.values)
        if not cut and bytes_read(coupling.graph.model, node) <= SMALL and known.issuperset(reads(node)):
            known.update(names)
            settled.update(names)
    return settled


def _last_reads(coupling: Coupling) -> dict[str, int]:
    """For every value the last node that reads it; outputs of the graph are read after all of them."""
    last = {name: index for index, node in enumerate(coupling.nodes) for name in reads(node)}
    return last | {str(v.name): len(coupling.nodes) for v in coupling.graph.model.graph.outputs}


def _passes(coupling: Coupling, name: str) -> bool:
    """Whether a tensor can be handed on: of floating numbers that sizes do not tell, laid out as large as it is."""
    sample, layout = coupling.graph.shapes.analysis, coupling.values.get(name)
    kind = sample.dtype.get(name, 0)
    floating = kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    told = name in sample.value or not sample.shape.get(name)
    return floating and not told and layout is not None and layout.shape == sample.shape[name]


def weight_bytes(coupling: Coupling) -> int:
    """Bytes of all weights."""
    return sum(_bytes(value) for value in coupling.graph.initializers.values())


def _bytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes


class _Nodes:
    """A model from which stretches are taken as models of their own."""

    def __init__(self, model: ir.Model) -> None:
        """Note what makes every value."""
        self.model, self.nodes = model, list(model.graph)
        self.maker = {str(v.name): index for index, node in enumerate(self.nodes) for v in node.outputs if v.name}

    def of(self, given: Feeds, wanted: Sequence[str]) -> tuple[onnx.ModelProto, list[str]]:
        """The nodes that make some values of given ones as a model, and the large weights that it takes as inputs."""
        needed, chosen, read = list(wanted), set[int](), set[str]()
        while needed:
            name = needed.pop()
            if name in read:
                continue
            read.add(name)
            if name not in given and name in self.maker and self.maker[name] not in chosen:
                chosen.add(self.maker[name])
                needed += reads(self.nodes[self.maker[name]])
        nodes = [self.nodes[index] for index in sorted(chosen)]
        alone, large = part(self.model, nodes, given, wanted)
        for entry in alone.graph.input:  # some bodies must be told the shapes of what they get
            if entry.name in given:
                entry.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto())
                sizes = given[entry.name].shape
                entry.type.tensor_type.shape.dim.extend(Dimension(dim_value=size) for size in sizes)
        return alone, large


def kept(removal: Removal, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What stays of tensors of the original, by name."""
    values = removal.coupling.values
    return {
        name: cut(array, values[name], removal) if name in values and values[name].shape == array.shape else array
        for name, array in arrays.items()
    }


def tamed(arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Tensors as they are, or drawn anew where their numbers have run away."""
    calm = {}
    for name, array in arrays.items():
        size = float(np.max(np.abs(array.astype(np.float64)), initial=0.0)) if array.dtype.kind == "f" else 1.0
        wild = not np.isfinite(size) or not TINY < size < LARGE
        calm[name] = np.asarray(rng.standard_normal(array.shape)).astype(array.dtype) if wild and size else array
    return calm


def compared(
    removal: Removal, slimmed: Path, given: Feeds, least: int | None = None
) -> Iterator[tuple[Check, Check, float]]:
    """Compare the stretches of a slimmed file with those of the masked original, on what flows from inputs.

    The original is its normal form here. Stretches have ``least`` nodes (200) or more, unless their weights are large.

    Raises:
        InputError: If a stretch cannot be run, or puts out no numbers.
    """
    rng, flowing = np.random.default_rng(0), dict(given)
    whole, masked, small = _Nodes(removal.coupling.graph.model), _Nodes(mask(removal)), _Nodes(ir.load(slimmed))
    lifted = whole if removal.merged_into is None else _Nodes(merged(removal))
    drawn = chance.left(removal)
    for names in stretches(removal.coupling, small.maker, least or NODES):

        def left(outputs: list[Array], names: list[str] = names) -> list[Array]:
            return list(kept(removal, dict(zip(names, outputs, strict=True))).values())

        with tempfile.TemporaryDirectory(prefix=atomic.PREFIX) as temporary:
            folder = Path(temporary)
            original, reference, united = (
                replace(_opened(nodes, {OPEN: np.array(False), **flowing}, names, folder / name), leave=left)
                for nodes, name in ((whole, "source"), (masked, "masked"), (lifted, "merged"))
            )
            reduced = _opened(
                small, kept(removal, flowing), names, folder / "slimmed", lambda feed: kept(removal, feed), left=drawn
            )
            yield Models(original, united, reduced, reference, names, removal.exact, folder).compare(flowing)
            for source in (removal.coupling.graph.model, small.model):
                for value in source.graph.initializers.values():
                    release(value.const_value)
            flowing = {**given, **tamed(dict(zip(names, replace(original, leave=list)(flowing), strict=True)), rng)}


def _opened(
    nodes: _Nodes,
    given: Feeds,
    wanted: list[str],
    folder: Path,
    enter: Callable[[Feeds], Feeds] = dict,
    *,
    left: Mapping[str, chance.Left] | None = None,
) -> Model:
    """A stretch of a model, ready to run, by way of a file in which nothing is drawn by chance."""
    alone, large = nodes.of(given, wanted)
    folder.mkdir()
    onnx.save(alone, folder / "part.onnx")
    noiseless = chance.without(folder / "part.onnx", folder / "noise", left)
    return replace(ready(noiseless), enter=lambda feed: {**enter(feed), **weights(nodes.model, large)})
