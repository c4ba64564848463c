"""Read a model into the normal form that coupling takes: parameters that nodes normalise are computed ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.operators.unpooling import by_rows
from onnxslim_learn.graph import load as graphs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx


def load(
    model: str | Path | onnx.ModelProto, inputs: Mapping[str, Sequence[int]] | None = None, **known: Any
) -> graphs.Graph:
    """Read a model and bring it into normal form, as :func:`onnxslim_learn.graph.load.load` does.

    Args:
        model: Path of an ``.onnx`` file, or a model in memory.
        inputs: Graph input name -> shape to use for costs and latency where the file leaves dimensions open.
        **known: What else is known of the model.

    Raises:
        InputError: If the file is missing or no valid model, or an input's name or shape does not fit.
    """
    asked = graphs.Asked(roles.reads_whole, roles.stacks, roles.copies, roles.converts, by_rows)
    return graphs.load(model, inputs, ask=asked, **known)
