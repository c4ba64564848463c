"""Peak memory of loading and running a model, measured in a process of its own.

Run as a program with the path of a pickled task, it prints the bytes, or ``null`` where the system does not tell.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime.session import CPU, open_session

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Feeds

RUNS = 3  # the first one allocates, and later ones may grow what it kept
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(model: str | Path, feeds: Feeds, *, threads: int = 1, provider: str = CPU) -> int | None:
    """Bytes of main memory by which a process grows at most while it loads a model and runs it a few times.

    Args:
        model: The model.
        feeds: Its inputs.
        threads: Threads one operator may use.
        provider: The onnxruntime execution provider.

    Returns:
        The bytes, or ``None`` where the system does not tell.

    Raises:
        InputError: If the model does not run.
    """
    root = str(Path(__file__).parents[2])
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task"
        task.write_bytes(pickle.dumps((str(Path(model).resolve()), dict(feeds), threads, provider)))
        done = subprocess.run([sys.executable, "-m", __name__, str(task)], env=known, capture_output=True, check=False)
    if done.returncode:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no word"])[-1]
        raise InputError(f"{model}: its memory could not be measured ({said}). Give smaller shapes with ⟨input⟩.")
    grown: int | None = json.loads(done.stdout)
    return grown


def _grown(task: Path) -> int | None:
    """Carry out a task in this process."""
    import onnxruntime  # noqa: F401  so that what it takes by itself is not counted

    model, feeds, threads, provider = pickle.loads(task.read_bytes())
    before = _resident(forget=True)
    session = open_session(model, threads=threads, provider=provider)
    for _ in range(RUNS):
        session.run(None, feeds)
    after = _resident(forget=False)
    return None if before is None or after is None else max(after - before, 0)


def _resident(*, forget: bool) -> int | None:
    """Most bytes this process ever held, since now if told to forget."""
    if STATUS.is_file():
        if forget:
            FORGET.write_text("5")  # see proc(5): resets the peak to what is held now
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(_grown(Path(sys.argv[1]))))
