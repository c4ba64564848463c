"""What samples tell of all that are like them: bounds from below that hold in 95 of 100 cases.

The unit is the sample: places, tokens and detections of one are alike, and count together. Of others than those that
were held back, such as another writer's letters, no bound holds.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from onnxslim_learn.array_types import Array

CHANCE = 0.05  # that the truth lies below
PAIR = 2  # samples: fewer do not vary


def of_decisions(share: float, samples: int) -> float:
    """The least share of decisions that so many samples leave possible, where ``share`` of them are the same.

    Clopper and Pearson 1934, each sample as one draw: of scores from 0 to 1, those that are 0 or 1 vary most.
    """
    same = min(max(share, 0.0), 1.0) * samples
    return float(special.betaincinv(same, samples - same + 1, CHANCE)) if same > 0 else 0.0


def of_variance(errors: Array, sizes: Array) -> float:
    """The least share of variance that samples leave possible, each with its error and its part of the variance.

    1 minus a bound on a ratio of means, whose logarithm varies as Student's t: errors are no less than zero, and a few
    are far larger than the others. Of a single sample nothing follows.
    """
    count, mean, scale = len(errors), float(errors.mean()), float(sizes.mean())
    if mean <= 0 or scale <= 0 or count < PAIR:
        return float(mean <= 0 and count >= PAIR)
    ratio = mean / scale
    off = float((errors - ratio * sizes).std(ddof=1)) / (mean * np.sqrt(count))
    return float(1 - ratio * np.exp(min(special.stdtrit(count - 1, 1 - CHANCE) * off, 700.0)))


def enough(share: float, least: float) -> int:
    """How many samples bound a share of decisions by ``least``; ``share`` is more than that."""
    count = 1
    while of_decisions(share, count) < least:
        count += 1
    return count
