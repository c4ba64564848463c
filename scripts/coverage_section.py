"""The measured rows as a section in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from scripts.coverage_file import PLANS

Row = dict[str, Any]

EXPORTERS = ("legacy", "dynamo")
LOW = 0.6  # shares below are explained
UNABLE = ("export failed", "export timeout", "not runnable")  # before the package comes in
EXACT = 1e-4  # the difference that rounding explains


def _rounding(cut: Sequence[Row]) -> str:
    """What is to be said of files that pass though they are further off."""
    others = sorted({row["architecture"] for row in cut if row["worst"] > EXACT and row["status"] == "ok"})
    if not others:
        return ""
    return f"; of {', '.join(others)}\n  one rounding error of the inputs alone moves the outputs as far"


def render(rows: Sequence[Row]) -> str:
    """The section in Markdown."""
    measured = [row for row in rows if "share" in row]
    unable = [row for row in rows if row["status"] in UNABLE]
    files = [row for row in rows if row not in unable]
    bad = [row for row in files if row["status"] not in ("ok", "chaotic")]
    shares = sorted(row["share"] for row in measured)
    names = {row["architecture"] for row in files}
    cut = [row for row in files if "worst" in row]
    exact = sum(row["worst"] <= EXACT for row in cut)
    parts = [
        "## Architectures\n",
        f"{len(names)} architectures in {len(files)} files by the two exporters of PyTorch ({_versions()}),",
        "built small with random weights by `scripts/coverage_architectures.py`; its docstring defines the columns.\n",
        f"- {sum(row['status'] == 'ok' for row in files)} of {len(files)} files are analysed, cut and checked without",
        f"  fault (in {sum(row['cuttable'] == 0 for row in measured)} nothing can be cut).",
        f"  After a random cut (in {sum(row.get('plans', 1) > 1 for row in cut)} files after each of {PLANS})"
        " the slimmed model is within",
        f"  {EXACT:.0e} of the masked one in {exact} of {len(cut)} files{_rounding(cut)}.",
        f"- Median share of the parameters that can go: {_percent(float(np.median(shares or [0])))};",
        f"  {sum(share < LOW for share in shares)} files are under {_percent(LOW)}, with their reasons below.",
        f"- Median time of an analysis on one core: {np.median([row['seconds'] for row in measured] or [0]):.1f} s.",
        f"- {sum(bool(row['unknown']) for row in measured)} files have operators without a rule.\n",
        "Each cell: legacy exporter / dynamo exporter; a dash where the exporter itself fails.\n",
        "| architecture | library | nodes | groups, cuttable | share | worst difference | seconds |",
        "|---|---|---|---|---|---|---|",
        *_table(rows),
    ]
    for title, lines in (
        (f"Under {_percent(LOW)}: what holds the parameters", _low(measured)),
        ("Operators without a rule", _unknown(measured)),
        (f"Above {EXACT:.0e}, where the net itself amplifies rounding", _amplified(files)),
        ("Faults", [f"- {who(row)}: {row['status']}. {row.get('error', '')}".rstrip() for row in bad]),
        ("Not exported, or not runnable in onnxruntime", _unexported(unable)),
    ):
        if lines:
            parts += ["", f"### {title}\n", *lines]
    return "\n".join(parts) + "\n"


def _versions() -> str:
    from importlib.metadata import version

    names = ("torch", "torchvision", "timm", "transformers", "segmentation-models-pytorch", "ultralytics", "diffusers")
    return ", ".join(f"{name} {version(name).split('+')[0]}" for name in names)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def who(row: Row) -> str:
    """A row in words."""
    return f"{_name(row)} ({row['library']}, {row['exporter']})"


def _name(row: Row) -> str:
    return str(row["architecture"]).removesuffix(f" ({row['library']})")


def _table(rows: Sequence[Row]) -> list[str]:
    nets: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        nets.setdefault((row["library"], _name(row)), {})[row["exporter"]] = row
    lines = []
    for (library, name), by in sorted(nets.items(), key=lambda pair: (pair[0][0], pair[0][1].lower())):
        if not any("share" in row for row in by.values()):
            continue
        both = [by.get(exporter, {}) for exporter in EXPORTERS]
        cells = [
            [str(row["nodes"]) if "share" in row else "-" for row in both],
            [f"{row['groups']}, {row['cuttable']}" if "share" in row else "-" for row in both],
            [_percent(row["share"]) if "share" in row else "-" for row in both],
            [f"{row['worst']:.0e}" if row.get("worst") is not None else "-" for row in both],
            [f"{row['seconds']:.1f}" if "share" in row else "-" for row in both],
        ]
        lines.append(f"| {name} | {library} | " + " | ".join(" / ".join(cell) for cell in cells) + " |")
    return lines


def _low(measured: Sequence[Row]) -> list[str]:
    lines = []
    for row in measured:
        if row["share"] < LOW:
            held = "; ".join(f"{text} ({_percent(share)})" for text, share in row.get("reasons", []) if share > 0.005)
            lines.append(f"- {who(row)}, {_percent(row['share'])}: {held or 'parameters without removable axes'}")
    return lines


def _unknown(measured: Sequence[Row]) -> list[str]:
    where: dict[str, list[str]] = {}
    for row in measured:
        for op_type in row["unknown"]:
            where.setdefault(op_type, []).append(_name(row))
    return [f"- {op_type}: {', '.join(dict.fromkeys(names))}" for op_type, names in sorted(where.items())]


def _amplified(files: Sequence[Row]) -> list[str]:
    return [
        f"- {who(row)}: {row['worst']:.0e}; one rounding error in the inputs gives {row['noise']:.0e}"
        for row in files
        if row["status"] in ("ok", "chaotic") and row.get("worst", 0) > EXACT
    ]


def _brief(error: str) -> str:
    """The first sentence of a message."""
    return re.split(r"(?<=[a-z])[.] ", re.sub(r"^\w+: ", "", error))[0][:120]


def _unexported(unable: Sequence[Row]) -> list[str]:
    return [f"- {who(row)}: {_brief(row.get('error', row['status']))}" for row in unable]
