"""What stands at the end of every command: it holds of the files, and what it proposes can be typed."""

import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.cli import commands, parser
from onnxslim_learn.commands import verdict
from onnxslim_learn.commands.asked import Asked
from onnxslim_learn.commands.case import Case
from onnxslim_learn.commands.next_command import NEXT
from onnxslim_learn.errors import TargetError
from onnxslim_learn.workflow import timed

FAST = {"latency": False, "repair": False}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with nets and samples of one."""
    monkeypatch.chdir(tmp_path)
    for name in ("residual", "layer_norm"):
        onnx.save(NETS[name].build(), f"{name}.onnx")
    x = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)
    np.savez("samples.npz", x=x)
    return tmp_path


def typed(result):
    """What the line that is proposed asks for: the command, its files and its options."""
    program, *words = shlex.split(result.report["verdict"]["next"]["command"])
    assert program == parser.PROGRAM
    return parser.parse(words)


ENDS = [
    # a call, the command that is proposed, some of its options
    (lambda: osl.analyze("residual.onnx"), "slim", {"target": ["macs=0.5"], "output": "residual-slim.onnx"}),
    (lambda: osl.analyze("residual.onnx", input={"x": (2, 3, 8, 8)}), "slim", {"input": ["x:2x3x8x8"]}),
    (
        lambda: osl.slim("residual.onnx", macs="70%", multiple=2, protect=["w1"], output="s.onnx", **FAST),
        "slim",
        {"data": "SAMPLES", "target": ["macs=70%"], "multiple": "2", "protect": ["w1"], "output": "s.onnx"},
    ),
    (
        lambda: osl.slim("residual.onnx", macs=0.3, data="samples.npz", output="s.onnx", **FAST),
        "slim",
        {"target": ["macs=0.3"], "no_repair": None},
    ),
    (
        lambda: osl.slim("residual.onnx", macs=0.1, data="samples.npz", output="s.onnx", latency=False),
        "learn",
        {"teacher": "residual.onnx", "learner": "finetune", "output": "s-tuned.onnx", "data": "samples.npz"},
    ),
    (
        lambda: osl.slim("residual.onnx", macs=0.99, data="samples.npz", output="s.onnx", latency=False),
        "slim",
        {"target": ["macs=0.79"], "data": "samples.npz"},
    ),
    (
        lambda: osl.slim("residual.onnx", macs=[0.9, 0.8], output="s.onnx", plan_out="p.json", **FAST),
        "slim",
        {"data": "SAMPLES", "plan_out": "p.json"},
    ),
    (
        lambda: osl.slim("residual.onnx", macs=[0.99, 0.95], data="samples.npz", output="s.onnx", seconds=0.01),
        "slim",
        {"target": ["macs=0.76"]},
    ),
    (lambda: osl.lossless("residual.onnx", latency=False), "slim", {"target": ["macs=0.5"]}),
    (lambda: osl.sparsify("residual.onnx", ratio=0.5, samples=16, latency=False), "sparsify", {"data": "SAMPLES"}),
    (
        lambda: osl.sparsify("residual.onnx", ratio=0.1, data="samples.npz", output="z.onnx", seconds=0.01),
        "slim",
        {"target": ["macs=0.5"], "data": "samples.npz"},
    ),
    (
        lambda: osl.expand("residual.onnx", macs="150%", output="w.onnx", latency=False),
        "learn",
        {"teacher": "residual.onnx", "learner": "finetune"},
    ),
    (lambda: osl.profile("residual.onnx", "layer_norm.onnx", seconds=0.01), "profile", {"per_node": True}),
    (lambda: osl.profile("residual.onnx", seconds=0.01, per_node=True), "slim", {"target": ["latency=0.5"]}),
]


@pytest.mark.parametrize(("call", "command", "some"), ENDS)
def test_what_is_proposed_can_be_typed(folder, call, command, some):
    result = call()
    asked = typed(result)
    assert asked.command == command
    assert {name: asked.options.get(name) for name in some} == some
    assert all(Path(file).exists() for file in result.report["verdict"]["written"])
    assert result.report["stages"]
    assert all(one["seconds"] >= 0 for one in result.report["stages"])


def test_a_command_is_never_proposed_again_as_it_was(folder):
    """Widths that kernels like are no help where none were asked for."""
    report = osl.lossless("residual.onnx", output="s.onnx", latency=False).report
    slower = {"ratio": 1.1, "low": 1.0, "high": 1.2, "faster": False}
    asked = Asked("slim", ("residual.onnx",), {"output": ["-o", "s.onnx"], "lossless": ["--lossless"]})
    case = Case(asked, {**report, "latency": slower}, None)
    assert any(row.line(case) == case.again() for row in NEXT if "slim" in row.after and row.when(case))
    assert verdict.of(case)["next"]["command"] != case.again()


def test_zeros_are_judged_on_real_inputs_only(folder):
    made_up = osl.sparsify("residual.onnx", ratio=0.9, samples=16, latency=False).report["verdict"]["quality"]
    assert made_up.startswith("unknown on real inputs")
    worse = osl.sparsify("residual.onnx", ratio=0.97, data="samples.npz", latency=False).report["verdict"]["quality"]
    assert worse.startswith("DESTROYED")


def test_what_few_samples_held_back_of_training_tell_is_said_to_be_as_far_as_they_can(folder):
    """A tenth of forty is held back, of which all may happen to agree."""
    steps = {"steps": 2, "finetune_steps": 2}
    report = osl.learn("residual.onnx", macs=0.9, data="samples.npz", latency=False, **steps).report
    held = report["training"]["result"]["samples"]
    assert held < 8
    assert f"{held} samples held back can only tell" in report["verdict"]["quality"]
    assert report["verdict"]["kept"]["few"]
    assert not report["verdict"]["kept"]["good"]
    assert report["quality"]["samples"] + report["quality"]["fitted"] == 40


def test_what_was_asked_and_got_holds_of_the_files(folder):
    result = osl.slim("residual.onnx", macs=0.5, bytes=0.9, memory=0.99, output="s.onnx", **FAST)
    rows = {row["cost"]: row for row in result.report["verdict"]["met"]}
    before, after = (osl.analyze(name) for name in ("residual.onnx", "s.onnx"))
    assert rows["macs"]["got"] == after.price(after.whole)["macs"]
    assert rows["macs"]["bound"] == 0.5 * before.price(before.whole)["macs"]
    assert rows["bytes"]["got"] == Path("s.onnx").stat().st_size
    assert all(row["met"] == (row["got"] <= row["bound"]) and row["met"] for row in rows.values())


def test_what_is_good_but_less_than_was_asked_for_is_not_cut_further(folder):
    asked = {"data": "samples.npz", "min_quality": 0.99999, "output": "s.onnx", "latency": False}
    result = osl.slim("residual.onnx", macs=0.9, **asked)
    assert result.report["verdict"]["quality"].startswith("less than the 0.99999 asked for, at least ")
    assert typed(result).command == "learn"


def test_what_was_widened_is_within_its_budget(folder):
    (row,) = osl.expand("residual.onnx", macs="150%", output="w.onnx", latency=False).report["verdict"]["met"]
    wide = osl.analyze("w.onnx")
    assert row["met"]
    assert row["got"] == wide.price(wide.whole)["macs"] <= row["bound"]
    assert 1.2 < row["share"] <= 1.5


def test_a_target_out_of_reach_is_reached_by_the_line_that_is_proposed(folder, capsys):
    line = "slim residual.onnx -o s.onnx --target macs=0.3 --no-latency --no-repair --multiple 8 --keep w1=0.9"
    assert commands.main(shlex.split(line)) == 1
    sentence, proposed = capsys.readouterr().err.splitlines()
    assert commands.main(shlex.split(proposed)[1:]) == 0, sentence
    with pytest.raises(TargetError) as caught:
        osl.slim("residual.onnx", macs=1e-6, output="s.onnx", **FAST)
    assert caught.value.changes["target"] != ["macs=1e-06"]
    assert commands.main(shlex.split(caught.value.next)[1:]) == 0


def test_what_is_normalised_over_is_said_to_limit(folder):
    limits = osl.analyze("layer_norm.onnx").report["verdict"]["limited_by"]
    assert any("--allow-sensitive lifts that" in limit for limit in limits)
    limits = osl.analyze("layer_norm.onnx", allow_sensitive=True).report["verdict"]["limited_by"]
    assert not any("--allow-sensitive" in limit for limit in limits)


def test_an_axis_that_is_put_out_in_parts_is_said_once_to_limit(folder):
    """Of channels that pixels are made of, the whole axis and both of its factors are pinned."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    n (float[b,3,4,4] x) => (float[b,3,8,8] y) { h = Conv(x, w1) u = Conv(h, w2) y = DepthToSpace<blocksize=2>(u) }"""
    model, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in (("w1", (6, 3, 1, 1)), ("w2", (12, 6, 1, 1))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    report = osl.analyze(model).report
    assert sum(row["name"].startswith("w2:0") for row in report["pinned"]) > 1
    assert sum("w2:0" in limit for limit in report["verdict"]["limited_by"]) == 1


def test_what_options_keep_is_said_to_limit(folder):
    kept = osl.slim("residual.onnx", macs=0.8, protect=["w1"], output="s.onnx", **FAST)
    assert any("stay whole by --protect" in limit for limit in kept.report["verdict"]["limited_by"])
    free = osl.slim("residual.onnx", macs=0.8, output="s.onnx", **FAST)
    assert not any("stay whole" in limit for limit in free.report["verdict"]["limited_by"])


def test_a_destroyed_result_is_called_so_and_judged_by_its_worst(folder):
    verdict = osl.slim("residual.onnx", macs=0.1, data="samples.npz", output="s.onnx", **FAST).report["verdict"]
    assert verdict["quality"].startswith("DESTROYED")
    several = osl.slim("residual.onnx", macs=[0.9, 0.1], data="samples.npz", output="s.onnx", **FAST).report["verdict"]
    assert several["quality"].startswith("DESTROYED")
    assert several["quality"].endswith("(the worst of 2; good: s-0.9.onnx)")
    assert several["written"] == ["s-0.9.onnx", "s-0.1.onnx"]


def test_each_of_several_targets_is_met_by_its_own_file(folder):
    result = osl.slim("residual.onnx", macs=[0.9, 0.5], output="s.onnx", **FAST)
    rows = result.report["verdict"]["met"]
    assert [(row["file"], row["asked"], row["met"]) for row in rows] == [
        ("s-0.9.onnx", 0.9, True),
        ("s-0.5.onnx", 0.5, True),
    ]
    for row in rows:
        analysis = osl.analyze(row["file"])
        assert row["got"] == analysis.price(analysis.whole)["macs"]
        assert f"arget: {row['file']}: " in result.in_short()


def test_each_of_several_targets_shows_its_widths_and_the_slowest_its_time(folder):
    timed = {**FAST, "latency": True, "seconds": 0.05}
    result = osl.slim("residual.onnx", macs=[0.9, 0.5], output="s.onnx", **timed)
    reports = [row["report"] for row in result.report["targets"]]
    tables = [block.rows for block in result.shown() if getattr(block, "title", "") == "Widths"]
    assert tables == [
        tuple((one["title"], str(one["width"]), str(one["kept"])) for one in report["groups"]) for report in reports
    ]
    slowest = max(result.report["targets"], key=lambda row: row["report"]["latency"]["ratio"])
    told = result.report["verdict"]["faster"]
    assert (told["file"], told["ratio"]) == (slowest["output"], slowest["report"]["latency"]["ratio"])
    assert f"peed: {slowest['output']}, the slowest: " in result.in_short()


def test_a_wider_model_is_timed_against_the_one_it_is_like(folder):
    osl.slim("residual.onnx", macs=0.5, output="s.onnx", **FAST)
    for like, base in (("residual.onnx", "residual.onnx"), (None, "s.onnx")):
        result = osl.expand("s.onnx", macs="90%" if like else "150%", like=like, output="w.onnx", seconds=0.01)
        told, macs = result.report["verdict"]["faster"], result.report["after"]["macs"]
        before = osl.analyze(base)
        assert told["base"] == base
        assert told["macs"] == macs / before.price(before.whole)["macs"]
        assert told["ratio"] == result.report["speed"]["ratio"] > 0
        said = f"peed: {told['ratio']:.3f} of the time of {base}, for {told['macs']:.3f} of its MACs"
        assert said in result.in_short()


def test_a_wider_model_that_is_slower_than_what_it_is_like_is_chosen_again(folder, monkeypatch):
    osl.slim("residual.onnx", macs=0.5, output="s.onnx", **FAST)
    ratios = iter((1.4, 0.8))

    def against(analysis, like, written, asked):
        ratio = next(ratios)
        told = {"ratio": ratio, "low": ratio, "high": ratio, "faster": ratio < 1}
        return {"base": "residual.onnx", "base_macs": 1 << 40, "unchanged": {}, **told}

    monkeypatch.setattr(timed, "against_like", against)
    result = osl.expand("s.onnx", macs=1.0, like="residual.onnx", output="w.onnx")
    assert [(one["multiple"], one["ratio"]) for one in result.report["timed"]] == [("auto", 1.4), (8, 0.8)]
    assert all(group["after"] % 8 == 0 or group["after"] == group["width"] for group in result.report["groups"])
    assert result.report["speed"]["ratio"] == 0.8
    assert any("chosen again" in line for line in result.report["verdict"]["limited_by"])
    assert result.report["after"]["macs"] == osl.analyze("w.onnx").report["costs"]["macs"]


def test_widths_in_steps_are_said_to_limit_where_they_leave_much_unused(folder):
    def limits(**multiple):
        told = osl.slim("residual.onnx", macs=0.8, output="s.onnx", **multiple, **FAST).report["verdict"]
        return [line for line in told["limited_by"] if line.startswith("Widths are")], told["met"][0]["share"]

    (said,), share = limits(multiple=8)
    assert "multiples of 8" in said
    assert f"{share:.3f}" in said
    assert share < 0.78
    assert limits(multiple=1)[0] == []


@pytest.mark.parametrize(("allowed", "words"), [("30M", "--work"), ("2T", None)])
def test_work_that_did_not_do_for_all_groups_is_said_to_limit(folder, allowed, words):
    told = osl.slim("residual.onnx", macs=0.6, output="s.onnx", data="samples.npz", work=allowed, latency=False)
    said = [line for line in told.report["verdict"]["limited_by"] if "was measured" in line or "--work" in line]
    assert any(words in line for line in said) if words else said == []


def test_weights_beside_a_file_are_among_what_was_written(folder):
    onnx.save(onnx.load("residual.onnx"), "big.onnx", save_as_external_data=True, size_threshold=0)
    result = osl.slim("big.onnx", macs=0.5, output="s.onnx", **FAST)
    written = result.report["verdict"]["written"]
    assert written == ["s.onnx", "s.onnx.data"]
    assert all(f"{name} (" in result.in_short() for name in written)


def test_the_folder_of_figures_is_named_among_what_was_written(folder):
    pytest.importorskip("vl_convert")
    verdict = osl.analyze("residual.onnx", report_dir="figures").report["verdict"]
    assert verdict["written"] == ["figures/"]
    assert {path.suffix for path in (folder / "figures").glob("*network*")} == {".csv", ".svg", ".png"}


@pytest.mark.parametrize("cure", [{"mean": "0.485,0.456,0.406", "std": "0.5"}, {"image_size": "64x48"}, {}])
def test_options_that_doubts_advise_are_tried_next(cure):
    asked = Asked("slim", ("m.onnx",), {"data": ["--data", "p/"]})
    case = Case(asked, {"quality": {"doubts": ["p/: far."], "cure": cure}}, None)
    assert case.cure == cure
    (row,) = (one for one in NEXT if "prepare samples" in one.why)
    assert row.when(case) == bool(cure)
    assert all(f" --{name.replace('_', '-')} {value}" in row.line(case) for name, value in cure.items())
