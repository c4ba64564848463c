"""Trials give the same results in the same order wherever they run, and a worker that is lost is told of."""

import os
import threading

import numpy as np
import pytest

from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime import workers
from onnxslim_learn.workflow import slim
from tests.laws import analysed
from tests.runtime.pieces import die, fail, power
from tests.select.test_allocation import calibration


@pytest.fixture(scope="module")
def cluster():
    """The address of a scheduler with two workers."""
    distributed = pytest.importorskip("distributed")
    options = {"dashboard_address": None, "protocol": "tcp", "silence_logs": 50}
    with distributed.LocalCluster(2, threads_per_worker=1, **options) as local:
        yield local.scheduler_address
        workers.opened.cache_clear()


def check(place):
    shared, jobs = np.arange(8), [(str(k), (k,)) for k in range(8)]
    found = list(workers.trials(power, shared, iter(jobs), place))
    assert [(key, value) for key, (value, _) in found] == [(str(k), k**2) for k in range(8)]
    assert all((process == os.getpid()) == (place is None) for _, (_, process) in found)
    with pytest.raises(ValueError, match="no 0"):
        list(workers.trials(fail, shared, jobs, place))


def planned(place):
    """What curves and trials say of a net, and the plan."""
    known = calibration("residual")
    known.workers = place
    plan = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=known)
    return known.curves.points, plan.provenance["trials"], plan.groups


def test_processes_give_the_results_of_threads_in_order():
    check(None)
    check(2)
    with pytest.raises(InputError, match="workers 2: every trial must come back"):
        list(workers.trials(die, None, [(0, (0,))], 2))
    check(2)  # others have taken the place of those that were lost


@pytest.mark.slow
def test_a_plan_is_the_same_whatever_measures(cluster, tmp_path, monkeypatch):
    found = []
    for number, place in enumerate((None, 1, 2, cluster)):
        monkeypatch.setenv("ONNXSLIM_LEARN_CACHE", str(tmp_path / str(number)))
        found.append(planned(place))
    assert len(found[0][0]) > 1
    assert all(one == found[0] for one in found[1:])


@pytest.mark.slow
def test_a_cluster_gives_the_results_of_threads_in_order(cluster):
    check(cluster)
    with pytest.raises(InputError, match="every trial must come back"):
        list(workers.trials(die, None, [(0, (0,))], cluster))


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_told(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "SECONDS", 1)
    before = threading.active_count()
    with pytest.raises(InputError, match=r"workers tcp://127\.0\.0\.1:9: a Dask scheduler must answer"):
        workers.opened("tcp://127.0.0.1:9")
    assert threading.active_count() < before + 20
