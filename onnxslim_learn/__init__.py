"""onnxslim-learn: find what an ONNX model can lose, and write the smaller, verified model.

Every command is a function, with its options as keywords:

>>> import onnxslim_learn as osl
>>> slim = osl.slim("model.onnx", macs=0.5, data="photos/")
>>> slim.save("slim.onnx")

or in steps:

>>> analysis = osl.analyze("model.onnx")
>>> plan = osl.plan(analysis, macs=0.5)
>>> osl.slim(analysis, plan).save("slim.onnx")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.bridge.public import from_torch, to_torch
    from onnxslim_learn.commands.analyze import analyze
    from onnxslim_learn.commands.caches import caches
    from onnxslim_learn.commands.data import load_data
    from onnxslim_learn.commands.expand import expand
    from onnxslim_learn.commands.learn import learn
    from onnxslim_learn.commands.slim import apply, lossless, plan, slim
    from onnxslim_learn.commands.sparsify import sparsify
    from onnxslim_learn.commands.timing import calibrate, profile
    from onnxslim_learn.commands.verify import verify
    from onnxslim_learn.commands.view import view
    from onnxslim_learn.errors import InputError, PlanError, SlimError, TargetError, TrainError, VerifyError
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.registry import register_operator
    from onnxslim_learn.runtime.timing import measure
    from onnxslim_learn.workflow.graphs import coupling_graph, dataflow
    from onnxslim_learn.workflow.slim import example_inputs, slim_to, why
    from onnxslim_learn.workflow.slimmed import Slimmed

_WHERE = {
    # commands
    "analyze": "commands.analyze",
    "apply": "commands.slim",
    "caches": "commands.caches",
    "calibrate": "commands.timing",
    "expand": "commands.expand",
    "learn": "commands.learn",
    "lossless": "commands.slim",
    "plan": "commands.slim",
    "profile": "commands.timing",
    "slim": "commands.slim",
    "sparsify": "commands.sparsify",
    "verify": "commands.verify",
    "view": "commands.view",
    # graphs of networkx
    "coupling_graph": "workflow.graphs",
    "dataflow": "workflow.graphs",
    # what they take and give
    "Analysis": "analysis",
    "Plan": "plans.plan",
    "Slimmed": "workflow.slimmed",
    "load_data": "commands.data",
    "from_torch": "bridge.public",
    "to_torch": "bridge.public",
    # single steps
    "example_inputs": "workflow.slim",
    "measure": "runtime.timing",
    "register_operator": "registry",
    "slim_to": "workflow.slim",
    "why": "workflow.slim",
    # errors
    "InputError": "errors",
    "PlanError": "errors",
    "SlimError": "errors",
    "TargetError": "errors",
    "TrainError": "errors",
    "VerifyError": "errors",
}

__version__: str
__all__ = [
    "Analysis",
    "InputError",
    "Plan",
    "PlanError",
    "SlimError",
    "Slimmed",
    "TargetError",
    "TrainError",
    "VerifyError",
    "analyze",
    "apply",
    "caches",
    "calibrate",
    "coupling_graph",
    "dataflow",
    "example_inputs",
    "expand",
    "from_torch",
    "learn",
    "load_data",
    "lossless",
    "measure",
    "plan",
    "profile",
    "register_operator",
    "slim",
    "slim_to",
    "sparsify",
    "to_torch",
    "verify",
    "view",
    "why",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that importing the package costs nothing."""
    if name == "__version__":
        from importlib.metadata import version

        return version("onnxslim-learn")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _WHERE[name] == _WHERE["to_torch"]:
        from onnxslim_learn.rows import require

        require("train", name)
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])
