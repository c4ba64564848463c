"""What a written model says of what made it, among its metadata."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.plans.plan import Plan

KEY = "onnxslim_learn.origin"


def fingerprint(plan: Plan) -> str:
    """The SHA-256 of what a plan keeps, in hexadecimal digits; equal for plans that cut alike."""
    kept = {"groups": plan.groups, "widths": plan.widths, "blocks": list(plan.blocks), "merged": plan.merged}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def sign(model: ir.Model, plan: Plan) -> None:
    """Let a model say what made it: as JSON, the ``version`` of this package, the ``plan`` and its ``target``."""
    told = {
        "version": version("onnxslim-learn"),
        "plan": fingerprint(plan),
        "target": plan.provenance.get("target") or {},
    }
    model.metadata_props[KEY] = json.dumps(told, sort_keys=True)
