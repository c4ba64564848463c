"""A bar in notebooks: shown where there is a kernel, while a command runs."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

import onnxslim_learn as osl
from onnxslim_learn import demo
from onnxslim_learn.report import notebook


@pytest.fixture
def looks(monkeypatch):
    """What a kernel is shown, in order."""
    shown = []
    module = ModuleType("IPython")
    module.get_ipython = lambda: SimpleNamespace(kernel=True)
    module.display = ModuleType("IPython.display")
    module.display.HTML = lambda text: text
    module.display.display = lambda text, display_id: shown.append(text) or SimpleNamespace(update=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", module.display)
    return shown


def test_every_stage_is_shown_and_the_bar_goes(looks):
    osl.slim(demo.model_path(), macs=0.5, no_repair=True, latency=False, sensitivity_seconds=0)
    assert [text for text in looks if "analyzing" in text]
    assert [text for text in looks if "cutting and verifying" in text]
    assert looks[0] == looks[-1] == ""


def test_it_goes_after_an_error_too_and_yields_to_who_watches(looks):
    with pytest.raises(osl.InputError):
        osl.slim(demo.model_path())
    assert looks[-1:] == [""]
    seen = looks.copy()
    osl.analyze(demo.model_path(), progress=lambda stage, share, numbers: None)
    assert looks == seen


def test_what_is_shown_is_escaped():
    assert notebook.drawn("a<b", 0.5, {"loss": 0.25, "rate": 1}) == (
        '<progress style="width:20em" value="0.500"></progress> a&lt;b, loss 0.25'
    )
    assert "value" not in notebook.drawn("a", 0, {})
