"""Write a model so that nothing is lost: to a temporary place first, then by renaming."""

from __future__ import annotations

import filecmp
import hashlib
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from onnxslim_learn.errors import InputError, VerifyError, reason
from onnxslim_learn.graph import inlining
from onnxslim_learn.graph.stored_types import as_stored
from onnxslim_learn.graph.well_formed import all_tensors
from onnxslim_learn.runtime.atomic import replace, workplace, writing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

LARGEST_FILE = 1_900_000_000  # bytes of weights in one file; protobuf ends at 2 GiB
DIGITS = 16  # of a checksum in the name of a file with weights
SMALL = 1024  # bytes of a weight that stays in the file of the model, wherever the others go


def staged(model: ir.Model, name: str, folder: Path, *, external: bool) -> Path:
    """Write a model under its final file name into a temporary folder; weights go to ``<name>.data`` if external."""
    path = folder / name
    model = as_stored(model)
    inlining.put_back(model.graph)
    for value in model.graph.initializers.values():
        if not value.is_graph_output():
            value.shape = value.type = None  # else the format repeats both beside the tensor
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    aside = external or weights > LARGEST_FILE
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and (not aside or tensor.nbytes <= SMALL):  # kept in the model's file
            value.const_value = ir.tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=value.name)
    with writing(name, folder):
        ir.save(model, path, external_data=f"{name}.data" if aside else None, size_threshold_bytes=SMALL)
    return path


def publish(staged_model: Path, target: Path, source: Path | bytes) -> None:
    """Check a staged model and move it, weights first, to its place.

    A source that onnx.checker refuses (onnxruntime writes such files) is no measure for the result.

    Raises:
        VerifyError: If onnx.checker refuses it.
    """
    complaint = _complaint(staged_model)
    if complaint and not _complaint(source):
        raise VerifyError(f"{target}: onnx.checker refuses the result ({complaint}). Nothing was written.")
    _move(staged_model, target)


def _move(staged_model: Path, target: Path) -> None:
    """Move a staged model, weights first, to its place.

    At every moment the model there finds the weights it was written with: new ones get a name that nothing has, unless
    they are the same, and old ones go last.
    """
    old, kept = _own_data(target), set[Path]()
    for data in files(staged_model)[1:]:
        same = [file for file in old if file.is_file() and filecmp.cmp(file, data, shallow=False)]
        place = same[0] if same else _free(data, target)
        if place.name != data.name:
            with writing(target.name, staged_model.parent):
                _rename_data(staged_model, data.name, place.name)
        if not same:
            replace(data, place)
        kept.add(place)
    replace(staged_model, target)
    for file in set(old) - kept:
        with suppress(OSError):  # somebody may still read it, where the system minds
            file.unlink()


def _own_data(target: Path) -> list[Path]:
    """The files with weights that are named after a target, of those that the model there names."""
    place = target.resolve()
    named = re.compile(rf"{re.escape(target.name)}(\.[0-9a-f]{{{DIGITS}}})?\.data")
    return [file for file in files(place)[1:] if file.parent == place.parent and named.fullmatch(file.name)]


def _free(data: Path, target: Path) -> Path:
    """Where weights go: beside the target under its name, with their checksum in it if something else is there."""
    place = target.resolve().with_name(data.name)
    if not place.exists():
        return place
    with data.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
    return place.with_name(f"{target.name}.{checksum}.data")


def _rename_data(model: Path, before: str, after: str) -> None:
    """Let a model name another file with weights."""
    proto = onnx.load(model, load_external_data=False)
    for tensor in all_tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == before:
                entry.value = after
    model.write_bytes(proto.SerializeToString())


def copy(file: Path, target: Path) -> None:
    """Write a model file, with its external data, under another name in one step.

    Raises:
        InputError: If the place cannot be written.
    """
    with workplace(target) as folder:
        if len(files(file)) > 1:
            draft = staged(ir.load(file), target.name, folder, external=True)
        else:
            draft = folder / target.name
            with writing(target.name, folder):
                shutil.copyfile(file, draft)
        _move(draft, target)


def _complaint(model: Path | bytes) -> str:
    """What onnx.checker says against a model, or an empty string."""
    try:
        onnx.checker.check_model(str(model) if isinstance(model, Path) else model)
    except onnx.checker.ValidationError as error:
        return reason(error)
    return ""


def origin(name: str, known: Mapping[str, ir.Value]) -> ir.Value | None:
    """The initializer of a name among those that are known, or the one of which it is a copy of its own."""
    value: ir.Value | None = known.get(name, known.get(name.rpartition("~")[0]))
    return value


def changed(path: Path, plain: ir.Model) -> list[str]:
    """Initializers of a file that are not those of a model."""
    names, known = [], as_stored(plain).graph.initializers
    for name, value in ir.load(path).graph.initializers.items():
        before = origin(name, known)
        a, b = value.const_value, None if before is None else before.const_value
        if a is not None and b is not None and a.tobytes() != b.tobytes():
            names.append(name)
    return names


@contextmanager
def with_initializers(path: Path, names: Collection[str], model: ir.Model) -> Iterator[Path]:
    """A temporary copy of a model file in which some initializers have the values of another model.

    One that the other model shares with another reader (``name~1``) has the value of that.

    Raises:
        InputError: If the file is no model, or one of them has another shape or type there.
    """
    if not names:
        yield path
        return
    try:
        module = ir.load(path)
    except Exception as error:
        raise InputError(f"{path}: not an ONNX model ({reason(error)}). Give a whole .onnx file.") from error
    known = as_stored(model).graph.initializers
    for name in names:
        mine, other = module.graph.initializers.get(name), origin(name, known)
        tensors = [None if v is None else v.const_value for v in (mine, other)]
        if mine is None or any(t is None for t in tensors) or len({(str(t.shape), t.dtype) for t in tensors}) > 1:  # type: ignore[union-attr]
            raise InputError(
                f"{path}: initializer {name} is not what the plan makes of it. Give the file of that plan."
            )
        mine.const_value = tensors[1]
    with tempfile.TemporaryDirectory() as folder:
        yield staged(module, path.name, Path(folder), external=False)


def spare(source: Path, target: Path) -> None:
    """Refuse a target whose weights would overwrite the source's.

    Raises:
        InputError: If the target's data file is one of the source's.
    """
    needed = [file.resolve() for file in files(source)[1:]]
    for data in (target.resolve().with_name(f"{target.name}.data"), *_own_data(target)):
        if data in needed:
            raise InputError(
                f"⟨output⟩ {target}: its weights would overwrite {data}, which {source} needs. Give another name."
            )


def size_on_disk(path: Path) -> int:
    """Bytes of a model file and of the external data files it names."""
    return sum(int(file.stat().st_size) for file in files(path) if file.exists())


def files(path: Path) -> list[Path]:
    """A model file and the external data files it names; a file that is no model stands alone."""
    if not path.is_file():  # a pipe would never end
        return [path]
    try:
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except Exception:
        return [path]
    names: set[str] = {entry.value for t in all_tensors(proto) for entry in t.external_data if entry.key == "location"}
    return [path, *(path.parent / name for name in sorted(names))]
