"""One row is all that a part takes: help, keywords of Python and the page of names are made from it."""

import json
import subprocess
import sys

import pytest

ROWS = """
from dataclasses import dataclass
from onnxslim_learn import registry as r
from onnxslim_learn.settings import option

@dataclass(frozen=True)
class MineSettings:
    TITLE = ("mine", "")
    eagerness: float = option(0.5, "how eager to be", metavar="N", purpose="eager learning")

NAMES = {
    "COSTS": "costmine", "CRITERIA": "criterionmine", "METHODS": "methodmine", "PROTOCOLS": "protocolmine",
    "LOSSES": "lossmine", "METRICS": "metricmine", "DEVICES": "devicemine", "LEARNERS": "learnermine",
    "OPTIMIZERS": "optimizermine", "AUGMENTATIONS": "augmentationmine",
}
for table, name in NAMES.items():
    more = {"settings": MineSettings} if table == "LEARNERS" else {}
    getattr(r, table).register(name, print, help=f"what {name} is", **more)

import inspect, json
from onnxslim_learn.cli.parser import parser
from scripts.registries import page
import onnxslim_learn as osl

commands = next(one.choices for one in parser()._actions if one.dest == "command")
told = {name: " ".join(commands[name].format_help().split()) for name in ("slim", "learn", "sparsify")}
print(json.dumps({**told, "page": page(), "keywords": list(inspect.signature(osl.learn).parameters)}))
"""
SHOWN = {
    "slim": "costmine criterionmine metricmine devicemine",
    "learn": "costmine learnermine lossmine optimizermine augmentationmine eagerness",
    "sparsify": "methodmine protocolmine",
    "page": "costmine criterionmine methodmine protocolmine lossmine metricmine devicemine learnermine"
    " augmentationmine",
    "keywords": "eagerness",
}


@pytest.fixture(scope="module")
def told():
    """What a process says in which every registry has a row more, and nothing else has changed."""
    done = subprocess.run([sys.executable, "-c", ROWS], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(("where", "name"), [(where, name) for where in SHOWN for name in SHOWN[where].split()])
def test_one_row_is_seen_in(told, where, name):
    assert name in told[where]
