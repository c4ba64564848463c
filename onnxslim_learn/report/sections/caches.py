"""Caches of keys and values: which were opened, or what is left of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.blocks import Table, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxslim_learn.report.blocks import Block


def told(data: Mapping[str, Any]) -> list[Block]:
    """Every cache with its heads, and what the written file takes."""
    if not data["narrowed"]:
        said = "takes and gives what the original does; its heads of keys and values are units like others"
        rows: tuple[tuple[str, ...], ...] = tuple((one["name"], str(one["heads"])) for one in data["caches"])
        table = Table("Caches whose heads are open", ("input or output", "heads"), rows, (1,))
    else:
        said = "takes and gives the heads that stay; give it empty caches of that many at first"
        rows = tuple(
            (one["name"], str(one["heads"]), str(len(one["kept"])), ", ".join(map(str, one["kept"])))
            for one in data["caches"]
        )
        heads = ("input or output", "heads before", "after", "which of them")
        table = Table("Caches, narrowed", heads, rows, (1, 2))
    return [table, Text(f"{data['output']} {said}.")]
