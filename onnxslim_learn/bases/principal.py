"""Principal directions: the basis in which dropping the last units loses least, for every width at once.

A consumer with weights ``W`` of inputs with covariance ``C`` loses least, after its best refit, when what is kept spans
the leading eigenvectors ``V`` of ``C^½ W Wᵀ C^½``, brought back by ``C^-½``. The spans are nested, so that the columns
of ``C^-½ V``, made orthonormal one after the other, serve all widths. Of several consumers covariances and weights are
averaged. (The same without weights is SliceGPT, arXiv:2401.15024.)
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from onnxslim_learn.array_types import Array, Labels
from onnxslim_learn.bases import compared, norms
from onnxslim_learn.bases.find import Space, owners, spaces
from onnxslim_learn.bases.fold import folded
from onnxslim_learn.bases.rotate import in_bases, mix
from onnxslim_learn.registry import CRITERIA
from onnxslim_learn.rewrite import save, stretches
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.rewrite.verify import verify
from onnxslim_learn.select.activation_statistics import Inputs

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.select.calibration import Calibration

logger = logging.getLogger(__name__)

RIDGE = 1e-3  # of the mean variance: what hardly varies has no direction


COMPARED = 4  # samples that a rotated model is run on, beside made-up ones
PRINCIPAL, PLAIN = CHOICES = ("principal", "none")


def in_principal_bases(
    analysis: Analysis,
    samples: Calibration | None,
    asked: str = PRINCIPAL,
    criterion: Any = None,
    *,
    streams: bool = True,
) -> tuple[Analysis, Calibration | None]:
    """A model with all bases that are free in principal directions, and what samples say of it.

    One whose weights are more than :data:`~onnxslim_learn.rewrite.stretches.LARGEST` bytes stays as it is.

    Args:
        analysis: The model; one that is in other bases stays in them.
        samples: Samples of it, which remember the answer; without, it stays as it is.
        asked: One of :data:`CHOICES`.
        criterion: What will score units; where similar ones are merged, they stay as they are.
        streams: Whether normalisations are written otherwise where that makes a basis free; not where times of the
            nodes there are now are known.
    """
    if samples is None or analysis.bases or asked != PRINCIPAL or (criterion and CRITERIA.row(criterion).merges):
        return analysis, samples
    if stretches.weight_bytes(analysis.coupling) > stretches.LARGEST:
        return analysis, samples
    streams = streams and analysis.latency is None
    if streams not in samples.turned:
        samples.turned[streams] = _turned_by(
            analysis, samples, norms.without(folded(analysis)) if streams else analysis
        )
    turned: tuple[Analysis, Calibration] = samples.turned[streams]
    return turned


def idle(before: Analysis, after: Analysis, kept: Container[str]) -> bool:
    """Whether normalisations were written otherwise, but the streams whose bases that made free stay whole."""
    if len(before.graph.nodes) == len(after.graph.nodes):
        return False
    return not any(name in kept for name in norms.rewritten(before, after))


def _turned_by(analysis: Analysis, samples: Calibration, other: Analysis) -> tuple[Analysis, Calibration]:
    """An analysis in principal bases, from one whose normalisations may be written otherwise."""
    known = spaces(other.coupling, other.groups)
    if not known:
        return analysis, samples
    told = samples if other is analysis else samples.of(other.coupling)
    feeds = [*told.feeds, *told.more]
    bases: dict[str, Array] = {space.name: np.eye(space.size) for space in known}  # of what nothing is known
    bases |= compared.bases(other.coupling, known, feeds) | principal(other.coupling, known, told.pairs)
    turned = in_bases(other, bases)
    if not _same(turned, told.some(COMPARED)[0]):
        return analysis, samples
    spaces_turned = [(space, bases[space.name]) for space in known]
    return turned, told.of(turned.coupling, [_turned(one, other.coupling, spaces_turned) for one in told.pairs])


def _same(turned: Analysis, real: Sequence[Mapping[str, Array]]) -> bool:
    """Whether a model in other bases computes what its file does."""
    with tempfile.TemporaryDirectory() as folder:
        path = save.staged(slim(turned.whole), "model.onnx", Path(folder), external=turned.graph.external)
        check = verify(turned.whole, path, real, seeds=1)
    if not check.passed:
        logger.debug("bases stay as they are: %s", check.complaint)
    return check.passed


def principal(coupling: Coupling, known: Sequence[Space], gathered: Sequence[Inputs]) -> dict[str, Array]:
    """The rotation of every space that some weights read; rows are directions, the most important first.

    One of which a consumer has too many inputs for the products of pairs stays as it is, as does one in which numbers
    are not finite: made-up masks may leave nothing to attend to.
    """
    bases, owner = {}, owners(coupling, known)
    seen: dict[int, list[tuple[Array, Array] | None]] = {}
    for inputs in gathered:
        columns = _columns(coupling, inputs)
        ids = owner[columns]
        for number in np.unique(ids[ids >= 0]).tolist():
            copies = known[number].copies(columns)
            for at in copies if copies is not None else ():
                seen.setdefault(number, []).append(None if inputs.products.ndim == 1 else _seen(inputs, at))
    for number, told in seen.items():
        if all(one is not None and np.isfinite(one).all() for one in told):
            bases[known[number].name] = directions([one for one in told if one is not None])
    return bases


def _columns(coupling: Coupling, inputs: Inputs) -> Labels:
    return np.where(inputs.classes >= 0, coupling.column[inputs.classes], -1)


def _seen(inputs: Inputs, at: Labels) -> tuple[Array, Array]:
    """Covariance of some of a consumer's inputs, and the products of what it multiplies them by."""
    mean, weights = inputs.mean[at].astype(np.float64), inputs.weights[at].astype(np.float64)
    return inputs.products[np.ix_(at, at)] - np.outer(mean, mean), weights @ weights.T


def directions(seen: Sequence[tuple[Array, Array]]) -> Array:
    """An orthogonal matrix whose first rows span what consumers need most, for every number of them.

    Args:
        seen: For every consumer ``(n, n)`` covariance of its inputs and ``(n, n)`` products of its weights.
    """
    moments, weights = (np.mean(parts, axis=0) for parts in zip(*seen, strict=True))
    size = len(moments)
    values, vectors = scipy.linalg.eigh(moments)
    values = np.maximum(values, 0.0) + RIDGE * max(np.trace(moments) / size, 1e-30)  # single precision may leave less
    root = vectors * np.sqrt(values) @ vectors.T
    _, ranked = scipy.linalg.eigh(root @ weights @ root)
    spans = (vectors / np.sqrt(values)) @ (vectors.T @ ranked[:, ::-1])
    basis, signs = np.linalg.qr(spans)
    result: Array = (basis * np.where(np.diag(signs) < 0, -1.0, 1.0)).T
    return result


def _turned(inputs: Inputs, coupling: Coupling, turned: Sequence[tuple[Space, Array]]) -> Inputs:
    """What a consumer's inputs are in other bases."""
    columns = _columns(coupling, inputs)
    mean, products, weights = (np.array(a, np.float64) for a in (inputs.mean, inputs.products, inputs.weights))
    owner = owners(coupling, [space for space, _ in turned])
    for lines in (mean, weights, products, products.T) if products.ndim == 2 else (mean, weights):
        mix(lines, columns, owner, turned)
    kind = inputs.weights.dtype
    return replace(inputs, mean=mean.astype(kind), products=products.astype(kind), weights=weights.astype(kind))
