"""A slimmed model that is not yet written."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.analysis import Analysis
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import VerifyError
from onnxslim_learn.lossless_cuts import find
from onnxslim_learn.plans import origin
from onnxslim_learn.quality.channels import channels
from onnxslim_learn.quality.judgement import Judgement, judge
from onnxslim_learn.repair import sequential
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite import verify as checking
from onnxslim_learn.rewrite.slim import slim as rewrite
from onnxslim_learn.runtime import atomic
from onnxslim_learn.sparse import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.select.calibration import Calibration


@dataclass
class Slimmed:
    """A slimmed model, not yet written.

    Attributes:
        analysis: The original.
        plan: What was kept.
        removal: The same, as classes.
        model: The slimmed model; weights are sliced when it is saved.
        repaired: What repair did, if it was asked for.
        folded: What a lossless cut did with constants, if it is one; it is checked against the original itself.
        judgement: How good what was written is, if there were samples to tell.
        doubts: Why the samples it was trained on are hardly what the model was made for.
    """

    analysis: Analysis
    plan: Plan
    removal: Removal
    model: ir.Model = field(repr=False)
    repaired: sequential.Repaired | None = None
    folded: find.Folded | None = None
    judgement: Judgement | None = None
    doubts: tuple[str, ...] = ()
    _better: ir.Model | None = field(repr=False, default=None)

    def __repr__(self) -> str:
        return f"<Slimmed, not yet written: {self.plan!r} of {self.analysis!r}>"

    def repair(
        self,
        calibration: Calibration,
        *,
        seed: int = 0,
        progress: Callable[[float], None] = lambda share: None,
    ) -> sequential.Repaired:
        """Refit weights to what the original computes (:mod:`onnxslim_learn.repair`); :meth:`save` writes them.

        Where made-up samples lie beside few real ones, it is tried without and with them, and the better one is taken.

        Args:
            calibration: Samples; some are held back to judge by.
            seed: Which positions of large activations are used.
            progress: Called with the share done.

        Raises:
            InputError: If the samples do not fit the model.
        """
        done: list[tuple[sequential.Repaired, ir.Model]] = []
        ways = [[], calibration.more] if calibration.more else [[]]
        for more in ways:
            better = rewrite(self.removal)
            repaired = sequential.repair(
                self.removal,
                better,
                calibration.feeds,
                beside=sequential.Beside(calibration.labels, calibration.metric, more),
                effort=calibration.effort,
                seed=seed,
                progress=lambda share: progress((len(done) + share) / len(ways)),
            )
            done.append((repaired, better))
        repaired, self._better = min(done, key=lambda one: one[0].lost)
        self.repaired = replace(repaired, made_up=calibration.source.synthetic)
        record = {
            "data": calibration.source.name,
            "samples": self.repaired.samples,
            "weights": list(self.repaired.weights),
        }
        self.plan = replace(self.plan, provenance={**self.plan.provenance, "repair": record})
        return self.repaired

    def save(
        self,
        path: str | Path,
        *,
        check: bool = True,
        real: Sequence[Mapping[str, Any]] = (),
    ) -> checking.Verification | None:
        """Write the model: stage it, compare it with the masked original in onnxruntime, then move it to its place.

        What is compared has the weights as they were cut; what is written has the repaired ones, if there are any.

        Args:
            path: Where; weights go to ``<path>.data`` if the source kept them in external files.
            check: Whether to compare.
            real: Real inputs to compare on, beside random ones.

        Raises:
            VerifyError: If the result differs; nothing is written.
            InputError: If the place cannot be written.
        """
        target = Path(path)
        if self.analysis.graph.source is not None:
            save.spare(self.analysis.graph.source, target)
        with atomic.workplace(target) as folder:
            staged = self._stage(target.name, folder)
            reference = self.removal if self.folded is None else self.analysis.whole
            verification = checking.verify(reference, staged, real) if check else None
            if verification is not None and not verification.passed:
                raise VerifyError(f"{target}: {verification.complaint}. Nothing was written.")
            if self._better is not None and self.removal.gone.any():
                metadata.correct(self.analysis.graph.model, self._better)
                origin.sign(self._better, self.plan)
                staged = save.staged(self._better, target.name, folder, external=self.analysis.graph.external)
            save.publish(staged, target, self.analysis.graph.source or self.analysis.graph.data)
        return verification

    def judge(self, calibration: Calibration, path: str | Path) -> Judgement:
        """Compare what was written with the original on samples that repair did not fit on.

        Raises:
            InputError: If the metric of the calibration fails.
        """
        graph = self.analysis.graph
        lie = channels(self.analysis.coupling)
        self.judgement = judge(graph.source or graph.data, Path(path), calibration.held, lie, calibration.metric)
        return self.judgement

    def file_bytes(self) -> int:
        """Size of the model on disk."""
        with tempfile.TemporaryDirectory() as folder:
            return save.size_on_disk(self._stage("model.onnx", Path(folder)))

    def _stage(self, name: str, folder: Path) -> Path:
        source = self.analysis.graph.source
        if self.removal.gone.any() or (source is not None and self.analysis.graph.external):
            metadata.correct(self.analysis.graph.model, self.model)
            if self.removal.gone.any():
                origin.sign(self.model, self.plan)
            return save.staged(self.model, name, folder, external=self.analysis.graph.external)
        staged = folder / name
        with atomic.writing(name, folder):
            staged.write_bytes(self.analysis.graph.data if source is None else source.read_bytes())
        return staged
