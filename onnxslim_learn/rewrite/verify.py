"""Check in onnxruntime that a slimmed model computes what the masked original computes."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.costs import measure
from onnxslim_learn.rewrite import inputs, save
from onnxslim_learn.rewrite.mask import mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.graph.coupling import Removal
    from onnxslim_learn.graph.shapes import Sample

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]
Results = list[list[Array]]

RELATIVE = 1e-4  # of an output's largest magnitude: float32 rounding in another summation order stays below 1e-5
HALF = 2e-2  # for half precision outputs
AMPLIFIED = 20.0  # a net that blows up an input noise of one rounding may differ by this many times the effect


@dataclass(frozen=True)
class Verification:
    """How far a slimmed model is from the masked original, in onnxruntime without graph optimisations.

    Attributes:
        passed: Whether every output agrees.
        max_abs_diff: Largest absolute difference over all outputs and inputs tried.
        max_rel_diff: Largest difference relative to the output's largest magnitude.
        worst_output: Where that was.
        runs: Input sets tried.
        tolerance: What ``max_rel_diff`` was held against.
        change: Largest relative difference between the original and the slimmed model: what the cut does.
    """

    passed: bool
    max_abs_diff: float
    max_rel_diff: float
    worst_output: str
    runs: int
    tolerance: float
    change: float

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def verify(removal: Removal, slimmed: Path, real: Sequence[Mapping[str, Array]] = (), seeds: int = 2) -> Verification:
    """Compare a slimmed file with the masked original on random inputs at every sample size, and on real ones."""
    coupling = removal.coupling
    shapes = coupling.graph.shapes
    samples: list[Sample] = [shapes.analysis, *([shapes.nominal] if shapes.dynamic else [])]
    feeds = [
        inputs.random_inputs(coupling, sample, seed) for seed in range(seeds) for sample in samples[: 1 if seed else 2]
    ]
    feeds += [dict(f) for f in real]
    with tempfile.TemporaryDirectory() as folder:
        reference = save.staged(mask(removal), "masked.onnx", Path(folder), external=False)
        original = save.staged(coupling.graph.model.clone(), "original.onnx", Path(folder), external=False)
        wanted = [_run(reference, f) for f in feeds]
        whole = [_run(original, f) for f in feeds]
        found = [_run(slimmed, f) for f in feeds]
        names = [str(v.name) for v in coupling.graph.model.graph.outputs]
        tolerance = max(
            [HALF if a.dtype.itemsize == 2 and a.dtype.kind != "i" else RELATIVE for a in wanted[0]], default=RELATIVE
        )
        absolute, relative, worst = _largest(wanted, found, names, whole)
        passed = relative <= tolerance
        if not passed and np.isfinite(relative):
            floor = _noise_floor(reference, feeds, wanted, names, whole)
            passed, tolerance = relative <= AMPLIFIED * floor, max(tolerance, AMPLIFIED * floor)
        _, change, _ = _largest(whole, found, names, whole)
    return Verification(bool(passed), absolute, relative, worst, len(feeds), tolerance, change)


def _run(path: Path, feeds: Feeds) -> list[Array]:
    session = measure.open_session(path, optimize=False)
    return [np.asarray(result) for result in session.run(None, feeds)]


def _largest(wanted: Results, found: Results, names: Sequence[str], scales: Results) -> tuple[float, float, str]:
    """Largest absolute difference, largest one relative to the output's magnitude, and the output where that was."""
    absolute, relative, worst = 0.0, 0.0, names[0] if names else ""
    for one, other, scale in zip(wanted, found, scales, strict=True):
        for name, a, b, full in zip(names, one, other, scale, strict=True):
            if a.dtype.kind in "OSU" or a.size == 0:
                continue
            gap = _gap(a, b)
            absolute = max(absolute, gap)
            share = gap / max(_magnitude(a), _magnitude(full), 1e-12)
            if share > relative:
                relative, worst = share, name
    return absolute, relative, worst


def _magnitude(a: Array) -> float:
    finite = np.abs(a[np.isfinite(a)].astype(np.float64)) if a.dtype.kind == "f" else np.abs(a.astype(np.float64))
    return float(finite.max()) if finite.size else 0.0


def _gap(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        gap = float(np.max(np.where(same, 0.0, np.abs(x - y))))
    return gap if np.isfinite(gap) else float("inf")


def _noise_floor(
    reference: Path, feeds: Sequence[Feeds], wanted: Results, names: Sequence[str], scales: Results
) -> float:
    """Relative effect of one rounding error in the inputs on the outputs of the masked original."""
    rng = np.random.default_rng(0)
    shaken = []
    for feed in feeds:
        noisy = {
            k: (v * (1 + np.finfo(v.dtype).eps * rng.choice([-1, 1], v.shape))).astype(v.dtype)
            if v.dtype.kind == "f"
            else v
            for k, v in feed.items()
        }
        shaken.append(_run(reference, noisy))
    return _largest(wanted, shaken, names, scales)[1]
