"""What structure to learn, as asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.settings import (
    FROM_SCRATCH,
    STRUCTURE,
    WIDTHS,
    FinetuneSteps,
    LearningSteps,
    LearnSettings,
    compares_features,
)
from onnxslim_learn.readers import AUTO, number, positive, share
from onnxslim_learn.registry import COSTS
from onnxslim_learn.rows import require
from onnxslim_learn.settings import Option, declared, option, part
from onnxslim_learn.workflow.options import EMPTY, MULTIPLE, NO_REPAIR, PLAN_OUT, PROTECT, SENSITIVE, TARGET, WORKERS

if TYPE_CHECKING:
    from onnxslim_learn.select.budget import Freedom


def tried_mark(number: int) -> str:
    """What the name of a file ends with that comes of a strength of a sweep."""
    return f"-{number}"


def cycle_marks(cycle: int) -> tuple[str, str]:
    """What names of files end with that come between cycles: what was shrunk, and what that was widened to."""
    return f".thin{cycle}", f".wide{cycle}"


@dataclass(frozen=True)
class Regularizer:
    """What tells how much of every unit there is.

    Attributes:
        help: What it is, in a few words.
        threshold: Above which units are alive.
        exact: Whether strengths can be lowered exactly to zero; others go by gradients alone.
    """

    help: str
    threshold: float
    exact: bool = True


GAMMA, GATES = "gamma", "gates"
REGULARIZERS = {
    GAMMA: Regularizer("scales of normalisations, virtual ones where none are", 1e-3),
    "group-lasso": Regularizer("weights of units", 1e-2),
    GATES: Regularizer("a gate for every unit", 0.1, exact=False),
}
COMBINATIONS = {"max": "the largest", "l2": "root of the sum of squares", "probabilistic": "1 - Π(1 - p)"}
"""How strengths of coupled layers are combined -> in a few words."""

LEAST = 0.75  # where losses of whole widths are not known: strengths of units say little about groups that get narrow
L2_THRESHOLD = 1e-2
TAU = 1e-3


def _widths(about: Option) -> Option:
    """The same option where only learning of structures takes it."""
    return replace(about, purpose=WIDTHS)


@dataclass(frozen=True)
class MorphNetSettings:
    """What structure to learn, as asked for.

    Attributes:
        target: Cost -> bound; at most 1 is a fraction. Empty with a strength.
        cost: What units are charged for; by default the first of the target.
        regularizer: See :mod:`onnxslim_learn.learners.morphnet.strengths`; ``None`` for gammas, or for gates where some
            units have none.
        combine: How members of a group are combined.
        l1_fraction: Of group lasso.
        threshold: Above which units are alive, or ``None`` for the regularizer's.
        tau: Of gates.
        strength: Weight of the regularization term, whose costs are shares of the whole model's: MorphNet's strength
            times that cost. ``None`` to meet the target.
        sweep: How many strengths around that are tried.
        workers: Where these are tried: see :func:`onnxslim_learn.runtime.workers.trials`.
        cycles: How often is shrunk, with widening in between.
        proximal: Whether strengths are lowered exactly to zero; ``None`` where that is possible.
        least_width: With a target, the share of the width left by narrowing all groups alike that every group keeps;
            ``None`` for none where units are charged by what they are worth, where whole branches may go, or where
            widths are steps apart (latency), and for :data:`LEAST` elsewhere.
        no_calibration: Whether units are charged by costs alone, where strengths are lowered to meet a target; else by
            what they are worth, too (:mod:`onnxslim_learn.learners.morphnet.unit_losses`).
        count_depthwise_twice: Whether depthwise convolutions count twice.
        force_group: Regular expressions; the groups that one finds are tied.
        multiple: Widths are multiples of this.
        protect: Regular expressions; groups they find stay whole.
        allow_sensitive: Whether axes that are normalised over are cut, too.
        allow_empty: Whether whole branches may go.
        no_repair: Whether weights are not refitted before they are trained at the widths learnt.
        from_scratch: Whether weights are drawn anew before that.
        length: How long is learnt.
        after: How long is trained after that.
        plan_out: Where the plan is written.
    """

    TITLE: ClassVar = STRUCTURE

    target: Mapping[str, float | str] = declared({}, _widths(replace(TARGET, help="as in slim (repeatable)")))
    strength: float | None = option(
        None,
        "weight of the cost in the loss, for a --target: loss per share of the whole model's cost (MorphNet's strength"
        " times that cost); more cuts more, and the right one lies mostly between 0.1 and 10",
        read=number,
        purpose=WIDTHS,
    )
    sweep: int | None = option(
        None,
        "try N strengths on a log scale around --strength",
        metavar="N",
        read=positive,
        purpose=WIDTHS,
        beside=lambda count: [tried_mark(number) for number in range(count or 0)],
    )
    workers: int | str | None = declared(
        None,
        replace(
            WORKERS, help="where strengths of --sweep are tried: N processes, or a Dask cluster at tcp://HOST:PORT"
        ),
    )
    cycles: int = option(
        1,
        "shrink and widen in turns, N times shrink (default 1)",
        metavar="N",
        read=positive,
        purpose=WIDTHS,
        beside=lambda cycles: [mark for cycle in range(1, cycles) for mark in cycle_marks(cycle)],
    )
    cost: str | None = option(
        None,
        f"what units are charged for: {', '.join(COSTS.names())} (default: the first target's)",
        metavar="NAME",
        purpose=WIDTHS,
    )
    regularizer: str | None = option(
        None,
        "what tells a unit's strength (default gamma, or gates where units have no scales: recurrent, computed): "
        + ", ".join(f"{name} ({one.help})" for name, one in REGULARIZERS.items()),
        choices=tuple(REGULARIZERS),
        purpose=WIDTHS,
    )
    combine: str = option(
        "max",
        "of coupled layers (default max): " + ", ".join(f"{name} ({said})" for name, said in COMBINATIONS.items()),
        choices=tuple(COMBINATIONS),
        purpose=WIDTHS,
    )
    threshold: float | None = option(
        None,
        "units whose strength is above are alive (default: "
        + ", ".join(f"{name} {one.threshold:g}" for name, one in REGULARIZERS.items())
        + f"; with --combine l2 {L2_THRESHOLD:g})",
        read=share,
        purpose=WIDTHS,
    )
    l1_fraction: float = option(0.0, "group-lasso: share of the L1 norm", read=share, purpose=WIDTHS)
    tau: float = option(TAU, "gates: temperature", read=number, purpose=WIDTHS)
    proximal: bool | None = option(
        None,
        "lower strengths to exact zeros (default); the opposite is by gradients, as MorphNet does",
        opposite=True,
        purpose=WIDTHS,
    )
    least_width: float | None = option(
        None,
        "with a target: share of the width narrowing all alike would leave that every group keeps (default: none, or"
        " 0.75 where units are not charged by what is lost with them)",
        read=share,
        purpose=WIDTHS,
    )
    no_calibration: bool = option(False, "with a target: by strengths and costs alone", purpose=WIDTHS)
    count_depthwise_twice: bool = option(False, "as MorphNet does", purpose=WIDTHS)
    force_group: tuple[str, ...] = option(
        (), "ties the groups it matches", metavar="REGEX", repeat=True, purpose=WIDTHS
    )
    multiple: int | str = declared(AUTO, _widths(MULTIPLE))
    protect: tuple[str, ...] = declared((), _widths(PROTECT))
    allow_sensitive: bool = declared(False, _widths(SENSITIVE))
    allow_empty: bool = declared(False, _widths(EMPTY))
    no_repair: bool = declared(False, _widths(NO_REPAIR))
    from_scratch: bool = declared(False, FROM_SCRATCH)
    length: LearningSteps = part(LearningSteps)
    after: FinetuneSteps = part(FinetuneSteps)
    plan_out: str | None = declared(None, _widths(PLAN_OUT))

    def check(self, shared: LearnSettings) -> None:
        """Refuse what cannot be asked for together.

        Raises:
            InputError: With the parameter at fault.
        """
        asked = [name for name in ("strength", "sweep") if getattr(self, name)]
        if asked and self.target:
            raise InputError(f"⟨{asked[0]}⟩: and ⟨target⟩ are two ways to say how far to go. Leave one of them out.")
        if self.cycles > 1 and not self.target:
            raise InputError("⟨cycles⟩: widens to the original's cost in between. Say how far to shrink with ⟨target⟩.")
        if self.cycles > 1 and compares_features(shared.training.loss):
            raise InputError(
                "⟨cycles⟩: what is widened has no features in common with the original. Use ⟨loss⟩ distill."
            )
        if self.workers is not None and not self.sweep:
            raise InputError("⟨workers⟩: try the strengths of ⟨sweep⟩. Leave it out, or give ⟨sweep⟩.")
        if isinstance(self.workers, str):
            require("cluster", "⟨workers⟩")
        if self.sweep and self.plan_out:
            raise InputError("⟨plan_out⟩: names one plan, but ⟨sweep⟩ makes several. Leave one of them out.")
        if (self.sweep or self.cycles > 1) and shared.result.output is None:
            raise InputError("⟨output⟩: is needed where several models are written. Give a file name.")
        if not self.target and self.strength is None and not self.sweep:
            raise InputError("learn: neither ⟨target⟩ nor ⟨strength⟩ is given. For example ⟨target.macs⟩=0.5.")

    @property
    def freedom(self) -> Freedom:
        """How far widths may go."""
        from onnxslim_learn.select.budget import Freedom

        return Freedom(self.multiple, empty=self.allow_empty)

    @property
    def repair(self) -> bool:
        """Whether to refit weights before they are trained."""
        return not self.no_repair

    @property
    def exactly(self) -> bool:
        """Whether strengths are lowered exactly to zero."""
        return REGULARIZERS[self.regularizer or GAMMA].exact if self.proximal is None else self.proximal

    @property
    def dies(self) -> float:
        """The threshold."""
        usual = L2_THRESHOLD if self.combine == "l2" else REGULARIZERS[self.regularizer or GAMMA].threshold
        return usual if self.threshold is None else self.threshold
