"""A plan is data: which units of every group stay, where it comes from, and what that makes of every tensor."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.costs.targets import dated
from onnxslim_learn.errors import PlanError, reason
from onnxslim_learn.readers import no_file
from onnxslim_learn.runtime import atomic

FORMAT = "onnxslim-learn plan 1"
BASES = "bases"  # of a plan's provenance: the digest of the rotations, and the file that holds them


def bases_file(plan: Path) -> Path:
    """Where the rotations of a plan lie that is written."""
    return plan.with_name(f"{plan.stem}.bases.npz")


@dataclass(frozen=True)
class Plan:
    """What to keep.

    Attributes:
        groups: Group name -> indices of the units that stay; groups kept whole are left out.
        widths: Group name -> number of units before, for every group in ``groups``.
        tensors: Initializer -> axis -> kept positions in the order in which they stay, for every cut initializer (a
            list per row where rows keep different positions of one axis).
        provenance: Source hash, criterion, targets, costs before and after.
        blocks: Names of the residual blocks that go as a whole, with all groups that lie in them.
        merged: Group name -> lists of units, each a unit that stays and the removed ones that it stands for; empty
            where units are dropped.
        bases: Space -> rotation ``(n, n)``, where units are directions of other bases (:mod:`onnxslim_learn.bases`);
            they lie in a file beside the plan's.
        where: What errors call it: the file it was read from.
    """

    groups: dict[str, list[int]]
    widths: dict[str, int]
    tensors: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    merged: dict[str, list[list[int]]] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    bases: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)
    where: str = field(default="plan", repr=False, compare=False)

    def __repr__(self) -> str:
        kept, all_ = sum(len(units) for units in self.groups.values()), sum(self.widths.values())
        without = f", without {len(self.blocks)} residual blocks" if self.blocks else ""
        return f"<Plan: {kept} of {all_} units of {len(self.groups)} groups stay{without}>"

    def to_json(self) -> str:
        """Write the plan as JSON text; rotations are left out."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("bases", "where")}
        return json.dumps({"format": FORMAT, **told}, indent=1, sort_keys=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, and its rotations, if there are some, beside it.

        Raises:
            InputError: If the place cannot be written.
        """
        place, plan = Path(path), self
        if self.bases:
            beside = bases_file(place)
            with atomic.replacing(beside) as draft, draft.open("wb") as file:
                arrays: dict[str, Any] = dict(self.bases)
                np.savez(file, **arrays)
            about = {**self.provenance[BASES], "file": beside.name}
            plan = replace(self, provenance={**self.provenance, BASES: about})
        atomic.write_text(place, plan.to_json())

    @classmethod
    def from_json(cls, text: str, where: str = "plan") -> Plan:
        """Read a plan from JSON text.

        Raises:
            PlanError: If the text is no plan.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            said = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else reason(error)
            raise PlanError(f"{where}: not JSON ({said}). Give a plan that slim wrote.") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            kind = data.get("format", "no format") if isinstance(data, dict) else type(data).__name__
            raise PlanError(f"{where}: expected format {FORMAT!r}, but found {kind!r}. Give a plan that slim wrote.")
        groups, widths = data.get("groups"), data.get("widths")
        if not (isinstance(groups, dict) and isinstance(widths, dict) and set(widths) == set(groups)) or not _indices(
            groups
        ):
            raise PlanError(
                f"{where}: 'groups' must map names to lists of indices, with their 'widths'. Write it with slim."
            )
        tensors, provenance = data.get("tensors", {}), data.get("provenance", {})
        if not isinstance(tensors, dict) or not isinstance(provenance, dict):
            raise PlanError(f"{where}: 'tensors' and 'provenance' must be objects. Write it with slim.")
        _check(provenance, where)
        if isinstance(target := provenance.get("target"), dict):
            provenance = {**provenance, "target": dated(target)}
        merged = data.get("merged", {})
        if not isinstance(merged, dict) or not all(
            isinstance(kind, list) and _indices(dict(enumerate(kind))) and all(kind) for kind in merged.values()
        ):
            raise PlanError(f"{where}: 'merged' must map names to lists of lists of indices. Write it with slim.")
        blocks = data.get("blocks", [])
        if not isinstance(blocks, list) or not all(isinstance(name, str) for name in blocks):
            raise PlanError(f"{where}: 'blocks' must be a list of names of residual blocks. Write it with slim.")
        return cls(groups, widths, tensors, provenance, merged, tuple(blocks), where=where)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file.

        Raises:
            PlanError: If the file is missing or no plan.
        """
        if problem := no_file(path):
            raise PlanError(f"{path}: {problem}. Give a plan that slim wrote with ⟨plan_out⟩.")
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise PlanError(f"{path}: not a text file. Give a plan that slim wrote with ⟨plan_out⟩.") from error
        except OSError as error:
            raise PlanError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
        plan = cls.from_json(text, str(path))
        return replace(plan, bases=_rotations(Path(path), plan.provenance.get(BASES)))


KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("source", "sha256", "criterion"), (str,)),
    **dict.fromkeys(("target", "repair", "blocks", "dropped", "training", "latency", "lossless", BASES), (dict,)),
    **dict.fromkeys(("allow_sensitive", "allow_empty"), (bool,)),
    **dict.fromkeys(("protect", "only", "timed"), (list,)),
    "multiple": (int, str),
}
"""What is told of a plan's origin, and read again."""
TEXTS = ("protect", "only")  # that list texts
BOUND = re.compile(r"[0-9.]+(e[+-]?[0-9]+)?[a-zA-Z%]*")


def _check(provenance: Mapping[str, Any], where: str) -> None:
    """Refuse an origin that is told in other kinds of values than are read.

    Raises:
        PlanError: With the first.
    """
    for name, kinds in KINDS.items():
        value = provenance.get(name)
        fits = isinstance(value, kinds) or (value is None and (name != "multiple" or name not in provenance))
        if fits and value and name in TEXTS:
            fits = all(isinstance(each, str) for each in value)
        if fits and value and name == "target":
            fits = all(BOUND.fullmatch(str(each)) for each in value.values())
        if not fits:
            raise PlanError(f"{where}: {name!r} of 'provenance' is {reprlib.repr(value)}. Write it with slim.")


def digest(bases: Mapping[str, Array]) -> str:
    """SHA-256 of rotations, as hexadecimal digits."""
    total = hashlib.sha256()
    for name in sorted(bases):
        total.update(name.encode() + np.ascontiguousarray(bases[name], np.float64).tobytes())
    return total.hexdigest()


def _rotations(path: Path, about: Any) -> dict[str, Array]:
    """The rotations of a plan, from the file beside it.

    Raises:
        PlanError: If there should be some, but are not, or other ones.
    """
    if about is None:
        return {}
    beside = path.with_name(str(about.get("file"))) if isinstance(about, dict) else path
    try:
        if problem := no_file(beside):
            raise OSError(problem)
        with np.load(beside, allow_pickle=False) as arrays:
            bases = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PlanError(f"{path}: its rotations cannot be read from {beside.name}. Put it beside the plan.") from error
    if digest(bases) != about.get("sha256"):
        raise PlanError(f"{path}: {beside.name} holds other rotations. Put the one beside it that slim wrote with it.")
    return bases


def _indices(groups: dict[Any, Any]) -> bool:
    return all(
        isinstance(kept, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in kept)
        for kept in groups.values()
    )
