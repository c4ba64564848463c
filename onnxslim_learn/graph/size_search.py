"""Find sizes for the dimensions that a file leaves open, at which all its shapes are consistent.

Sizes that are given come first, then a few usual ones, small before large. Where a file bakes a length in (a Reshape to
the traced one, a table of positions), what does not fit tells the size that would, and the dimension stays at it. A
dimension is open if other sizes fit, too. Sizes at which a tensor becomes very large (attention over every place of an
image) are taken only where no smaller ones fit.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.errors import InputError, MisfitError
from onnxslim_learn.graph import input_sizes, stated
from onnxslim_learn.graph.shape_info import Sample, Shapes
from onnxslim_learn.graph.shapes import UndeclaredError, complete, with_other_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.array_types import Array
    from onnxslim_learn.graph.input_sizes import Symbol, Triple

LARGEST = 1 << 26  # elements of one tensor: where sizes that are tried give a larger one, smaller ones are looked for
WALKS = 48  # how often the shapes of one model are evaluated at most
REMEDIES = 6  # changes tried where sizes do not fit


def resolve(
    module: ir.Model,
    overrides: Mapping[str, Sequence[int]],
    settled: Mapping[str, int] | None = None,
    values: Mapping[str, Array] | None = None,
    *,
    longest: Mapping[str, int] | None = None,
) -> Shapes:
    """Find sizes for the open dimensions at which all shapes are consistent, and evaluate them.

    Args:
        module: The model.
        overrides: Graph input -> the shape given for it.
        settled: Open dimension -> the only size that it can have.
        values: Graph input -> its value, where one is given.
        longest: Open dimension -> the largest size that fits.

    Raises:
        InputError: If an override does not fit an input, or no sizes tried give consistent shapes.
    """
    _check_overrides(module, overrides)
    symbols = input_sizes.symbols(module, overrides)
    search = _Search(module, symbols, values or {}, longest or {})
    if not symbols:
        try:
            sample = search.sample({})
        except UndeclaredError:
            raise
        except InputError as error:
            raise InputError(f"{error.message} Export the model again.") from error
        return with_other_data(module, Shapes(sample, sample, sample))
    size = stated.stated(module.metadata_props).size
    fitting = search.fitting(
        input_sizes.usual(size), dict(settled or {}), "other sizes" if overrides else "the input shapes"
    )
    first = next(fitting)
    if size:
        return with_other_data(module, first)
    candidates = [first] if _largest(first) <= LARGEST else [first, *fitting]
    chosen = next((shapes for shapes in candidates if _largest(shapes) <= LARGEST), min(candidates, key=_largest))
    return with_other_data(module, chosen)


def _largest(shapes: Shapes) -> int:
    """Elements of the largest tensor at the sizes that a model is run at."""
    run_at = (shapes.nominal, shapes.analysis)
    return max((math.prod(shape) for sample in run_at for shape in sample.shape.values()), default=0)


def alternatives(
    module: ir.Model,
    shapes: Shapes,
    error: MisfitError,
    given: Mapping[str, Sequence[int]],
    settled: Mapping[str, int],
) -> list[dict[str, int]]:
    """Sizes of open dimensions that might make fit what an operator's rule found not to, at the analysis sizes.

    Args:
        module: The model.
        shapes: Its shapes.
        error: What does not fit.
        given: Graph input -> its given shape, which stays.
        settled: Open dimension -> its only size.
    """
    symbols, sizes = input_sizes.symbols(module, given), {}
    for value in module.graph.inputs:
        for axis in input_sizes.open_axes(value):
            key = input_sizes.dim_key(value, axis)
            if key not in settled:
                sizes[key] = shapes.analysis.inputs[str(value.name)][axis]
    changes = input_sizes.remedies(sizes, {k: s.kind for k, s in symbols.items()}, error.pairs)
    return [c for c in changes if all(symbols[k].given in (None, size) for k, size in c.items())][:REMEDIES]


@dataclass
class _Search:
    """Evaluations of a model's shapes, a bounded number of them."""

    module: ir.Model
    symbols: Mapping[str, Symbol]
    values: Mapping[str, Array]
    longest: Mapping[str, int]
    left: int = field(default=WALKS)

    def sample(self, sizes: Mapping[str, int]) -> Sample:
        """All shapes at some sizes of the open dimensions."""
        if self.left <= 0:
            raise InputError(f"no sizes of its open dimensions ({', '.join(self.symbols)}) were found that fit.")
        self.left -= 1
        sizes = input_sizes.summed(sizes, self.symbols)
        if beyond := [key for key, size in sizes.items() if size > self.longest.get(key, size)]:
            raise InputError(f"dimension {beyond[0]} is longer than fits.")
        inputs = input_sizes.shapes_at(self.module, sizes)
        told = {name: np.broadcast_to(value, inputs[name]) for name, value in self.values.items()}
        return complete(self.module, Sample(inputs, value=dict(told), told=set(told)))

    def fitting(self, usual: Iterable[Mapping[str, Triple]], settled: dict[str, int], what: str) -> Iterator[Shapes]:
        """All shapes at those of the usual sizes that fit, in turn; ``what`` is what to give where none do.

        Raises:
            InputError: If none do.
        """
        failure: InputError | None = None
        known: list[dict[str, int]] = []
        fits = False
        for triples_of in usual:
            tried = {k: input_sizes.within(triples_of[s.kind], self.longest.get(k)) for k, s in self.symbols.items()}
            sizes = {key: symbol.given or tried[key][0] for key, symbol in self.symbols.items()} | settled
            if sizes in known:
                continue
            known.append(sizes)
            try:
                nominal, sizes, moved = self.nominal(sizes, frozenset(settled))
            except UndeclaredError:
                raise
            except InputError as error:
                failure = failure or error
            else:
                fits = True
                triples = {key: triple for key, triple in tried.items() if key not in settled}
                yield self.varied(nominal, sizes, triples, moved)
        if not fits:
            raise InputError(f"{failure.message if failure else ''} Give {what} with ⟨input⟩ NAME:1x3x224x224.")

    def nominal(
        self, sizes: dict[str, int], fixed: frozenset[str], moved: frozenset[str] = frozenset()
    ) -> tuple[Sample, dict[str, int], frozenset[str]]:
        """All shapes at sizes that fit: those asked for, or what the file bakes in instead of them.

        A dimension that was ``moved`` may shrink once more: a table says how long it may be, another layer how long.

        Returns:
            The sample, its sizes, and the dimensions that are settled or were moved to what fits.
        """
        try:
            return self.sample(sizes), sizes, fixed | moved
        except MisfitError as error:
            open_sizes = {k: n for k, n in sizes.items() if k not in fixed and self.symbols[k].given is None}
            kinds = {key: symbol.kind for key, symbol in self.symbols.items()}
            changes = input_sizes.remedies(open_sizes, kinds, error.pairs)
            able = [c for c in changes if all(n < sizes[k] for k, n in c.items() if k in moved)]
            for change in able[:REMEDIES]:
                with suppress(InputError):
                    return self.nominal({**sizes, **change}, fixed | moved & change.keys(), moved | change.keys())
            raise

    def varied(
        self, nominal: Sample, sizes: dict[str, int], triples: Mapping[str, Triple], moved: frozenset[str]
    ) -> Shapes:
        """The nominal sample, and some at other sizes of every dimension that has others.

        Those that were ``moved`` are tried at no multiple of their size, which a length that is baked in may take.
        """
        lengths = [key for key in triples if self.symbols[key].kind != "batch"]
        places = {key: place for place, key in enumerate(lengths)}
        pairs = {k: input_sizes.variations(sizes[k], triple, places.get(k, 0)) for k, triple in triples.items()}
        pairs = {key: [*listed[:2], *listed[3:]] if key in moved else listed for key, listed in pairs.items()}
        for chosen in self._choices(nominal, sizes, pairs):
            if not chosen:
                break
            with suppress(InputError):
                count = max(map(len, chosen.values()))
                others = [{**sizes, **{k: n[min(at, len(n) - 1)] for k, n in chosen.items()}} for at in range(count)]
                analysis, third, *more = (self.another(nominal, one) for one in others)
                more += self._longer(nominal, sizes, chosen, parity=bool(more))
                return Shapes(nominal, analysis, third, tuple(more))
        return Shapes(nominal, nominal, nominal)

    def _longer(
        self, nominal: Sample, sizes: Mapping[str, int], chosen: Mapping[str, tuple[int, ...]], *, parity: bool
    ) -> list[Sample]:
        """All shapes at longer lengths that fit: a count of large windows may be alike at the others, all doubled.

        Unless the others show ``parity``, the first is half as long again: what is padded to whole windows may be whole
        at the others. Where data decides on shapes, the model would have to run at such sizes, and is not.
        """
        lengths = [key for key in chosen if self.symbols[key].kind != "batch"]
        samples = []
        for halves in () if nominal.loose or not lengths else (4,) if parity else (4, 3):
            longer = {key: sizes[key] * (4 if place else halves) // 2 for place, key in enumerate(lengths)}
            if any(size not in chosen[key] for key, size in longer.items()):
                with suppress(InputError):
                    samples.append(self.another(nominal, {**sizes, **longer}))
        return samples

    def another(self, nominal: Sample, sizes: Mapping[str, int]) -> Sample:
        """All shapes at other sizes, at which every tensor has as many axes (a Squeeze of all ones can take others)."""
        sample = self.sample(sizes)
        if any(len(shape) != len(nominal.shape[name]) for name, shape in sample.shape.items()):
            raise InputError("tensors have other numbers of axes.")
        return sample

    def _choices(
        self, nominal: Sample, sizes: dict[str, int], pairs: Mapping[str, Sequence[tuple[int, ...]]]
    ) -> Iterator[dict[str, tuple[int, ...]]]:
        """Other sizes to try: of all dimensions, of lengths in proportion, of single ones, of batches alone.

        A wave and its spectrogram can only grow together; they are tried at no multiple (see :meth:`varied`).
        """
        together = ({key: listed[min(k, len(listed) - 1)] for key, listed in pairs.items()} for k in range(4))
        yield from islice(together, 3)
        lengths = [key for key in pairs if self.symbols[key].kind != "batch"]
        if len(lengths) > 1 and all(sizes[key] % 4 == 0 for key in lengths):
            quarters = {key: tuple(sizes[key] * share // 4 for share in (5, 7, 6)) for key in lengths}
            yield {key: listed[0] for key, listed in pairs.items()} | quarters
        yield from together
        yield self._alone(nominal, sizes, pairs, "")
        yield self._alone(nominal, sizes, pairs, "batch")

    def _alone(
        self, nominal: Sample, sizes: dict[str, int], pairs: Mapping[str, Sequence[tuple[int, ...]]], kind: str
    ) -> dict[str, tuple[int, ...]]:
        """Dimensions that have other sizes while the rest stays: such sizes of them. Of one kind, if one is named."""
        able = {}
        for key in (key for key in pairs if kind in ("", self.symbols[key].kind)):
            for pair in pairs[key]:
                with suppress(InputError):
                    for size in pair:
                        self.another(nominal, {**sizes, key: size})
                    able[key] = pair
                    break
        return able


def _check_overrides(module: ir.Model, overrides: Mapping[str, Sequence[int]]) -> None:
    inputs = {str(value.name): value for value in module.graph.inputs}
    for name, shape in overrides.items():
        if name not in inputs:
            raise InputError(f"⟨input⟩ {name}: the model has no such input. Its inputs are {', '.join(inputs)}.")
        declared = inputs[name].shape
        if declared is None:
            continue
        fits = len(declared) == len(shape) and all(
            not isinstance(d, int) or d < 1 or d == s for d, s in zip(declared, shape, strict=True)
        )
        if not fits or any(s < 1 for s in shape):
            raise InputError(
                f"⟨input⟩ {name}: the model declares {declared}, but {'x'.join(map(str, shape))} was given."
            )
