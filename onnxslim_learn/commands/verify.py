"""Check a slimmed model against its original under a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.array_types import Watcher, staged
from onnxslim_learn.commands import models
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import Result
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph.load import check_file
from onnxslim_learn.plans.realize import check_source
from onnxslim_learn.report.sections import slim as pages
from onnxslim_learn.workflow import samples as sampling
from onnxslim_learn.workflow import slim as work
from onnxslim_learn.workflow.settings import VerifySettings

if TYPE_CHECKING:
    from onnxslim_learn.commands.models import Model
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.rewrite.verify import Verification


@dataclass(frozen=True, eq=False, repr=False)
class VerifyResult(Result):
    """What a check found.

    Attributes:
        verification: How far the slimmed model is from the masked original.
    """

    verification: Verification = field(kw_only=True)

    def __repr__(self) -> str:
        said = "passed" if self.passed else f"failed: {self.verification.complaint}"
        return f"<{self.title}: {said}, largest relative difference {self.verification.max_rel_diff:.1e}>"


@command("verify", VerifySettings)
def verify(
    original: Model,
    slimmed: str | Path,
    plan: Plan | str | Path | None = None,
    *,
    progress: Watcher | None = None,
    settings: VerifySettings,
) -> VerifyResult:
    """Check that a slimmed file computes what the original computes under the plan's mask.

    Args:
        original: Path of an ``.onnx`` file, a model in memory, or its analysis.
        slimmed: The file that was made of it.
        plan: What was kept, or the file that says it.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.

    Raises:
        InputError, PlanError: In one sentence, if something cannot be used.
    """
    given = plan if plan is not None else settings.plan
    if given is None:
        raise InputError("verify: ⟨plan⟩ is needed, of which the slimmed model was made. Give it.")
    claim(settings, models.present(original), slimmed, given)
    check_file(Path(slimmed), "the slimmed model")
    sampling.check(settings.samples)
    chosen, stage = models.planned(given), staged(progress)
    stage("verifying")
    analysis, samples = models.analysed_for(original, chosen, settings.inputs, settings.samples)
    doubts = check_source(analysis, chosen, other=settings.other_model)
    source = samples or sampling.gathered(analysis, settings.samples, stage)
    verification = work.verify(analysis, slimmed, chosen, sampling.real_inputs(source, settings.samples))
    name = models.named(original)
    report: dict[str, Any] = {"original": name, "slimmed": str(slimmed), "verify": verification.to_dict()}
    report["repaired"] = (chosen.provenance.get("repair") or {}).get("weights", [])
    report["lossless"] = "lossless" in chosen.provenance
    return VerifyResult(
        f"verify {name} {slimmed}",
        report,
        pages.verified,
        lambda told: [told["verify"]],
        passed=verification.passed,
        notes=(*doubts, *(() if source is None else source.doubts)),
        verification=verification,
    )
