"""A slimmed model that is not yet written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from onnxslim_learn.analysis import Analysis
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import TrainError, VerifyError
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
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.data.source import Source
    from onnxslim_learn.metrics import Deviation
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.select.calibration import Calibration

Train: TypeAlias = "Callable[[Slimmed, Path, tuple[Source, Source], Path, int], None]"
"""Trains the file of what was cut on samples, with others to look at, writes it elsewhere; for so many steps."""


@dataclass(frozen=True)
class Finetuned:
    """What training after a repair did.

    Attributes:
        steps: Of training.
        kept: Whether its weights stand; if not, they came no nearer on held-back samples, or were no numbers.
        after: Deviation of the outputs from the original's on those samples with them; empty where they were none.
        accuracy: Share of those samples of which the label is found with them, if there are labels that are classes.
    """

    steps: int
    kept: bool
    after: dict[str, Deviation]
    accuracy: float | None = None


@dataclass
class Slimmed:
    """A slimmed model, not yet written.

    Attributes:
        analysis: The original.
        plan: What was kept.
        removal: The same, as classes.
        model: The slimmed model; weights are sliced when it is saved.
        repaired: What repair did, if it was asked for.
        finetuned: What training after that did, if it was.
        folded: What a lossless cut did with constants, if it is one; it is checked against the original itself.
        judgement: How good what was written is, if there were samples to tell.
        doubts: Why the samples it was trained on are hardly what the model was made for.
        trained: Where its weights are those of the training that the plan tells of, the samples that judged it, as
            ``quality`` tells in reports.
    """

    analysis: Analysis
    plan: Plan
    removal: Removal
    model: ir.Model = field(repr=False)
    repaired: sequential.Repaired | None = None
    finetuned: Finetuned | None = None
    folded: find.Folded | None = None
    judgement: Judgement | None = None
    doubts: tuple[str, ...] = ()
    trained: dict[str, Any] | None = None
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

    def finetune(self, calibration: Calibration, steps: int, train: Train) -> Finetuned:
        """Train all weights of what was repaired, and keep them where outputs are nearer to the original's.

        That is judged on the samples that neither was fitted on, by the metric of the calibration, too, if it has one.

        Args:
            calibration: The samples of the repair.
            steps: Of training.
            train: What trains a file: see :func:`onnxslim_learn.learners.finetune.distilled`.

        Raises:
            InputError: If the model cannot be trained.
        """
        assert self._better is not None and self.repaired is not None
        with tempfile.TemporaryDirectory() as place:
            repaired, trained = Path(place) / "repaired.onnx", Path(place) / "trained.onnx"
            save.staged(self._better, repaired.name, repaired.parent, external=self.analysis.graph.external)
            try:
                train(self, repaired, calibration.divided(), trained, steps)
            except TrainError:
                self.finetuned = Finetuned(steps, False, {})
            else:
                before, after = (self._judged(calibration, path) for path in (repaired, trained))
                self.finetuned = Finetuned(steps, after.nearer_than(before), after.outputs, after.accuracy)
            if self.finetuned.kept:
                changed = save.changed(trained, self.model)
                self._better = ir.external_data.load_to_model(ir.load(trained))
                self.repaired = replace(self.repaired, weights=tuple(changed))
        record = {"weights": list(self.repaired.weights), "finetune": {"steps": steps, "kept": self.finetuned.kept}}
        known = self.plan.provenance
        self.plan = replace(self.plan, provenance={**known, "repair": {**known["repair"], **record}})
        return self.finetuned

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
            trained = self.finetuned is not None and self.finetuned.kept
            staged = self._stage_better(target.name, folder) if trained else self._stage(target.name, folder)
            reference = self.removal if self.folded is None else self.analysis.whole
            weights = self.repaired.weights if trained and self.repaired is not None else ()
            with save.with_initializers(staged, weights, self.model) as plain:
                verification = checking.verify(reference, plain, real) if check else None
            if verification is not None and not verification.passed:
                raise VerifyError(f"{target}: {verification.complaint}. Nothing was written.")
            if self._better is not None and self.removal.gone.any() and not trained:
                staged = self._stage_better(target.name, folder)
            save.publish(staged, target, self.analysis.graph.source or self.analysis.graph.data)
        return verification

    def judge(self, calibration: Calibration, path: str | Path) -> Judgement:
        """Compare what was written with the original on samples that repair did not fit on.

        Raises:
            InputError: If the metric of the calibration fails.
        """
        self.judgement = self._judged(calibration, Path(path))
        return self.judgement

    def _judged(self, calibration: Calibration, path: Path) -> Judgement:
        graph, lie = self.analysis.graph, channels(self.analysis.coupling)
        return judge(graph.source or graph.data, path, calibration.held, lie, calibration.metric)

    def file_bytes(self) -> int:
        """Size of the model on disk."""
        with tempfile.TemporaryDirectory() as folder:
            return save.size_on_disk(self._stage("model.onnx", Path(folder)))

    def _stage_better(self, name: str, folder: Path) -> Path:
        assert self._better is not None
        metadata.correct(self.analysis.graph.model, self._better)
        origin.sign(self._better, self.plan)
        return save.staged(self._better, name, folder, external=self.analysis.graph.external)

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
