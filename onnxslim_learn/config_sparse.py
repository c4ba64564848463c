"""Options about sparse weights: zeroed in one go, or learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.config_learn import number

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


def written(parser: argparse.ArgumentParser) -> None:
    """How sparse weights are written."""
    parser.add_argument(
        "--sparse-initializers", action="store_true", help="write weights as sparse initializers where that is smaller"
    )
