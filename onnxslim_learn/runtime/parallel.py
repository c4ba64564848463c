"""Several trials at once, one per core."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import threadpoolctl

K = TypeVar("K")
T = TypeVar("T")

WORKERS = min(os.cpu_count() or 1, 4)  # every one holds activations of its own


def spread(jobs: Iterable[tuple[K, Callable[[], T]]]) -> Iterator[tuple[K, T]]:
    """Results of jobs by key, in the order of the jobs.

    Jobs are drawn in the caller's thread, one when a worker is free; each has one thread for its matrix products. What
    a job raises is raised here.
    """
    with threadpoolctl.threadpool_limits(1, "blas"), ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[tuple[K, Future[T]]] = deque()
        try:
            for key, job in jobs:
                waiting.append((key, pool.submit(job)))
                while len(waiting) >= WORKERS or (waiting and waiting[0][1].done()):
                    first, result = waiting.popleft()
                    yield first, result.result()
            while waiting:
                first, result = waiting.popleft()
                yield first, result.result()
        finally:
            pool.shutdown(cancel_futures=True)
