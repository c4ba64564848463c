"""Which node of a file a node of onnxruntime's optimised graph comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from onnxslim_learn.coupling import roles

if TYPE_CHECKING:
    from onnx import NodeProto

Key: TypeAlias = tuple[str, str]  # name and operator, of an event in a profile or of a row
_Nodes: TypeAlias = Mapping[str, "NodeProto"]

LAYOUT, OTHER = "layout", "(other)"

# What it adds to the name of a node it rewrites, as in "fused fc" or "mm/MatmulTransposeFusion//MatMulScaleFusion/".
_REWRITTEN = re.compile(r"^fused |(/\w+Fusion/?)+$|_new_reshape$|_token_\d+$")
# Blocked nodes and casts are named after the tensor they compute; BatchNormalization, Mul and Add leave a mark more.
_BLOCKED = re.compile(r"^InsertedPrecisionFreeCast_|(_bn|_mul|_add)?_nchwc$")


def attribute(keys: Iterable[Key], nodes: Sequence[NodeProto], dumped: Sequence[NodeProto]) -> dict[Key, Key]:
    """Map the nodes of a profile to rows: nodes of the file, ``layout`` or ``(other)``."""
    names = {node.name: node for node in nodes}
    makers = {tensor: node for node in nodes for tensor in node.output if tensor}
    results = _by_result(dumped, names, makers)
    rows = {key: (LAYOUT if roles.arranges(key[1]) else OTHER, key[1]) for key in keys}
    named = {key: _by_name(key[0], names) for key in rows}
    row_of = {key: node or _by_tensor(key[0], makers) or results.get(key) for key, node in named.items()}
    owned = {node.name for node in row_of.values() if node}
    for key, node in row_of.items():
        if node:
            core = named[key] or _core(node, key[1], makers, owned)
            rows[key] = core.name, core.op_type
    return rows


def _by_name(name: str, names: _Nodes) -> NodeProto | None:
    """Find the node a name comes from; blocked nodes are named after tensors instead."""
    while name not in names and not _BLOCKED.search(name) and (shorter := _REWRITTEN.sub("", name)) != name:
        name = shorter
    return names.get(name)


def _by_tensor(name: str, makers: _Nodes) -> NodeProto | None:
    return makers.get(name.removesuffix("_nchwc")) or makers.get(_BLOCKED.sub("", name))


def _by_result(dumped: Sequence[NodeProto], names: _Nodes, makers: _Nodes) -> dict[Key, NodeProto]:
    """Map optimised nodes to the makers of the tensors they lead to, past nodes without a name in the file."""
    leads, makers_of = dict(makers), {}
    for node in reversed(dumped):
        maker = next((leads[tensor] for tensor in node.output if tensor in leads), None)
        if maker and not roles.arranges(node.op_type):
            makers_of[node.name, node.op_type] = maker
        if maker and not _by_name(node.name, names):
            leads.update((tensor, maker) for tensor in node.input if tensor and tensor not in leads)
    return makers_of


def _core(node: NodeProto, op_type: str, makers: _Nodes, owned: set[str]) -> NodeProto:
    """Walk back from the result of a fused node, over absorbed nodes, to the operator it is built around."""
    seen, queue = set(owned), [node]
    for current in queue:
        if roles.alike(current, op_type):
            return current
        for maker in filter(None, map(makers.get, current.input)):
            if maker.name not in seen:
                seen.add(maker.name)
                queue.append(maker)
    return node
