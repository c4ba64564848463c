"""A model as a torch module, and its trained weights back in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnxslim_learn.analysis import Analysis
from onnxslim_learn.bridge.export import export
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph.load import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from torch import fx

SOURCE = "source"  # of a module's ``meta``: the graph that it was made of


def to_torch(
    model: str | Path | onnx.ModelProto | Analysis,
    *,
    norms: Literal["frozen", "batch"] = "frozen",
    dropout: bool | float | None = None,
    freeze: Sequence[str] = (),
) -> fx.GraphModule:
    """Make a torch module of a model, whose parameters are the file's weights, to train it.

    It takes the graph's inputs in order, and returns its outputs by name. See
    :func:`onnxslim_learn.bridge.module.bridge`.

    Args:
        model: Path of an ``.onnx`` file, a model in memory, or its analysis.
        norms: Whether batch normalisations use the statistics of the file or of batches.
        dropout: Whether dropout of the file is active, or with which probability.
        freeze: Regular expressions of weights that do not train.

    Raises:
        InputError: If an operator has no torch function, or ``freeze`` finds nothing.
    """
    graph = model.graph if isinstance(model, Analysis) else load(model)
    module = bridge(graph, norms=norms, dropout=dropout, freeze=freeze)
    module.meta[SOURCE] = graph
    return module


def from_torch(module: fx.GraphModule, path: str | Path) -> Path:
    """Write the weights of a module into a file like the one that it was made of: all else stays as it was.

    Args:
        module: What :func:`to_torch` made.
        path: Where to write.

    Raises:
        InputError: If it is no such module, a weight is not finite, or the place cannot be written.
    """
    graph: Any = getattr(module, "meta", {}).get(SOURCE)
    if graph is None:
        raise InputError("⟨module⟩: was not made by to_torch, so no file is known. Give one that was.")
    export(module, graph, Path(path))
    return Path(path)
