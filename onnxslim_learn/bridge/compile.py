"""The making of a bridged module: every node of a graph becomes a call."""

from __future__ import annotations

import itertools
import keyword
import operator
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir
from torch import fx, nn

from onnxslim_learn.bridge import initializers
from onnxslim_learn.bridge.call_signature import Signature, signature
from onnxslim_learn.bridge.ops import function_for, straight
from onnxslim_learn.bridge.ops import shape_numbers as numbers
from onnxslim_learn.bridge.ops.kinds import BITS, CONTEXT, DTYPES, EXACT, HALF, plain, wrapped
from onnxslim_learn.coupling import roles
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

STANDARD = ("", "ai.onnx")
IGNORED = frozenset(("consumed_inputs",))
"""Attributes that change nothing here."""


@dataclass(frozen=True)
class CompileSettings:
    """How a graph is bridged.

    Attributes:
        norms: ``frozen``: BatchNormalization always uses the running statistics of the file; ``batch``: while the
            module trains it uses those of the batch, and updates the running ones.
        dropout: ``None`` or ``False``: Dropout nodes pass; ``True``: while the module trains they drop the share that
            the file says; a number: they drop this share.
        freeze: Regular expressions; parameters whose name one of them finds get no gradient.
        master: Whether float16 and bfloat16 are computed in float32 (weights are rounded back on export). Where not,
            parameters have the types of the file.
    """

    norms: Literal["frozen", "batch"] = "frozen"
    dropout: bool | float | None = None
    freeze: Sequence[str] = ()
    master: bool = True


@dataclass
class Build:
    """A module in the making.

    Attributes:
        settings: How it is bridged.
        root: Where parameters and buffers go.
        code: The graph of calls.
        kinds: Value name -> ONNX element type.
        tied: Un-shared initializer -> the one whose parameter it is.
        paths: Initializer -> attribute path.
        model: What it is made from.
        values: Value name -> what computes it.
        numbers: Values that are Python numbers -> their rank.
        derived: What was derived from a value once: (name, how) -> what computes it.
        fetched: Initializers that the module holds.
        inputs: Graph input -> name of the argument.
        trains: Initializers that train.
        frozen: Those of them that get no gradient.
        running: Running statistics that training updates.
        outer: For a body: what it lies in.
        local: For a body: its own initializers.
        captured: Outer values that a body reads.
    """

    settings: CompileSettings
    root: nn.Module
    code: fx.Graph
    kinds: dict[str, int]
    tied: Mapping[str, str]
    paths: dict[str, str]
    model: ir.Model
    values: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    derived: dict[tuple[str, str], fx.Node] = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)
    inputs: dict[str, str] = field(default_factory=dict)
    trains: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    outer: Build | None = None
    local: frozenset[str] = frozenset()
    captured: dict[str, ir.Value] = field(default_factory=dict)

    def body(self, graph: ir.Graph) -> list[tuple[str, fx.Node]]:
        """Emit the inputs and nodes of a graph; returns names and values of what it puts out."""
        for value in graph.inputs:
            self._input(value)
        for value in graph.inputs:
            self._convert(value)
        for index, node in enumerate(graph):
            self._node(index, node)
        return [(str(value.name), self._output(value)) for value in graph.outputs]

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
            current = self.values[str(value.name)]
            self.values[str(value.name)] = self.code.call_method("to", (current, DTYPES[self.kind(value)]))

    def _output(self, value: ir.Value) -> fx.Node:
        tensor = self.tensor(value)
        kind = self.kind(value)
        return (
            self.code.call_method("to", (tensor, EXACT[kind]))
            if kind in BITS and EXACT[kind] != DTYPES[kind]
            else tensor
        )

    # --- values -------------------------------------------------------------------------------------------------------

    def tensor(self, value: ir.Value) -> fx.Node:
        """A value as a tensor."""
        name = str(value.name)
        if name in self.numbers:
            return self._once(name, "tensor", numbers.tensor, (self.values[name], self._like()))
        return self.values[name] if name in self.values else self._initializer(value)

    def _once(self, name: str, how: str, function: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
        if (name, how) not in self.derived:
            self.derived[name, how] = self.code.call_function(function, args)
        return self.derived[name, how]

    def _like(self) -> fx.Node | None:
        """A tensor on the module's device: the first input."""
        return next((node for node in self.code.nodes if node.op == "placeholder"), None)

    def _initializer(self, value: ir.Value) -> fx.Node:
        """Fetch a parameter or buffer; one for all copies of an initializer."""
        if self.outer is not None and (str(value.name) not in self.local):
            return self._capture(value)
        name = self.tied.get(str(value.name), str(value.name))
        if value.const_value is None:
            raise InputError(f"value {value.name}: nothing computes it. Run onnx.checker on the file.")
        if (name, "initializer") not in self.derived:
            if name not in self.paths:
                self.paths |= initializers.paths([*self.paths, name])
            tensor: torch.Tensor = initializers.to_torch(value.const_value, master=self.settings.master)
            if name in self.trains:
                tensor = nn.Parameter(tensor, requires_grad=name not in self.frozen)
            initializers.place(self.root, self.paths[name], tensor)
            self.fetched.add(name)
            self.derived[name, "initializer"] = self.code.create_node("get_attr", self.paths[name])
        return self.derived[name, "initializer"]

    def _capture(self, value: ir.Value) -> fx.Node:
        """An outer value as one more argument of a body."""
        last = [node for node in self.code.nodes if node.op == "placeholder"][-1:]
        with (
            self.code.inserting_after(last[0])
            if last
            else self.code.inserting_before(next(iter(self.code.nodes), None))
        ):
            placeholder = self.code.placeholder(f"outer_{len(self.captured)}")
        self.captured[str(value.name)] = value
        self.values[str(value.name)] = placeholder
        return placeholder

    def _nested(self, path: str, graph: ir.Graph) -> tuple[fx.Node, tuple[fx.Node, ...]]:
        """Bridge a body into a submodule; returns it, and the outer values it reads."""
        inner = Build(self.settings, nn.Module(), fx.Graph(), self.kinds, self.tied, dict(self.paths), self.model)
        inner.local = frozenset(str(name) for name in graph.initializers)
        inner.outer = self
        outputs = inner.body(graph)
        inner.code.output(tuple(result for _, result in outputs))
        self.root.add_module(path, fx.GraphModule(inner.root, inner.code, "Body"))
        return self.code.create_node("get_attr", path), tuple(self.tensor(v) for v in inner.captured.values())

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
        number: float | int | bool = tensor.numpy().item()
        return number

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, index: int, node: ir.Node) -> None:
        if self._numeric(node):
            return
        function = function_for(node)
        if function is None:
            raise InputError(
                f"node {node.name} ({node.op_type}): torch has no function for this operator. "
                "Cut the model so that it stays outside."
            )
        asked = signature(function)
        call = self._call(node, function, self._arguments(node, asked), self._keywords(node, asked))
        call.meta["onnx"], call.meta["title"] = index, f"node {node.name} ({node.op_type})"
        self._pass_gradient(node)

    def _pass_gradient(self, node: ir.Node) -> None:
        """Let the gradient pass where two nodes in a row only round."""
        source = node.inputs[0] if node.inputs else None
        before = None if source is None else source.producer()
        function = None if before is None else straight(before, node)
        if function is None or before is None or before.inputs[0] is None or node.inputs[1] is None:
            return
        name = str(node.outputs[0].name)
        settings: dict[str, Any] = {
            key: node.attributes.get_int(key, start) for key, start in (("axis", 1), ("block_size", 0))
        }
        args = (self.values[name], self.tensor(before.inputs[0]), self.tensor(node.inputs[1]))
        self.values[name] = self.code.call_function(function, args, settings)

    def _call(self, node: ir.Node, function: Callable[..., Any], args: Any, keywords: dict[str, Any]) -> fx.Node:
        name = re.sub(r"\W+", "_", str(node.name or node.op_type)).strip("_") or node.op_type
        call = self.code.create_node("call_function", function, tuple(args), keywords, name=name)
        outputs = list(node.outputs)
        several = signature(function).several or any(output.name for output in outputs[1:])
        for number, output in enumerate(outputs):
            if not output.name:
                continue
            result = self.code.call_function(operator.getitem, (call, number)) if several else call
            if self.kind(output) in BITS and roles.has(node, roles.Trait.WRAPS):
                result = self.code.call_function(wrapped, (result, self.kind(output)))
            self.values[str(output.name)] = result
        return call

    def _arguments(self, node: ir.Node, asked: Signature) -> list[Any]:
        slots = [asked.slot(k) for k in range(len(node.inputs))]
        constants = [None if v is None else self._number(v) for v in node.inputs]
        operands = [k for k, slot in enumerate(slots) if "Operand" in slot]
        if all(constants[k] is not None for k in operands):
            constants = [None if k in operands else c for k, c in enumerate(constants)]
        arguments: list[Any] = []
        for value, slot, constant in zip(node.inputs, slots, constants, strict=True):
            if value is None or not value.name:
                arguments.append(None)
            elif "Plain" in slot:
                arguments.append(self._plain(value))
            elif constant is not None and ("Operand" in slot or "Scalar" in slot):
                arguments.append(constant)
            else:
                arguments.append(self.tensor(value))
        while arguments and arguments[-1] is None:
            arguments.pop()
        return arguments

    def _keywords(self, node: ir.Node, asked: Signature) -> dict[str, Any]:
        keywords: dict[str, Any] = {}
        for name, attribute in node.attributes.items():
            if name in asked.keywords or (asked.settings and name not in CONTEXT):
                keywords[name] = self._attribute(node, attribute)
            elif name not in IGNORED:
                raise InputError(
                    f"node {node.name} ({node.op_type}): its attribute {name} is not understood. "
                    "Cut the model so that it stays outside."
                )
        for name in (asked.keywords & set(CONTEXT)) - keywords.keys():
            keywords[name] = self._context(node, name)
        return dict(sorted(keywords.items()))

    def _attribute(self, node: ir.Node, attribute: ir.Attr) -> Any:
        content = attribute.value
        if attribute.type == ir.AttributeType.GRAPH:
            return self._nested(self._free(f"{node.name}_{attribute.name}"), content)
        if attribute.type == ir.AttributeType.TENSOR:
            path = self._free(f"{node.name}_{attribute.name}")
            initializers.place(self.root, path, initializers.to_torch(content, master=self.settings.master))
            return self.code.create_node("get_attr", path)
        if attribute.name in ("to", "dtype") and self.settings.master:
            return HALF.get(int(content), int(content))
        return list(content) if isinstance(content, tuple) else content

    def _free(self, wish: str) -> str:
        """An attribute path that nothing has yet."""
        plain = re.sub(r"\W", "_", wish)
        taken = {path.partition(".")[0] for path in self.paths.values()}
        return next(
            name
            for name in (f"{plain}_{k}" if k else plain for k in itertools.count())
            if name not in taken and not hasattr(self.root, name)
        )

    def _context(self, node: ir.Node, name: str) -> Any:
        if name == "opset":
            return self.model.opset_imports.get(node.domain, 1)
        if name == "outputs":
            return max((k + 1 for k, output in enumerate(node.outputs) if output.name), default=1)
        if name == "kinds":
            return [0 if value is None else self.kind(value) for value in node.inputs]
        if name == "like":
            return self._like()
        if name == "share":
            return None if isinstance(self.settings.dropout, bool) else self.settings.dropout
        return self._training(node)

    def _training(self, node: ir.Node) -> Any:
        """Whether a node does something else while the module trains: the module's flag, or ``False``."""
        norm = roles.normalisation(node)
        statistics = () if norm is None else (norm.mean, norm.variance)
        if self.settings.norms != "batch" if norm is not None else self.settings.dropout in (None, False):
            return False
        for slot in statistics:
            value = None if slot is None else node.inputs[slot]
            if value is not None and value.is_initializer():
                self.running.add(self.tied.get(str(value.name), str(value.name)))
        return self.code.create_node("get_attr", "training")

    def _numeric(self, node: ir.Node) -> bool:
        """Emit shape arithmetic on Python numbers, if the node is some; says whether it was."""
        if node.domain not in STANDARD or len(node.outputs) != 1 or not node.inputs:
            return False
        rank = self._rank(node)
        if rank is None:
            return False
        function = numbers.function_for(node)
        read = self.tensor if numbers.is_source(node) else self._plain
        args = [None if value is None else read(value) for value in node.inputs]
        self.numbers[str(node.outputs[0].name)] = rank
        keywords = {name: self._attribute(node, a) for name, a in node.attributes.items()}
        self._call(node, function, args, keywords)
        return True

    def _rank(self, node: ir.Node) -> int | None:
        """Rank of a node's result as numbers, or ``None`` if an input is no number or constant vector."""
        if numbers.is_source(node):
            return numbers.rank(node, [])
        if not numbers.is_known(node) or not any(v is not None and v.name in self.numbers for v in node.inputs):
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
