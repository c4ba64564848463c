"""What users say of costs in a word, and what is meant by it."""

import pytest

from onnxslim_learn.costs import targets
from onnxslim_learn.errors import InputError

READ = [
    # text, the bound of what is cut (None: refused), the bound of what grows, whether that is a share
    ("macs=0.5", 0.5, 0.5, True),
    ("macs=50%", 0.5, 0.5, True),
    ("macs=1", 1, 1, True),
    ("macs=1.5", 1.5, 1.5, True),
    ("macs=150%", None, 1.5, True),
    ("macs=300M", 3e8, 3e8, False),
    ("macs=5000", 5000, 5000, False),
    ("params=2k", 2000, 2000, False),
    ("latency=0.5", 0.5, 0.5, True),
    ("latency=1.5", None, 1.5, True),
    ("latency=150%", None, 1.5, True),
    ("latency=1.5ms", "1.5ms", "1.5ms", False),
    ("latency=2us", "0.002ms", "0.002ms", False),
]


@pytest.mark.parametrize(("text", "cut", "grown", "share"), READ)
def test_a_number_above_one_is_a_share_where_something_grows(text, cut, grown, share):
    ((_, bound),) = targets.budgets([text]).items()
    assert bound == pytest.approx(grown)
    assert targets.is_share(bound) == share
    if cut is None:
        with pytest.raises(InputError):
            targets.targets([text])
    else:
        ((_, bound),) = targets.targets([text]).items()
        assert bound == pytest.approx(cut)
        assert targets.is_share(bound) == (share and cut <= 1)


def test_costs_have_other_names():
    assert targets.targets(["flops=50%", "size=2M"]) == {"macs": 0.5, "params": 2e6}
    with pytest.raises(InputError, match="macs is bounded twice"):
        targets.targets(["macs=0.5", "flops=0.4"])
    with pytest.raises(InputError, match=r"Did you mean flops\?"):
        targets.targets(["flop=0.5"])
