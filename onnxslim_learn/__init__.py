"""onnxslim-learn: find what an ONNX model can lose, and write the smaller, verified model.

>>> import onnxslim_learn as osl
>>> found = osl.analyze("model.onnx")
>>> plan = osl.plan(found, {"macs": 0.5})
>>> osl.slim(found, plan).save("slim.onnx")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis, analyze
    from onnxslim_learn.errors import InputError, PlanError, SlimError, TargetError, VerifyError
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.runtime.timing import measure as profile
    from onnxslim_learn.select.planner import plan
    from onnxslim_learn.workflow.slim import example_inputs, slim, slim_to, verify, why
    from onnxslim_learn.workflow.slimmed import Slimmed

_WHERE = {
    # the work flow
    **dict.fromkeys(
        ["Analysis", "Slimmed", "analyze", "example_inputs", "plan", "slim", "slim_to", "verify", "why"],
        "workflow.slim",
    ),
    # data
    "Plan": "plans.plan",
    # latency
    "profile": "runtime.timing",
    # errors
    **dict.fromkeys(["InputError", "PlanError", "SlimError", "TargetError", "VerifyError"], "errors"),
}

__all__ = [
    "Analysis",
    "InputError",
    "Plan",
    "PlanError",
    "SlimError",
    "Slimmed",
    "TargetError",
    "VerifyError",
    "analyze",
    "example_inputs",
    "plan",
    "profile",
    "slim",
    "slim_to",
    "verify",
    "why",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that importing the package costs nothing."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_WHERE[name]}")
    return getattr(module, "measure" if name == "profile" else name)
