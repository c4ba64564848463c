"""Several trials at once: results in order, drawn as needed, and errors are raised."""

import threading

import pytest

from onnxslim_learn.runtime import parallel


def test_results_come_by_key_in_the_order_of_the_jobs():
    assert list(parallel.spread((k, lambda k=k: k * k) for k in range(20))) == [(k, k * k) for k in range(20)]
    assert list(parallel.spread(())) == []


def test_jobs_are_drawn_by_the_caller_one_when_a_worker_is_free(monkeypatch):
    monkeypatch.setattr(parallel, "WORKERS", 2)
    drawn, gate = [], threading.Event()

    def jobs():
        for k in range(6):
            assert threading.current_thread() is threading.main_thread()
            drawn.append(k)
            if len(drawn) == 3:
                gate.set()
            yield k, gate.wait if k == 0 else (lambda: True)

    threading.Timer(0.2, gate.set).start()
    results = parallel.spread(jobs())
    assert next(results) == (0, True)
    assert len(drawn) <= 3
    assert [value for _, value in results] == [True] * 5


def test_what_a_job_raises_is_raised():
    def fail():
        raise ValueError("so")

    with pytest.raises(ValueError, match="so"):
        list(parallel.spread([("a", lambda: 1), ("b", fail), ("c", lambda: 1)]))
