"""Methods against exhaustive search and against each other, on nodes small enough for that."""

from itertools import combinations

import numpy as np
import onnx_ir as ir
import pytest

from onnxslim_learn.registry import METHODS
from onnxslim_learn.repair.linear_nodes import linears
from onnxslim_learn.sparse import patterns
from onnxslim_learn.sparse.maskable import layers
from onnxslim_learn.sparse.solvers import LayerPruning, Moments, on_support
from tests.repair.test_linear_nodes import build

CASES = ["conv", "conv groups", "transposed", "transposed groups", "gemm", "gemm transposed", "matmul", "conv 1-d"]


def task(case, pattern="unstructured", ratio=0.5, seed=0):
    """A node, correlated inputs for it, and what is asked."""
    model = ir.from_proto(build(case)[0])
    (linear,), (layer,) = linears(model), layers(model)
    matrix = linear.read().matrix.astype(np.float64)
    groups, width, _ = matrix.shape
    rng = np.random.default_rng(seed)
    mixing = np.eye(width) + 0.2 * rng.standard_normal((groups, width, width))
    inputs = rng.standard_normal((groups, 400, width)) @ mixing
    gram = inputs.transpose(0, 2, 1) @ inputs / 400 + 1e-3 * np.eye(width)
    squares = np.square(inputs).mean(axis=1)
    return LayerPruning(layer, linear.form, patterns.parse(pattern), ratio), Moments(matrix, squares, gram)


def error(seen, weights):
    away = weights - seen.matrix
    return float(np.einsum("gdo,gde,geo->", away, seen.gram, away))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_exactly_so_many_weights_go(case, method):
    cut, seen = task(case, ratio=0.6)
    mask, weights = METHODS.load(method)(cut, seen)
    assert (~mask).sum() == round(0.6 * mask.size)
    assert not weights[~mask].any()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["2:4", "2x2", "units"])
@pytest.mark.parametrize("method", METHODS)
def test_patterns_hold_in_the_tensor(case, name, method):
    cut, seen = task(case, name)
    mask, _ = METHODS.load(method)(cut, seen)
    tensor = cut.form.tensor(mask * 1.0).reshape(cut.layer.shape)
    assert patterns.holds(tensor, cut.pattern, cut.layer)


def test_the_best_weights_on_a_support_are_a_minimum():
    cut, seen = task("conv groups")
    mask, _ = METHODS.load("magnitude")(cut, seen)
    best = on_support(seen, mask)
    slope = (seen.gram @ (best - seen.matrix)) * mask
    assert np.abs(slope).max() < 1e-9
    assert not best[~mask].any()


def test_updating_beats_leaving_weights_alone():
    for seed in range(5):
        cut, seen = task("conv", ratio=0.7, seed=seed)
        plain = error(seen, METHODS.load("magnitude")(cut, seen)[1])
        for method in (row.name for row in METHODS.values() if row.refits):
            mask, weights = METHODS.load(method)(cut, seen)
            exact = error(seen, on_support(seen, mask))
            assert exact <= error(seen, weights) + 1e-9
            assert exact < plain


def test_methods_come_among_the_best_supports_there_are():
    cut, seen = task("gemm", ratio=0.5)  # (4, 3): six of twelve weights
    every = []
    for gone in combinations(range(12), 6):
        mask = np.ones(12, bool)
        mask[list(gone)] = False
        every.append(error(seen, on_support(seen, mask.reshape(1, 4, 3))))
    for method in (row.name for row in METHODS.values() if row.refits):
        found = error(seen, on_support(seen, METHODS.load(method)(cut, seen)[0]))
        assert min(every) - 1e-9 <= found <= np.quantile(every, 0.05), method


def test_wanda_compares_within_each_output():
    cut, seen = task("matmul", ratio=0.5)
    mask, _ = METHODS.load("wanda")(cut, seen)
    assert (mask[0].sum(axis=0) == 2).all()
    scores = np.abs(seen.matrix[0]) * np.sqrt(seen.squares[0])[:, None]
    for column in range(mask.shape[2]):
        assert scores[mask[0, :, column], column].min() >= scores[~mask[0, :, column], column].max()
