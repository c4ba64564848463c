"""How far a command is, in a notebook: a bar under the cell, which goes when the command has ended."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnxslim_learn.report.format import step

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Watcher

OFTEN = 0.2  # seconds between two looks of a bar: notebooks keep every one that they are sent until a cell ends


@contextmanager
def watching(watcher: Watcher | None) -> Iterator[Watcher | None]:
    """The watcher that was given; where there is none, a bar if this is a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if watcher is not None or not hasattr(shell, "kernel"):
        yield watcher
        return
    from IPython.display import HTML, display

    bar = display(HTML(""), display_id=True)  # type: ignore[no-untyped-call]
    last = "", 0.0

    def tell(stage: str, share: float, numbers: Mapping[str, float]) -> None:
        nonlocal last
        if stage != last[0] or time.monotonic() - last[1] > OFTEN:
            last = stage, time.monotonic()
            bar.update(HTML(drawn(stage, share, numbers)))  # type: ignore[no-untyped-call]

    try:
        yield tell
    finally:
        bar.update(HTML(""))  # type: ignore[no-untyped-call]


def drawn(stage: str, share: float, numbers: Mapping[str, float]) -> str:
    """A stage, the share of it that is done, and numbers, as HTML; a share of 0 is not known yet."""
    value = f' value="{share:.3f}"' if share else ""
    said = ", ".join(filter(None, [stage, step(numbers)]))
    return f'<progress style="width:20em"{value}></progress> {html.escape(said)}'
