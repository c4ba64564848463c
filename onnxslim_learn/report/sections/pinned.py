"""Why something cannot be cut, in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.format import share

if TYPE_CHECKING:
    from collections.abc import Mapping

ONE = "has one unit only"
UNEVEN = re.compile(r"its rows must keep equally many, not (\d+) to (\d+)")


def inside(row: Mapping[str, Any]) -> str:
    """What the bodies of a node hold, why that stays, and what would free it."""
    if row["chosen"]:
        where = f"the branch of node {row['name']} ({row['op_type']}) that does not run with these values"
        return f"{share(row['params_share'])} of the parameters are in {where}: it stays as it is."
    costs = f"{share(row['macs_share'])} of the MACs and {share(row['params_share'])} of the parameters"
    said = f"{costs} are inside node {row['name']} ({row['op_type']}), whose bodies are not cut"
    if not row["counted"]:
        said += "; work there whose sizes only a run decides is not counted"
    if row["rounds"] is None:
        said += "; counted for one round, since only a run decides how many there are"
    if row["decided_by"]:
        names = " ".join(f"--value {name}=NUMBER" for name in row["decided_by"])
        said += f"; {', '.join(row['decided_by'])} decides which branch runs: {names} cuts that one"
    return f"{said}."


def because(row: Mapping[str, Any]) -> str:
    """Node and reason; a reason that names its node stands alone."""
    reason = UNEVEN.sub(r"cut alone, it would leave rows of \1 and \2 units, which must be equally many", row["reason"])
    if row["delicate"]:
        reason += "; --allow-sensitive lifts that"
    if row["where"]:
        return f"{row['where']}: it {reason}"
    return reason if reason.startswith("node ") else f"it {reason}"
