"""Several trials at once, one per core."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import TypeVar

import threadpoolctl

K = TypeVar("K")
T = TypeVar("T")

WORKERS = min(os.cpu_count() or 1, 4)  # every one holds activations of its own


class _Limit:
    """The limit of one thread for matrix products, which libraries know for whole processes only.

    It holds from when the first of several that overlap begins to when the last ends.
    """

    def __init__(self) -> None:
        self._lock, self._holders = Lock(), 0
        self._limits: threadpoolctl.threadpool_limits | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the limit for a block, in the thread that waits for trials: not all libraries listen to workers."""
        with self._lock:
            self._holders += 1
            if self._limits is None:
                self._limits = threadpoolctl.threadpool_limits(1, "blas")
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders and self._limits is not None:
                    self._limits.restore_original_limits()
                    self._limits = None


one_thread = _Limit()
"""The one limit of this process: ``with one_thread():`` around trials."""


def spread(jobs: Iterable[tuple[K, Callable[[], T]]]) -> Iterator[tuple[K, T]]:
    """Results of jobs by key, in the order of the jobs.

    Jobs are drawn in the caller's thread, one when a worker is free; each has one thread for its matrix products, and
    whoever looks at the last results has as many as before. What a job raises is raised here.
    """
    waiting: deque[tuple[K, Future[T]]] = deque()
    with ExitStack() as limited, ThreadPoolExecutor(WORKERS) as pool:

        def first() -> tuple[K, T]:
            key, result = waiting.popleft()
            value = result.result()
            if not waiting:
                limited.close()
            return key, value

        try:
            for key, task in jobs:
                if not waiting:
                    limited.enter_context(one_thread())
                waiting.append((key, pool.submit(task)))
                while len(waiting) >= WORKERS or (waiting and waiting[0][1].done()):
                    yield first()
            while waiting:
                yield first()
        finally:
            pool.shutdown(cancel_futures=True)
