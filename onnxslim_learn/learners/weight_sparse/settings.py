"""What can be asked of weight sparsification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.settings import FROM_SCRATCH, LearningSteps, LearnSettings
from onnxslim_learn.readers import any_number, any_whole
from onnxslim_learn.registry import PROTOCOLS, SEARCH, UNIFORM
from onnxslim_learn.rows import require
from onnxslim_learn.settings import build, declared, option, part
from onnxslim_learn.workflow.options import LOSSLESS_TOO, PATTERN, PROTECT, SPARSE_INITIALIZERS

ZEROS = "weight-sparse"  # purpose
MOST = 1e9
SINGLE = "single-obj"
REWARDS = {SINGLE: "accuracy, with the share met exactly", "multi-obj": "accuracy times ln(1 + share)"}
"""What roll-outs are rewarded by -> in a few words."""
SHARE, ONE_OR_MORE, NONE_OR_MORE, ABOVE_ZERO = (0.0, 1.0), (1.0, MOST), (0.0, MOST), (1e-9, MOST)


def _number(default: float, about: str, span: tuple[float, float]) -> Any:
    return option(default, about, read=any_number, span=span, purpose=ZEROS)


def _whole(default: int, about: str, span: tuple[float, float]) -> Any:
    return option(default, about, read=any_whole, span=span, purpose=ZEROS)


@dataclass(frozen=True)
class MethodSettings:
    """The parameters of the method under their original names, with their defaults.

    Attributes:
        ws_prune_ratio: Share of all maskable weights that goes.
        ws_prune_ratio_prtl: How it is spread over layers: ``uniform``, ``heurist``, ``optimal`` (by reinforcement
            learning) or ``search`` (by measured curves, in minutes).
        ws_nb_rlouts: Roll-outs of the agent.
        ws_nb_rlouts_min: Roll-outs by chance before the agent trains.
        ws_reward_type: One of :data:`REWARDS`.
        ws_lrn_rate_rg: Rate of the layer-wise regression in a roll-out.
        ws_nb_iters_rg: Its steps per layer.
        ws_lrn_rate_ft: Rate of the fine-tuning in a roll-out.
        ws_nb_iters_ft: Its steps.
        ws_nb_iters_feval: Batches on which a roll-out is judged.
        ws_prune_ratio_exp: Exponent of the schedule.
        ws_iter_ratio_beg: Share of the steps after which the share begins to rise.
        ws_iter_ratio_end: Share of the steps at which it has risen.
        ws_mask_update_step: Steps between two refreshes of the masks.
        ws_save_path: Folder for checkpoints.
        loss_w_dst: Weight of distillation, where the original teaches, too.
        tempr_dst: Its temperature.
        enbl_dst: Whether the original teaches, too.
    """

    TITLE: ClassVar = ("weight-sparse", "zeros learnt while training for --steps; see --learner")

    ws_prune_ratio: float = _number(0.75, "share of the weights that goes", SHARE)
    ws_prune_ratio_prtl: str = option(
        SEARCH,
        f"its spread over layers (default {SEARCH}): {PROTOCOLS.listed()}",
        metavar="NAME",
        purpose=ZEROS,
    )
    ws_nb_rlouts: int = _whole(200, "optimal: roll-outs of the agent", ONE_OR_MORE)
    ws_nb_rlouts_min: int = _whole(50, "optimal: roll-outs by chance before it trains", NONE_OR_MORE)
    ws_reward_type: str = option(
        SINGLE,
        f"optimal (default {SINGLE}): " + ", ".join(f"{name} ({said})" for name, said in REWARDS.items()),
        choices=tuple(REWARDS),
        purpose=ZEROS,
    )
    ws_lrn_rate_rg: float = _number(3e-2, "optimal: rate of a roll-out's layer-wise regression", ABOVE_ZERO)
    ws_nb_iters_rg: int = _whole(20, "optimal: its steps per layer", NONE_OR_MORE)
    ws_lrn_rate_ft: float = _number(3e-4, "optimal: rate of a roll-out's fine-tuning", ABOVE_ZERO)
    ws_nb_iters_ft: int = _whole(400, "optimal: its steps", NONE_OR_MORE)
    ws_nb_iters_feval: int = _whole(25, "optimal: batches on which a roll-out is judged", ONE_OR_MORE)
    ws_prune_ratio_exp: float = _number(3.0, "exponent of the schedule", ABOVE_ZERO)
    ws_iter_ratio_beg: float = _number(0.1, "share of the steps after which zeros begin", SHARE)
    ws_iter_ratio_end: float = _number(0.5, "share of the steps at which all are there", SHARE)
    ws_mask_update_step: int = _whole(500, "steps between two choices of the zeros", ONE_OR_MORE)
    ws_save_path: str | None = option(
        None, "folder for checkpoints, as --checkpoint-dir", metavar="DIR", keeps=True, decides=False, purpose=ZEROS
    )
    loss_w_dst: float = _number(4.0, "weight of distillation", ABOVE_ZERO)
    tempr_dst: float = _number(4.0, "its temperature", ABOVE_ZERO)
    enbl_dst: bool = option(False, "cross-entropy with labels, and the original teaches, too", purpose=ZEROS)

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: With the parameter at fault.
        """
        for one in fields(self):
            about, value = one.metadata["option"], getattr(self, one.name)
            if about.choices and value not in about.choices:
                raise InputError(f"⟨{one.name}⟩ {value}: expected one of {', '.join(about.choices)}.")
            low, high = about.span
            if low > -MOST and not low <= value <= high:
                raise InputError(f"⟨{one.name}⟩ {value}: expected a number from {low:g} to {high:g}. Change it.")
        PROTOCOLS.row(self.ws_prune_ratio_prtl, "⟨ws_prune_ratio_prtl⟩")
        if self.ws_iter_ratio_beg > self.ws_iter_ratio_end:
            raise InputError("⟨ws_iter_ratio_beg⟩: expected at most ⟨ws_iter_ratio_end⟩. Change one of them.")

    @property
    def taught(self) -> dict[str, Any]:
        """Loss and temperature as the training loop takes them when the original teaches, too (``enbl_dst``).

        The method has no factor T², which the loop's distillation has.
        """
        share = self.loss_w_dst / self.tempr_dst**2
        return {"loss": f"cross-entropy=1,distill={share!r}", "temperature": self.tempr_dst}


@dataclass(frozen=True)
class WeightSparseSettings:
    """Which weights to zero while training, as asked for.

    Attributes:
        method: The parameters of the method.
        pattern: Where zeros may be.
        protect: Regular expressions of weights and nodes that stay dense.
        from_scratch: Whether weights are drawn anew first.
        one_shot: Whether to begin with what is sparsified in one go, and to keep its zeros.
        length: How long is learnt.
        lossless: Whether units that change no output any more are cut.
        sparse_initializers: Whether sparse initializers are written where they are smaller.
    """

    TITLE: ClassVar = MethodSettings.TITLE

    method: MethodSettings = part(MethodSettings)
    pattern: str = declared("unstructured", replace(PATTERN, help="where zeros may be, as in sparsify", purpose=ZEROS))
    protect: tuple[str, ...] = declared((), replace(PROTECT, purpose=ZEROS))
    from_scratch: bool = declared(False, FROM_SCRATCH)
    one_shot: bool = option(
        False, "begin (roll-outs, too) with what sparsify makes, keep its zeros and train the others", purpose=ZEROS
    )
    length: LearningSteps = part(LearningSteps)
    lossless: bool = declared(False, replace(LOSSLESS_TOO, purpose=ZEROS))
    sparse_initializers: bool = declared(False, replace(SPARSE_INITIALIZERS, purpose=ZEROS))

    def check(self, shared: LearnSettings) -> None:
        """Refuse what cannot be asked for together.

        Raises:
            InputError: With the parameter at fault.
        """
        from onnxslim_learn.sparse import patterns

        fixed, asked, usual = patterns.parse(self.pattern).ratio, self.method, MethodSettings()
        if fixed is not None and asked.ws_prune_ratio not in (usual.ws_prune_ratio, fixed):
            raise InputError(f"⟨ws_prune_ratio⟩: the pattern {self.pattern} zeroes {fixed:g}. Leave it out.")
        if fixed is not None and asked.ws_prune_ratio_prtl not in (usual.ws_prune_ratio_prtl, UNIFORM):
            raise InputError(f"⟨ws_prune_ratio_prtl⟩: the pattern {self.pattern} fixes all shares. Leave it out.")
        spread = PROTOCOLS.row(asked.ws_prune_ratio_prtl)
        require(spread.extra, f"⟨ws_prune_ratio_prtl⟩ {spread.name}")
        if asked.enbl_dst and shared.training.loss != "distill":
            raise InputError("⟨enbl_dst⟩: and ⟨loss⟩ are two ways to say what is minimised. Leave one of them out.")
        if self.one_shot and self.from_scratch:
            raise InputError("⟨one_shot⟩: keeps weights, but ⟨from_scratch⟩ draws them anew. Leave one of them out.")

    @property
    def training(self) -> dict[str, Any]:
        """What of the training follows from the method."""
        return self.method.taught if self.method.enbl_dst else {}

    @property
    def target(self) -> float:
        """The share that goes: what was asked for, or what the pattern fixes."""
        from onnxslim_learn.sparse import patterns

        fixed = patterns.parse(self.pattern).ratio
        return self.method.ws_prune_ratio if fixed is None else fixed


def settings(given: Mapping[str, Any]) -> MethodSettings:
    """Parameters of the method from names and values, underscores or hyphens.

    Raises:
        InputError: If a name is none, or a value does not fit.
    """
    return build(MethodSettings, given)
