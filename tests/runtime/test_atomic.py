"""Files appear whole or not at all, and what several runs measure at a time is all kept."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime import atomic, cache


def listed(folder):
    """What lies in a folder, but for the empty one that tests of timing run in."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != "cwd"}


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_fails_midway_changes_nothing(tmp_path, error):
    target = tmp_path / "result"
    target.write_text("before")
    with pytest.raises(InputError if isinstance(error, OSError) else type(error)), atomic.replacing(target) as draft:
        draft.write_text("half")
        raise error
    assert listed(tmp_path) == {"result": "before"}


def test_a_process_that_is_killed_midway_leaves_the_target_as_it_is(tmp_path):
    target = tmp_path / "result"
    target.write_text("before")
    code = (
        "import os, pathlib, sys; from onnxslim_learn.runtime import atomic\n"
        "with atomic.replacing(pathlib.Path(sys.argv[1])) as draft: draft.write_text('half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == 9
    assert target.read_text() == "before"


@pytest.mark.parametrize("durable", [True, False])
def test_the_result_stands_under_its_name_with_usual_permissions(tmp_path, durable):
    (tmp_path / "plain").write_text("")
    atomic.write_text(tmp_path / "result", "é", durable=durable)
    assert (tmp_path / "result").read_bytes() == "é".encode()
    assert (tmp_path / "result").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert set(listed(tmp_path)) == {"plain", "result"}


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "real").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "real")
    atomic.write_text(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert listed(tmp_path / "folder") == {"real": "after"}


def test_a_place_that_is_no_file_is_refused(tmp_path):
    for target in (tmp_path, tmp_path / "none" / "file"):
        with pytest.raises(InputError, match=str(tmp_path)), atomic.replacing(target):
            pass
    assert listed(tmp_path) == {}


# --- the cache --------------------------------------------------------------------------------------------------------

ABOUT = {"machine": "this"}
ADDS = """
import sys
from onnxslim_learn.runtime import cache
for k in range(20): cache.add("times", {"machine": "this"}, {f"{sys.argv[1]} {k}": k})
"""


def test_nothing_is_lost_of_what_threads_and_processes_measure_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.PLACE, str(tmp_path))
    running = [subprocess.Popen([sys.executable, "-c", ADDS, name]) for name in ("a", "b")]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda k: cache.add("times", ABOUT, {f"here {k}": k}), range(20)))
    assert [process.wait() for process in running] == [0, 0]
    keys = {f"{name} {k}" for name in ("a", "b", "here") for k in range(20)}
    assert cache.read("times", ABOUT).keys() == keys


def test_the_cache_lies_where_the_platform_wants_it(monkeypatch, tmp_path):
    monkeypatch.delenv(cache.PLACE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder().name == "onnxslim-learn"
    if sys.platform == "linux":
        assert cache.folder() == tmp_path / "onnxslim-learn"
