"""The folder that tests of timing run in."""

import pytest


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, which no profile may be left in."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    yield
    assert list(cwd.iterdir()) == []
