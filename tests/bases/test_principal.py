"""Principal directions lose least at every width; a plan keeps what it takes to replay it."""

import json

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from onnxslim_learn.bases import compared
from onnxslim_learn.bases.compared import between
from onnxslim_learn.bases.find import spaces
from onnxslim_learn.bases.principal import directions, in_principal_bases
from onnxslim_learn.errors import PlanError
from onnxslim_learn.plans.plan import Plan, digest
from onnxslim_learn.rewrite import stretches
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim as api
from tests.laws import ALL, feeds

NET = "attention"


def loss(kept: np.ndarray, covariance: np.ndarray, weights: np.ndarray) -> float:
    """Return what a consumer loses after its best refit, where only the span of some rows is kept."""
    seen = kept @ covariance
    explained = seen.T @ np.linalg.solve(kept @ seen.T, seen)
    return float(np.trace(weights @ (covariance - explained)))


def test_no_other_directions_lose_less():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 6)), rng.normal(size=(6, 4))
    covariance, weights = a @ a.T, b @ b.T
    found = directions([(covariance, weights)])
    np.testing.assert_allclose(found @ found.T, np.eye(6), atol=1e-12)
    for width in range(1, 6):
        least = loss(found[:width], covariance, weights)
        others = [loss(rng.normal(size=(width, 6)), covariance, weights) for _ in range(200)]
        others += [loss(np.eye(6)[:width], covariance, weights)]
        assert least <= min(others) + 1e-9
    values = np.linalg.eigvals(covariance @ weights).real
    assert loss(found[:2], covariance, weights) == pytest.approx(sum(sorted(values)[:4]), rel=2e-2)  # the ridge


@pytest.fixture(scope="module")
def slimmed(tmp_path_factory):
    """A net in a file, samples, and what was cut with a plan beside it."""
    folder = tmp_path_factory.mktemp("bases")
    onnx.save(ALL[NET].build(), folder / "m.onnx")
    names = [info.name for info in ALL[NET].build().graph.input]
    many = [feeds(ALL[NET].build(), seed) for seed in range(24)]
    samples = {name: np.concatenate([feed[name] for feed in many]) for name in names}
    result = osl.slim(
        folder / "m.onnx",
        macs=0.6,
        bases="principal",
        data=samples,
        output=folder / "s.onnx",
        plan_out=folder / "p.json",
        no_latency=True,
    )
    return folder, samples, result


def test_statistics_of_a_rotated_model_are_rotated(slimmed):
    folder, samples, _ = slimmed
    analysis = api.analyze(folder / "m.onnx")
    source = osl.load_data(folder / "m.onnx", samples)
    turned, known = in_principal_bases(analysis, Calibration(analysis.coupling, source))
    fresh = Calibration(turned.coupling, source)
    for told, counted in zip(known.pairs, fresh.pairs, strict=True):
        np.testing.assert_allclose(told.products, counted.products, atol=1e-4)
        np.testing.assert_allclose(told.weights, counted.weights, atol=1e-5)


def test_a_plan_is_replayed_with_its_rotations(slimmed):
    folder, samples, result = slimmed
    assert result.plan.bases
    assert json.loads((folder / "p.json").read_text())["provenance"]["bases"]["file"] == "p.bases.npz"
    assert osl.verify(folder / "m.onnx", folder / "s.onnx", folder / "p.json").passed
    again = osl.apply(folder / "m.onnx", folder / "p.json", data=samples, output=folder / "a.onnx", no_latency=True)
    first, second = onnx.load(folder / "s.onnx"), onnx.load(folder / "a.onnx")
    for one, other in zip(first.graph.initializer, second.graph.initializer, strict=True):
        np.testing.assert_allclose(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other), atol=1e-6)
    assert again.plan.groups == result.plan.groups


def test_rotations_that_are_missing_or_others_are_refused(slimmed, tmp_path):
    folder, *_ = slimmed
    (tmp_path / "p.json").write_text((folder / "p.json").read_text())
    with pytest.raises(PlanError, match=r"rotations cannot be read from p\.bases\.npz"):
        Plan.load(tmp_path / "p.json")
    with np.load(folder / "p.bases.npz") as arrays:
        np.savez(tmp_path / "p.bases.npz", **{name: arrays[name][::-1] for name in arrays.files})
    with pytest.raises(PlanError, match="holds other rotations"):
        Plan.load(tmp_path / "p.json")
    plan = Plan.from_json((folder / "p.json").read_text())
    with pytest.raises(PlanError, match="its rotations are missing"):
        api.slim(api.analyze(folder / "m.onnx"), plan)


def test_nothing_is_rotated_unless_it_serves(slimmed, monkeypatch):
    folder, samples, _ = slimmed
    asked = {"macs": 0.6, "bases": "principal", "no_latency": True}
    assert not osl.slim(folder / "m.onnx", no_repair=True, **asked).plan.bases
    assert not osl.slim(folder / "m.onnx", data=samples, criterion="folding", **asked).plan.bases
    monkeypatch.setattr(stretches, "LARGEST", 0)
    plan = osl.slim(folder / "m.onnx", data=samples, **asked).plan
    assert (plan.bases, plan.provenance["criterion"]) == ({}, "energy")


def test_queries_and_keys_are_ranked_by_what_they_have_in_common():
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    queries, keys = np.array([8.0, 1, 4, 2]), np.array([0.5, 9, 4, 1])  # products 4, 9, 16, 2
    rows = between(axes * queries @ axes.T, axes * keys @ axes.T)
    np.testing.assert_allclose(np.abs(rows @ axes), np.eye(4)[[2, 1, 0, 3]], atol=0.05)  # the ridge


def test_queries_and_keys_of_every_head_are_seen(slimmed):
    folder, samples, _ = slimmed
    analysis = api.analyze(folder / "m.onnx")
    known = spaces(analysis.coupling, analysis.groups)
    feeds = Calibration(analysis.coupling, osl.load_data(folder / "m.onnx", samples)).feeds
    bases = compared.bases(analysis.coupling, known, feeds)
    assert sorted(bases) == [f"wq:1|{head}" for head in range(4)]


def test_what_was_measured_of_a_model_is_not_taken_for_a_rotated_one(slimmed):
    folder, samples, _ = slimmed
    analysis = api.analyze(folder / "m.onnx")
    known = Calibration(analysis.coupling, osl.load_data(folder / "m.onnx", samples))
    turned, _ = in_principal_bases(analysis, known)
    assert turned.graph.digest == analysis.graph.digest
    assert turned.graph.bases == digest(turned.bases) != analysis.graph.bases
