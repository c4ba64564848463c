"""Reports as one self-contained page: no script, no font, no picture comes from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from onnxslim_learn.report import vega
from onnxslim_learn.report.blocks import SECTIONS, Bars, Chooser, Lines, Picture, Scatter, Section, flat, in_sections
from onnxslim_learn.report.card import card
from onnxslim_learn.report.format import ms
from onnxslim_learn.report.network import packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import jinja2

    from onnxslim_learn.report.blocks import Block

FEW = 25  # rows of a table that are shown before the rest is asked for
CHARTS = ("vendor/vega.min.js", "vendor/vega-lite.min.js")
SCRIPTS = {
    Bars: CHARTS,
    Lines: CHARTS,
    Scatter: CHARTS,
    Picture: ("vendor/dagre.min.js", "picture.js"),
    Chooser: ("chooser.js",),
}
"""Blocks -> what draws them."""


def render(title: str, report: Mapping[str, Any], blocks: Iterable[Block], *, plans: str = "") -> str:
    """Write a report as an HTML document.

    Args:
        title: Of the page.
        report: The report as plain data: its verdict and what is said of the run stand first and last.
        blocks: What it shows between.
        plans: Where widths that are tried are made a plan, if the page is served by what can.
    """
    sections = in_sections(blocks)
    shown = [type(block) for block in flat(sections)]
    scripts = dict.fromkeys(name for kind, names in SCRIPTS.items() if kind in shown for name in names)
    return _template().render(
        title=title,
        card=card(report),
        sections=sections,
        facts=_facts(report),
        plans=plans,
        style=_safe("page.css"),
        scripts=[_safe(name) for name in (*scripts, "page.js")],
    )


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is said of a run: what was asked, when, where, of what, and how long it took."""
    about = report.get("run") or {}
    facts = [(label, str(about[label])) for label in ("command", "date") if about.get(label)]
    facts += [(label, ", ".join(map(str, told.values()))) for label, told in about.items() if label == "machine"]
    facts += [("versions", ", ".join(f"{name} {one}" for name, one in about["versions"].items()))] if about else []
    facts += [(f"SHA-256 of {name}", one) for name, one in (about["sha256"].items() if about else ())]
    stages = [f"{one['name']} {ms(1e3 * one['seconds'])}" for one in report.get("stages", ())]
    written = (report.get("verdict") or {}).get("written", ())
    facts += [("stages", ", ".join(stages))] if stages else []
    return facts + ([("written", ", ".join(written))] if written else [])


@cache
def _template() -> jinja2.Template:
    """The page; text in it is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onnxslim_learn.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"specs": vega.specs, "numbers": vega.numbers, "titles": SECTIONS, "few": FEW}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals["packed"] = packed
    environment.globals["within"] = lambda blocks: in_sections(one for one in blocks if isinstance(one, Section))
    environment.globals["kind_of"] = lambda block: type(block).__name__
    return environment.get_template("page.html")


@cache
def _safe(name: str) -> Any:
    """A file of the package, as it stands in a page."""
    from markupsafe import Markup

    return Markup(files("onnxslim_learn.report").joinpath("assets", name).read_text(encoding="utf-8"))
