"""Check in onnxruntime that a slimmed model computes what the masked original computes."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Feeds
from onnxslim_learn.data import input_needs, random_inputs
from onnxslim_learn.errors import InputError
from onnxslim_learn.rewrite import chance, save, stretches
from onnxslim_learn.rewrite.comparison import WORST, Check, Model, Models, UnusableError, ready
from onnxslim_learn.rewrite.mask import mask
from onnxslim_learn.rewrite.merge import merged
from onnxslim_learn.runtime import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.array_types import Array
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.coupling.solver import Coupling

LARGEST = 1 << 30  # bytes of weights of a model that is run as a whole
SHORTER = (None, 20, 1)  # nodes of a stretch, tried in turn
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
        stretches: In how many stretches it was checked, one after the other; 1 if as a whole.
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
    stretches: int = 1

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


def verify(removal: Removal, slimmed: Path, real: Sequence[Mapping[str, Array]] = (), seeds: int = 2) -> Verification:
    """Compare a slimmed file with the masked original on random inputs at every sample size, and on real ones.

    The masked original is checked too: with its masks lifted it must compute what the source file computes. Inputs on
    which rounding alone moves the outputs as much (ties in a sort, say) decide nothing; others are drawn instead. Real
    inputs are enough where the original does not run on made-up ones. A model that is too large to be held as a whole,
    whose numbers run away on made-up inputs, or on which all inputs decide nothing (a detector that sorts hundreds of
    equally unlikely boxes), is checked on made-up ones in stretches (:mod:`onnxslim_learn.rewrite.stretches`).

    Raises:
        UnusableError: If it runs on none.
    """
    coupling = removal.coupling
    shapes = coupling.graph.shapes
    samples = [shapes.analysis] * seeds + [shapes.nominal] * shapes.dynamic
    feeds = [random_inputs.random_inputs(coupling, sample, seed) for seed, sample in enumerate(samples)]
    if stretches.weight_bytes(coupling) > LARGEST:
        try:
            return _by_stretches(removal, slimmed, feeds[0])
        except InputError:  # made-up inputs do not do
            if not real:
                raise
    with tempfile.TemporaryDirectory(prefix=atomic.PREFIX) as folder:
        models = _open(removal, slimmed, Path(folder))
        checks, excuse = _compared(models, feeds)
        checks += [models.compare(dict(feed)) for feed in real]
        if not checks and excuse is not None:
            for nodes in SHORTER:  # so that numbers do not run away within one
                with contextlib.suppress(InputError):
                    return _by_stretches(removal, slimmed, feeds[0], nodes)
            raise UnusableError(_advice(coupling, excuse, feeds[0])) from excuse
        for seed in range(len(samples), len(samples) + MORE):
            if not _chaotic(checks):
                break
            checks += _compared(models, [random_inputs.random_inputs(coupling, shapes.analysis, seed)])[0]
    for nodes in SHORTER if _chaotic(checks) else ():  # so that no order is decided by what is rounded before
        with contextlib.suppress(InputError):
            checked = _by_stretches(removal, slimmed, feeds[0], nodes)
            if not checked.undecided:
                return checked
    return _verdict(checks, exact=removal.exact)


def _chaotic(checks: Sequence[tuple[Check, Check, float]]) -> bool:
    """Whether comparisons, or those of one kind, decide nothing."""
    return all(cut.chaotic for cut, *_ in checks) or all(reference.chaotic for _, reference, _ in checks)


def _by_stretches(removal: Removal, slimmed: Path, feed: Feeds, nodes: int | None = None) -> Verification:
    checks = list(stretches.compared(removal, slimmed, feed, nodes))
    return replace(_verdict(checks, exact=removal.exact), runs=1, stretches=len(checks))


def _compared(models: Models, feeds: Sequence[Feeds]) -> tuple[list[tuple[Check, Check, float]], UnusableError | None]:
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


def _open(removal: Removal, slimmed: Path, folder: Path) -> Models:
    """Open the models to compare; what has to be written goes to a folder."""
    graph = removal.coupling.graph
    names = [str(v.name) for v in graph.model.graph.outputs]
    given = sorted(graph.shapes.analysis.inputs)
    reference = save.staged(mask(removal), "masked.onnx", folder, external=False)
    source = graph.source or _written(graph.data, folder / "source.onnx")
    files, left = (source, slimmed, reference), (None, chance.left(removal), None)
    same = [chance.without(path, folder / str(k), left[k]) for k, path in enumerate(files)]
    opened, small = (_opened(path, given, names) for path in same[:2])
    lifted = opened
    if removal.merged_into is not None:  # the source with the weights of merged units combined
        whole = save.staged(merged(removal), "merged.onnx", folder, external=False)
        lifted = ready(chance.without(whole, folder / "merged"))
    return Models(opened, lifted, small, ready(same[2]), names, removal.exact, source)


def _verdict(checks: Sequence[tuple[Check, Check, float]], *, exact: bool) -> Verification:
    """What all comparisons say: none that decides fails, and of each kind one at least decides."""
    cuts, references, changes = zip(*checks, strict=True)
    every: list[Check] = [*cuts, *references]
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


def _written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


def _opened(path: Path, given: Sequence[str], outputs: Sequence[str]) -> Model:
    """Open a file that must have these inputs and outputs.

    Raises:
        InputError: If it has others.
    """
    model = ready(path)
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
