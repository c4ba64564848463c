"""Cut exactly what changes no output: dead units, and constant ones that consumers take over into a bias."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.errors import InputError
from onnxslim_learn.lossless_cuts import dead_units
from onnxslim_learn.lossless_cuts.bias_absorption import Constant, absorb, constants, takers
from onnxslim_learn.rewrite.slim import slim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.removal import Removal

BORDER = "its constant shows at borders whose places the file leaves open"


@dataclass(frozen=True)
class Folded:
    """What a lossless cut did beside cutting.

    Attributes:
        biased: Nodes whose bias took constants over.
        mapped: Nodes to whose output a map was added, since constants show at the padded borders.
        left: Group -> why dead units of it stay.
    """

    biased: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()
    left: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def find(
    analysis: Analysis,
    *,
    protect: Sequence[str] = (),
    allow_empty: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Removal, list[Constant], dict[str, str]]:
    """The largest removal found that changes no output, what its units fed into sums, and why other dead units stay.

    Args:
        analysis: The model.
        protect: Regular expressions; groups they find stay whole.
        allow_empty: Whether a whole branch may go.
        progress: Called with the share done.

    Raises:
        InputError: If normalised axes may be cut, which is never exact.
    """
    if analysis.sensitive:
        raise InputError("⟨lossless⟩: cutting normalised axes changes outputs. Leave ⟨allow_sensitive⟩ out.")
    groups = analysis.free_groups(protect)
    feeds = dead_units.runs(analysis.coupling)
    met = _meetings(analysis, feeds, progress)
    first: Removal | None = None
    while True:
        result = dead_units.find(analysis.coupling, groups, met, empty=allow_empty)
        fed, refused = constants(result.removal, met, feeds)
        first = first or result.removal
        if not refused:
            fewer = {g.name: BORDER for g in groups if _lost(first, g) > _lost(result.removal, g)}
            return result.removal, fed, fewer | result.left
        changed = {id(m.contraction): m for m in refused}
        met = [changed.get(id(m.contraction), m) for m in met]


def _meetings(
    analysis: Analysis, feeds: Sequence[dict[str, Any]], progress: Callable[[float], None]
) -> list[dead_units.Meeting]:
    """What contractions see; constants count only where the node can take them over."""
    able = takers(analysis.coupling)
    met = dead_units.meetings(analysis.coupling, feeds, progress)
    return [m if m.contraction.node in able else replace(m, constant=np.zeros_like(m.constant)) for m in met]


def _lost(removal: Removal, group: Group) -> int:
    return int(np.isin(group.units, removal.coupling.column[removal.gone]).sum())


def carry_out(removal: Removal, fed: Sequence[Constant], left: dict[str, str] | None = None) -> tuple[ir.Model, Folded]:
    """Cut, and put what consumers got from constant units into their biases."""
    model = slim(removal)
    biased, mapped = absorb(removal, model, fed)
    return model, Folded(tuple(biased), tuple(mapped), left or {})


def contributed(analysis: Analysis, removal: Removal) -> list[Constant]:
    """What the removed units fed into sums, as constants."""
    feeds = dead_units.runs(analysis.coupling)
    contributions, _ = constants(removal, _meetings(analysis, feeds, lambda share: None), feeds)
    return contributions
