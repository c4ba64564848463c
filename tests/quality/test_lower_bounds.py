"""What so few samples tell: drawn again and again from what is known, bounds from below hold as often as they say."""

import numpy as np
import pytest
from scipy import stats

from onnxslim_learn import lower_bounds, metrics

DRAWS = 4000
MISSES = 3 * np.sqrt(lower_bounds.CHANCE * (1 - lower_bounds.CHANCE) / DRAWS)  # three deviations of that many draws
COUNTS = [2, 3, 8, 12, 32, 128]


def held(bounds, truth):
    """The share of draws whose bound lies below what is true."""
    return float(np.mean(np.asarray(bounds) <= truth + 1e-12))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("truth", [0.3, 0.85, 0.97])
def test_of_decisions_holds_however_samples_share_them(count, truth):
    """Each sample right or wrong as a whole, or in parts: a few that fail nearly wholly among many that do not fail."""
    rng = np.random.default_rng(count)
    whole = rng.random((DRAWS, count)) < truth
    parts = np.where(rng.random((DRAWS, count)) < (1 - truth) / 0.8, 0.2, 1.0)
    for shares in (whole, parts, rng.beta(4 * truth, 4 * (1 - truth), (DRAWS, count))):
        told = [lower_bounds.of_decisions(share, count) for share in shares.mean(axis=1)]
        assert held(told, truth) >= 1 - lower_bounds.CHANCE - MISSES


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("same", [0, 1, 2])
def test_of_whole_samples_it_is_that_of_clopper_and_pearson(count, same):
    """At the bound, as many or more are the same in 5 of 100 cases."""
    least = lower_bounds.of_decisions(1 - same / count, count)
    if same < count:
        assert stats.binom.sf(count - same - 1, count, least) == pytest.approx(lower_bounds.CHANCE)
    else:
        assert least == 0


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("spread", [0.2, 0.7])
def test_of_variance_holds_where_some_samples_lose_far_more(count, spread):
    rng = np.random.default_rng(count)
    errors = 0.1 * np.exp(spread * rng.standard_normal((DRAWS, count)) - spread**2 / 2)
    sizes = rng.gamma(8, 1 / 8, (DRAWS, count))
    told = [lower_bounds.of_variance(*one) for one in zip(errors, sizes, strict=True)]
    assert held(told, 0.9) >= 1 - lower_bounds.CHANCE - MISSES - 0.05 * spread  # a logarithm of a mean is no normal one
    assert np.median(told) < 0.9


def test_more_samples_tell_more_and_one_tells_nothing():
    for share in (0.9, 0.99, 1.0):
        told = [lower_bounds.of_decisions(share, count) for count in range(1, 200)]
        assert told == sorted(told)
        assert told[0] <= lower_bounds.CHANCE
        count = lower_bounds.enough(share, 0.8)
        assert told[count - 2] < 0.8 <= told[count - 1]
    assert [lower_bounds.of_variance(np.full(count, 0.1), np.ones(count)) for count in (1, 2)] == [0, 0.9]
    assert [lower_bounds.of_variance(np.zeros(count), np.ones(count)) for count in (1, 2)] == [0, 1]


def test_blocks_are_sure_of_what_their_samples_bear_out():
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal((400, 6))
    actual = wanted + 0.3 * rng.standard_normal((400, 6))
    (few,), (many,) = (metrics.blocks(wanted[:n], actual[:n], alike=True) for n in (8, 400))
    assert few.sure < many.sure < many.explained == pytest.approx(0.91, abs=0.02)
