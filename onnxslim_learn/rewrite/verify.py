"""Check in onnxruntime that a slimmed model computes what the masked original computes."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxslim_learn.array_types import Array, Feeds
from onnxslim_learn.data import input_needs, random_inputs
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.rewrite import chance, save
from onnxslim_learn.rewrite.mask import OPEN, mask
from onnxslim_learn.rewrite.merge import merged
from onnxslim_learn.runtime import atomic
from onnxslim_learn.runtime.session import CPU, create, open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxruntime import InferenceSession

    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.coupling.solver import Coupling

RELATIVE = 1e-4  # of an output's largest magnitude: float32 rounding in another summation order stays below 1e-5
HALF = 2e-2  # for half precision outputs
WORST = 2e-2  # no net is allowed more: inputs on which rounding alone could do it decide nothing
AMPLIFIED = 20.0  # a net that blows up an input noise of one rounding may differ by this many times the effect
SHAKES = 4  # roundings tried where two models differ: one alone may leave two nearly equal numbers in their order
MORE = 6  # further random inputs tried where none decides


@dataclass(frozen=True)
class Verification:
    """How far a slimmed model is from the masked original, in onnxruntime without graph optimisations.

    Attributes:
        passed: Whether every output agrees.
        max_abs_diff: Largest absolute difference over all outputs and inputs tried.
        max_rel_diff: Largest difference relative to the output's largest magnitude.
        worst_output: Where that was.
        runs: Input sets tried.
        undecided: Those of them on which rounding alone moves the outputs as much: they decide nothing.
        tolerance: What ``max_rel_diff`` was held against.
        change: Largest relative difference between the original and the slimmed model: what the cut does.
        exact: Whether the cut is exact; if it reaches axes that are normalised over, only ``change`` says what it does.
        noise: Relative effect of one rounding error in the inputs alone; measured only where the difference is large.
        fault: What is wrong with the worst output where no difference can be told, in words.
    """

    passed: bool
    max_abs_diff: float
    max_rel_diff: float
    worst_output: str
    runs: int
    undecided: int
    tolerance: float
    change: float
    exact: bool = True
    noise: float | None = None
    fault: str = ""

    @property
    def complaint(self) -> str:
        """What is wrong, in words."""
        if self.undecided == self.runs:
            return (
                f"output {self.worst_output} is random or chaotic (rounding moves it by {self.noise:.0e}): not verified"
            )
        said = self.fault or f"is {self.max_rel_diff:.1e} of its magnitude from the masked original"
        allowed = "" if self.fault else f" (allowed {self.tolerance:.0e})"
        return f"output {self.worst_output} {said}{allowed}"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with the complaint if there is one; what is infinite (another shape, NaN) is ``None``."""
        told = {**asdict(self), "complaint": "" if self.passed else self.complaint}
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in told.items() if k != "fault"}


@dataclass(frozen=True)
class _Check:
    """How far two models that should compute the same are apart on one set of inputs."""

    absolute: float
    relative: float
    worst: str
    allowed: float
    noise: float | None = None
    fault: str = ""

    @property
    def passed(self) -> bool:
        return self.relative <= self.allowed

    @property
    def chaotic(self) -> bool:
        return self.noise is not None and AMPLIFIED * self.noise > WORST


@dataclass(frozen=True)
class _Model:
    """A model ready to run, and its file; ``lift`` says what becomes of its masks, if it has any."""

    session: InferenceSession
    path: Path
    lift: bool | None = None

    def __call__(self, feed: Feeds) -> list[Array]:
        """Outputs for a set of inputs."""
        return _run(self.session, feed, lift=self.lift)

    def rounded(self, feed: Feeds, seed: int) -> list[Array]:
        """Outputs with one rounding error on every number of the weights."""
        from onnxruntime import OrtValue

        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(self.path).graph.initializer}
        values = [(n, x) for n, x in _shaken(weights, seed).items() if x.dtype.kind == "f" and x.size]
        kept = [(name, OrtValue.ortvalue_from_numpy(x)) for name, x in values]  # the session reads them in place
        options = session_options(optimize=False)
        for name, value in kept:
            options.add_initializer(name, value)
        return _run(create(self.path, options, CPU), feed, lift=self.lift)


@dataclass(frozen=True)
class _Models:
    """The source (and its path), the slimmed model and the masked original, ready to run; and the outputs' names.

    ``lifted`` is what the masked original must compute without its masks: the source, or its units merged.
    """

    source: _Model
    lifted: _Model
    slimmed: _Model
    masked: _Model
    names: list[str]
    exact: bool
    path: Path

    def whole(self, feed: Feeds) -> list[Array]:
        """Outputs of the source.

        Raises:
            UnusableError: If it cannot be run on these inputs, or puts out no numbers.
        """
        try:
            whole = self.source(feed)
        except InputError as error:
            raise UnusableError(error.message) from error
        _check_finite(whole, self.names, self.path)
        return whole

    def compare(self, feed: Feeds) -> tuple[_Check, _Check, float]:
        """Slimmed against masked, source against masked with its masks lifted; and what the cut changes."""
        whole = self.whole(feed)
        free = np.finfo(float).max if not self.exact else 0.0
        cut = self._check(feed, (replace(self.masked, lift=False), self.slimmed), whole, free)
        reference = self._check(feed, (replace(self.masked, lift=True), self.lifted), whole)
        return cut, reference, _largest(whole, self.slimmed(feed), self.names, whole)[1]

    def _check(self, feed: Feeds, runs: tuple[_Model, _Model], whole: list[Array], least: float = 0.0) -> _Check:
        one, other = (run(feed) for run in runs)
        allowed = max([HALF if a.dtype.itemsize == 2 and a.dtype.kind != "i" else RELATIVE for a in one])
        check = _Check(*_largest(one, other, self.names, whole), max(allowed, least))
        if not np.isfinite(check.relative):
            k = self.names.index(check.worst)
            return replace(check, fault=_fault(one[k], other[k]))
        if check.passed:
            return check
        noise = 0.0
        for seed in range(SHAKES):
            moved = zip((one, other), (_moved(run, feed, seed) for run in runs), strict=True)
            noise = max(noise, *(_largest(a, b, self.names, whole)[1] for a, b in moved))
            if AMPLIFIED * noise >= check.relative:
                break
        return replace(check, noise=noise, allowed=max(allowed, min(WORST, AMPLIFIED * noise)))


class UnusableError(InputError):
    """Raised for inputs on which the original itself does not run, or puts out no numbers."""


def verify(removal: Removal, slimmed: Path, real: Sequence[Mapping[str, Array]] = (), seeds: int = 2) -> Verification:
    """Compare a slimmed file with the masked original on random inputs at every sample size, and on real ones.

    The masked original is checked too: with its masks lifted it must compute what the source file computes. Inputs on
    which rounding alone moves the outputs as much (ties in a sort, say) decide nothing; others are drawn instead. Real
    inputs are enough where the original does not run on made-up ones.

    Raises:
        UnusableError: If it runs on none.
    """
    coupling = removal.coupling
    shapes = coupling.graph.shapes
    samples = [shapes.analysis] * seeds + [shapes.nominal] * shapes.dynamic
    feeds = [random_inputs.random_inputs(coupling, sample, seed) for seed, sample in enumerate(samples)]
    with tempfile.TemporaryDirectory(prefix=atomic.PREFIX) as folder:
        models = _open(removal, slimmed, Path(folder))
        checks, excuse = _compared(models, feeds)
        checks += [models.compare(dict(feed)) for feed in real]
        if not checks and excuse is not None:
            raise UnusableError(_advice(coupling, excuse, feeds[0])) from excuse
        for seed in range(len(samples), len(samples) + MORE):
            if not (all(cut.chaotic for cut, *_ in checks) or all(reference.chaotic for _, reference, _ in checks)):
                break
            checks += _compared(models, [random_inputs.random_inputs(coupling, shapes.analysis, seed)])[0]
    return _verdict(checks, exact=removal.exact)


def _compared(
    models: _Models, feeds: Sequence[Feeds]
) -> tuple[list[tuple[_Check, _Check, float]], UnusableError | None]:
    """Comparisons on inputs that the original runs on, and why it does not on the last of the others."""
    checks, excuse = [], None
    for feed in feeds:
        try:
            checks.append(models.compare(feed))
        except UnusableError as error:
            excuse = error
    return checks, excuse


def _advice(coupling: Coupling, excuse: UnusableError, feed: Feeds) -> str:
    """Why made-up inputs do not do, and how to give others."""
    named = ", ".join(feed)
    where = f" It begins at {input_needs.first_undefined(coupling, feed)}." if "NaN" in str(excuse) else ""
    how = f"Give samples with ⟨data⟩: an .npz file with arrays named {named}."
    return f"made-up inputs do not do: {excuse.message}{where} {how}"


def _open(removal: Removal, slimmed: Path, folder: Path) -> _Models:
    """Open the models to compare; what has to be written goes to a folder."""
    graph = removal.coupling.graph
    names = [str(v.name) for v in graph.model.graph.outputs]
    given = sorted(graph.shapes.analysis.inputs)
    reference = save.staged(mask(removal), "masked.onnx", folder, external=False)
    source = graph.source or _written(graph.data, folder / "source.onnx")
    same = [chance.without(path, folder / str(k)) for k, path in enumerate((source, slimmed, reference))]
    opened, small = (_opened(path, given, names) for path in same[:2])
    lifted = opened
    if removal.merged_into is not None:  # the source with the weights of merged units combined
        whole = save.staged(merged(removal), "merged.onnx", folder, external=False)
        lifted = _ready(chance.without(whole, folder / "merged"))
    return _Models(opened, lifted, small, _ready(same[2]), names, removal.exact, source)


def _ready(path: Path) -> _Model:
    return _Model(open_session(path, optimize=False), path)


def _verdict(checks: Sequence[tuple[_Check, _Check, float]], *, exact: bool) -> Verification:
    """What all comparisons say: none that decides fails, and of each kind one at least decides."""
    cuts, references, changes = zip(*checks, strict=True)
    every: list[_Check] = [*cuts, *references]
    deciding = [check for check in every if not check.chaotic]
    decided = all(any(not check.chaotic for check in kind) for kind in (cuts, references))
    told = deciding if decided or any(not check.passed for check in deciding) else every
    worst = max(told, key=lambda check: check.relative / check.allowed)
    return Verification(
        passed=decided and all(check.passed for check in deciding),
        max_abs_diff=worst.absolute,
        max_rel_diff=worst.relative,
        worst_output=worst.worst,
        runs=len(checks),
        undecided=sum(a.chaotic or b.chaotic for a, b in zip(cuts, references, strict=True)),
        tolerance=min(worst.allowed, WORST),
        change=max(changes),
        exact=exact,
        noise=max((check.noise for check in every if check.noise is not None), default=None),
        fault=worst.fault,
    )


def _check_finite(whole: list[Array], names: Sequence[str], path: Path) -> None:
    """Refuse an original whose outputs are all NaN: nothing could be compared."""
    for name, result in zip(names, whole, strict=True):
        if result.dtype.kind == "f" and result.size and np.isnan(result).all():
            raise UnusableError(
                f"{path}: its output {name} is NaN, so that no result can be verified. Check its weights."
            )


def _written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


def _opened(path: Path, given: Sequence[str], outputs: Sequence[str]) -> _Model:
    """Open a file that must have these inputs and outputs.

    Raises:
        InputError: If it has others.
    """
    model = _ready(path)
    session = model.session
    for kind, wanted, present in (
        ("inputs", list(given), sorted(i.name for i in session.get_inputs())),
        ("outputs", list(outputs), [o.name for o in session.get_outputs()]),
    ):
        if wanted != present:
            raise InputError(
                f"{path}: its {kind} are {', '.join(present)}, but the original has {', '.join(wanted)}. "
                "Give its model."
            )
    return model


def _run(session: InferenceSession, feed: Feeds, *, lift: bool | None = None) -> list[Array]:
    """Outputs for a set of inputs.

    Raises:
        InputError: If onnxruntime cannot run the model on it.
    """
    more = {} if lift is None else {OPEN: np.array(lift)}
    try:
        return [np.asarray(result) for result in session.run(None, {**feed, **more})]
    except Exception as error:
        raise InputError(f"onnxruntime cannot run the model: {reason(error)}. Check ⟨input⟩ and the data.") from error


def _moved(run: _Model, feed: Feeds, seed: int) -> list[Array]:
    """Outputs with one rounding error on every number of the inputs, or of the weights where inputs are whole."""
    whole = all(x.dtype.kind != "f" for x in feed.values())
    return run.rounded(feed, seed) if whole else run(_shaken(feed, seed))


def _shaken(feed: Feeds, seed: int) -> Feeds:
    """Inputs with one rounding error on every number."""
    rng = np.random.default_rng(seed)
    return {
        name: (x * (1 + np.finfo(x.dtype).eps * rng.choice([-1, 1], x.shape))).astype(x.dtype)
        if x.dtype.kind == "f"
        else x
        for name, x in feed.items()
    }


def _largest(
    wanted: list[Array], actual: list[Array], names: Sequence[str], scales: list[Array]
) -> tuple[float, float, str]:
    """Largest absolute difference, largest one relative to the output's magnitude, and the output where that was."""
    absolute, relative, worst = 0.0, 0.0, names[0] if names else ""
    for name, a, b, full in zip(names, wanted, actual, scales, strict=True):
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


def _fault(wanted: Array, actual: Array) -> str:
    """What is wrong with an output of another shape, or with numbers where the other has none."""
    if wanted.shape != actual.shape:
        shapes = ("x".join(map(str, array.shape)) or "a scalar" for array in (actual, wanted))
        return "has shape {}, but {} is wanted".format(*shapes)
    return "is NaN or infinite where the masked original is not, or the other way round"


def _gap(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        gap = float(np.max(np.where(same, 0.0, np.abs(x - y))))
    return gap if np.isfinite(gap) else float("inf")
