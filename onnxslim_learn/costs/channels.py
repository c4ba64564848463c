"""Activations as a cost: channels that operators with MACs put out, or elements that all operators put out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxslim_learn.costs.polynomial import polynomial

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnxslim_learn.costs.polynomial import Cost
    from onnxslim_learn.coupling.relations import Digit
    from onnxslim_learn.coupling.solver import Coupling


def channels(coupling: Coupling) -> Cost:
    """Alive output channels of every operator with MACs, summed (MorphNet's activation cost)."""
    working = {term.node for term in coupling.records.terms}
    return polynomial("channels", coupling, _outputs(coupling, sorted(working), elements=False))


def elements(coupling: Coupling) -> Cost:
    """Elements of everything that operators put out, at the nominal input sizes."""
    return polynomial("elements", coupling, _outputs(coupling, range(len(coupling.nodes)), elements=True))


def _outputs(coupling: Coupling, nodes: Iterable[int], *, elements: bool) -> Iterable[tuple[str, int, Sequence[Digit]]]:
    for index in nodes:
        node = coupling.nodes[index]
        for output in node.outputs:
            layout = coupling.values.get(str(output.name))
            if layout is None or coupling.graph.shapes.is_arithmetic(node):
                continue
            digits = list(layout.digits.values())
            labelled = [d for d in digits if d.labels is not None]
            rows = [d for d in digits if d.labels is None and any(d.key in one.deps for one in labelled)]
            if elements:
                shape = coupling.graph.shapes.nominal.shape[str(output.name)]
                free = math.prod(shape) // math.prod(d.size for d in labelled)
                yield str(node.name), free, digits
            elif labelled:
                yield str(node.name), math.prod(d.size for d in rows), [*labelled, *rows]
