"""The bridge: an ONNX graph as a ``torch.fx.GraphModule`` whose parameters are the initializers by name.

Every node becomes one call of the function that :mod:`onnxslim_learn.bridge.ops` has for its operator, under the node's
name, so that the generated code (``module.code``) reads like the file; activations that files spell out by several
nodes become one (:mod:`onnxslim_learn.bridge.one_kernel`). The module takes the graph's inputs in order and
returns its outputs in a dictionary by name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir
from torch import fx, nn

from onnxslim_learn.bridge import initializers, trainable
from onnxslim_learn.bridge.compile import Build, CompileSettings
from onnxslim_learn.bridge.one_kernel import fuse
from onnxslim_learn.bridge.write_back import StoredTensors, survey
from onnxslim_learn.coupling import roles
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.graph.load import Graph


def bridge(
    source: Graph | Analysis | ir.Model,
    *,
    norms: Literal["frozen", "batch"] = "frozen",
    dropout: bool | float | None = None,
    freeze: Sequence[str] = (),
    master: bool = True,
    features: Collection[str] = (),
) -> fx.GraphModule:
    """Compile a graph into a torch module.

    ``tensors.parameters(module)`` maps the names of initializers to parameters (which initializers train is said in
    :mod:`onnxslim_learn.bridge.trainable`); ``module.meta`` holds ``initializers`` (name -> attribute path, same name
    wherever torch allows it), ``written`` (those that an export writes), ``inputs`` (name of a graph input -> name of
    the argument), ``outputs`` and ``features`` (names), ``hints`` (what outputs are, as far as operators tell) and
    ``tied`` (un-shared copy -> initializer). An initializer that several nodes read is one parameter: tied weights stay
    tied (but see :mod:`onnxslim_learn.bridge.write_back`).

    Args:
        source: A graph, an analysis, or a model in normal form.
        norms: See :class:`CompileSettings`.
        dropout: See :class:`CompileSettings`.
        freeze: See :class:`CompileSettings`.
        master: See :class:`CompileSettings`.
        features: Names of inner tensors that the dictionary shall hold after the outputs, as far as nodes make them.

    Raises:
        InputError: If an operator has no torch function, or ``freeze`` finds nothing.
    """
    graph: Any = None if isinstance(source, ir.Model) else getattr(source, "graph", source)
    model = source if isinstance(source, ir.Model) else graph.model
    kinds = graph.shapes.nominal.dtype if graph is not None else {}
    held = survey(graph) if graph is not None else StoredTensors({}, frozenset(model.graph.initializers))
    settings = CompileSettings(norms, dropout, tuple(freeze), master)
    names = [held.tied.get(name, name) for name in model.graph.initializers]
    build = Build(settings, nn.Module(), fx.Graph(), dict(kinds), held.tied, initializers.paths(names), model)
    build.trains = {held.tied.get(name, name) for name in trainable.trainable(model.graph)} & held.kept
    build.frozen = _frozen(build.trains, settings.freeze)
    outputs = build.body(model.graph)
    if build.running - held.kept:
        lost = sorted(build.running - held.kept)[0]
        raise InputError(f"initializer {lost}: the file cannot hold its statistics. Leave norms='frozen'.")
    values = [value for node in model.graph for value in node.outputs if value.name in features]
    inner = {str(value.name): build.tensor(value) for value in values}
    build.code.output(dict(outputs) | inner)
    fuse(build.code)
    tensors = {str(value.name) for value in model.graph.outputs if isinstance(value.type, ir.TensorType | None)}
    return _finished(build, [name for name, _ in outputs if name in tensors], list(inner))


def _finished(build: Build, outputs: list[str], features: list[str]) -> fx.GraphModule:
    """The module, with what it has to say about itself."""
    module = fx.GraphModule(build.root, build.code, "Bridge")
    module.meta["initializers"] = {name: path for name, path in build.paths.items() if name in build.fetched}
    module.meta["tied"] = dict(build.tied)
    module.meta["written"] = sorted((build.trains | build.running) & build.fetched)
    module.meta["inputs"] = build.inputs
    module.meta["outputs"] = outputs
    module.meta["hints"] = {str(value.name): roles.puts_out(value) for value in build.model.graph.outputs}
    module.meta["features"] = features
    return module


def _frozen(names: set[str], freeze: Sequence[str]) -> set[str]:
    frozen: set[str] = set()
    for pattern in freeze:
        matching = {name for name in names if re.search(pattern, name)}
        if not matching:
            raise InputError(f"freeze {pattern!r}: it finds no parameter. Correct it, or leave it out.")
        frozen |= matching
    return frozen
