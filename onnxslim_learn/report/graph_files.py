"""networkx graphs as files: GraphML, Graphviz' DOT, or JSON, by the ending of the name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx

from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime import atomic

_QUOTED = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": ""})


def check(path: Path, parameter: str) -> None:
    """Refuse a name whose ending is none of ``.graphml``, ``.dot`` and ``.json``.

    Raises:
        InputError: Naming the parameter it was given for.
    """
    if path.suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError(
            f"{parameter} {path}: expected an ending of {known}, but got {path.suffix!r}. Use one of them."
        )


def save(view: Any, path: Path, parameter: str = "⟨graph⟩") -> None:
    """Write a graph whose nodes are ``(kind, name)`` in the format that the ending tells, whole or not at all.

    Raises:
        InputError: If the ending is none of these, or the file cannot be written.
    """
    check(path, parameter)
    atomic.write_text(path, FORMATS[path.suffix](view))


def to_graphml(view: Any) -> str:
    """A graph as GraphML; nodes are ``"kind name"``, and have both as attributes."""
    plain = type(view)()
    for key, data in view.nodes(data=True):
        plain.add_node(_id(key), **_node(key, data))
    for one, other, data in view.edges(data=True):
        plain.add_edge(_id(one), _id(other), **data)
    return "\n".join(nx.generate_graphml(plain)) + "\n"


def to_dot(view: Any) -> str:
    """A graph as DOT: every node and edge labelled by what it is."""
    arrow = "->" if view.is_directed() else "--"
    lines = ["digraph {" if view.is_directed() else "graph {"]
    for key, data in view.nodes(data=True):
        shape = _SHAPES.get(key[0], "ellipse")
        lines.append(f"  {_quoted(_id(key))} [{_listed({'label': key[1], 'shape': shape, **_node(key, data)})}];")
    for one, other, data in view.edges(data=True):
        label = " ".join(str(data[name]) for name in ("relation", "node", "slot") if data.get(name, "") != "")
        lines.append(f"  {_quoted(_id(one))} {arrow} {_quoted(_id(other))} [{_listed({'label': label, **data})}];")
    return "\n".join([*lines, "}"]) + "\n"


def to_json(view: Any) -> str:
    """A graph as JSON: ``directed``, ``nodes`` with ``id``, ``edges`` with ``source`` and ``target``."""
    nodes = [{"id": _id(key), **_node(key, data)} for key, data in view.nodes(data=True)]
    edges = [{"source": _id(one), "target": _id(other), **data} for one, other, data in view.edges(data=True)]
    return json.dumps({"directed": view.is_directed(), "nodes": nodes, "edges": edges}, indent=1) + "\n"


FORMATS: dict[str, Callable[[Any], str]] = {".graphml": to_graphml, ".dot": to_dot, ".json": to_json}

_SHAPES = {"parameter": "box", "group": "doubleoctagon", "pin": "octagon", "grid": "diamond", "op": "box"}


def _id(key: tuple[str, str]) -> str:
    return " ".join(key)


def _node(key: tuple[str, str], data: dict[str, Any]) -> dict[str, Any]:
    return {"kind": key[0], "name": key[1], **data}


def _listed(data: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_quoted(str(value))}" for name, value in data.items())


def _quoted(text: str) -> str:
    return f'"{text.translate(_QUOTED)}"'
