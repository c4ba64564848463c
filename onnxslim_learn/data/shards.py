"""Images in ``.tar`` files as WebDataset lays them out: ``KEY.jpg`` and, where it has a class, ``KEY.cls`` beside it.

Only where they lie is read at first; each is then read by itself, so that any order costs the same. (See
https://github.com/webdataset/webdataset, "The WebDataset Format".)
"""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from onnxslim_learn.data.images import SUFFIXES, Packed
from onnxslim_learn.errors import InputError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TAR, CLASS = ".tar", ".cls"


def shards(place: Path) -> list[Path]:
    """The shards that a path names: a ``.tar`` file, or all of those in a folder, in order."""
    if place.is_dir():
        return sorted(path for path in place.iterdir() if path.suffix == TAR and path.is_file())
    return [place] if place.suffix == TAR else []


def find(place: Path) -> tuple[list[Packed], list[int] | None]:
    """The images of all shards in order, and their classes where all have one.

    Raises:
        InputError: If there is none, or a shard cannot be read.
    """
    files: list[Packed] = []
    classes: list[int | None] = []
    for shard in shards(place):
        packed = {one.name: one for one in _members(shard)}
        for name, one in packed.items():
            key, suffix = _split(name)
            if suffix in SUFFIXES:
                files.append(one)
                told = packed.get(key + CLASS)
                classes.append(None if told is None else _class(told))
    if not files:
        raise InputError(f"{place}: its .tar files hold no images ({', '.join(sorted(SUFFIXES))}). Give some that do.")
    known = [number for number in classes if number is not None]
    if known and len(known) < len(files):
        without = next(one for one, number in zip(files, classes, strict=True) if number is None)
        raise InputError(f"{without}: has no class ({CLASS}) beside it, but others have. Give one to all, or to none.")
    return files, known or None


def _members(shard: Path) -> Iterator[Packed]:
    try:
        with tarfile.open(shard, "r:") as opened:
            for one in opened:
                if one.isfile():
                    yield Packed(shard, one.name, one.offset_data, one.size)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{shard}: no plain .tar file that can be read ({reason(error)}). Unpack it first.") from error


def _split(name: str) -> tuple[str, str]:
    """A file's name up to the first dot, which tells the sample, and what follows."""
    folder, slash, last = name.rpartition("/")
    key, dot, suffix = last.partition(".")
    return f"{folder}{slash}{key}", f"{dot}{suffix}".lower()


def _class(told: Packed) -> int:
    text = told.open().read().decode("ascii", "replace").strip()
    if not (text.isascii() and text.isdecimal()):
        raise InputError(f"{told}: expected the number of a class, but found {text[:20]!r}. Write a number.")
    return int(text)
