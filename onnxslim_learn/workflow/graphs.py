"""A model as networkx graphs: what depends on what, and what goes together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.analysis import Analysis, analyze
from onnxslim_learn.coupling import graph as coupled
from onnxslim_learn.graph import dataflow as flow

if TYPE_CHECKING:
    import onnx


def coupling_graph(model: Analysis | str | Path | onnx.ModelProto) -> Any:
    """Make the ``networkx.DiGraph`` of parameter axes, groups, grids and pins, with the operators that tie them.

    ``networkx.shortest_path`` between two parameters, ``("parameter", "conv1.weight:0")`` and another, tells why they
    go together, operator by operator; one from a parameter to a pin why it stays (see
    :func:`onnxslim_learn.coupling.graph.coupling_graph` for all kinds of nodes and edges).

    Args:
        model: An analysis, or what :func:`onnxslim_learn.analyze` takes.

    Raises:
        InputError: If the model cannot be read.
    """
    analysis = model if isinstance(model, Analysis) else analyze(model)
    return coupled.coupling_graph(analysis.coupling, analysis.groups)


def dataflow(model: Analysis | str | Path | onnx.ModelProto) -> Any:
    """Make the ``networkx.MultiDiGraph`` of operators and values (see :func:`onnxslim_learn.graph.dataflow.dataflow`).

    Args:
        model: An analysis, or what :func:`onnxslim_learn.analyze` takes.

    Raises:
        InputError: If the model cannot be read.
    """
    analysis = model if isinstance(model, Analysis) else analyze(model)
    return flow.dataflow(analysis.graph)
