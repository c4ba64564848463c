"""The page that is served: only who has the token gets it, and the plan it makes is what apply carries out."""

import http.client
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from threading import Thread
from urllib.parse import urlsplit

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.cli import commands
from onnxslim_learn.errors import InputError, PlanError
from onnxslim_learn.report import formula
from onnxslim_learn.report.blocks import Text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nets, and samples of one of them."""
    folder = tmp_path_factory.mktemp("view")
    for name in ("residual", "attention"):
        onnx.save(NETS[name].build(), folder / f"{name}.onnx")
    x = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "samples.npz", x=x)
    return folder


@pytest.fixture(scope="module")
def seen(folder):
    return osl.view(folder / "residual.onnx", data=folder / "samples.npz", device="T4")


@contextmanager
def answering(seen):
    """The address and the path with the token, while the page is served."""
    with seen.served() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = urlsplit(server.url)
            yield address.netloc, f"{address.path}?{address.query}"
        finally:
            server.shutdown()


def ask(netloc, path, method="GET", body=None, **headers):
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection(netloc, timeout=20)
    connection.request(method, path, body, {"Host": netloc, **headers})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def test_only_who_has_the_token_and_comes_from_here_is_answered(seen):
    with answering(seen) as (netloc, path):
        status, headers, text = ask(netloc, path)
        assert status == 200
        assert "chooser" in text
        assert headers["Cache-Control"] == "no-store"
        assert netloc.startswith("127.0.0.1:")
        port = netloc.partition(":")[2]
        assert ask(netloc, path, Host=f"localhost:{port}")[0] == 200
        for wrong in ("/", "/?token=", path[:-1], "/?token=%ff%fe", f"{path}x"):
            assert ask(netloc, wrong)[0] == 403, wrong
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{int(port) + 1}"):
            assert ask(netloc, path, Host=host)[0] == 403, host
        plans = path.replace("/", "/plan", 1)
        assert ask(netloc, plans, "POST", "{}", Origin="http://evil.example")[0] == 403
        assert ask(netloc, "/plan", "POST", "{}")[0] == 403
        for other in ("/..", "/etc/passwd", "/static/", "/plan"):
            assert ask(netloc, path.replace("/", other, 1))[0] == 404, other
        assert ask(netloc, path, "PUT")[0] == 501


def test_what_is_no_choice_of_widths_is_refused_in_a_sentence(seen):
    name = seen.report["groups"][0]["name"]
    wrong = ["", "[", "[" * 100_000, "[]", "{}", '{"widths": {"x": 1}}', f'{{"widths": {{"{name}": 0}}}}']
    wrong += [f'{{"widths": {{"{name}": {width}}}}}' for width in ("1e3", "true", '"4"', 10**30)]
    with answering(seen) as (netloc, path):
        plans = path.replace("/", "/plan", 1)
        for body in wrong:
            status, _, text = ask(netloc, plans, "POST", body)
            assert status == 400, body[:40]
            assert text
        for _ in range(3):  # the answer comes, too, when all was sent before it was read
            assert ask(netloc, plans, "POST", " " * (8 << 20) + "{}")[0] == 413
        assert ask(netloc, plans, "POST", b"", **{"Content-Length": "9" * 30})[0] == 413


BOTH = {"wq:1": 9, "wv:1": 9}  # three of four heads stay, and three of four units of each


@pytest.mark.parametrize(("name", "both"), [("residual", {}), ("attention", BOTH)])
def test_apply_carries_out_the_plan_that_is_exported(folder, name, both):
    seen = osl.view(folder / f"{name}.onnx", work=0)
    chosen = {one.group.name: one.kept[len(one.kept) // 2] for one in seen.choice.search.choices}
    chosen = {name: width for name, width in chosen.items() if not name.endswith("'")}
    with answering(seen) as (netloc, path):
        status, _, text = ask(netloc, path.replace("/", "/plan", 1), "POST", json.dumps({"widths": chosen}))
    assert status == 200, text
    (folder / "plan.json").write_text(text)
    out = folder / "out.onnx"
    line = ["apply", str(folder / f"{name}.onnx"), str(folder / "plan.json"), "-o", str(out)]
    assert commands.main([*line, "--no-repair", "--no-latency", "--quiet"]) == 0
    analysis = osl.analyze(out)
    told = json.loads(text)
    assert analysis.price(analysis.whole) == told["provenance"]["after"]
    assert told["provenance"]["after"]["macs"] < told["provenance"]["before"]["macs"]
    narrowed = {one: width for one, width in chosen.items() if width < seen.choice.analysis.group(one).width}
    assert {one: len(kept) for one, kept in told["groups"].items()} == narrowed | both


def test_losses_fall_with_every_unit_more_and_say_what_they_rest_on(seen):
    curves = seen.report["choice"]["curves"]
    assert set(curves) == {group["name"] for group in seen.report["groups"]}
    for curve in curves.values():
        losses = [curve[width] for width in sorted(curve, key=int)]
        assert losses == sorted(losses, reverse=True)
        assert losses[0] > losses[-1] == 0
    assert "samples.npz" in seen.report["view"]["losses"]
    assert len(seen.to_frame()) == len(seen.report["groups"])


def test_two_models_stand_side_by_side(folder):
    small = folder / "small.onnx"
    osl.slim(folder / "residual.onnx", macs=0.5, repair=False, latency=False, output=small)
    seen = osl.view(folder / "residual.onnx", small, work=0)
    other = osl.analyze(small)
    assert seen.report["after"]["macs"] == other.price(other.whole)["macs"]
    assert sum(node["macs"][1] for node in seen.report["network"]) == seen.report["after"]["macs"]
    widths = {group.name: group.width for group in other.groups}
    assert [group["kept"] for group in seen.report["groups"]] == [widths[g["name"]] for g in seen.report["groups"]]
    assert seen.report["unmatched"] == [[], []]
    assert osl.view(small, folder / "attention.onnx", work=0).report["unmatched"][1]


def test_a_model_without_widths_to_try_says_so(folder, monkeypatch):
    monkeypatch.setattr(formula, "MOST", 1)
    seen = osl.view(folder / "residual.onnx", work=0)
    assert "No widths to try" in "".join(block.text for block in seen.shown() if isinstance(block, Text))
    assert "No widths to try" in seen.to_html()


def test_what_does_not_fit_is_refused(folder):
    file = folder / "residual.onnx"
    with pytest.raises(InputError, match="one model, or two"):
        osl.view(file, file, file)
    with pytest.raises(InputError, match="measure"):
        osl.view(file, measure=True, device="T4")
    with pytest.raises(InputError, match="port"):
        osl.view(file, port=70_000)
    seen = osl.view(file, work=0)
    with pytest.raises(PlanError, match=r"cannot keep 10\d* of"):
        seen.plan_of({seen.report["groups"][0]["name"]: 1000})
    with seen.served() as server, pytest.raises(InputError, match="port"):
        osl.view(file, work=0, port=server.server_port).served()


@pytest.mark.slow
def test_it_ends_well_when_it_is_interrupted(folder):
    line = [sys.executable, "-m", "onnxslim_learn", "view", "residual.onnx", "--work", "0"]
    before = sorted(os.listdir(folder))
    running = subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = next(line for line in running.stdout if line.startswith("http://127.0.0.1:"))
    assert ask(urlsplit(url).netloc, "/" + url.strip().partition("/?")[2].join(["?", ""]))[0] == 200
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (0, "")
    assert sorted(os.listdir(folder)) == before
