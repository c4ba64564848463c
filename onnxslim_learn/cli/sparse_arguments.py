"""Options about sparse weights: zeroed in one go, or learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.cli.learn_arguments import number

if TYPE_CHECKING:
    import argparse


def one_shot(parser: argparse.ArgumentParser) -> None:
    """What ``sparsify`` zeroes."""
    parser.add_argument("--ratio", type=float, metavar="X", help="share of the weights that goes, from 0 to 1")
    parser.add_argument(
        "--pattern",
        default="unstructured",
        metavar="NAME",
        help="where zeros may be: unstructured (default), N:M as in 2:4, RxC blocks as in 4x1, or units",
    )
    parser.add_argument(
        "--method",
        default="admm",
        metavar="NAME",
        help="admm (default) and sparsegpt also refit the weights that stay; wanda looks at inputs, magnitude does not",
    )
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="how the ratio is spread over layers: uniform, heurist (large ones lose more; default), search (measured)",
    )
    parser.add_argument(
        "--search-seconds", type=number, default=120.0, metavar="S", help="time for --protocol search (default 120)"
    )
    parser.add_argument(
        "--protect",
        metavar="REGEX",
        action="append",
        default=[],
        help="weights whose name, or whose node's, matches stay dense",
    )
    written(parser)
    parser.set_defaults(no_repair=False, match_statistics=False)


NAMES: dict[str, tuple[object, str]] = {
    "ws_prune_ratio": (float, "share of the weights that goes (default 0.75)"),
    "ws_prune_ratio_prtl": (
        str,
        "its spread over layers: uniform, heurist, optimal (by reinforcement; default), search",
    ),
    "ws_nb_rlouts": (int, "optimal: roll-outs of the agent (default 200)"),
    "ws_nb_rlouts_min": (int, "optimal: roll-outs by chance before it trains (default 50)"),
    "ws_reward_type": (str, "optimal: single-obj (accuracy; default) or multi-obj (times ln(1 + share))"),
    "ws_lrn_rate_rg": (float, "optimal: rate of a roll-out's layer-wise regression (default 0.03)"),
    "ws_nb_iters_rg": (int, "optimal: its steps per layer (default 20)"),
    "ws_lrn_rate_ft": (float, "optimal: rate of a roll-out's fine-tuning (default 0.0003)"),
    "ws_nb_iters_ft": (int, "optimal: its steps (default 400)"),
    "ws_nb_iters_feval": (int, "optimal: batches on which a roll-out is judged (default 25)"),
    "ws_prune_ratio_exp": (float, "exponent of the schedule (default 3)"),
    "ws_iter_ratio_beg": (float, "share of the steps after which zeros begin (default 0.1)"),
    "ws_iter_ratio_end": (float, "share of the steps at which all are there (default 0.5)"),
    "ws_mask_update_step": (int, "steps between two choices of the zeros (default 500)"),
    "ws_save_path": (str, "folder for checkpoints, as --checkpoint-dir"),
    "loss_w_dst": (float, "weight of distillation (default 4)"),
    "tempr_dst": (float, "its temperature (default 4)"),
    "enbl_dst": (bool, "cross-entropy with labels, and the original teaches, too"),
}
"""Parameter of the method -> its type and meaning; defaults are in ``learners/weight_sparse/learner.py``."""


def learnt(parser: argparse.ArgumentParser) -> None:
    """What ``learn --learner weight-sparse`` zeroes; options under their original names, and with hyphens."""
    group = parser.add_argument_group("weight-sparse", "zeros learnt while training for --steps; see --learner")
    for name, (kind, meaning) in NAMES.items():
        flag = f"--{name.replace('_', '-')}"
        if kind is bool:
            group.add_argument(flag, action="store_true", default=None, help=meaning)
        else:
            group.add_argument(flag, type=kind, metavar="NAME" if kind is str else "X", help=meaning)  # type: ignore[arg-type]
    group.add_argument(
        "--one-shot",
        action="store_true",
        help="begin (roll-outs, too) with what sparsify makes, keep its zeros and train the others",
    )
    group.add_argument("--pattern", default="unstructured", metavar="NAME", help="where zeros may be, as in sparsify")
    written(group)


def written(parser: argparse._ActionsContainer) -> None:
    """How sparse weights are written."""
    parser.add_argument("--lossless", action="store_true", help="also cut units that change no output any more")
    parser.add_argument(
        "--sparse-initializers", action="store_true", help="write weights as sparse initializers where that is smaller"
    )
