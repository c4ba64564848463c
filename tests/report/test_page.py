"""Pages: whole, self-contained, true to their blocks, and safe with any name."""

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.report import page, vega
from onnxslim_learn.report.blocks import SECTIONS, Bar, Bars, Line, Lines, Point, Scatter, Section, Table, Text
from onnxslim_learn.report.card import FAIR, GOOD, card
from onnxslim_learn.report.sections import network, training
from tests.laws import examples

VOID = {"meta", "br", "input"}  # tags that hold nothing


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

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def said(self, tag):
        return [data for inside, data in self.texts if inside == tag]


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=60) | st.sampled_from(
    ["<script>alert(1)</script>", "a&amp;b", 'x" onload="y', "[/b][red]", "layer/" * 40, "</script><b>", "{{ 7 * 7 }}"]
)
BARS = st.lists(st.builds(Bar, NAMES, st.floats(0, 1e12), NAMES, st.integers(0, 2)), min_size=1, max_size=8)
SERIES = ("one", "two", "three")


def written(*blocks):
    return page.render("t", {}, blocks)


@examples(40)
@given(NAMES, st.lists(st.tuples(NAMES, NAMES), max_size=4), BARS)
def test_a_page_says_what_the_blocks_say_and_loads_nothing(name, rows, bars):
    chart = Bars(name, SERIES, tuple(bars))
    text = page.render(name, {}, [Text(name), Text(name, title=True), Table(name, ("a", "b"), tuple(rows)), chart])
    read = Page(text)
    assert read.open == []
    plain = Page(page.render("", {}, [Text("x"), Text("x", title=True), Table("x", ("a", "b"), (("c", "d"),)), chart]))
    assert {tag for tag, _ in read.tags} <= {tag for tag, _ in plain.tags}  # no name becomes a tag
    assert "".join(read.said("h1")) == name
    assert [cell for row in rows for cell in row] == read.said("td")[: 2 * len(rows)]
    assert {key for _, attributes in read.tags for key in attributes} & {"src", "onload", "onclick"} == set()
    assert all(attributes["href"].startswith("#") for _, attributes in read.tags if "href" in attributes)
    (spec,) = [json.loads(data) for data in read.said("script") if data.startswith('{"$schema"')]
    assert [row["text"] for row in spec["data"]["values"]] == [bar.text for bar in bars]


@pytest.mark.parametrize("several", [False, True])
def test_bars_are_as_long_as_their_values(several):
    values = [4.0, 1.0, 0.0, 2.0]
    bars = [Bar(str(v), v, "text", series=k % 2 if several else 0, span=(v / 2, v * 2)) for k, v in enumerate(values)]
    (spec,) = vega.specs(Bars("", ("one", "two")[: 1 + several], tuple(bars)))
    rows = spec["data"]["values"]
    assert [(row["value"], row["low"], row["high"], row["end"]) for row in rows] == [
        (v, v / 2, v * 2, v * 2) for v in values
    ]
    scale = spec["encoding"]["x"]["scale"]
    assert scale["domainMin"] == 0
    assert float(scale["domainMax"]["expr"].split()[0]) >= max(row["end"] for row in rows)


def test_bars_without_a_label_stand_beside_the_one_before():
    bars = (Bar("a", 1.0, "1", 0), Bar("", 2.0, "2", 1), Bar("a", 3.0, "3", 0))
    chart = Bars("", ("before", "after"), bars)
    (spec,) = vega.specs(chart)
    keys = [row["key"] for row in spec["data"]["values"]]
    assert keys[0] == keys[1] != keys[2]
    assert vega.numbers(chart)[1] == [("a", "before", "1"), ("a", "after", "2"), ("a", "before", "3")]


def test_a_chart_of_nothing_is_still_a_page():
    text = written(Bars("", (), ()), Bars("", ("one",), (Bar("zero", 0.0, "0"),)), Lines("", "", ("x", "y"), ()))
    assert Page(text).open == []
    assert len(re.findall("vega-lite/v6.json", text.partition("<script>!function")[0])) == 1


def test_lines_run_through_their_points_and_mark_what_was_chosen():
    lines = (Line("a<b", ((1.0, 1.0), (2.0, 0.25), (3.0, 0.0)), chosen=2.0), Line("c", ((1.0, 0.5),)))
    first, second = vega.specs(Lines("losses", "", ("units", "loss"), lines, logarithmic=True))
    assert [(row["x"], row["y"]) for row in first["data"]["values"]] == [(1.0, 1.0), (2.0, 0.25), (3.0, vega.LEAST)]
    domains = [spec["layer"][0]["encoding"]["y"]["scale"]["domain"] for spec in (first, second)]
    assert domains == [[vega.LEAST, 1.0]] * 2  # alike, so that they can be compared
    assert [len(spec["layer"]) for spec in (first, second)] == [2, 1]
    assert first["layer"][1]["encoding"]["x"]["datum"] == 2.0


def test_points_lie_where_they_are_and_those_beaten_are_told_apart():
    points = tuple(
        Point(str(k), x, y, "said", best) for k, (x, y, best) in enumerate([(1.0, 0.0, True), (0.5, 0.3, False)])
    )
    (spec,) = vega.specs(Scatter("cost <and> distance", "How.", ("cost", "far"), (".0%", "~g"), points))
    assert [(row["x"], row["y"], row["kind"]) for row in spec["data"]["values"]] == [
        (1.0, 0.0, "worth keeping"),
        (0.5, 0.3, "beaten"),
    ]


def test_sections_stand_in_their_order_with_what_belongs_to_them():
    text = written(
        Section("layers", (Text("l"),)),
        Text("loose"),
        Section("quality", (Text("q"),)),
        Section("layers", (Text("m"),)),
    )
    ids = [attributes["id"] for tag, attributes in Page(text).tags if tag == "section"]
    assert ids == ["quality", "layers", "more"]
    inside = text.partition('<section id="layers"')[2].partition("</section>")[0]
    assert re.findall(r'<p class="said">(.)</p>', inside) == ["l", "m"]
    assert list(SECTIONS)[-1] == "more"


def test_sections_inside_others_are_in_order_too_and_empty_ones_are_left_out():
    inner = (
        Text("m.onnx", title=True),
        Section("time", ()),
        Section("layers", (Text("l"),)),
        Section("quality", (Text("q"),)),
    )
    text = written(Section("each", (Section("each", inner, "m.onnx"),)))
    assert Page(text).said("summary") == ["m.onnx", "Quality", "Layers"]
    assert text.count("m.onnx") == 1


def test_long_tables_are_all_there_without_scripts():
    rows = tuple((f"row {k}", str(k)) for k in range(3 * page.FEW))
    text = written(Table("t", ("a", "b"), rows))
    assert Page(text).said("td") == [cell for row in rows for cell in row]
    assert '<table class="long">' in text


def test_a_sweep_shows_every_strength():
    whole = {"macs": 100, "params": 10}
    row = {"before": whole, "relative": 0.2, "accuracy": 0.9, "pareto": True, "output": "a.onnx"}
    rows = [{**row, "strength": s, "after": {**whole, "macs": m}} for s, m in ((0.1, 90), (1.0, 50), (2000.0, 20))]
    (section,) = training.sweep(rows)
    (figure,) = (block for block in section.blocks if isinstance(block, Scatter))
    spec = vega.specs(figure)[0]
    assert [one["mark"]["filled"] for one in spec["layer"] if one["mark"]["type"] == "point"] == [True, False]
    assert [(p.name, p.x, p.y) for p in figure.points] == [("0.1", 0.9, 0.2), ("1", 0.5, 0.2), ("2000", 0.2, 0.2)]
    assert all("right on 90.00%" in p.text for p in figure.points)
    (section,) = training.sweep([{**row, "strength": s, "after": whole, "output": None} for s in (0.1, 1.0)])
    assert not any(isinstance(block, Scatter) for block in section.blocks), "points that lie on one another"


def test_what_is_watched_while_training_has_a_curve_each_but_what_never_changes():
    history = [
        {"step": k, "loss": 1.0 / (k + 1), "distill": 1.0 / (k + 1), "rate": 0.1, "alive": 1 - k / 2000}
        for k in range(1000)
    ]
    (chart,) = training.watched("fine-tuning", history)
    assert [line.label for line in chart.lines] == ["loss", "units alive, share"]
    for line in chart.lines:
        assert len(line.points) <= 2 * training.POINTS
        assert line.points[0][0] == 0
        assert line.points[-1][0] == 999


def test_units_of_groups_and_what_is_looked_at_rarely_have_curves_too():
    history = [{"step": k, "loss": 1.0 / (k + 1)} for k in range(100)]
    for k in (9, 49, 99):
        history[k] |= {"held": 2.0 / (k + 1), "alive/w:0": 100.0 - k, "alive/v:0": 7.0}
    numbers, groups = training.watched("structure", history)
    assert [line.label for line in numbers.lines] == ["loss", "loss on samples held back"]
    assert not numbers.said
    assert numbers.lines[1].points == ((9.0, 0.2), (49.0, 0.04), (99.0, 0.02))
    assert [(line.label, line.points) for line in groups.lines] == [("w:0", ((9.0, 91.0), (49.0, 51.0), (99.0, 1.0)))]


def test_what_is_left_comes_before_how_it_is_learnt_and_is_explained():
    numbers = [
        {"step": k, "rate": 0.1 * k, "term": 2.0 * k, "mine": 3.0 * k, "loss": 1.0 * k, "cost": 1 - k} for k in (0, 1)
    ]
    (chart,) = training.watched("structure", numbers)
    assert [line.label.split(",")[0] for line in chart.lines] == [
        "loss",
        "cost if adopted",
        "learning rate",
        "structure term",
        "mine",
    ]
    assert "if those without strength at that moment were cut" in chart.said


def test_time_by_operator_is_that_of_all_nodes_and_blocks_have_their_whole_names():
    def drawn(name, module, ms):
        about = {"name": name, "op_type": "Conv", "module": module, "width": [4, 2], "group": None, "inputs": []}
        return {**about, "macs": [8, 4], "params": [4, 2], "ms": [ms, ms / 2]}

    timed = [("a", "Conv", 1.0), ("relu", "Relu", 2.0), ("b", "Conv", 3.0), ("layout", "Reorder", 4.0)]
    report = {
        "network": [drawn("a", "model.0", 3.0), drawn("b", "model.1", 3.0)],
        "node_times": [{"name": n, "op_type": o, "before_ms": ms, "after_ms": ms / 2} for n, o, ms in timed],
    }
    charts = [block for section in network.blocks(report) for block in section.blocks if isinstance(block, Bars)]
    told = {chart.title: [(bar.label, bar.value) for bar in chart.bars if bar.label] for chart in charts}
    assert told["Time by operator"] == [("Conv", 4.0), ("Reorder", 4.0), ("Relu", 2.0)]
    assert told["Time by block"] == [("model.0", 3.0), ("model.1", 3.0)]


@pytest.mark.parametrize(
    ("what", "explained", "said", "state"),
    [
        (
            "strengths",
            (0.99, 0.95, 0.1),
            "3 strengths tried: the smallest that is good is 1.onnx, with 50.0 % of the MACs.",
            GOOD,
        ),
        ("strengths", (0.5, 0.2, 0.1), "3 strengths tried: nothing that was cut is good.", FAIR),
        ("strengths", (None, None, None), "No unit went at any of 3 strengths.", FAIR),
        (
            "targets",
            (0.99, 0.95, 0.1),
            "3 targets tried: the smallest that is good is 1.onnx, with 50.0 % of the MACs.",
            GOOD,
        ),
        ("targets", (0.5, 0.2, 0.1), "3 targets tried: nothing that was cut is good.", FAIR),
    ],
)
def test_several_models_are_headed_by_the_smallest_that_is_good(what, explained, said, state):
    samples = {"inputs": "given", "samples": 40, "fitted": 120, "held_back": True}

    def row(number, left):
        whole = {"before": {"macs": 100}, "after": {"macs": 75 - 25 * number}}
        if left is None:
            return {**whole, "output": None, "quality": None}
        worst = {"explained": left, "output": "y", "channels": "all"}
        return {
            **whole,
            "output": f"{number}.onnx",
            "quality": {"worst": worst, "outputs": {}, "destroyed": left < 0.5, **samples},
        }

    kept = {"share": 0.1, "destroyed": True, "said": "10 % is left", "real": True, "good": False, "few": False}
    kept |= {"sure": 0.05, "surely": "5 % is left", "samples": 40, "held_back": True}
    verdict = {"met": None, "quality": None, "kept": kept, "faster": None, "limited_by": [], "next": None}
    told = card({what: [row(k, left) for k, left in enumerate(explained)], "verdict": verdict})
    assert (told.headline, told.state) == (said, state)


def test_models_that_are_timed_are_held_against_the_first():
    timed = {"median_ms": 2.0, "low_ms": 1.0, "high_ms": 3.0}
    setting = {"timings": [{"model": "a.onnx", **timed}, {"model": "b.onnx", **timed}]}
    setting["comparisons"] = [{"model": "b.onnx", "base": "a.onnx", "ratio": 0.5}]
    verdict = {"met": None, "quality": None, "kept": None, "faster": None, "limited_by": [], "next": None}
    assert (
        card({"settings": [setting] * 2, "verdict": verdict}).headline == "Beside a.onnx, b.onnx is 2.00 times as fast."
    )


def test_a_machine_is_headed_by_what_it_does_in_a_second():
    verdict = {"met": None, "quality": None, "kept": None, "faster": None, "limited_by": [], "next": None}
    told = card({"gflops": 279.0, "gbytes": 59.3, "verdict": verdict}).headline
    assert told == "In a second this machine computes up to 279 GFLOP, and moves 59.3 GB."


def test_roll_outs_are_a_curve():
    (chart,) = training.rollouts({"rewards": [0.1, 0.3, 0.2]})
    assert chart.lines[0].points == ((1.0, 0.1), (2.0, 0.3), (3.0, 0.2))
    assert training.rollouts(None) == training.rollouts({"rewards": [0.1]}) == []
