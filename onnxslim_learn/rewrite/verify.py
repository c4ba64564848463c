"""Check in onnxruntime that a slimmed model computes what the masked original computes."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.costs import measure
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.rewrite import inputs, save
from onnxslim_learn.rewrite.mask import OPEN, mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxruntime import InferenceSession

    from onnxslim_learn.graph.coupling import Removal

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]
Results = list[list[Array]]

RELATIVE = 1e-4  # of an output's largest magnitude: float32 rounding in another summation order stays below 1e-5
HALF = 2e-2  # for half precision outputs
WORST = 2e-2  # no net is allowed more, or its outputs are random
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
        exact: Whether the cut is exact; if it reaches axes that are normalised over, only ``change`` says what it does.
        noise: Relative effect of one rounding error in the inputs alone; measured only where the difference is large.
    """

    passed: bool
    max_abs_diff: float
    max_rel_diff: float
    worst_output: str
    runs: int
    tolerance: float
    change: float
    exact: bool = True
    noise: float | None = None

    @property
    def complaint(self) -> str:
        """What is wrong, in words."""
        if self.noise is not None and self.noise > WORST / AMPLIFIED:
            return (
                f"output {self.worst_output} is random or chaotic (rounding moves it by {self.noise:.0e}): not verified"
            )
        found = (
            f"{self.max_rel_diff:.1e} of its magnitude"
            if np.isfinite(self.max_rel_diff)
            else "of another shape, NaN or infinity away"
        )
        return f"output {self.worst_output} is {found} from the masked original (allowed {self.tolerance:.0e})"

    def to_dict(self) -> dict[str, Any]:
        """As plain data; what is infinite (another shape, NaN) is ``None``."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}


def verify(removal: Removal, slimmed: Path, real: Sequence[Mapping[str, Array]] = (), seeds: int = 2) -> Verification:
    """Compare a slimmed file with the masked original on random inputs at every sample size, and on real ones.

    The masked original is checked too: with its masks lifted it must compute what the source file computes.
    """
    coupling = removal.coupling
    shapes = coupling.graph.shapes
    samples = [shapes.analysis] * seeds + [shapes.nominal] * shapes.dynamic
    feeds = [inputs.random_inputs(coupling, sample, seed) for seed, sample in enumerate(samples)]
    feeds += [dict(feed) for feed in real]
    names = [str(v.name) for v in coupling.graph.model.graph.outputs]
    with tempfile.TemporaryDirectory(prefix=save.PREFIX) as folder:
        reference = save.staged(mask(removal), "masked.onnx", Path(folder), external=False)
        source = coupling.graph.source or _written(coupling.graph.data, Path(folder) / "source.onnx")
        whole, found = _run(source, feeds, names), _run(slimmed, feeds, names)
        _check_finite(whole, names)
        session = measure.open_session(reference, optimize=False)
        wanted, lifted = (_run_session(session, feeds, lift=lift) for lift in (False, True))
        tolerance = max([HALF if a.dtype.itemsize == 2 and a.dtype.kind != "i" else RELATIVE for a in wanted[0]])
        gaps = [_largest(wanted, found, names, whole), _largest(lifted, whole, names, whole)]
        absolute, relative, worst = max(gaps, key=lambda gap: gap[1])
        passed, noise = relative <= tolerance, None
        if not removal.exact:
            passed = gaps[1][1] <= tolerance and np.isfinite(relative)
        elif not passed and np.isfinite(relative):
            shaken = _run_session(session, [_shaken(feed) for feed in feeds], lift=False)
            noise = _largest(wanted, shaken, names, whole)[1]
            tolerance = max(tolerance, min(WORST, AMPLIFIED * noise))
            passed = relative <= tolerance
    change = _largest(whole, found, names, whole)[1]
    return Verification(bool(passed), absolute, relative, worst, len(feeds), tolerance, change, removal.exact, noise)


def _check_finite(whole: Results, names: Sequence[str]) -> None:
    """Refuse an original whose outputs are all NaN: nothing could be compared."""
    for results in whole:
        for name, result in zip(names, results, strict=True):
            if result.dtype.kind == "f" and result.size and np.isnan(result).all():
                raise InputError(f"output {name} of the original is NaN on random inputs, so nothing can be verified.")


def _written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


def _run(path: Path, feeds: Sequence[Feeds], outputs: Sequence[str]) -> Results:
    """Run a file that must have these inputs and outputs.

    Raises:
        InputError: If it has others.
    """
    session = measure.open_session(path, optimize=False)
    for kind, wanted, found in (
        ("inputs", sorted(feeds[0]), sorted(i.name for i in session.get_inputs())),
        ("outputs", list(outputs), [o.name for o in session.get_outputs()]),
    ):
        if wanted != found:
            raise InputError(f"{path}: its {kind} are {', '.join(found)}, but the original has {', '.join(wanted)}.")
    return _run_session(session, feeds)


def _run_session(session: InferenceSession, feeds: Sequence[Feeds], *, lift: bool | None = None) -> Results:
    """Outputs for every set of inputs.

    Raises:
        InputError: If onnxruntime cannot run the model on one.
    """
    more = {} if lift is None else {OPEN: np.array(lift)}
    try:
        return [[np.asarray(result) for result in session.run(None, {**feed, **more})] for feed in feeds]
    except Exception as error:
        raise InputError(f"onnxruntime cannot run the model: {reason(error)}. Check --input and the data.") from error


def _shaken(feed: Feeds) -> Feeds:
    """Inputs with one rounding error on every number."""
    rng = np.random.default_rng(0)
    return {
        name: (x * (1 + np.finfo(x.dtype).eps * rng.choice([-1, 1], x.shape))).astype(x.dtype)
        if x.dtype.kind == "f"
        else x
        for name, x in feed.items()
    }


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
