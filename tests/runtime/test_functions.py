"""Functions by name: those of the working folder are there, and every failure is one clear sentence."""

import sys

import pytest

from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime.functions import by_name, is_name

MINE = """
import math

NUMBER = 3


class Net:
    @staticmethod
    def double(x):
        return 2 * x
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder that is not on the path, with modules that no test before imported."""
    (tmp_path / "function_mine.py").write_text(MINE)
    (tmp_path / "function_fails.py").write_text("raise ValueError('no luck.\\nnever')")
    (tmp_path / "function_exits.py").write_text("import sys; sys.exit('bye')")
    (tmp_path / "function_typo.py").write_text("def f(:")
    (tmp_path / "function_needs.py").write_text("import function_absent")
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("function_"):
            del sys.modules[name]


def test_a_function_of_the_working_folder_is_there_and_the_path_stays(folder):
    path = list(sys.path)
    assert str(folder) not in path
    assert by_name("function_mine:Net.double", "data")(4) == 8
    assert sys.path == path


def test_a_module_written_just_now_is_there(folder):
    with pytest.raises(InputError):
        by_name("function_new:f", "data")
    (folder / "function_new.py").write_text("def f(): return 1")
    assert by_name("function_new:f", "data")() == 1


def test_a_function_that_is_installed_is_there():
    assert by_name("os.path:join", "loss")("a", "b") in ("a/b", "a\\b")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("function_mine", "is not of the form module:function"),
        ("function_mine:", "is not of the form module:function"),
        ("function_mine.py:f g", "is not of the form module:function"),
        ("function_none:f", "has a module function_none"),
        ("function_mine.sub:f", "has a module function_mine.sub"),
        ("function_needs:f", "function_needs needs function_absent, which is missing"),
        ("function_fails:f", r"function_fails raised ValueError \(no luck\)"),
        ("function_exits:f", r"function_exits raised SystemExit \(bye\)"),
        ("function_typo:f", "function_typo raised SyntaxError"),
        ("function_mine:nothing", r"function_mine \(.*function_mine.py\) has no nothing"),
        ("function_mine:Net.triple", "has no Net.triple"),
        ("function_mine:NUMBER", "is no function but a int"),
        ("function_mine:math", "is no function but a module"),
    ],
)
def test_what_names_no_function_is_refused_in_one_sentence(folder, spec, said):
    with pytest.raises(InputError, match=said) as refusal:
        by_name(spec, "metric")
    text = str(refusal.value)
    assert text.startswith(f"metric {spec}: ")
    assert "\n" not in text
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("mine:loss", True),
        ("a.b_1:C.d", True),
        ("C:\\x.npz", False),
        ("photos/", False),
        ("l1", False),
        ("a:b:c", False),
    ],
)
def test_the_form_is_told_from_files_and_plain_names(text, is_one):
    assert is_name(text) is is_one
