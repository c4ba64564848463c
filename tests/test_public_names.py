"""The public names and their signatures are pinned: what is changed here is changed for all who use the package."""

import inspect
import json
from pathlib import Path

import onnxslim_learn as osl

PINNED = Path(__file__).with_name("public_names.json")


def _said(default):
    return default.__name__ if callable(default) else repr(default)


def signatures():
    """Every public function -> its parameters, those with a default followed by it."""
    functions = {name: getattr(osl, name) for name in osl.__all__ if inspect.isfunction(getattr(osl, name))}
    return {
        name: [
            parameter.name if parameter.default is parameter.empty else f"{parameter.name}={_said(parameter.default)}"
            for parameter in inspect.signature(function).parameters.values()
        ]
        for name, function in functions.items()
    }


def test_the_names_are_those_that_were():
    assert set(osl.__all__) <= set(dir(osl))
    assert json.loads(PINNED.read_text(encoding="utf-8"))["names"] == list(osl.__all__)
    assert osl.__version__ == "0.1.0"
    assert Path(osl.__file__).with_name("py.typed").is_file()


def test_the_signatures_are_those_that_were():
    assert json.loads(PINNED.read_text(encoding="utf-8"))["signatures"] == signatures()


if __name__ == "__main__":  # writes the names anew, to look at the difference
    PINNED.write_text(json.dumps({"names": list(osl.__all__), "signatures": signatures()}, indent=1) + "\n")
