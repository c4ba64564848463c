"""Which files a command reads and which it writes, derived ones included: where both meet, it is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn import settings as declared
from onnxslim_learn.data import images
from onnxslim_learn.errors import InputError
from onnxslim_learn.plans.plan import bases_file
from onnxslim_learn.rewrite import save
from onnxslim_learn.rows import require
from onnxslim_learn.runtime import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

READ = "is read by this command"
MARKED = ("⟨output⟩", "⟨plan_out⟩")  # of what several are written where several models are made


def claim(settings: Any, *read: Any) -> None:
    """Refuse files that cannot be written, that are read as well, or that are named twice, before any work.

    Args:
        settings: The options of a command, or several dataclasses of them.
        read: What the command reads beside what they name; files are looked at.

    Raises:
        InputError: With the parameter at fault.
    """
    from onnxslim_learn.runtime import timing

    several = settings if isinstance(settings, list) else [settings]
    asked = [
        (f"⟨{name}⟩", about.option, value)
        for one in several
        for name, about in declared.options(type(one)).items()
        if (value := declared.given(one)[name]) is not None
    ]
    for name, about, _ in asked:
        require(about.extra, name)
    for provider in (value for name, _, value in asked if name == "⟨provider⟩" and isinstance(value, str)):
        timing.check_provider(provider)
    files = _Files([*read, *(value for _, about, value in asked if about.reads)])
    marks = [mark for _, about, value in asked for mark in about.beside(value)]
    for name, _, value in (one for one in asked if one[1].keeps):
        files.keep(name, Path(value))
    for name, about, value in asked:
        if about.writes:
            files.write(name, str(value), marks if name in MARKED else ())


class _Files:
    """The files of a command, and what becomes of each."""

    def __init__(self, read: Iterable[Any]) -> None:
        named = [Path(one) for one in read if isinstance(one, str | Path)]
        models = [file for one in named if one.is_file() for file in save.files(one)]
        pictures = [file for one in named if one.is_dir() for file in images.pictures(one)]
        self.taken = {file.resolve(): READ for file in [*models, *pictures]}
        self.kept: list[tuple[str, Path]] = []

    def keep(self, parameter: str, folder: Path) -> None:
        """Claim a folder, in which nothing may lie that is read."""
        self.kept.append((parameter, folder.resolve()))
        for file in self.taken:
            if file.is_relative_to(folder.resolve()):
                raise InputError(f"{parameter} {folder}: {file} lies there and {READ}. Give another folder.")

    def write(self, parameter: str, text: str, marks: Sequence[str]) -> None:
        """Claim a file, and those of the same name with marks."""
        if text in ("", "-"):
            raise InputError(f"{parameter} {text!r}: is no file name. Give one.")
        path = Path(text)
        atomic.check_target(path, parameter)
        for one in (path, *(atomic.beside(path, mark) for mark in marks)):
            self._claim(f"{parameter} {text}", one, "is" if one == path else f"writes {one} beside it, which is")
            self._beside(f"{parameter} {text}", one)

    def _claim(self, said: str, path: Path, how: str) -> None:
        place = path.resolve()
        if place in self.taken:
            raise InputError(f"{said}: {how} {self.taken[place].removeprefix('is ')}. Give another name.")
        for parameter, folder in self.kept:
            if place.is_relative_to(folder):
                raise InputError(f"{said}: lies in the folder of {parameter}. Give a place outside of it.")
        self.taken[place] = f"is written by {said.split(maxsplit=1)[0]} as well"

    def _beside(self, said: str, path: Path) -> None:
        """Claim the file that may hold the weights of a model, or the rotations of a plan."""
        parameter = said.split(maxsplit=1)[0]
        places = {"⟨output⟩": path.with_name(f"{path.name}.data"), "⟨plan_out⟩": bases_file(path)}
        if parameter not in places:
            return
        data, what = places[parameter].resolve(), "weights" if parameter == "⟨output⟩" else "rotations"
        if self.taken.get(data) == READ:
            raise InputError(f"{said}: its {what} may go to {data}, which {READ}. Give another name.")
        self.taken.setdefault(data, f"may hold the {what} of {parameter}")
