"""Pages in a real browser: they fit every screen, can be read, clicked and searched, and raise no error."""

import json
import shlex
import shutil
from pathlib import Path
from threading import Thread
from time import sleep

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn import demo
from onnxslim_learn.cli import commands
from onnxslim_learn.plans.realize import realize
from onnxslim_learn.report import page
from onnxslim_learn.report.blocks import Line, Lines, Picture, Section, Table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("chromium") or not shutil.which("chromedriver"), reason="chromium and chromedriver are needed"
    ),
]

SCREENS = [(360, "light"), (800, "dark"), (1600, "light")]
LEAST = 11  # pixels of a letter
QUICK = {"seconds": 0.01}

MEASURE = """
const seen = [...document.querySelectorAll("body *")].filter((one) => one.getClientRects().length);
const inside = (one) => one.closest(".wide, nav ul, .picture");
const said = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
const letters = (one) => parseFloat(getComputedStyle(one).fontSize)
  * (one.ownerSVGElement ? Math.hypot(one.getScreenCTM().a, one.getScreenCTM().b) : 1);
const edge = (one) => Math.floor(one.getBoundingClientRect().right);
const told = (one) => `${one.tagName} ${one.textContent.slice(0, 60)}`;
return {
  page: document.documentElement.scrollWidth,
  wide: seen.filter((one) => !inside(one) && one.getBoundingClientRect().right > innerWidth + 1).map(told),
  small: seen.filter((one) => said(one) && letters(one) < LEAST - 0.01).map(told),
  cut: seen.filter((one) => one.closest(".plot svg") && edge(one) > edge(one.closest("svg"))).map(told),
  empty: [...document.querySelectorAll(".plot")].filter((one) => !one.querySelector("svg")).length,
};
""".replace("LEAST", str(LEAST))


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--force-prefers-reduced-motion",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of every command, by name."""
    folder = tmp_path_factory.mktemp("pages")
    net, small, plan = (str(folder / name) for name in ("net.onnx", "small.onnx", "plan.json"))
    shutil.copy(demo.model_path(), net)
    for small_net in ("attention", "residual"):
        onnx.save(NETS[small_net].build(), folder / f"{small_net}.onnx")
    images = {"image": demo.calibration()["image"][:48]}
    np.savez(folder / "samples.npz", **images)
    data = str(folder / "samples.npz")
    out = str(folder / "out.onnx")
    calls = {
        "slim": lambda: osl.slim(net, macs=0.5, data=data, output=small, plan_out=plan, **QUICK),
        "analyze": lambda: osl.analyze(net, device="T4"),
        "attention": lambda: osl.analyze(folder / "attention.onnx"),
        "why": lambda: osl.analyze(net, why=["classifier.weight:0"]),
        "several": lambda: osl.slim(net, macs=[0.8, 0.5], data=data, output=out, repair=False, latency=False),
        "apply": lambda: osl.apply(net, plan, output=out, repair=False, latency=False),
        "verify": lambda: osl.verify(net, small, plan),
        "profile": lambda: osl.profile(net, small, per_node=True, **QUICK),
        "expand": lambda: osl.expand(small, macs=1.5, output=out, latency=False),
        "sparsify": lambda: osl.sparsify(net, ratio=0.5, data=data, output=out, latency=False),
        "learn": lambda: osl.learn(
            net, macs=0.6, data=data, steps=6, finetune_steps=3, batch_size=4, output=out, latency=False
        ),
        "sweep": lambda: osl.learn(
            folder / "residual.onnx", strength=3.0, sweep=2, steps=20, finetune_steps=2, lr=0.03, output=out, **QUICK
        ),
        "calibrate": lambda: osl.calibrate(**QUICK),
        "two models": lambda: osl.view(net, small, work=0),
    }
    written = {}
    for name, call in calls.items():
        written[name] = folder / f"{name}.html"
        written[name].write_text(call().to_html(), encoding="utf-8")
    return written


def opened(browser, file, width, theme="light"):
    """Open a page on a screen, and draw all of its charts."""
    media = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(file if str(file).startswith("http:") else Path(file).as_uri())
    browser.execute_async_script("window.drawn().then(arguments[0])")


@pytest.fixture(scope="module")
def served(pages):
    """The page of view, while it is served, and what made it."""
    seen = osl.view(pages["slim"].parent / "net.onnx", data=pages["slim"].parent / "samples.npz", device="T4")
    with seen.served() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.url, seen
        server.shutdown()


def errors(browser):
    return [line["message"] for line in browser.get_log("browser")]


def test_every_page_fits_every_screen_and_can_be_read(browser, pages):
    for name, file in pages.items():
        for width, theme in SCREENS:
            opened(browser, file, width, theme)
            measured = browser.execute_script(MEASURE)
            assert measured == {"page": width, "wide": [], "small": [], "cut": [], "empty": 0}, (name, width)
            assert errors(browser) == [], name


def test_every_page_says_the_same_without_scripts(browser, pages):
    for name, file in pages.items():
        opened(browser, file, 1600)
        browser.execute_script("document.documentElement.classList.remove('js')")
        text = browser.execute_script("return document.body.textContent")
        cells = browser.execute_script("return [...document.querySelectorAll('td')].map((one) => one.textContent)")
        assert all(cell in text for cell in cells)
        assert browser.execute_script(
            "return [...document.querySelectorAll('tbody tr')].every((row) => getComputedStyle(row).display !== 'none')"
        ), name


def test_tables_sort_by_what_numbers_mean(browser, pages):
    opened(browser, pages["slim"], 800)
    head = """const table = document.querySelector("#layers table");
    const column = [...table.tHead.rows[0].cells].findIndex((one) => one.textContent === "MACs before");"""
    click = f"{head} table.tHead.rows[0].cells[column].click();"
    read = f"{head} return [...table.tBodies[0].rows].map((row) => row.cells[column].textContent)"
    units = {"k": 1e3, "M": 1e6}

    def value(text):
        number, _, unit = text.partition(" ")
        return float(number) * units.get(unit, 1)

    for down in (True, False):
        browser.execute_script(click)
        values = [value(text) for text in browser.execute_script(read)]
        assert values == sorted(values, reverse=down)
        assert len(set(values)) > 3


def test_names_are_searched_in_both_spellings(browser, pages):
    opened(browser, pages["analyze"], 1600)
    for asked in ("residual2.conv1.0", "/residual2/conv1/0", "RESIDUAL2"):
        shown = browser.execute_async_script(
            """const [text, done] = arguments, field = document.getElementById("find");
            field.value = text; field.dispatchEvent(new Event("input"));
            const hits = () => [...document.querySelectorAll("#groups tbody tr.hit")];
            setTimeout(() => done(hits().map((row) => row.textContent)), 300)""",
            asked,
        )
        assert shown, asked
        assert all("residual2" in row for row in shown)


def test_a_name_with_dots_and_strokes_is_found_by_either(browser, tmp_path):
    named = "/model.22/cv2.0/cv2.0.1/Conv", "/model.21/cv2.0/Conv"
    nodes = tuple({**layer(k), "name": one, "module": one.strip("/").replace("/", ".")} for k, one in enumerate(named))
    rows = tuple((one, str(k)) for k, one in enumerate(named))
    shown = [
        Section("network", (Picture(nodes, ()),)),
        Section("layers", (Table("Layers", ("layer", "n"), rows, (0,)),)),
    ]
    file = tmp_path / "names.html"
    file.write_text(page.render("names", {}, shown), encoding="utf-8")
    opened(browser, file, 1600)
    for asked in ("/model.22/cv2.0", "model.22.cv2.0", "MODEL/22/CV2", ".22.cv2.0.cv2"):
        hits = browser.execute_async_script(
            """const [text, done] = arguments, field = document.getElementById("find");
            field.value = text; field.dispatchEvent(new Event("input"));
            const rows = () => [...document.querySelectorAll("tbody tr.hit")].map((row) => row.cells[0].textContent);
            const drawn = () => [...document.querySelectorAll(".picture .node.hit")].length;
            setTimeout(() => done([rows(), drawn()]), 300)""",
            asked,
        )
        assert hits == [[named[0]], 1], asked


CLICK = """const [name, done] = arguments, boxes = [...document.querySelectorAll(".picture .node")];
boxes.find((one) => one.getAttribute("aria-label") === name).dispatchEvent(new MouseEvent("click", { bubbles: true }));
done(document.querySelector(".picture .panel").textContent);"""


def test_a_click_on_a_layer_says_what_is_tied_why_and_what_it_saves_and_loses(browser, pages):
    opened(browser, pages["slim"], 1600)
    boxes = "return [...document.querySelectorAll('.picture .node')].map((one) => one.getAttribute('aria-label'))"
    told = {name: browser.execute_async_script(CLICK, name) for name in browser.execute_script(boxes)}
    assert len(told) > 10
    (first,) = (text for text in told.values() if "residual1.conv1.0.weight:0" in text and "node_Conv_170" in text)
    for word in ("40 →", "residual1.conv2.0.weight:1", "saves", "of the MACs", "loses"):
        assert word in first
    assert "cannot be cut: it is the graph output logits" in told["node_linear"]
    edge = """const box = (name) => document.querySelector(name).getBoundingClientRect();
        return [box(".picture .stage").right, box(".picture .panel").left]"""
    stage, panel = browser.execute_script(edge)
    assert stage < panel, "what is told stands beside the picture"


def test_blocks_fold_and_unfold_by_the_keyboard(browser, pages):
    opened(browser, pages["slim"], 800)
    count = "return document.querySelectorAll('.picture .node').length"
    press = """document.querySelector(arguments[0]).dispatchEvent(
        new KeyboardEvent("keydown", { key: "Enter", bubbles: true }))"""
    before = browser.execute_script(count)
    browser.execute_script(press, ".picture .around")
    folded = browser.execute_script(count)
    assert folded < before
    browser.execute_script(press, ".picture .block")
    assert browser.execute_script(count) > folded
    assert errors(browser) == []


def test_widths_to_try_cost_what_the_cut_model_does(browser, pages):
    opened(browser, pages["slim"], 800)
    macs, params = browser.execute_script(
        "return ['macs', 'params'].map((cost) => chooser.value(cost, chooser.shares(chooser.chosen)))"
    )
    analysis = osl.analyze(pages["slim"].parent / "small.onnx")
    assert [round(macs), round(params)] == [analysis.price(analysis.whole)[cost] for cost in ("macs", "params")]


@pytest.mark.parametrize("budget", [30, 70])
def test_the_command_of_widths_to_try_cuts_to_them(browser, pages, budget):
    opened(browser, pages["slim"], 800)
    command, chosen = browser.execute_script(
        """const budget = document.querySelector(".chooser .budget input");
        document.querySelectorAll(".chooser .rows input[type=checkbox]")[1].click();
        budget.value = arguments[0];
        budget.dispatchEvent(new Event("input"));
        return [document.querySelector(".chooser code").textContent, chooser.chosen];""",
        budget,
    )
    words = shlex.split(command.replace("SAMPLES", str(pages["slim"].parent / "samples.npz")))[1:]
    place = pages["slim"].parent / "tried.onnx"
    words[words.index("-o") + 1] = str(place)
    report = place.with_suffix(".json")
    assert commands.main([*words, "--no-repair", "--no-latency", "--work", "0", "--json", str(report), "--quiet"]) == 0
    told = json.loads(report.read_text())
    assert [group["kept"] for group in told["groups"]] == chosen
    assert chosen[1] == told["groups"][1]["width"]
    assert told["after"]["macs"] <= budget / 100 * told["before"]["macs"]


def test_the_served_page_fits_every_screen(browser, served):
    for width, theme in SCREENS:
        opened(browser, served[0], width, theme)
        browser.execute_async_script(CLICK, "node_Conv_170")
        measured = browser.execute_script(MEASURE)
        assert measured == {"page": width, "wide": [], "small": [], "cut": [], "empty": 0}, width
        assert errors(browser) == []


def test_a_layer_is_narrowed_and_kept_whole_where_it_is_clicked(browser, served):
    opened(browser, served[0], 1600)
    browser.execute_async_script(CLICK, "node_Conv_170")
    slider = browser.find_element("css selector", ".panel input[type=range]")
    figures = "return [...document.querySelectorAll('.chooser .tile b')].map((one) => one.textContent)"
    before = browser.execute_script(figures)
    for _ in range(5):
        slider.send_keys("\ue012")  # the arrow to the left
    place = browser.execute_script("return chooser.places.get('residual1.conv1.0.weight:0')")
    chosen = browser.execute_script("return chooser.chosen")
    assert chosen[place] == 40 - 5 * 4
    after = browser.execute_script(figures)
    assert len(before) == len(after) == 4
    assert all(old != new for old, new in zip(before, after, strict=True)), "no figure stays: all follow"
    drawn = """return [...document.querySelectorAll(".picture .node")]
        .find((one) => one.getAttribute("aria-label") === "node_Conv_170").textContent"""
    assert "40 → 20" in browser.execute_script(drawn)
    assert "20 of 40" in browser.find_element("css selector", ".panel").text
    keep = browser.find_element("css selector", ".panel .keep")
    keep.send_keys("\ue007")  # enter
    state = "return [chooser.chosen[arguments[0]], chooser.kept[arguments[0]]]"
    assert browser.execute_script(state, place) == [40, True]
    assert browser.execute_script(figures) == before
    assert browser.execute_script("return document.querySelectorAll('.picture .whole').length") > 0
    keep.click()
    assert browser.execute_script(state, place) == [40, False]


@pytest.mark.parametrize("cost", ["macs", "params", "latency"])
def test_what_is_exported_costs_what_the_page_says(browser, served, tmp_path, cost):
    url, seen = served
    opened(browser, url, 1600)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    told = browser.execute_script(
        """const [cost] = arguments, select = document.querySelector(".chooser select");
        select.value = cost;
        select.dispatchEvent(new Event("change"));
        const budget = document.querySelector(".chooser .budget input");
        budget.value = 60;
        budget.dispatchEvent(new Event("input"));
        document.querySelector(".export").click();
        const part = chooser.shares(chooser.chosen);
        return Object.fromEntries(Object.keys(chooser.whole).map((one) => [one, chooser.value(one, part)]));""",
        cost,
    )
    file = tmp_path / "net-plan.json"
    for _ in range(200):
        if file.exists():
            break
        sleep(0.1)
    plan = osl.Plan.load(file)
    assert {name: round(told[name]) for name in ("macs", "params")} == {
        name: plan.provenance["after"][name] for name in ("macs", "params")
    }
    analysis = seen.choice.analysis
    alive = (~realize(analysis, plan).gone).astype(float)
    assert told["latency"] == pytest.approx(analysis.latency.value(alive))
    whole = {**analysis.price(analysis.whole), "latency": analysis.latency.value(np.ones(len(alive)))}
    assert told[cost] <= 0.6 * whole[cost]
    assert "onnxslim-learn apply" in browser.find_element("css selector", ".chooser").text
    assert errors(browser) == []


def test_the_next_command_is_copied(browser, pages):
    opened(browser, pages["slim"], 800)
    copied = browser.execute_async_script(
        """const done = arguments[0], button = document.querySelector(".next .copy");
        navigator.clipboard.writeText = (text) => { done(text); return Promise.resolve(); };
        button.click();"""
    )
    assert copied.startswith("onnxslim-learn ")


def test_the_theme_is_changed_by_a_click(browser, pages):
    opened(browser, pages["verify"], 800, "light")
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = browser.execute_script(colour)
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(colour) != before
    assert json.loads(browser.execute_script("return JSON.stringify(document.documentElement.dataset.theme)")) == "dark"
    browser.execute_script("localStorage.clear()")


def test_titles_of_small_charts_are_whole_and_numbers_are_plain(browser, tmp_path):
    long = [
        f"model 0, auto_model, encoder, layer {k}, attention: 384 entries of queries and keys, predicted"
        for k in (0, 1)
    ]
    long += ["cost if adopted, share"]
    lines = tuple(Line(one, ((0.0, 10.0), (8.0, 0.0))) for one in long)
    file = tmp_path / "titles.html"
    file.write_text(page.render("titles", {}, [Lines("losses", "", ("units", "loss"), lines)]), encoding="utf-8")
    for width, theme in SCREENS:
        opened(browser, file, width, theme)
        shown = browser.execute_script(
            """const titles = [...document.querySelectorAll(".plot .role-title-text text")];
            const lines = (text) => text.children.length ? [...text.children] : [text];
            return titles.map((text) => lines(text).map((one) => one.textContent).join(" "))"""
        )
        assert shown == long
        numbers = browser.execute_script(
            "return [...document.querySelectorAll('.plot .role-axis-label text')].map((one) => one.textContent)"
        )
        assert "10" in numbers
        assert not any("e" in number for number in numbers)
        assert browser.execute_script(MEASURE)["cut"] == []
    shown = "document.querySelector('main').style.display = arguments[0]"
    for display, width in (("none", 500), ("", 600)):  # without room, and with some again
        browser.execute_script(shown, display)
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        sleep(0.5)
    browser.execute_async_script("window.drawn().then(arguments[0])")
    assert browser.execute_script(MEASURE)["empty"] == 0
    assert errors(browser) == []


@pytest.mark.parametrize("clicked", [False, True])
def test_a_page_is_printed_dark_on_white_whatever_the_screen_shows(browser, pages, clicked):
    opened(browser, pages["slim"], 800, "light" if clicked else "dark")
    if clicked:
        browser.execute_script("document.getElementById('theme').click()")
    seen = """const all = [...document.querySelectorAll("h1, h2, td, .state, figcaption, svg text, code")];
      const colour = (one) => getComputedStyle(one)[one.ownerSVGElement ? "fill" : "color"];
      return all.map((one) => colour(one).match(/[\\d.]+/g).slice(0, 3).map(Number))"""
    on_screen = browser.execute_script(seen)
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    printed = browser.execute_script(seen)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_script("localStorage.clear()")
    assert max(map(min, on_screen)) > 200, "the page was dark"
    assert max(map(min, printed)) < 140


def layer(place):
    """One of many layers, each of which follows the one before."""
    module = f"layers.{place // 10}.conv{place % 10}"
    about = {"name": f"/{module.replace('.', '/')}/Conv", "op_type": "Conv", "module": module, "width": [64, 32]}
    costs = {"macs": [1_000_000 + place, 250_000], "params": [36_864, 9216]}
    return {**about, **costs, "group": f"{module}.weight:0", "inputs": [place - 1] if place else []}


def test_ten_thousand_layers_and_rows_fit_into_a_page_and_are_folded(browser, tmp_path):
    rows = tuple((f"layers.{k}.weight", "Conv", "64x64x3x3", "1.2 M", f"{k}") for k in range(10_000))
    heads = ("layer", "operator", "weight", "MACs", "n")
    nodes = tuple(layer(k) for k in range(10_000))
    groups = tuple({"name": node["group"], "title": f"{node['module']}: 64 channels", "width": 64} for node in nodes)
    picture = Section("network", (Picture(nodes, groups),))
    text = page.render("large", {}, [picture, Section("layers", (Table("Layers", heads, rows, (0, 1)),))])
    assert len(text) < 5e6
    file = tmp_path / "large.html"
    file.write_text(text, encoding="utf-8")
    opened(browser, file, 1600)
    boxes = "return document.querySelectorAll('.picture .node, .picture .block').length"
    assert 10 < browser.execute_script(boxes) < 100
    shown = "return [...document.querySelectorAll('tbody tr')].filter((row) => row.getClientRects().length).length"
    assert browser.execute_script(shown) == page.FEW
    browser.execute_script("[...document.querySelectorAll('.bar button')].at(-1).click()")
    assert browser.execute_script(shown) == len(rows)
