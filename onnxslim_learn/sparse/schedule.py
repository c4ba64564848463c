"""When masks are refreshed and how sparse they are then (Zhu & Gupta 2017, arXiv:1710.01878, equation 1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A sparsity that rises from 0 to 1 times its target over a window of training.

    Attributes:
        steps: Steps of the whole training, T.
        begin: Share of the steps after which it begins to rise.
        end: Share of the steps at which it has risen.
        exponent: α of the curve; larger ones rise earlier.
        every: Steps between two refreshes of the masks.
    """

    steps: int
    begin: float = 0.1
    end: float = 0.5
    exponent: float = 3.0
    every: int = 500

    @property
    def first(self) -> int:
        """First step of the window, ``int(T · begin)``."""
        return int(self.steps * self.begin)

    @property
    def last(self) -> int:
        """Step of the final refresh, ``int(T · end)``, but never after the last step: it always happens."""
        return max(min(int(self.steps * self.end), self.steps - 1), 0)

    def share(self, step: int) -> float:
        """Share of the target at a step: ``1 − (1 − u)^α`` with ``u`` from 0 to 1 over the window; 1 from its end."""
        first, end = self.first, int(self.steps * self.end)
        if step >= self.last:
            return 1.0
        u = min(max((step - first) / max(end - first, 1), 0.0), 1.0)
        return float(1.0 - (1.0 - u) ** self.exponent)

    def refreshes(self, step: int) -> bool:
        """Whether masks are refreshed before a step: every so many inside the window, and at its end in any case."""
        return step == self.last or (self.first <= step < self.last and step % self.every == 0)
