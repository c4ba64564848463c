"""The bridge: an ONNX graph as a ``torch.fx.GraphModule`` whose parameters are the initializers by name.

Every node becomes one call of the function that :mod:`onnxslim_learn.train.ops` has for its operator, under the node's
name, so that the generated code (``module.code``) reads like the file. The module takes the graph's inputs in order and
returns its outputs in a dictionary by name.
"""

from __future__ import annotations

import inspect
import keyword
import operator
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir
from torch import fx, nn

from onnxslim_learn.errors import InputError
from onnxslim_learn.train import numbers, tensors, weights
from onnxslim_learn.train.ops import function_for
from onnxslim_learn.train.ops.kinds import BITS, CONTEXT, DTYPES, EXACT, HALF, plain, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from onnxslim_learn.api import Analysis
    from onnxslim_learn.graph.load import Graph

STANDARD = ("", "ai.onnx")
OVERFLOWING = frozenset(("Add", "Sub", "Mul", "Neg", "Pow", "Sum", "BitShift", "BitwiseNot"))
"""Operators whose result may leave the range of a carried integer."""

IGNORED = frozenset(("consumed_inputs", "output_dtype", "precision", "block_size"))
"""Attributes that change nothing here."""


@dataclass(frozen=True)
class Settings:
    """How a graph is bridged.

    Attributes:
        norms: ``frozen``: BatchNormalization always uses the running statistics of the file; ``batch``: while the
            module trains it uses those of the batch, and updates the running ones.
        dropout: ``None``: Dropout nodes pass; ``True``: while the module trains they drop the share that the file says;
            a number: they drop this share.
        freeze: Regular expressions; parameters whose name one of them finds get no gradient.
        master: Whether float16 and bfloat16 are computed in float32 (weights are rounded back on export). Where not,
            parameters have the types of the file.
    """

    norms: Literal["frozen", "batch"] = "frozen"
    dropout: bool | float | None = None
    freeze: Sequence[str] = ()
    master: bool = True


def bridge(
    source: Graph | Analysis | ir.Model,
    *,
    norms: Literal["frozen", "batch"] = "frozen",
    dropout: bool | float | None = None,
    freeze: Sequence[str] = (),
    master: bool = True,
) -> fx.GraphModule:
    """Compile a graph into a torch module.

    ``tensors.parameters(module)`` maps the names of initializers to parameters (which initializers train is said in
    :mod:`onnxslim_learn.train.weights`); ``module.meta`` holds ``initializers`` (name -> attribute path, the same name
    wherever torch allows it), ``inputs`` (name of a graph input -> name of the argument) and ``outputs`` (names). An
    initializer that several nodes read is one parameter: tied weights stay tied.

    Args:
        source: A graph, an analysis, or a model in normal form.
        norms: See :class:`Settings`.
        dropout: See :class:`Settings`.
        freeze: See :class:`Settings`.
        master: See :class:`Settings`.

    Raises:
        InputError: If an operator has no torch function, or ``freeze`` finds nothing.
    """
    graph = getattr(source, "graph", source) if not isinstance(source, ir.Model) else None
    model = source if isinstance(source, ir.Model) else graph.model  # type: ignore[union-attr]
    kinds = graph.shapes.nominal.dtype if graph is not None else {}
    clones = graph.clones if graph is not None else {}
    settings = Settings(norms, dropout, tuple(freeze), master)
    names = [clones.get(name, name) for name in model.graph.initializers]
    build = Build(settings, nn.Module(), fx.Graph(), dict(kinds), dict(clones), tensors.paths(names), model)
    build.trains = {clones.get(name, name) for name in weights.trainable(model.graph.initializers)}
    build.frozen = _frozen(build.trains, settings.freeze)
    outputs = build.body(model.graph)
    build.code.output(outputs)
    module = fx.GraphModule(build.root, build.code, "Bridge")
    stored = {name: path for name, path in build.paths.items() if name in build.fetched}
    module.meta["initializers"] = dict(sorted(stored.items()))
    module.meta["inputs"] = build.inputs
    module.meta["outputs"] = list(outputs)
    return module


def _frozen(names: set[str], freeze: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for pattern in freeze:
        own = {name for name in names if re.search(pattern, name)}
        if not own:
            raise InputError(f"freeze {pattern!r}: it finds no parameter. Correct it, or leave it out.")
        found |= own
    return found


@dataclass(frozen=True)
class Signature:
    """What a function of the table asks for.

    Attributes:
        slots: Annotation of every positional parameter; the last one stands for all that follow.
        keywords: Names of keyword parameters.
        several: Whether it returns a tuple even where one output is asked for.
    """

    slots: tuple[str, ...]
    keywords: frozenset[str] = frozenset()
    several: bool = False

    def slot(self, number: int) -> str:
        """Annotation of the parameter that an input goes to."""
        return self.slots[min(number, len(self.slots) - 1)] if self.slots else ""


@cache
def signature(function: Callable[..., Any]) -> Signature:
    """Read a function's signature; built-in functions take tensors, those of ``operator`` also numbers."""
    module = getattr(function, "__module__", None) or ""
    if not module.startswith("onnxslim_learn"):
        return Signature(("Operand" if module == "_operator" else "Tensor",))
    found = inspect.signature(function)
    words = frozenset(p.name for p in found.parameters.values() if p.kind is p.KEYWORD_ONLY)
    places = tuple(str(p.annotation) for p in found.parameters.values() if p.kind is not p.KEYWORD_ONLY)
    return Signature(places, words, str(found.return_annotation).startswith("tuple"))


@dataclass
class Build:
    """A module in the making.

    Attributes:
        settings: How it is bridged.
        root: Where parameters and buffers go.
        code: The graph of calls.
        kinds: Value name -> ONNX element type.
        clones: Un-shared initializer -> the one it was copied from.
        paths: Initializer -> attribute path.
        model: What it is made from.
        values: Value name -> what computes it.
        numbers: Values that are Python numbers -> their rank.
        made: What was derived from a value once: (name, how) -> what computes it.
        fetched: Initializers that the module holds.
        inputs: Graph input -> name of the argument.
        trains: Initializers that train.
        frozen: Those of them that get no gradient.
    """

    settings: Settings
    root: nn.Module
    code: fx.Graph
    kinds: dict[str, int]
    clones: dict[str, str]
    paths: dict[str, str]
    model: ir.Model
    values: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    made: dict[tuple[str, str], fx.Node] = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)
    inputs: dict[str, str] = field(default_factory=dict)
    trains: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)

    def body(self, graph: ir.Graph) -> dict[str, Any]:
        """Emit the inputs and nodes of a graph; returns what it puts out, by name."""
        for value in graph.inputs:
            self._input(value)
        for value in graph.inputs:
            self._convert(value)
        for index, node in enumerate(graph):
            self._node(index, node)
        return {str(value.name): self._output(value) for value in graph.outputs}

    def kind(self, value: ir.Value) -> int:
        """ONNX element type of a value, 0 if unknown; half precision is float32 where it is computed so."""
        kind = self.kinds.get(str(value.name), 0) or int(value.dtype or 0)
        return HALF.get(kind, kind) if self.settings.master else kind

    # --- the boundary -------------------------------------------------------------------------------------------------

    def _input(self, value: ir.Value) -> None:
        name = re.sub(r"\W", "_", str(value.name)) or "_"
        name = name if name.isidentifier() and not keyword.iskeyword(name) else f"_{name}"
        while name in self.inputs.values():
            name += "_"
        self.inputs[str(value.name)] = name
        self.values[str(value.name)] = self.code.placeholder(name)

    def _convert(self, value: ir.Value) -> None:
        """Bring an input into the type that carries it."""
        kind = self.kinds.get(str(value.name), 0) or int(value.dtype or 0)
        if kind in BITS or (kind in HALF and self.settings.master):
            found = self.values[str(value.name)]
            self.values[str(value.name)] = self.code.call_method("to", (found, DTYPES[self.kind(value)]))

    def _output(self, value: ir.Value) -> fx.Node:
        found = self.tensor(value)
        kind = self.kind(value)
        return self.code.call_method("to", (found, EXACT[kind])) if kind in BITS and EXACT[kind] != DTYPES[kind] else found

    # --- values -------------------------------------------------------------------------------------------------------

    def tensor(self, value: ir.Value) -> fx.Node:
        """A value as a tensor."""
        name = str(value.name)
        if name in self.numbers:
            return self._once(name, "tensor", numbers.tensor, (self.values[name], self._like()))
        return self.values[name] if name in self.values else self._initializer(value)

    def _once(self, name: str, how: str, function: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
        if (name, how) not in self.made:
            self.made[name, how] = self.code.call_function(function, args)
        return self.made[name, how]

    def _like(self) -> fx.Node | None:
        """A tensor on the module's device: the first input."""
        return next((node for node in self.code.nodes if node.op == "placeholder"), None)

    def _initializer(self, value: ir.Value) -> fx.Node:
        """Fetch a parameter or buffer; one for all copies of an initializer."""
        name = self.clones.get(str(value.name), str(value.name))
        if value.const_value is None:
            raise InputError(f"value {value.name}: nothing computes it. Run onnx.checker on the file.")
        if (name, "initializer") not in self.made:
            if name not in self.paths:
                self.paths |= tensors.paths([*self.paths, name])
            tensor: torch.Tensor = tensors.to_torch(value.const_value, master=self.settings.master)
            if name in self.trains:
                tensor = nn.Parameter(tensor, requires_grad=name not in self.frozen)
            tensors.place(self.root, self.paths[name], tensor)
            self.fetched.add(name)
            self.made[name, "initializer"] = self.code.create_node("get_attr", self.paths[name])
        return self.made[name, "initializer"]

    def _plain(self, value: ir.Value) -> Any:
        """A value as Python numbers."""
        name = str(value.name)
        if value.const_value is not None and name not in self.values:
            return value.const_value.numpy().tolist()
        return self.values[name] if name in self.numbers else self._once(name, "plain", plain, (self.tensor(value),))

    def _number(self, value: ir.Value) -> float | int | bool | None:
        """A constant of rank 0 as a number, else ``None``."""
        tensor = value.const_value
        if tensor is None or len(tensor.shape) or str(value.name) in self.values:
            return None
        found: float | int | bool = tensor.numpy().item()
        return found

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, index: int, node: ir.Node) -> None:
        if self._numeric(node):
            return
        function = function_for(node.domain, node.op_type)
        if function is None:
            raise InputError(
                f"node {node.name} ({node.op_type}): torch has no function for this operator. "
                "Cut the model so that it stays outside."
            )
        asked = signature(function)
        call = self._call(node, function, self._arguments(node, asked), self._keywords(node, asked))
        call.meta["onnx"] = index

    def _call(self, node: ir.Node, function: Callable[..., Any], args: Any, keywords: dict[str, Any]) -> fx.Node:
        name = re.sub(r"\W+", "_", str(node.name or node.op_type)).strip("_") or node.op_type
        call = self.code.create_node("call_function", function, tuple(args), keywords, name=name)
        outputs = list(node.outputs)
        several = signature(function).several or any(output.name for output in outputs[1:])
        for number, output in enumerate(outputs):
            if not output.name:
                continue
            found = self.code.call_function(operator.getitem, (call, number)) if several else call
            if self.kind(output) in BITS and node.op_type in OVERFLOWING:
                found = self.code.call_function(wrapped, (found, self.kind(output)))
            self.values[str(output.name)] = found
        return call

    def _arguments(self, node: ir.Node, asked: Signature) -> list[Any]:
        slots = [asked.slot(k) for k in range(len(node.inputs))]
        constants = [None if v is None else self._number(v) for v in node.inputs]
        operands = [k for k, slot in enumerate(slots) if "Operand" in slot]
        if all(constants[k] is not None for k in operands):
            constants = [None if k in operands else c for k, c in enumerate(constants)]
        found: list[Any] = []
        for value, slot, constant in zip(node.inputs, slots, constants, strict=True):
            if value is None or not value.name:
                found.append(None)
            elif "Plain" in slot:
                found.append(self._plain(value))
            elif constant is not None and ("Operand" in slot or "Scalar" in slot):
                found.append(constant)
            else:
                found.append(self.tensor(value))
        while found and found[-1] is None:
            found.pop()
        return found

    def _keywords(self, node: ir.Node, asked: Signature) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, attribute in node.attributes.items():
            if name in asked.keywords and name not in CONTEXT:
                found[name] = self._attribute(node, attribute)
            elif name not in IGNORED:
                raise InputError(
                    f"node {node.name} ({node.op_type}): its attribute {name} is not understood. "
                    "Cut the model so that it stays outside."
                )
        for name in asked.keywords & set(CONTEXT):
            found[name] = self._context(node, name)
        return dict(sorted(found.items()))

    def _attribute(self, node: ir.Node, attribute: ir.Attr) -> Any:
        content = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            path = tensors.paths([*self.paths, f"{node.name}.{attribute.name}"])[f"{node.name}.{attribute.name}"]
            tensors.place(self.root, path, tensors.to_torch(content, master=self.settings.master))
            return self.code.create_node("get_attr", path)
        if attribute.name in ("to", "dtype") and self.settings.master:
            return HALF.get(int(content), int(content))
        return list(content) if isinstance(content, tuple) else content

    def _context(self, node: ir.Node, name: str) -> Any:
        if name == "opset":
            return self.model.opset_imports.get(node.domain, 1)
        if name == "outputs":
            return max((k + 1 for k, output in enumerate(node.outputs) if output.name), default=1)
        if name == "kinds":
            return [0 if value is None else self.kind(value) for value in node.inputs]
        if name == "like":
            return self._like()
        active = self.settings.norms == "batch" if node.op_type == "BatchNormalization" else self.settings.dropout is not None
        return self.code.create_node("get_attr", "training") if active else False

    def _numeric(self, node: ir.Node) -> bool:
        """Emit shape arithmetic on Python numbers, if the node is some; says whether it was."""
        if node.domain not in STANDARD or len(node.outputs) != 1 or not node.inputs:
            return False
        rank = self._rank(node)
        if rank is None:
            return False
        if node.op_type in numbers.SOURCES:
            function, args = numbers.SOURCES[node.op_type], [self.tensor(node.inputs[0])]  # type: ignore[arg-type]
        else:
            function, args = numbers.TABLE[node.op_type], [None if v is None else self._plain(v) for v in node.inputs]
        self.numbers[str(node.outputs[0].name)] = rank
        keywords = {name: self._attribute(node, a) for name, a in node.attributes.items()}
        self._call(node, function, args, keywords)
        return True

    def _rank(self, node: ir.Node) -> int | None:
        """Rank of a node's result as numbers, or ``None`` if an input is no number or constant vector."""
        if node.op_type in numbers.SOURCES:
            return 1 if node.op_type == "Shape" else 0
        if node.op_type not in numbers.TABLE or not any(v is not None and v.name in self.numbers for v in node.inputs):
            return None
        ranks = []
        for value in (v for v in node.inputs if v is not None):
            tensor = value.const_value
            if value.name in self.numbers:
                ranks.append(self.numbers[str(value.name)])
            elif tensor is not None and tensor.dtype == ir.DataType.INT64 and len(tensor.shape) <= 1:
                ranks.append(len(tensor.shape))
            else:
                return None
        return numbers.rank(node, ranks)
