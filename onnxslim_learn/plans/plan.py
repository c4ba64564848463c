"""A plan is data: which units of every group stay, where it comes from, and what that makes of every tensor."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onnxslim_learn.costs.targets import dated
from onnxslim_learn.errors import PlanError

FORMAT = "onnxslim-learn plan 1"


@dataclass(frozen=True)
class Plan:
    """What to keep.

    Attributes:
        groups: Group name -> indices of the units that stay; groups kept whole are left out.
        widths: Group name -> number of units before, for every group in ``groups``.
        tensors: Initializer -> axis -> kept positions, for every cut initializer (a list per row where rows keep
            different positions of one axis).
        provenance: Source hash, criterion, targets, costs before and after.
        merged: Group name -> lists of units, each a unit that stays and the removed ones that it stands for; empty
            where units are dropped.
    """

    groups: dict[str, list[int]]
    widths: dict[str, int]
    tensors: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    merged: dict[str, list[list[int]]] = field(default_factory=dict)

    def __repr__(self) -> str:
        kept, all_ = sum(len(units) for units in self.groups.values()), sum(self.widths.values())
        return f"<Plan: {kept} of {all_} units of {len(self.groups)} groups stay>"

    def to_json(self) -> str:
        """Write the plan as JSON text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "plan") -> Plan:
        """Read a plan from JSON text.

        Raises:
            PlanError: If the text is no plan.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanError(
                f"{where}: not JSON (line {error.lineno}: {error.msg}). Give a plan that slim wrote."
            ) from error
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
        if isinstance(target := provenance.get("target"), dict):
            provenance = {**provenance, "target": dated(target)}
        merged = data.get("merged", {})
        if not isinstance(merged, dict) or not all(
            isinstance(kind, list) and _indices(dict(enumerate(kind))) and all(kind) for kind in merged.values()
        ):
            raise PlanError(f"{where}: 'merged' must map names to lists of lists of indices. Write it with slim.")
        return cls(groups, widths, tensors, provenance, merged)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file.

        Raises:
            PlanError: If the file is missing or no plan.
        """
        if not Path(path).is_file():
            problem = "is a folder" if Path(path).is_dir() else "no such file"
            raise PlanError(f"{path}: {problem}. Give a plan that slim wrote with ⟨plan_out⟩.")
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise PlanError(f"{path}: not a text file. Give a plan that slim wrote with ⟨plan_out⟩.") from error
        except OSError as error:
            raise PlanError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
        return cls.from_json(text, str(path))


def _indices(groups: dict[Any, Any]) -> bool:
    return all(
        isinstance(kept, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in kept)
        for kept in groups.values()
    )
