"""What can be asked for when models are run in onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxslim_learn.readers import provider, seconds, threads
from onnxslim_learn.settings import Option, declared, option

TIMING = ("timing", "how models are run and timed")  # a part of the help
SECONDS = Option("about the time to measure for", metavar="S", read=seconds, decides=False)


@dataclass(frozen=True)
class RuntimeSettings:
    """How models are run and timed.

    Attributes:
        threads: Threads one operator may use.
        provider: The onnxruntime execution provider.
        seconds: Time for every comparison of whole models.
    """

    TITLE: ClassVar = TIMING

    threads: int = option(1, "threads of onnxruntime", metavar="N", read=threads, decides=False)
    provider: str = option(
        "CPUExecutionProvider", "cpu (default), cuda, or full name", metavar="P", read=provider, decides=False
    )
    seconds: float = declared(2.0, SECONDS)
