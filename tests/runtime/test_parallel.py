"""Several trials at once: results in order, drawn as needed, and errors are raised."""

import threading

import numpy as np
import pytest
import threadpoolctl

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


np.ones((2, 2)) @ np.ones((2, 2))  # loads the library


def blas_threads():
    return {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}


@pytest.mark.skipif(not blas_threads(), reason="no library for matrix products whose threads can be limited")
def test_matrix_products_have_one_thread_while_trials_run_and_as_many_as_before_after():
    with threadpoolctl.threadpool_limits(2, "blas"):
        for _, inside in parallel.spread((k, blas_threads) for k in range(6)):
            assert inside == {1}
        assert blas_threads() == {2}


@pytest.mark.skipif(not blas_threads(), reason="no library for matrix products whose threads can be limited")
def test_the_limit_ends_with_the_last_of_trials_that_overlap():
    with threadpoolctl.threadpool_limits(2, "blas"):
        first, second = parallel.one_thread(), parallel.one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == {2}


def test_results_are_looked_at_without_the_limit():
    with threadpoolctl.threadpool_limits(2, "blas"):
        before = blas_threads()
        for _ in parallel.spread([("a", lambda: 1)]):
            assert blas_threads() == before
