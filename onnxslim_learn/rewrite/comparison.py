"""Two models on the same inputs: how far apart what they put out is, and how far rounding alone would take them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from onnxslim_learn.array_types import Array, Feeds
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.graph import external_files
from onnxslim_learn.rewrite.mask import OPEN
from onnxslim_learn.runtime.session import CPU, create, open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxruntime import InferenceSession

RELATIVE = 1e-4  # of an output's largest magnitude: float32 rounding in another summation order stays below 1e-5
HALF = 2e-2  # for half precision outputs
WORST = 2e-2  # no net is allowed more: inputs on which rounding alone could do it decide nothing
AMPLIFIED = 20.0  # a net that blows up an input noise of one rounding may differ by this many times the effect
SHAKES = 4  # roundings tried where two models differ: one alone may leave two nearly equal numbers in their order


class UnusableError(InputError):
    """Raised for inputs on which the original itself does not run, or puts out no numbers."""


@dataclass(frozen=True)
class Check:
    """How far two models that should compute the same are apart on one set of inputs."""

    absolute: float
    relative: float
    worst: str
    allowed: float
    noise: float | None = None
    fault: str = ""

    @property
    def passed(self) -> bool:
        """Whether they are as near as is allowed."""
        return self.relative <= self.allowed

    @property
    def chaotic(self) -> bool:
        """Whether rounding alone takes them so far apart that nothing is decided."""
        return self.noise is not None and AMPLIFIED * self.noise > WORST


@dataclass(frozen=True)
class Model:
    """A model ready to run, and its file.

    Attributes:
        session: Open on the file.
        path: The file.
        lift: What becomes of its masks, if it has any.
        enter: Makes its inputs of those that all models get.
        leave: Makes the outputs that are compared of its outputs.
    """

    session: InferenceSession
    path: Path
    lift: bool | None = None
    enter: Callable[[Feeds], Feeds] = dict
    leave: Callable[[list[Array]], list[Array]] = list

    def __call__(self, feed: Feeds) -> list[Array]:
        """Outputs for a set of inputs."""
        return self.leave(_run(self.session, self.enter(feed), lift=self.lift))

    def rounded(self, feed: Feeds, seed: int) -> list[Array]:
        """Outputs with one rounding error on every number of the weights."""
        from onnxruntime import OrtValue

        proto = external_files.read_in(onnx.load(self.path, load_external_data=False), self.path)
        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        values = [(n, x) for n, x in _shaken(weights, seed).items() if x.dtype.kind == "f" and x.size]
        kept = [(name, OrtValue.ortvalue_from_numpy(x)) for name, x in values]  # the session reads them in place
        options = session_options(optimize=False)
        for name, value in kept:
            options.add_initializer(name, value)
        return self.leave(_run(create(self.path, options, CPU), self.enter(feed), lift=self.lift))


@dataclass(frozen=True)
class Models:
    """The source (and its path), the slimmed model and the masked original, ready to run; and the outputs' names.

    ``lifted`` is what the masked original must compute without its masks: the source, or its units merged.
    """

    source: Model
    lifted: Model
    slimmed: Model
    masked: Model
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

    def compare(self, feed: Feeds) -> tuple[Check, Check, float]:
        """Slimmed against masked, source against masked with its masks lifted; and what the cut changes."""
        whole, slim = self.whole(feed), self.slimmed(feed)
        plain = whole if self.lifted is self.source else self.lifted(feed)
        shut, lifted = (replace(self.masked, lift=lift) for lift in (False, True))
        free = np.finfo(float).max if not self.exact else 0.0
        cut = self._check(feed, (shut, self.slimmed), (shut(feed), slim), whole, free)
        reference = self._check(feed, (lifted, self.lifted), (lifted(feed), plain), whole)
        return cut, reference, _largest(whole, slim, self.names, whole)[1]

    def _check(
        self,
        feed: Feeds,
        runs: tuple[Model, Model],
        outputs: tuple[list[Array], list[Array]],
        whole: list[Array],
        least: float = 0.0,
    ) -> Check:
        one, other = outputs
        allowed = max([HALF if a.dtype.itemsize == 2 and a.dtype.kind != "i" else RELATIVE for a in one])
        check = Check(*_largest(one, other, self.names, whole), max(allowed, least))
        if not np.isfinite(check.relative):
            k = self.names.index(check.worst)
            return replace(check, fault=_fault(one[k], other[k]))
        if check.passed:
            return check
        noise = 0.0
        for seed in range(SHAKES):
            moved = (_moved(run, feed, plain, seed) for run, plain in zip(runs, outputs, strict=True))
            apart = (_largest(a, b, self.names, whole)[1] for a, b in zip(outputs, moved, strict=True))
            noise = max(noise, *apart)
            if AMPLIFIED * noise >= check.relative:
                break
        return replace(check, noise=noise, allowed=max(allowed, min(WORST, AMPLIFIED * noise)))


def ready(path: Path) -> Model:
    """Open a file."""
    return Model(open_session(path, optimize=False), path)


def _check_finite(whole: list[Array], names: Sequence[str], path: Path) -> None:
    """Refuse an original whose outputs are all NaN: nothing could be compared."""
    for name, result in zip(names, whole, strict=True):
        if result.dtype.kind == "f" and result.size and np.isnan(result).all():
            raise UnusableError(
                f"{path}: its output {name} is NaN, so that no result can be verified. Check its weights."
            )


def _run(session: InferenceSession, feed: Feeds, *, lift: bool | None = None) -> list[Array]:
    """Outputs for a set of inputs.

    Raises:
        InputError: If onnxruntime cannot run the model on it.
    """
    more = {} if lift is None else {OPEN: np.array(lift)}
    known = {value.name for value in session.get_inputs()}
    try:
        return [np.asarray(x) for x in session.run(None, {n: x for n, x in {**feed, **more}.items() if n in known})]
    except Exception as error:
        raise InputError(f"onnxruntime cannot run the model: {reason(error)}. Check ⟨input⟩ and the data.") from error


def _moved(run: Model, feed: Feeds, plain: list[Array], seed: int) -> list[Array]:
    """Outputs with one rounding error on every number of the inputs, or of the weights where that moves nothing.

    So it is where inputs are whole numbers, or are cast to such.
    """
    moved = run(_shaken(feed, seed))
    same = all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(plain, moved, strict=True))
    return run.rounded(feed, seed) if same else moved


def _shaken(feed: Feeds, seed: int) -> Feeds:
    """Inputs with one rounding error on every number but whole ones, which are what is meant.

    So is what masks have, the largest number that there is; and an index that is cast would become another one.
    """
    rng = np.random.default_rng(seed)

    def one(x: Array) -> Array:
        moved = x * (1 + np.finfo(x.dtype).eps * rng.choice([-1, 1], x.shape))
        return np.asarray(np.where(x == np.rint(x), x, moved), x.dtype)

    return {name: one(x) if x.dtype.kind == "f" else x for name, x in feed.items()}


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
