"""What structure to learn, as asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxslim_learn.learners.morphnet import strengths
from onnxslim_learn.select.budget import Freedom

LEAST = 0.75  # what a unit is worth by itself says little about extremes of several groups together (cf. select.choose)


@dataclass(frozen=True)
class Widths:
    """What structure to learn, as asked for.

    Attributes:
        target: Cost -> bound; at most 1 is a fraction. Empty with a strength.
        cost: What units are charged for; by default the first of the target.
        kind: See :mod:`onnxslim_learn.learners.morphnet.strengths`.
        how: How members of a group are combined.
        l1: Of group lasso.
        threshold: Above which units are alive, or ``None`` for the kind's.
        tau: Of gates.
        strength: Weight of the regularization term, or ``None`` to meet the target.
        proximal: Whether strengths are lowered exactly to zero; ``None`` where that is possible.
        calibrated: Whether units are charged by what they are worth, too, where strengths are lowered to meet a target.
        double: Whether depthwise convolutions count twice.
        least: With a target, the share of the width left by narrowing all groups alike that every group keeps;
            ``None`` for :data:`LEAST`, or for none where whole branches may go or widths are steps apart (latency).
        force_group: Regular expressions; the groups that one finds are tied.
        protect: Regular expressions; groups they find stay whole.
        freedom: How far widths may go.
        from_scratch: Whether weights are drawn anew before they are trained at the widths learnt.
        repair: Whether to refit weights before that.
    """

    target: Mapping[str, float] = field(default_factory=dict)
    cost: str | None = None
    kind: strengths.Kind = "gamma"
    how: strengths.How = "max"
    l1: float = 0.0
    threshold: float | None = None
    tau: float = strengths.TAU
    strength: float | None = None
    proximal: bool | None = None
    calibrated: bool = True
    double: bool = False
    least: float | None = None
    force_group: Sequence[str] = ()
    protect: Sequence[str] = ()
    freedom: Freedom = field(default_factory=Freedom)
    from_scratch: bool = False
    repair: bool = True

    @property
    def exactly(self) -> bool:
        """Whether strengths are lowered exactly to zero."""
        return self.kind != "gates" if self.proximal is None else self.proximal

    @property
    def dies(self) -> float:
        """The threshold."""
        usual = strengths.L2_THRESHOLD if self.how == "l2" else strengths.THRESHOLDS[self.kind]
        return usual if self.threshold is None else self.threshold
