"""Files that appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnxslim_learn.errors import InputError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = ".onnxslim-"  # of temporary folders


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """Make a temporary folder beside a target, so that renaming stays on one file system; it goes in the end.

    Raises:
        InputError: If the target cannot be written.
    """
    check_target(target)
    try:
        folder = tempfile.TemporaryDirectory(prefix=PREFIX, dir=target.resolve().parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(f"{target.parent}: cannot be written ({error.strerror}). Choose another folder.") from error
    with folder as name:
        yield Path(name)


@contextmanager
def replacing(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a path to write to, under the target's name; what lies there in the end replaces the target in one step.

    Where the body fails, the target stays as it is. ``durable`` sees to it that a crash of the machine leaves either.

    Raises:
        InputError: If the target cannot be written.
    """
    with workplace(target) as folder:
        draft = folder / target.name
        with writing(target.name, folder):
            yield draft
            replace(draft, target, durable=durable)


def beside(path: Path, mark: str) -> Path:
    """A file beside another whose name ends with a mark, as ``m-0.5.onnx`` beside ``m.onnx``."""
    return path.with_name(f"{path.stem}{mark}{path.suffix}")


def write_text(target: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file in one step.

    Raises:
        InputError: If it cannot be written.
    """
    with replacing(target, durable=durable) as draft:
        draft.write_text(text, encoding="utf-8")


def replace(draft: Path, target: Path, *, durable: bool = True) -> None:
    """Rename a written file to its place, on disk before and after if ``durable``; a link's target is replaced."""
    place = target.resolve()
    if durable:
        _sync(draft, os.O_RDWR)
    os.replace(draft, place)
    if durable and os.name == "posix":
        with contextlib.suppress(OSError):  # some file systems have no such call for folders
            _sync(place.parent, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(name: str, folder: Path) -> Iterator[None]:
    """Say what could not be written, and where, when the system refuses (a full disk, above all).

    Raises:
        InputError: If it does.
    """
    try:
        yield
    except OSError as error:
        place = folder.parent if folder.name.startswith(PREFIX) else folder
        room = "Free space there, or set TMPDIR" if place == Path(tempfile.gettempdir()) else "Free space there"
        raise InputError(
            f"{name}: cannot be written to {place} ({error.strerror or reason(error)}). {room} or choose another place."
        ) from error


def check_target(target: Path, what: str = "output") -> None:
    """Refuse a place that no file can be written to.

    Raises:
        InputError: If the folder does not exist or is not writable, or something else than a file is there.
    """
    try:
        if target.is_dir():
            raise InputError(f"{what} {target}: is a folder. Give a file name for the result.")
        if target.exists() and not target.is_file():
            raise InputError(f"{what} {target}: is no regular file. Give another name.")
        if not target.parent.is_dir():
            raise InputError(f"{what} {target}: {target.parent} is no folder. Make it first.")
    except OSError as error:
        raise InputError(
            f"{what} {str(target)[:80]}: cannot be a file name ({error.strerror}). Give another."
        ) from error
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{what} {target}: {target.parent} cannot be written. Choose another folder.")
