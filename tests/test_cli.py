"""The command line: what it prints where, its exit codes, and that a refusal is one sentence and changes nothing."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxslim_learn import api, cli
from onnxslim_learn.costs import measure
from onnxslim_learn.report import data
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite import verify as checking
from tests.zoo import NETS

ROOT = Path(__file__).parents[1]
BRIEF = 0.01  # seconds: at least ten rounds are timed, and how precisely is no matter here
HALF = "--target macs=0.5 --no-latency"

# --- a folder of models and plans -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with good and bad models and plans."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "folder").mkdir()
    for name in ("residual", "chain", "global_pool", "multi_io", "flatten_gemm"):
        onnx.save(NETS[name].build(), folder / f"{name}.onnx")
    write_bad_models(folder)
    found = api.analyze(folder / "residual.onnx")
    for name, share in (("slim", 0.6), ("thin", 0.3)):
        plan = api.plan(found, {"macs": share})
        api.slim(found, plan).save(folder / f"{name}.onnx", check=False)
        (folder / f"{name}.json").write_text(plan.to_json())
    write_bad_plans(folder, json.loads((folder / "slim.json").read_text()))
    other = api.analyze(folder / "chain.onnx")
    (folder / "chain.json").write_text(api.plan(other, {"macs": 0.5}).to_json())
    return folder


def write_bad_models(folder):
    residual = onnx.load(folder / "residual.onnx")
    (folder / "text.onnx").write_text("This is no model.\n")
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "cut.onnx").write_bytes(residual.SerializeToString()[:9000])
    for name in ("external", "lost", "short"):  # even the smallest weights lie in another file
        settings = {"save_as_external_data": True, "location": f"{name}.bin", "size_threshold": 0}
        onnx.save(onnx.load(folder / "residual.onnx"), folder / f"{name}.onnx", **settings)
    (folder / "lost.bin").unlink()
    os.truncate(folder / "short.bin", 100)
    residual.ClearField("opset_import")
    onnx.save(residual, folder / "no-opset.onnx")
    write(folder / "no-input.onnx", [["MatMul", "a b", "y"]], inputs={})
    write(folder / "no-output.onnx", [["Relu", "x", "y"]], outputs={})
    write(folder / "unknown.onnx", [["Guess", "x", "h", "my.ops"], ["Relu", "h", "y"]])
    write(folder / "misfit.onnx", [["MatMul", "x b", "y"]])
    write(folder / "cycle.onnx", [["Add", "x q", "p"], ["Relu", "p", "q"], ["Relu", "p", "y"]])
    noisy = [["RandomNormalLike", "x", "r"], ["Add", "x r", "p"], ["MatMul", "p c", "h"], ["MatMul", "h b", "y"]]
    write(folder / "random.onnx", noisy)


def write(path, nodes, inputs=None, outputs=None):
    """Write a graph of [operator, inputs, output, domain]; a, b and c are weights."""
    rng = np.random.default_rng(0)
    made = [helper.make_node(op, i.split(), [o], o, domain=d[0] if d else "") for op, i, o, *d in nodes]
    used = {name for node in made for name in node.input}
    weights = {"a": (4, 8), "b": (8, 5), "c": (7, 8)}
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype("f"), n) for n, s in weights.items() if n in used]
    values = [{"x": (4, 7)} if inputs is None else inputs, {nodes[-1][2]: None} if outputs is None else outputs]
    infos = [[helper.make_tensor_value_info(n, 1, s) for n, s in given.items()] for given in values]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    graph = helper.make_graph(made, "net", *infos, tensors)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def write_bad_plans(folder, plan):
    def edited(**changes):
        return json.dumps({**plan, **changes})

    swapped = {**plan["groups"], "w1:0": [11 - k for k in plan["groups"]["w1:0"]]}
    for name, text in {
        "cut": edited()[:500],
        "list": "[]",
        "old": edited(format="onnxslim-learn plan 0"),
        "no-widths": edited(widths={}),
        "odd-tensors": edited(tensors=3),
        "odd-provenance": edited(provenance=None),
        "wide": edited(widths={**plan["widths"], "w1:0": 13}),
        "far": edited(groups={**plan["groups"], "w1:0": [0, 99]}),
        "swapped": edited(groups=swapped),
        "output": edited(groups={"w5:0": [0]}, widths={"w5:0": 5}, tensors={}),
        "none": edited(groups={}, widths={}, tensors={}),
        "bom": f"\ufeff{edited()}",
    }.items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


@pytest.fixture
def run(prepared, tmp_path, monkeypatch, capsys):
    """Run a line in a fresh copy of the folder; returns the exit code, standard output and standard error."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.DEBUG, raising=False)

    def run(line):
        code = cli.main(shlex.split(line))
        return code, *capsys.readouterr()

    return run


def contents():
    """What lies in the current folder: path -> bytes."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


# --- refusals ---------------------------------------------------------------------------------------------------------

SLIM = f"slim residual.onnx -o new.onnx {HALF}"
TO = "slim residual.onnx -o new.onnx --no-latency --target"
APPLY = "apply residual.onnx -o new.onnx --no-latency"

REFUSALS = [
    # arguments, exit code, words in the sentence
    # usage
    ("nothing", 2, "nothing analyze slim --help"),
    ("--nothing", 2, "--nothing"),
    ("analyze", 2, "MODEL analyze --help"),
    ("slim residual.onnx", 2, "--output --target"),
    (f"{SLIM} --prot w1", 2, "--prot"),  # an abbreviation might change its meaning
    ("verify residual.onnx slim.onnx", 2, "--plan"),
    # models
    ("analyze nowhere.onnx", 2, "nowhere.onnx: no such file"),
    ("analyze folder", 2, "folder: is a folder"),
    ("analyze empty.onnx", 2, "empty.onnx: not an ONNX model"),
    ("analyze text.onnx", 2, "text.onnx: not an ONNX model cut off"),
    ("analyze cut.onnx", 2, "cut.onnx: not an ONNX model cut off"),
    ("analyze slim.json", 2, "slim.json: not an ONNX model"),
    ("analyze lost.onnx", 2, "lost.onnx: lost.bin does not exist"),
    ("analyze short.onnx", 2, "short.bin: too short"),
    ("analyze no-opset.onnx", 2, "no-opset.onnx: opset_import"),
    ("analyze no-output.onnx", 2, "no-output.onnx: no outputs"),
    ("analyze unknown.onnx", 2, "unknown.onnx: my.ops Guess"),
    ("analyze misfit.onnx", 2, "misfit.onnx: node y (MatMul): shapes 4x7"),
    ("analyze cycle.onnx", 2, "cycle.onnx: cycle"),
    ("profile residual.onnx nowhere.onnx", 2, "nowhere.onnx: no such file"),
    ("verify residual.onnx nowhere.onnx --plan slim.json", 2, "nowhere.onnx: no such file the slimmed model"),
    ("verify residual.onnx text.onnx --plan slim.json", 2, "text.onnx:"),
    ("verify residual.onnx multi_io.onnx --plan slim.json", 2, "multi_io.onnx: inputs image vector x"),
    (f"slim random.onnx -o new.onnx {HALF}", 1, "new.onnx: output y random not verified Nothing was written"),
    # results
    (f"slim residual.onnx {HALF} -o nowhere/new.onnx", 2, "-o nowhere/new.onnx: folder"),
    (f"slim residual.onnx {HALF} -o text.onnx/new.onnx", 2, "-o text.onnx/new.onnx: no folder"),
    (f"slim residual.onnx {HALF} -o folder", 2, "-o folder: is a folder"),
    (f"slim residual.onnx {HALF} -o ''", 2, "-o '' no file name"),
    (f"slim residual.onnx {HALF} -o -", 2, "-o '-' no file name"),
    (f"slim residual.onnx {HALF} -o {'n' * 300}", 2, "-o nnn file name"),
    (f"slim residual.onnx {HALF} -o pipe", 2, "-o pipe: no regular file"),
    (f"slim residual.onnx {HALF} -o residual.onnx", 2, "-o residual.onnx: is read"),
    (f"slim residual.onnx {HALF} -o folder/../residual.onnx", 2, "-o is read"),
    (f"slim external.onnx {HALF} -o external.bin", 2, "external.bin"),
    (f"slim external.onnx {HALF} -o new.onnx --plan-out external.bin", 2, "--plan-out external.bin:"),
    (f"slim external.onnx {HALF} -o new.onnx --json new.onnx.data", 2, "--json new.onnx.data:"),
    (f"{SLIM} --plan-out residual.onnx", 2, "--plan-out residual.onnx: is read"),
    (f"{SLIM} --plan-out new.onnx", 2, "--plan-out new.onnx: is written by -o"),
    (f"{SLIM} --plan-out both.json --json both.json", 2, "--json both.json: is written by --plan-out"),
    (f"{SLIM} --plan-out nowhere/plan.json", 2, "--plan-out nowhere/plan.json: folder"),
    (f"{SLIM} --json folder", 2, "--json folder: is a folder"),
    (f"{APPLY} slim.json --json slim.json", 2, "--json slim.json: is read"),
    ("analyze residual.onnx --json nowhere/new.json", 2, "--json nowhere/new.json: folder"),
    ("profile residual.onnx --json residual.onnx", 2, "--json residual.onnx: is read"),
    ("verify residual.onnx slim.onnx --plan slim.json --json slim.onnx", 2, "--json slim.onnx: is read"),
    ("demo -o folder", 2, "-o folder: is a folder"),
    # targets
    *((f"{TO} {text}", 2, f"--target {text}: macs=0.5") for text in ("macs", "=1", "flops=1", "MACS=1", "macs:1")),
    *((f"{TO} macs={text}", 2, f"macs={text} no number") for text in ("", "half", "0.5x", "k", "%")),
    *((f"{TO} macs={text}", 2, f"macs={text}: positive") for text in ("0", "-1", "nan", "inf", "1e999")),
    (f"{TO} macs=150%", 2, "macs=150%: 100"),
    (f"{TO} macs=0.5,params=0.5", 2, "--target Repeat"),
    (f"{TO} macs=0.5 --target macs=0.4", 2, "macs=0.4: twice"),
    (f"{TO} latency=4ms", 2, "latency=4ms:"),
    (f"{TO} macs=1e-9", 1, "macs=1e-09 cannot be reached best 8704"),
    (f"{TO} macs=1.5", 1, "macs=1.5 absolute best 8704"),
    (f"{TO} macs=0.5 --target params=1e-4", 1, "params=0.0001 best 84"),
    (f"{TO} bytes=100", 1, "bytes=100 best"),
    # how to choose
    (f"{SLIM} --criterion taste", 2, "--criterion taste: energy lamp"),
    (f"{SLIM} --protect nothing", 2, "--protect nothing: no group"),
    (f"{SLIM} --protect [", 2, "--protect [: regular expression"),
    (f"{SLIM} --protect .", 1, "macs=0.5 cannot be reached best 438272"),
    *((f"{SLIM} --multiple {text}", 2, f"--multiple positive {text}") for text in ("0", "-8", "1.5", "many")),
    (f"{SLIM} --multiple 1000", 1, "macs=0.5 cannot be reached best 438272"),
    # input shapes
    *((f"{SLIM} --input {text}", 2, f"--input {text}: NAME:1x3x224x224") for text in ("2x3x8x8", "x:", "x:axb")),
    *((f"{SLIM} --input x{text}", 2, f"--input x{text}: positive") for text in (":0x3x8x8", ":-1x3", ":²x3", "=2x3")),
    (f"{SLIM} --input y:2x3x8x8", 2, "--input y: no such input x"),
    (f"{SLIM} --input x:1x3x8x8", 2, "--input x: [2,3,8,8] 1x3x8x8"),
    (f"{SLIM} --input x:2x3x8", 2, "--input x: [2,3,8,8] 2x3x8"),
    ("analyze global_pool.onnx --input x:4x3x1x1", 2, "global_pool.onnx: 4x3x1x1"),
    (f"profile global_pool.onnx --seconds {BRIEF} --input x:999999999x3x99x99", 2, "memory --input"),
    # plans
    (f"{APPLY} nowhere.json", 2, "nowhere.json: no such file"),
    (f"{APPLY} folder", 2, "folder: is a folder"),
    (f"{APPLY} slim.onnx", 2, "slim.onnx: not a text file"),
    (f"{APPLY} cut.json", 2, "cut.json: not JSON line"),
    (f"{APPLY} list.json", 2, "list.json: format list"),
    (f"{APPLY} old.json", 2, "old.json: format 'onnxslim-learn plan 0'"),
    (f"{APPLY} no-widths.json", 2, "no-widths.json: 'widths'"),
    (f"{APPLY} odd-tensors.json", 2, "odd-tensors.json: 'tensors'"),
    (f"{APPLY} odd-provenance.json", 2, "odd-provenance.json: 'provenance'"),
    (f"{APPLY} wide.json", 2, "w1:0: 12 13"),
    (f"{APPLY} far.json", 2, "w1:0: below 12 99"),
    (f"{APPLY} swapped.json", 2, "tensor 'tensors' 'groups' disagree"),
    (f"{APPLY} output.json", 2, "graph output y"),
    (f"{APPLY} chain.json", 2, "w1:0: 12 8 another file chain.onnx"),
    ("apply chain.onnx slim.json -o new.onnx", 2, "no such group residual.onnx"),
    ("verify residual.onnx slim.onnx --plan chain.json", 2, "w1:0: chain.onnx"),
    # the runtime
    *((f"profile residual.onnx --threads {text}", 2, f"--threads {text}") for text in ("0", "-1", "1.5", "100000")),
    *((f"profile residual.onnx --seconds {text}", 2, f"--seconds {text}") for text in ("0", "-1", "nan", "inf", "x")),
    ("profile residual.onnx --provider Abacus", 2, "--provider Abacus CPUExecutionProvider"),
    (f"{SLIM} --provider Abacus", 2, "--provider Abacus"),  # before the work, not after it
    # explanations
    ("analyze residual.onnx --why nothing:0", 2, "--why 'nothing:0'"),
    ("analyze residual.onnx --why w1", 2, "--why 'w1' w1:0"),
    ("analyze residual.onnx --why w1:0,w9:0", 2, "--why 'w9:0'"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_a_refusal_is_one_sentence_and_changes_nothing(run, arguments, code, words):
    os.mkfifo("pipe")
    before = contents()
    found, out, err = run(arguments)
    assert (found, out) == (code, "")
    (sentence,) = err.splitlines()
    assert sentence.startswith("onnxslim-learn: ")
    assert sentence[-1] in ".?"
    assert [word for word in words.split() if word not in sentence] == [], sentence
    assert contents() == before


def without_rights(path):
    """Take the rights away; skip where that changes nothing, as for root."""
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may do everything")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("residual.onnx", "analyze residual.onnx"),
        ("slim.json", "apply residual.onnx slim.json -o new.onnx"),
        ("folder", f"slim residual.onnx -o folder/new.onnx {HALF}"),
    ],
)
def test_missing_rights_are_named(run, name, arguments):
    without_rights(Path(name))
    code, out, err = run(arguments)
    Path(name).chmod(0o700)
    assert (code, out) == (2, "")
    assert name in err
    assert err.count("\n") == 1


# --- interrupts and defects -------------------------------------------------------------------------------------------


def stop(error, *_, **__):
    raise error


FAILURES = [
    # what is raised in the middle of the work, exit code, words in the sentence
    (KeyboardInterrupt(), 130, "interrupted"),
    (MemoryError(), 2, "memory"),
    (OSError(28, "No space left on device", "new.onnx"), 2, "new.onnx: No space left"),
    (RuntimeError("odd\nand long"), cli.DEFECT, f"defect RuntimeError: odd report {cli.DEBUG}=1"),
]


@pytest.mark.parametrize(("error", "code", "words"), FAILURES)
def test_a_failure_in_the_middle_leaves_nothing_behind(run, monkeypatch, error, code, words):
    before = contents()
    monkeypatch.setattr(checking, "verify", partial(stop, error))  # when the result is already staged
    found, out, err = run(f"{SLIM} --plan-out new.json --json new2.json")
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert [word for word in words.split() if word not in err] == [], err
    assert contents() == before


def test_a_defect_shows_where_on_request(run, monkeypatch):
    monkeypatch.setattr(checking, "verify", partial(stop, RuntimeError("odd")))
    monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(RuntimeError, match="odd"):
        cli.main(shlex.split(SLIM))


# --- results ----------------------------------------------------------------------------------------------------------


def test_help_names_every_command(run):
    code, out, err = run("")
    assert (code, err) == (0, "")
    assert [name for name in cli.COMMANDS if name not in out] == []


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(run, capsys, name):
    with pytest.raises(SystemExit) as stopped:
        run(f"{name} --help")
    assert stopped.value.code == 0
    assert f"onnxslim-learn {name}" in capsys.readouterr().out


TABLES = [
    # arguments, exit code, phrases on standard output
    ("analyze residual.onnx", 0, ["438 k MACs", "3.54 k parameters", "w1:0", "it is the graph output y (axis 1)"]),
    ("analyze external.onnx", 0, ["438 k MACs", "w1:0"]),
    ("analyze global_pool.onnx", 0, ["x 1x3x", "assumed", "--input"]),
    ("analyze global_pool.onnx --input x:4x3x9x7", 0, ["x 4x3x9x7"]),
    ("analyze no-input.onnx", 0, ["no-input.onnx: 1 nodes\n", "160 MACs"]),
    ("analyze residual.onnx --why w5:0", 0, ["Why w5:0", "through y (Conv)", "cannot go: it is the graph output y"]),
    ("analyze residual.onnx --why w1:0", 0, ["w1:0: it can be cut"]),
    ("analyze residual.onnx --why w1:0,w2:1", 0, ["through n1 (BatchNormalization)", "through c1 (Conv)\n  w2:1"]),
    ("analyze residual.onnx --why w1:0,w3:0", 0, ["w1:0,w3:0: no operator ties these"]),
    (
        f"slim residual.onnx -o new.onnx --target macs=0.5 --seconds {BRIEF}",
        0,
        ["latency", "ms", "Verified on 2 inputs"],
    ),
    (f"{SLIM} --plan-out new.json", 0, ["MACs", "438 k", "Verified on 2 inputs"]),
    (f"slim external.onnx -o new.onnx {HALF}", 0, ["Verified on 2 inputs"]),
    (f"slim chain.onnx -o new.onnx {HALF}", 0, ["Verified on 2 inputs"]),
    (f"{APPLY} slim.json", 0, ["Verified on 2 inputs"]),
    (f"{APPLY} bom.json", 0, ["Verified on 2 inputs"]),  # as editors on Windows save it
    ("verify residual.onnx slim.onnx --plan slim.json", 0, ["slim.onnx computes what residual.onnx computes"]),
    ("verify residual.onnx thin.onnx --plan slim.json", 1, ["thin.onnx does NOT compute", "Output y"]),
    ("verify residual.onnx flatten_gemm.onnx --plan slim.json", 1, ["does NOT compute", "shape"]),
    (f"profile residual.onnx slim.onnx --seconds {BRIEF}", 0, ["residual.onnx", "slim.onnx", "against the first"]),
    (f"profile chain.onnx --seconds {BRIEF} --per-node", 0, ["chain.onnx: time by node", "Conv"]),
    (f"profile residual.onnx multi_io.onnx --seconds {BRIEF}", 0, ["residual.onnx", "multi_io.onnx"]),
]


@pytest.mark.parametrize(("arguments", "code", "phrases"), TABLES)
def test_results_go_to_standard_output_alone(run, arguments, code, phrases):
    before = contents()
    found, out, err = run(arguments)
    assert (found, err) == (code, "")
    assert [phrase for phrase in phrases if phrase not in out] == [], out
    assert "\x1b" not in out, "no colours where there is no terminal"
    after = contents()
    assert {path: after[path] for path in before} == before, "what was there stays as it was"
    assert all(path.startswith("new.") for path in set(after) - set(before))


def test_names_with_brackets_and_long_names_stay_whole(run):
    model, stem = onnx.load("chain.onnx"), f"{'layer/' * 50}[/b][red]"
    for tensor in model.graph.initializer:
        tensor.name = stem + tensor.name
    for node in model.graph.node:
        node.input[1:] = [stem + name for name in node.input[1:]]
    onnx.save(model, "[red]new.onnx")
    _, out, _ = run(f"analyze [red]new.onnx --why {stem}w2:0")
    lines = out.splitlines()
    assert lines[0].startswith("[red]new.onnx: 4 nodes")
    assert f"Why {stem}w2:0" in lines
    assert any(f"{stem}w1:0" in line and f"{stem}b1:0" in line for line in lines), "a row is one line"


JSON = [
    # arguments without --json, exit code, keys
    ("analyze residual.onnx", 0, "model inputs nodes costs groups pinned unknown_operators"),
    ("analyze residual.onnx --why w1:0,w2:1", 0, "model inputs nodes costs groups pinned unknown_operators why"),
    (SLIM, 0, "model output inputs before after latency_ratio verify groups pinned unknown_operators"),
    (f"{APPLY} slim.json", 0, "model output inputs before after latency_ratio verify groups pinned unknown_operators"),
    ("verify residual.onnx slim.onnx --plan slim.json", 0, "original slimmed verify"),
    ("verify residual.onnx thin.onnx --plan slim.json", 1, "original slimmed verify"),
    ("verify residual.onnx flatten_gemm.onnx --plan slim.json", 1, "original slimmed verify"),
    (f"profile residual.onnx slim.onnx --seconds {BRIEF} --per-node", 0, "models ratios"),
]


def strict(text):
    """Read JSON as its standard has it, without NaN and Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(("arguments", "code", "keys"), JSON)
def test_json_is_all_of_standard_output_or_a_file_beside_the_tables(run, arguments, code, keys):
    found, out, err = run(f"{arguments} --json -")
    assert (found, err) == (code, "")
    assert set(keys.split()) <= set(strict(out))
    found, tables, err = run(f"{arguments} --json new.json")
    assert (found, err) == (code, "")
    assert "{" not in tables and tables
    assert set(strict(Path("new.json").read_text())) == set(strict(out))


def test_what_slim_reports_is_true_of_the_files(run):
    _, out, _ = run(f"{SLIM} --json - --plan-out new.json")
    told = strict(out)
    for side, file in (("before", "residual.onnx"), ("after", "new.onnx")):
        again = api.analyze(file)
        price = again.price(again.whole)
        assert {key: told[side][key] for key in ("macs", "params")} == {key: price[key] for key in ("macs", "params")}
        assert told[side]["weight_bytes"] == price["bytes"]
        assert told[side]["bytes"] == Path(file).stat().st_size
    assert told["after"]["macs"] <= 0.5 * told["before"]["macs"]
    assert told["verify"]["passed"] is True
    kept = json.loads(Path("new.json").read_text())["groups"]
    assert {g["name"]: g["kept"] for g in told["groups"]} == {name: len(units) for name, units in kept.items()}


TARGETS = [
    # targets, what holds then of the residual net's 438272 MACs, 3541 parameters and 14986 bytes
    ("macs=0.5", {"macs": 219136}),
    ("macs=50%", {"macs": 219136}),
    ("macs=100k", {"macs": 100_000}),
    ("params=0.1M", {"params": 3541}),
    ("params=1e3", {"params": 1000}),
    ("bytes=0.5", {"bytes": 7493}),
    ("bytes=5K", {"bytes": 5000}),
    ("macs=0.9 --target params=0.4 --target bytes=0.8", {"macs": 394444, "params": 1416, "bytes": 11988}),
]


@pytest.mark.parametrize(("targets", "bounds"), TARGETS)
def test_targets_are_met_from_below(run, targets, bounds):
    code, out, _ = run(f"{TO} {targets} --json -")
    assert code == 0
    after = strict(out)["after"]
    assert all(after[cost] <= bound for cost, bound in bounds.items()), after


@pytest.mark.parametrize("target", ["macs=1", "macs=100%", "params=1G", "bytes=1"])
def test_a_target_already_met_gives_a_copy_and_says_so(run, target):
    code, _, err = run(f"{TO} {target}")
    assert code == 0
    assert "nothing had to be cut" in err
    assert Path("new.onnx").read_bytes() == Path("residual.onnx").read_bytes()


def test_protected_groups_and_multiples_are_kept(run):
    _, out, _ = run(f"{TO} macs=0.8 --protect w1 --multiple 4 --json -")
    kept = {group["name"]: group["kept"] for group in strict(out)["groups"]}
    assert kept["w1:0"] == 12
    assert all(count % 4 == 0 or count == 10 for count in kept.values())  # w3:0 may stay whole


def test_a_plan_replays_to_the_same_bytes(run):
    run(f"{SLIM} --plan-out new.json")
    assert run("apply residual.onnx new.json -o new2.onnx --no-latency")[0] == 0
    assert Path("new2.onnx").read_bytes() == Path("new.onnx").read_bytes()
    assert run("verify residual.onnx new2.onnx --plan new.json")[0] == 0


def test_the_latency_told_is_the_ratio_of_pairs(run):
    line = f"slim residual.onnx -o new.onnx --target macs=0.5 --seconds {BRIEF} --json new.json"
    _, out, _ = run(line)
    middle, low, high = strict(Path("new.json").read_text())["latency_ratio"]
    assert low <= middle <= high
    assert f"{middle:.3f} ({low:.3f} to {high:.3f})" in out


def test_the_source_may_keep_its_weights_elsewhere(run):
    code, out, _ = run(f"slim external.onnx -o folder/new.onnx {HALF} --json -")
    assert code == 0
    assert Path("folder/new.onnx.data").stat().st_size < Path("external.bin").stat().st_size
    told, files = strict(out)["after"]["bytes"], save.files(Path("folder/new.onnx"))
    assert told == sum(file.stat().st_size for file in files)
    shutil.move("folder", "moved")
    assert run(f"profile external.onnx moved/new.onnx --seconds {BRIEF}")[0] == 0


def test_a_link_to_the_result_is_followed(run):
    Path("link.onnx").symlink_to("folder/new.onnx")
    assert run(f"slim residual.onnx -o link.onnx {HALF}")[0] == 0
    assert Path("link.onnx").is_symlink()
    assert api.analyze("folder/new.onnx").groups


def test_the_demo_tells_the_whole_story(run, monkeypatch):
    monkeypatch.setattr(measure, "measure", partial(measure.measure, seconds=BRIEF))
    code, out, err = run("demo -o new.onnx --json new.json")
    assert (code, err) == (0, "")
    told = strict(Path("new.json").read_text())
    assert told["after"]["macs"] <= told["target"]["macs"] * told["before"]["macs"]
    assert told["before"]["accuracy"] > 0.95
    assert told["after"]["accuracy"] > 0.5  # not retrained, yet far above the 0.1 of guessing
    assert f"{told['after']['accuracy']:.1%} after" in out
    assert api.analyze("new.onnx").groups


# --- as a program -----------------------------------------------------------------------------------------------------


def start(*words, **settings):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **settings)


def test_the_console_command_writes_json_to_a_pipe(prepared):
    command = Path(sys.executable).with_name("onnxslim-learn")
    done = start(command, "analyze", "residual.onnx", "--json", "-", cwd=prepared)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = json.dumps(data.overview(api.analyze(prepared / "residual.onnx")))
    assert strict(done.stdout) | {"model": ""} == json.loads(wanted) | {"model": ""}


def test_a_checkout_runs_without_installation(prepared):
    done = start(sys.executable, ROOT / "cli.py", "analyze", "nowhere.onnx", cwd=prepared)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "onnxslim-learn: nowhere.onnx: no such file. Give the path of an .onnx model.\n"


def test_a_closed_pipe_is_no_error(prepared):
    line = f"{sys.executable} {ROOT / 'cli.py'} analyze residual.onnx | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = start("bash", "-c", line, cwd=prepared)
    assert (done.returncode, done.stderr) == (0, "")
