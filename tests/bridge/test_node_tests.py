"""The node tests that the onnx package ships: what fails has a reason, and is counted."""

import onnx
import pytest

from scripts.coverage_bridge import REASONS, node_tests

PASSED = {"1.23": 1802}
"""Version of onnx -> node tests that pass; of another version no count is known."""


@pytest.mark.slow
def test_node_tests_pass_or_have_a_reason():
    tallies = node_tests()
    failing = {name: tally.failed for name, tally in tallies.items() if tally.failed}
    assert set(failing) <= set(REASONS), {name: failing[name][0] for name in set(failing) - set(REASONS)}
    passed = sum(tally.passed for tally in tallies.values())
    assert passed >= PASSED.get(onnx.__version__.rpartition(".")[0], 0.95 * sum(t.tests for t in tallies.values()))
