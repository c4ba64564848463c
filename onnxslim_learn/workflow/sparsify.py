"""Sparsify a model from Python: choose shares per layer, cut, check, write."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxslim_learn.array_types import Array, Stage, sample_count, unannounced
from onnxslim_learn.errors import InputError, VerifyError
from onnxslim_learn.metrics import Deviation, deviation
from onnxslim_learn.quality.channels import channels
from onnxslim_learn.quality.detections import Detections, detections
from onnxslim_learn.registry import PROTOCOLS, SEARCH, UNIFORM
from onnxslim_learn.repair.least_squares import FULL
from onnxslim_learn.repair.sequential import ROWS
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.runtime import atomic
from onnxslim_learn.runtime.timing import open_session
from onnxslim_learn.select.calibration import CAREFUL
from onnxslim_learn.select.trial_cost import TrialCost
from onnxslim_learn.sparse import patterns, storage
from onnxslim_learn.sparse.maskable import Layer, layers
from onnxslim_learn.sparse.metadata import KEY
from onnxslim_learn.sparse.one_shot import OneShot, OneShotSettings, Pruned
from onnxslim_learn.sparse.ratio_search import Dense, search

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.select.calibration import Calibration
    from onnxslim_learn.sparse.patterns import Pattern
    from onnxslim_learn.workflow.settings import ZeroSettings


@dataclass
class Sparsified:
    """A sparsified model, not yet written.

    Attributes:
        analysis: The original.
        asked: What was asked for.
        layers: The maskable weights.
        ratios: Weight -> share asked of it.
        protocol: How shares were spread in the end.
        trials: Allocations tried -> loss, where they were searched for.
        done: Weight -> what was done.
        data: What samples it was made and judged with, as ``quality`` tells in reports.
        deviation: How far outputs are from the original's on held-back samples.
        model: The model.
        training: What training did, where there was any.
        doubts: Why the samples are hardly what the model was made for.
        detections: What is detected there against what the original does, of a detector of a known family.
    """

    analysis: Analysis
    asked: ZeroSettings
    layers: list[Layer]
    ratios: dict[str, float]
    protocol: str
    trials: dict[str, float]
    done: dict[str, Pruned]
    data: dict[str, Any]
    deviation: dict[str, Deviation]
    model: ir.Model = field(repr=False)
    training: dict[str, Any] | None = field(repr=False, default=None)
    doubts: tuple[str, ...] = ()
    detections: Detections | None = None

    def __repr__(self) -> str:
        return f"<Sparsified, not yet written: {len(self.layers)} weights of {self.analysis!r}>"

    def array(self, layer: Layer) -> Array:
        """The values of a weight."""
        tensor = self.model.graph.initializers[layer.name].const_value
        assert tensor is not None
        return np.asarray(tensor.numpy())

    def save(self, path: str | Path, *, sparse: bool = False, lossless: bool = False) -> Stored:
        """Write the model: stage it, check that the file holds the zeros and runs, then move it to its place.

        Args:
            path: Where; weights go to ``<path>.data`` if the source kept them in external files.
            sparse: Whether to write sparse initializers where they are smaller; the weights are then in one file.
            lossless: Whether to cut units that change no output any more (:mod:`onnxslim_learn.lossless_cuts.find`).

        Raises:
            VerifyError: If the file would not hold what was promised; nothing is written.
            InputError: If the place cannot be written.
        """
        target, graph = Path(path), self.analysis.graph
        if graph.source is not None:
            save.spare(graph.source, target)
        with atomic.workplace(target) as folder:
            self.model.metadata_props[KEY] = self.asked.pattern
            plain = save.staged(self.model, target.name, folder, external=graph.external)
            self._check(plain, target)
            plain, cut = self._without_dead(plain, folder / "cut") if lossless else (plain, {})
            sizes = storage.compressed(save.files(plain))
            (folder / "sparse").mkdir()
            thin, count, same = self._sparse(plain, folder / "sparse" / target.name)
            stored = Stored(save.size_on_disk(plain), sizes, save.size_on_disk(thin), count, same, cut)
            if sparse and not same:
                raise VerifyError(f"{target}: onnxruntime does not read its sparse initializers. Leave them dense.")
            save.publish(thin if sparse else plain, target, graph.source or graph.data)
        return stored

    def _check(self, plain: Path, target: Path) -> None:
        """Compare the zeros of a staged file with the model's."""
        arrays = {t.name: onnx.numpy_helper.to_array(t) for t in storage.inside(plain).graph.initializer}
        for layer in self.layers:
            if not np.array_equal(arrays[layer.name] == 0, self.array(layer) == 0):
                raise VerifyError(f"{target}: {layer.name} lost zeros on its way into the file. Nothing was written.")

    def _without_dead(self, plain: Path, folder: Path) -> tuple[Path, dict[str, list[int]]]:
        """A twin of a file without dead units, checked against it; and group -> units before and after."""
        from onnxslim_learn.workflow import slim as api

        graph = self.analysis.graph
        slimmed = api.slim_lossless(api.analyze(plain, inputs=graph.shapes.nominal.inputs, values=graph.values))
        if not slimmed.removal.gone.any():
            return plain, {}
        folder.mkdir()
        try:
            slimmed.save(folder / plain.name)
        except VerifyError as error:
            said = error.message.partition(": ")[2]
            raise VerifyError(f"{plain.name}: without its dead units, {said} Leave out ⟨lossless⟩.") from error
        chosen = slimmed.plan
        return folder / plain.name, {name: [chosen.widths[name], len(kept)] for name, kept in chosen.groups.items()}

    def _sparse(self, plain: Path, path: Path) -> tuple[Path, int, bool]:
        """A twin of a file with sparse initializers, how many, and whether onnxruntime computes the same with it."""
        from onnxslim_learn.data.random_inputs import random_inputs

        proto = storage.inside(plain)
        count = storage.with_sparse(proto)
        onnx.save_model(proto, path)
        feeds = random_inputs(self.analysis.coupling, self.analysis.graph.shapes.nominal)
        try:
            runs = [open_session(file, optimize=False).run(None, feeds) for file in (plain, path)]
        except Exception:
            return path, count, False
        return path, count, all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*runs, strict=True))


@dataclass(frozen=True)
class Stored:
    """What a sparse model takes on disk, in bytes.

    Attributes:
        plain: As a dense file.
        compressed: The dense file by compressor.
        sparse: With sparse initializers where they are smaller.
        tensors: How many those are.
        same: Whether onnxruntime reads them and computes the same.
        cut: Group -> units before and after, where dead units were cut.
    """

    plain: int
    compressed: dict[str, int | None]
    sparse: int
    tensors: int
    same: bool
    cut: dict[str, list[int]] = field(default_factory=dict)


def chosen(analysis: Analysis, pattern: Pattern, protect: Sequence[str] = ()) -> list[Layer]:
    """The weights to mask; where whole units go, those whose units could be cut, one by one.

    Args:
        analysis: The model.
        pattern: Where zeros may be.
        protect: Regular expressions of weights and nodes that stay dense.

    Raises:
        InputError: If there are none, or an expression finds nothing.
    """
    listed, coupling = layers(analysis.graph.model, protect), analysis.coupling
    if pattern.kind != patterns.UNITS:
        return listed
    free = np.zeros(coupling.columns, bool)
    for group in analysis.groups:
        free[group.units] |= group.pin is None

    def able(layer: Layer) -> bool:
        value, cuttable = coupling.values.get(layer.name), False
        for digits in () if value is None else (value.axes[axis] for axis in layer.outputs):
            labels = [d.labels for d in digits if d.labels is not None]
            if labels and len(labels) < len([d for d in digits if d.size > 1]):
                return False  # several rows make one unit: the gates of a recurrent cell
            atoms = np.concatenate([np.zeros(0, int), *(x.reshape(-1) for x in labels)])
            cuttable |= bool(free[coupling.column[coupling.strong[atoms[atoms > 0]]]].any())
        return cuttable

    kept = [layer for layer in listed if able(layer)]
    if not kept:
        raise InputError(f"⟨pattern⟩ {pattern.name}: no layer has units that could be cut. Use another pattern.")
    return kept


def _check_finite(record: Record) -> None:
    for name, array in record.outputs().items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"model: output {name} is not finite for the samples. Correct them, or the model.")


def sparsify(
    analysis: Analysis,
    asked: ZeroSettings,
    calibration: Calibration,
    *,
    stage: Stage = unannounced,
) -> Sparsified:
    """Zero weights of a model in one go, and refit the others where the method does.

    Args:
        analysis: The model.
        asked: How many, where, and how.
        calibration: Samples.
        stage: Called with the name of each stage; returns what to call with the share done.

    Raises:
        InputError: If something asked for is not to be had.
    """
    target, pattern = asked.target(), patterns.parse(asked.pattern)
    listed = chosen(analysis, pattern, asked.protect)
    names, sizes = [layer.name for layer in listed], [layer.size for layer in listed]
    feeds: Sequence[Mapping[str, Array]] = calibration.feeds
    every = 4 if len(feeds) >= 4 else 2
    record = Record(analysis.graph.model, feeds, -(-ROWS // max(len(feeds) * 3 // 4, 1)), every)
    _check_finite(record)
    recipe = OneShotSettings({}, pattern, asked.method, CAREFUL if calibration.source.synthetic else FULL)
    protocol, trials = asked.spread(), {}
    if protocol == SEARCH and 0 < target < 1:
        searched = search(
            Dense(analysis.whole, listed, record, recipe),
            target,
            rounds=max(1, int(asked.search_work // TrialCost.of(analysis.coupling).singly(feeds, ROWS))),
            seconds=asked.search_seconds,
            place=calibration.workers,
            progress=stage("measuring"),
        )
        shares, protocol, trials = searched.ratios, searched.protocol, searched.trials
    else:
        share = PROTOCOLS.load(UNIFORM if protocol == SEARCH else protocol)  # nothing is left to search
        shares = dict(zip(names, share(sizes, target), strict=True))
    model = slim(analysis.whole)
    recipe = OneShotSettings(shares, pattern, recipe.method, recipe.effort)
    work = OneShot(model, listed, record, recipe)
    work.go(stage("sparsifying"))
    wanted, actual = record.outputs(), work.outputs()
    apart, matched = deviation(wanted, actual, channels(analysis.coupling)), detections(wanted, actual)
    told = Sparsified(
        analysis, asked, listed, shares, protocol, trials, work.done, _used(calibration, record), apart, model
    )
    return replace(told, doubts=calibration.source.doubts, detections=matched)


def _used(calibration: Calibration, record: Record) -> dict[str, Any]:
    """The samples that weights were refitted to, and those that judge them."""
    fitted, judged = (sample_count([record.feeds[k] for k in part]) for part in (record.fitted, record.judged))
    apart = not set(record.fitted) & set(record.judged)
    return calibration.source.used(judged, fitted, held_back=apart)
