"""Pages: whole, self-contained, true to their blocks, and safe with any name."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.report import html, svg
from onnxslim_learn.report.blocks import Bar, Bars, Lines, Point, Scatter, Table, Text
from onnxslim_learn.report.sections import training

VOID = {"meta", "rect", "path"}  # tags that hold nothing


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        return [attributes for found, attributes in self.tags if found == tag]


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=60) | st.sampled_from(
    ["<script>alert(1)</script>", "a&amp;b", 'x" onload="y', "[/b][red]", "layer/" * 40]
)
BARS = st.lists(st.builds(Bar, NAMES, st.floats(0, 1e12), NAMES, st.integers(0, 2)), min_size=1, max_size=8)


@given(NAMES, st.lists(st.tuples(NAMES, NAMES), max_size=4), BARS)
def test_a_page_says_what_the_blocks_say_and_loads_nothing(name, rows, bars):
    chart = Bars(name, ("one", "two", "three"), tuple(bars))
    text = html.page(name, [Text(name), Text(name, title=True), Table(name, ("a", "b"), tuple(rows)), chart])
    page = Page(text)
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "table", "tr", "th", "td"),
        *("svg", "g", "text", "rect", "path"),
    }
    assert [data for tag, data in page.texts if tag == "h1"] == [name]
    assert [data for tag, data in page.texts if tag == "td"] == [cell for row in rows for cell in row]
    assert {key for _, attributes in page.tags for key in attributes} & {"src", "href", "onload"} == set()
    assert re.sub(r'xmlns="http://www.w3.org/2000/svg"', "", text).count("http:") == name.count("http:")


def test_bars_are_as_long_as_their_values():
    values = [4.0, 1.0, 0.0, 2.0]
    bars = [Bar(str(value), value, "text", span=(value / 2, value * 2)) for value in values]
    page = Page(html.page("", [Bars("", ("one",), tuple(bars))]))
    widths = [float(attributes["width"]) for attributes in page.of("rect")]
    assert widths == pytest.approx([value * html.LENGTH / 8 for value in values], abs=0.05)  # drawn to a tenth
    ends = [[float(x) for x in re.findall(r"[MH]([\d.]+)", attributes["d"])[:2]] for attributes in page.of("path")]
    for value, (low, high) in zip(values, ends, strict=True):
        assert low == pytest.approx(html.LABEL + value / 2 * html.LENGTH / 8, abs=0.06)
        assert high == pytest.approx(html.LABEL + value * 2 * html.LENGTH / 8, abs=0.06)


def test_series_have_a_legend_and_colours_of_their_own():
    bars = tuple(Bar("", 1.0, "", series) for series in range(3))
    page = Page(html.page("", [Bars("", ("red", "green", "blue"), bars)]))
    legend, drawn = page.of("rect")[:3], page.of("rect")[3:]
    assert [a["fill"] for a in legend] == [a["fill"] for a in drawn]
    assert len({a["fill"] for a in drawn}) == 3
    assert [data for tag, data in page.texts if tag == "text" and data] == ["red", "green", "blue"]


def test_a_chart_of_nothing_is_still_a_page():
    page = Page(html.page("", [Bars("", (), ()), Bars("", ("one",), (Bar("zero", 0.0, "0"),))]))
    assert page.open == []
    assert [attributes["width"] for attributes in page.of("rect")] == ["0.0"]


def test_lines_run_through_their_points():
    lines = Lines("losses", ("units", "loss"), (("a<b", ((0.0, 1.0), (0.5, 0.25), (1.0, 0.0))), ("c", ((0.5, 0.5),))))
    page = Page(html.page("t", [lines]))
    frames, drawn = page.of("path")[::2], page.of("path")[1::2]
    x, y, high, wide = map(float, re.fullmatch(r"M(\S+) (\S+)v(\S+)h(\S+)", frames[0]["d"]).groups())
    points = [tuple(map(float, point.split())) for point in drawn[0]["d"].removeprefix("M").split("L")]
    wanted = [(x, y), (x + wide / 2, y + high * 0.75), (x + wide, y + high)]
    assert points == [pytest.approx(point, abs=0.1) for point in wanted]
    assert len(drawn) == 2
    assert ("title", "a<b") in page.texts


def chart(*points, forms=("{:.0%}", "{:.3g}")):
    made = tuple(Point(str(k), x, y, "said", best) for k, (x, y, best) in enumerate(points))
    return Page(html.page("t", [Scatter("cost <and> distance", "How to read it.", ("cost", "far"), forms, made)]))


def test_points_lie_where_their_axes_say():
    page = chart((1.0, 0.0, True), (0.5, 0.3, True), (0.7, 0.3, False), (0.25, 0.37, True))
    texts = [data for tag, data in page.texts if tag == "text"]
    assert texts[:6] == ["0%", "20%", "40%", "60%", "80%", "100%"]
    assert texts[6:11] == ["0", "0.1", "0.2", "0.3", "0.4"]
    at = [(float(a["cx"]) - svg.LEFT, svg.TOP + svg.HIGH - float(a["cy"])) for a in page.of("circle")]
    wanted = [(0.25, 0.37), (0.5, 0.3), (0.7, 0.3), (1.0, 0.0)]
    for found, (x, y) in zip(at, wanted, strict=True):
        assert found == pytest.approx((x * svg.WIDE, y / 0.4 * svg.HIGH), abs=0.06)
    hollow = [a["fill"] == "none" for a in page.of("circle")]
    assert hollow == [False, False, True, False]
    line = page.of("path")[-1]["d"].removeprefix("M").split("L")
    assert [float(point.split()[0]) - svg.LEFT for point in line] == pytest.approx(
        [x * svg.WIDE for x in (0.25, 0.5, 1.0)], abs=0.06
    )


def test_points_that_lie_together_share_a_name():
    page = chart((1.0, 0.0, True), (1.0, 0.0, True), (0.2, 0.5, True))
    names = [data for tag, data in page.texts if tag == "text"][-2:]
    assert names == ["2", "0, 1"]


@pytest.mark.parametrize("points", [(), ((0.0, 0.0, True),)])
def test_a_chart_of_no_points_or_of_one_at_nothing_is_still_a_page(points):
    assert chart(*points).open == []


@pytest.mark.parametrize(("most", "wanted"), [(1.0, 0.2), (0.37, 0.1), (0.05, 0.01), (7.0, 2.0), (40.0, 10.0), (0, 1)])
def test_ticks_are_round(most, wanted):
    assert svg.step(most) == pytest.approx(wanted)


def test_a_sweep_shows_every_strength():
    whole = {"macs": 100, "params": 10}
    row = {"before": whole, "relative": 0.2, "accuracy": 0.9, "pareto": True, "output": "a.onnx"}
    rows = [{**row, "strength": s, "after": {**whole, "macs": m}} for s, m in ((0.1, 90), (1.0, 50), (2000.0, 20))]
    (figure,) = (block for block in training.sweep(rows) if isinstance(block, Scatter))
    assert [(p.name, p.x, p.y) for p in figure.points] == [("0.1", 0.9, 0.2), ("1", 0.5, 0.2), ("2000", 0.2, 0.2)]
    assert all("right on 90.00%" in p.text for p in figure.points)
