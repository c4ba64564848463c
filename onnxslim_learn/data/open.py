"""Open what the user names as a source of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.data import agreement, arrays, functions, images, parquet, shards
from onnxslim_learn.data.batch import Batch
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.signature import LABELS, UNNAMED, Declared, declared
from onnxslim_learn.data.source import Source, limited, regroup
from onnxslim_learn.errors import InputError, with_flags
from onnxslim_learn.graph.load import check_file
from onnxslim_learn.runtime.functions import by_name, is_name

if TYPE_CHECKING:
    from onnxslim_learn.data.recipes import Recipe
    from onnxslim_learn.graph.load import Graph

Spec = str | Path | Mapping[str, Any] | Array | Source | Iterable[Any] | Callable[..., Any]

KINDS = "an .npz or .npy file, a folder of images, .tar files of images, .parquet files, or module:function"
PACKED = (shards.TAR, parquet.PARQUET)


@dataclass(frozen=True)
class Opened:
    """What a specification holds.

    Attributes:
        name: What it is.
        count: Number of samples, if it is known.
        chunks: Portions of any size.
        pick: See :class:`onnxslim_learn.data.source.Source`.
        recipe: How images are prepared.
        blocks: See :class:`onnxslim_learn.data.source.Source`.
    """

    name: str
    count: int | None
    chunks: Callable[[], Iterator[Batch]]
    pick: Callable[[Array], Batch] | None = None
    recipe: Recipe | None = None
    blocks: tuple[int, ...] = ()


def open_source(spec: Spec, graph: Graph, options: DataSettings | None = None) -> Source:
    """Open samples, and check that the first of them fit the model.

    Args:
        spec: An ``.npz`` or ``.npy`` file, a folder of images, ``.tar`` or ``.parquet`` files or a folder of them,
            ``module:function``; in Python also arrays by input name, an array, batches, a function that yields
            batches, or what this function returned before.
        graph: The model.
        options: How they are read; of arrays and images so many are chosen by chance, a function is read up to there.

    Raises:
        InputError: If it is nothing of the kind, does not fit the model, or is surely not what the model was made for.
    """
    if isinstance(spec, Source):
        return spec
    options, takes = options or DataSettings(), declared(graph)
    where = str(spec) if isinstance(spec, str | Path) else "data"
    opened = _kind(spec, where, options)(graph, takes, options)
    count = opened.count
    if count is not None and takes.batch is not None:
        count = count // takes.batch * takes.batch

    def stream() -> Iterator[Batch]:
        return limited(regroup(opened.chunks(), takes, options.batch_size), takes, options.count)

    first = list(limited(stream(), takes, agreement.CHECKED))
    if not first:
        few = "holds no samples" if takes.batch is None else f"holds fewer than the {takes.batch} samples of a batch"
        raise InputError(f"{where}: {few}. Give more.")
    doubts = agreement.doubts(where, graph, takes, first, opened.recipe)
    refused = next((doubt.said for doubt in doubts if doubt.sure and not options.as_given), None)
    if refused is not None:
        raise InputError(f"{refused.removesuffix('.')}, or ⟨as_given⟩ if it is meant so.")
    told = tuple(with_flags(doubt.said) for doubt in doubts)
    said = opened.name if count is None else f"{opened.name} ({count} sample{'' if count == 1 else 's'})"
    cure = {name: value for doubt in doubts for name, value in doubt.cure.items()}
    about: dict[str, Any] = {"pick": opened.pick, "doubts": told, "blocks": opened.blocks, "cure": cure}
    return Source(said, False, count, first[0].labels is not None, stream, takes, **about)


def check(spec: Spec | None, options: DataSettings) -> None:
    """Refuse what surely is no source of samples, and options that do not fit it, before any work.

    Raises:
        InputError: With the parameter at fault.
    """
    if isinstance(spec, str | Path):
        _kind(spec, str(spec), options)


def single(spec: Spec | None) -> dict[str, tuple[int, ...]]:
    """Shapes of one sample of arrays by name; nothing where that takes more than a look at them."""
    if isinstance(spec, str | Path) and Path(spec).suffix == ".npz" and Path(spec).is_file():
        spec = arrays.read(Path(spec))
    named = spec if isinstance(spec, Mapping) else {}
    return {str(name): (1, *np.shape(array)[1:]) for name, array in named.items() if name.partition(".")[0] != LABELS}


def _kind(spec: Spec, where: str, options: DataSettings) -> Callable[[Graph, Declared, DataSettings], Opened]:
    """What opens a specification."""
    folder = isinstance(spec, str | Path) and (Path(spec).is_dir() or Path(spec).suffix in PACKED)
    if options.for_images and not folder:
        raise InputError(f"⟨{options.for_images[0]}⟩: is for folders of images, but the data is {where}. Leave it out.")
    if folder:
        if not Path(where).is_dir():
            check_file(Path(where), f"a {Path(where).suffix} file")
        return partial(_parquet if parquet.parquets(Path(where)) else _images, Path(where))
    if isinstance(spec, Mapping | np.ndarray):
        return partial(_arrays, where, spec if isinstance(spec, Mapping) else {UNNAMED: spec})
    if callable(spec):
        return partial(_function, where, spec)
    if not isinstance(spec, str | Path) and isinstance(spec, Iterable):
        batches = list(spec) if isinstance(spec, Iterator) else spec  # an iterator cannot start over
        return partial(_function, where, lambda: batches)
    if Path(where).suffix in (".npz", ".npy"):
        check_file(Path(where), "an .npz or .npy file")
        return lambda *of: _arrays(where, arrays.read(Path(where)), *of)
    if is_name(where):
        return partial(_function, where, by_name(where, "⟨data⟩"))
    raise InputError(f"⟨data⟩ {where}: is not {KINDS}. Give one of these.")


def _order(count: int, options: DataSettings) -> Array:
    """Which of so many samples are used, and in which order: files are often sorted by class."""
    return np.random.default_rng(options.seed).permutation(count)[: options.count]


def _arrays(where: str, given: Mapping[str, Any], graph: Graph, takes: Declared, options: DataSettings) -> Opened:
    samples = arrays.whole(where, given, takes)
    chosen = _order(samples.count, options)
    return Opened(where, len(chosen), partial(arrays.portions, where, samples, takes, chosen, options.batch_size))


def _images(folder: Path, graph: Graph, takes: Declared, options: DataSettings) -> Opened:
    files, classes = shards.find(folder) if shards.shards(folder) else images.find(folder)
    look = images.look(str(folder), takes, graph, options)
    pictures = images.Pictures(files, classes, look, takes)
    return _pictures(folder, pictures, _order(len(files), options), options.batch_size)


def _pictures(place: Path, pictures: images.Pictures, order: Array, size: int) -> Opened:
    chosen = pictures.at(order)
    chunks = partial(chosen.portions, size)
    return Opened(f"{place}, {pictures.look}", len(order), chunks, chosen.pick, pictures.look.recipe)


def _parquet(place: Path, graph: Graph, takes: Declared, options: DataSettings) -> Opened:
    files = parquet.find(place)
    chosen, blocks = files.near(_order(files.count, options))
    column = files.images
    if set(takes.inputs) <= {*files.schema.names} - {column}:
        if options.for_images:
            raise InputError(f"⟨{options.for_images[0]}⟩: is for images, but {place} holds arrays. Leave it out.")
        rows = parquet.Rows(files, chosen, takes)
        return Opened(str(place), len(chosen), partial(rows.portions, options.batch_size), rows.pick, blocks=blocks)
    if column is None:
        raise InputError(
            f"{place}: its columns are {', '.join(files.schema.names)}, but the model's inputs are "
            f"{', '.join(takes.inputs)}. Name columns after inputs, or give one with the bytes of images."
        )
    look = images.look(str(place), takes, graph, options)
    cells, classes = files.pictures(column, files.labels(takes))
    pictures = images.Pictures(cells, classes, look, takes)
    return replace(_pictures(place, pictures, chosen, options.batch_size), blocks=blocks)


def _function(where: str, function: Callable[..., Any], graph: Graph, takes: Declared, options: DataSettings) -> Opened:
    return Opened(where, None, partial(functions.portions, where, function, takes, options.batch_size))
