"""Peak memory of activations: what is alive at once when nodes run in the order of the file.

A tensor lives from the node that makes it to the last that reads it; a node's inputs and outputs live together. Views
(Reshape, Squeeze, ...) take no memory of their own and keep alive what they show. Weights are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from onnxslim_learn.array_types import Array
from onnxslim_learn.costs.polynomial import Cost, polynomial
from onnxslim_learn.costs.roofline import IDLE, known, volume
from onnxslim_learn.coupling import roles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.coupling.relations import Digit
    from onnxslim_learn.coupling.solver import Coupling


@dataclass(frozen=True)
class Peak:
    """The most bytes alive at once.

    Attributes:
        sizes: Bytes of all activations, owned by their names.
        living: Sparse matrix, nodes × activations: what lives while a node runs.
    """

    sizes: Cost
    living: Any

    def _highest(self, alive: Array) -> tuple[Array, Array]:
        """Bytes of every activation, and which of them live at the peak."""
        terms = self.sizes.terms(alive)
        at = int(np.argmax(self.living @ terms)) if self.living.shape[0] else 0
        lives: Array = self.living[[at]].toarray()[0] if self.living.shape[0] else np.zeros(len(terms))
        return terms, lives

    def value(self, alive: Array) -> float:
        """Bytes at the peak; ``alive`` is ``classes`` numbers in [0, 1]."""
        terms, lives = self._highest(alive)
        return float(terms @ lives)

    def gradient(self, alive: Array) -> Array:
        """Derivative by every class's aliveness, shape ``(classes,)``; that of the present peak."""
        return self.sizes.gradient(alive, self._highest(alive)[1])

    def by_value(self, alive: Array) -> dict[str, float]:
        """Bytes of every activation that lives at the peak."""
        terms, lives = self._highest(alive)
        rows = zip(self.sizes.owners, terms.tolist(), lives.tolist(), strict=True)
        return {owner: size for owner, size, at_peak in rows if at_peak}


def peak(coupling: Coupling) -> Peak:
    """Peak activation memory at the nominal input sizes."""
    graph = coupling.graph
    shown = _owners(coupling)
    born = {str(value.name): -1 for value in graph.model.graph.inputs}
    last: dict[str, int] = {}
    for at, node in enumerate(graph.nodes):
        for value in node.inputs:
            if value is not None and (owner := shown.get(str(value.name), str(value.name))) in born:
                last[owner] = at
        born |= {str(v.name): at for v in node.outputs if v.name and str(v.name) not in shown}
    last |= {shown.get(str(v.name), str(v.name)): len(graph.nodes) for v in graph.model.graph.outputs}
    names = [name for name in born if known(coupling, name)]
    sizes = polynomial("memory", coupling, (_size(coupling, name, born[name]) for name in names))
    living = sp.lil_matrix((len(graph.nodes), len(names)))
    for column, name in enumerate(names):
        living[max(born[name], 0) : last.get(name, born[name]) + 1, column] = 1.0
    return Peak(sizes, living.tocsr())


def _size(coupling: Coupling, name: str, maker: int) -> tuple[str, int, Sequence[Digit]]:
    each, digits = volume(coupling, name)
    return name, each, (*digits, *(coupling.present([maker]) if maker >= 0 else ()))


def _owners(coupling: Coupling) -> dict[str, str]:
    """Output of a view -> the activation whose memory it shows."""
    owners: dict[str, str] = {}
    for node in coupling.nodes:
        source = node.inputs[0] if node.inputs else None
        if roles.has(node, IDLE) and source is not None and not source.is_initializer():
            owners |= {str(v.name): owners.get(str(source.name), str(source.name)) for v in node.outputs if v.name}
    return owners
