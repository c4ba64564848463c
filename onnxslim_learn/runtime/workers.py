"""Trials on other processes, or on other machines: independent pieces of work over one executor protocol.

Without a place they run in threads of this process (:mod:`onnxslim_learn.runtime.parallel`). A number is so many
processes of this machine; ``tcp://host:8786`` is the scheduler of a Dask cluster, on whose workers this package is
installed. What trials share is sent as bytes, once for each worker; weights that a model has in files beside it are
read there by their path, which must be in a folder that all share. Every trial has one thread, so that results are the
same wherever it runs.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import cloudpickle

from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.runtime.parallel import one_thread, spread

K = TypeVar("K")
T = TypeVar("T")

SECONDS = 30  # to wait for the scheduler of a cluster


@dataclass(frozen=True)
class Workers:
    """Where trials run.

    Attributes:
        executor: Takes them.
        count: How many run beside each other.
        shared: Hands out what all of them share, as a path or as what becomes the bytes where they run.
        lost: What is raised where a worker does not come back.
    """

    executor: Executor
    count: int
    shared: Callable[[bytes], Any]
    lost: tuple[type[BaseException], ...]


def trials(
    function: Callable[..., T], shared: Any, jobs: Iterable[tuple[K, tuple[Any, ...]]], place: int | str | None = None
) -> Iterator[tuple[K, T]]:
    """Results of ``function(shared, *arguments)`` for the arguments of every job, by key, in the order of the jobs.

    Jobs are drawn when a worker is about to be free.

    Args:
        function: A function of a module.
        shared: What all jobs read, and may keep things in that speed up the next one.
        jobs: Key and arguments of each.
        place: ``None`` for this process, a number of processes, or the address of a scheduler.

    Raises:
        InputError: If a worker ended before its trial did, or there is no cluster.
    """
    if place is None:
        yield from spread((key, partial(function, shared, *arguments)) for key, arguments in jobs)
        return
    workers, waiting = opened(place), deque[tuple[K, Any]]()

    def first() -> tuple[K, T]:
        key, result = waiting.popleft()
        return key, result.result()

    data = cloudpickle.dumps(shared)
    name = hashlib.sha256(data).hexdigest()
    with _told(place, workers), workers.shared(data) as sent:
        try:
            for key, arguments in jobs:
                waiting.append((key, workers.executor.submit(_carry_out, name, sent, function, arguments)))
                while len(waiting) > workers.count:
                    yield first()
            while waiting:
                yield first()
        finally:
            for _, result in waiting:
                result.cancel()


@contextmanager
def _told(place: int | str, workers: Workers) -> Iterator[None]:
    """Say in one sentence that a worker was lost, and start afresh next time."""
    try:
        yield
    except workers.lost as error:
        opened.cache_clear()
        raise InputError(
            f"⟨workers⟩ {place}: every trial must come back, but a worker ended before its trial did, as happens where"
            " memory runs out. Give fewer workers, or more memory to each."
        ) from error


@cache
def opened(place: int | str) -> Workers:
    """The workers at a place.

    Raises:
        InputError: If no scheduler answers there, or it has no workers.
    """
    return _processes(place) if isinstance(place, int) else _cluster(place)


def _processes(count: int) -> Workers:
    @contextmanager
    def shared(data: bytes) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="onnxslim-") as folder:
            path = Path(folder) / "shared"
            path.write_bytes(data)
            yield path

    return Workers(ProcessPoolExecutor(count, get_context("spawn")), count, shared, (BrokenExecutor,))


def _cluster(address: str) -> Workers:
    import distributed
    from distributed.comm.core import CommClosedError

    client: Any
    try:
        client = distributed.Client(  # type: ignore[no-untyped-call]
            address, timeout=SECONDS, set_as_default=False
        )
        count = sum(client.nthreads().values())
    except Exception as error:  # of several libraries
        raise InputError(f"⟨workers⟩ {address}: a Dask scheduler must answer, but got: {reason(error)}.") from error
    if not count:
        client.close()
        raise InputError(f"⟨workers⟩ {address}: its scheduler must have workers, but has none. Start some.")

    @contextmanager
    def shared(data: bytes) -> Iterator[Any]:
        yield client.scatter([data], broadcast=True, hash=False)[0]

    lost = (distributed.KilledWorker, CommClosedError, CancelledError)
    return Workers(client.get_executor(pure=False), count, shared, lost)


_known: dict[str, Any] = {}
_guard = Lock()


def _carry_out(name: str, sent: Path | bytes, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """Do one piece of work, where it was sent; what pieces share is kept until other ones come."""
    with _guard:
        if name not in _known:
            data = sent.read_bytes() if isinstance(sent, Path) else sent
            _known.clear()
            _known[name] = cloudpickle.loads(data)
        shared = _known[name]
    with one_thread():
        return function(shared, *arguments)
