"""Weights beside a model: which files its locations name, also where a hub's cache keeps both behind links."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from onnxslim_learn.errors import InputError


def settle(proto: onnx.ModelProto, source: Path | None) -> Path | None:
    """Let initializers name the files that their locations lead to, links followed; ``None`` if none is in a file.

    All must lie in the model's folder, or all in the one where the link to the model itself leads: caches of hubs name
    model and weights by links into one folder. A file that says anything else could read what is none of its business.

    Returns:
        The folder that locations are relative to.

    Raises:
        InputError: If a file is missing, lies elsewhere or is too short, or the model is no file.
    """
    external = [tensor for tensor in proto.graph.initializer if uses_external_data(tensor)]
    if not external:
        return None
    if source is None:
        info = ExternalDataInfo(external[0])
        raise InputError(f"initializer {external[0].name}: its data is in {info.location}. Give the model as a file.")
    infos = [ExternalDataInfo(tensor) for tensor in external]
    files = {info.location: _real(source, info.location) for info in infos}
    folder = _home(source, list(files.values()))
    sizes = {location: file.stat().st_size for location, file in files.items()}
    for tensor, info in zip(external, infos, strict=True):
        if sizes[info.location] < (info.offset or 0) + (info.length or 0):
            raise InputError(f"{files[info.location]}: too short for initializer {tensor.name}. Copy the file again.")
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = files[info.location].relative_to(folder).as_posix()
    return folder


def _real(source: Path, location: str) -> Path:
    """The file that a location leads to."""
    path = source.parent / location
    if not path.is_file():
        raise InputError(f"{source}: its weights are in {path}, which does not exist. Put the file there.")
    if Path(location).is_absolute() or ".." in Path(location).parts:
        raise InputError(f"{source}: its weights must be in its folder, not in {location}. Copy them there.")
    return path.resolve()


def _home(source: Path, files: list[Path]) -> Path:
    """The folder that all files lie in: the model's, or the one that the link to the model leads to."""
    folders = list(dict.fromkeys([source.parent.resolve(), source.resolve().parent]))
    for folder in folders:
        if all(file.is_relative_to(folder) for file in files):
            return folder
    where = " or ".join(map(str, folders))
    out = next(file for file in files if not file.is_relative_to(folders[-1]))
    raise InputError(f"{source}: its weights must be in {where}, not in {out}. Copy them there.")


def read_in(proto: onnx.ModelProto, source: Path) -> onnx.ModelProto:
    """Take the initializers of a model that was parsed from ``source`` into memory.

    Raises:
        InputError: See :func:`settle`.
    """
    folder = settle(proto, source)
    if folder is not None:
        load_external_data_for_model(proto, str(folder))
    return proto
