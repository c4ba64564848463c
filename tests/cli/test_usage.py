"""What holds of every command: usage, refused options, interrupts and defects, pipes."""

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from onnxslim_learn.cli import commands, shell
from onnxslim_learn.report import records
from onnxslim_learn.rewrite import verify as checking
from onnxslim_learn.runtime import timing
from onnxslim_learn.workflow import slim
from tests.cli.folder import APPLY, BRIEF, HALF, SLIM, contents, strict

ROOT = Path(__file__).parents[2]

REFUSALS = [
    # arguments, exit code, words in the sentence
    # usage
    ("nothing", 2, "nothing analyze slim --help"),
    ("anlyze residual.onnx", 2, "anlyze slim Did you mean analyze?"),
    ("--nothing", 2, "--nothing"),
    ("--versoin", 2, "Did you mean --version?"),
    (f"{SLIM} --critreion l2", 2, "--critreion Did you mean --criterion?"),
    (f"{SLIM} --criterion wnada", 2, "wnada Did you mean wanda?"),
    (f"{SLIM} --layout nhwd", 2, "--layout nhwd nchw Did you mean nhwc?"),
    (f"{SLIM} --data samples.npz --metric acuracy", 2, "--metric Did you mean accuracy?"),
    ("slim residual.onnx -o new.onnx --target parms=0.5", 2, "--target parms=0.5 Did you mean params?"),
    ("learn residual.onnx -o new.onnx --target macs=0.5 --learner fintune", 2, "Did you mean finetune?"),
    ("analyze", 2, "MODEL analyze --help"),
    ("slim residual.onnx", 2, "--output"),
    (f"{SLIM} --prot w1", 2, "--prot"),  # an abbreviation might change its meaning
    ("verify residual.onnx slim.onnx", 2, "--plan"),
    # files without an end
    ("analyze pipe", 2, "pipe: is no regular file"),
    ("analyze /dev/zero", 2, "/dev/zero: is no regular file"),
    (f"{APPLY} pipe", 2, "pipe: is no regular file a plan"),
    ("verify residual.onnx pipe --plan slim.json", 2, "pipe: is no regular file the slimmed model"),
    ("verify residual.onnx slim.onnx --plan pipe", 2, "pipe: is no regular file a plan"),
    ("expand residual.onnx -o new.onnx --target macs=1.5 --like pipe", 2, "pipe: is no regular file"),
    ("expand residual.onnx -o new.onnx --config pipe", 2, "--config pipe: is no regular file"),
    ("learn residual.onnx -o new.onnx --config /dev/zero", 2, "--config /dev/zero: is no regular file"),
    (f"{SLIM} --device pipe", 2, "--device pipe:"),
    (f"{SLIM} --data pipe", 2, "--data pipe:"),
    ("learn residual.onnx -o new.onnx --learner finetune --teacher pipe", 2, "pipe: is no regular file"),
    ("profile residual.onnx pipe", 2, "pipe: is no regular file"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_refusals(refused, arguments, code, words):
    refused(arguments, code, words)


MISTAKES = [  # options that no model could make right
    f"{SLIM} --criterion wnada",
    f"{SLIM} --protect [",
    f"{SLIM} --keep [=0.5",
    f"{SLIM} --device nowhere.toml",
    f"{SLIM} --data nowhere.npz",
    f"{SLIM} --data samples.npz --metric acuracy",
    f"{SLIM} --min-quality 0.5",
    f"{SLIM} --mean 0.5",
    f"{SLIM} --log-file folder",
    "slim nowhere.onnx -o new.onnx --target macs=0.5",
    "apply residual.onnx slim.json -o new.onnx --data residual.onnx",
    "verify residual.onnx nowhere.onnx --plan slim.json",
    "expand slim.onnx -o new.onnx --target macs=1.0 --like nowhere.onnx",
    "sparsify residual.onnx -o new.onnx --ratio 0.5 --method admn",
    "profile residual.onnx nowhere.onnx",
    "analyze residual.onnx --device nowhere.toml",
    "learn residual.onnx -o new.onnx",
    "learn residual.onnx -o new.onnx --target macs=0.5 --loss distil",
    "learn residual.onnx -o new.onnx --target macs=0.5 --optimizer adm",
    "learn residual.onnx -o new.onnx --target macs=0.5 --val-data nowhere.npz",
    "learn residual.onnx -o new.onnx --target macs=0.5 --teacher slim.onnx --loss features",
]


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_told_before_any_stage(refused, line):
    refused(f"{line} --verbose", 2, "")


def without_rights(path):
    """Take the rights away; skip where that changes nothing, as for root."""
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may do everything")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("residual.onnx", "analyze residual.onnx"),
        ("slim.onnx", "verify residual.onnx slim.onnx --plan slim.json"),
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


def stop(error, *_, **__):
    raise error


FAILURES = [
    # what is raised in the middle of the work, exit code, words in the sentence
    (KeyboardInterrupt(), 130, "interrupted"),
    (MemoryError(), 2, "out of memory"),
    (RuntimeError("[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc"), 2, "out of memory (std::bad_alloc). Give"),
    (RuntimeError("could not create a primitive"), 2, "out of memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"), 2, "out of memory"),
    (OSError(28, "No space left on device", "new.onnx"), 2, "new.onnx: No space left"),
    (OSError("libx.so: failed to map segment"), 2, "libx.so: failed to map segment"),
    (ImportError("x.so: failed to map segment", path=f"x{EXTENSION_SUFFIXES[0]}"), 2, "x.so: failed to map memory"),
    (ImportError("cannot import name x", path="x.py"), shell.DEFECT, "defect"),
    (RuntimeError("odd\nand long"), shell.DEFECT, f"defect RuntimeError: odd report {shell.DEBUG}=1"),
]


@pytest.mark.parametrize(("error", "code", "words"), FAILURES)
def test_a_failure_in_the_middle_leaves_nothing_behind(run, monkeypatch, error, code, words):
    before = contents()
    monkeypatch.setattr(checking, "verify", partial(stop, error))  # when the result is already staged
    found, out, err = run(f"{SLIM} --plan-out new.json --json new2.json")
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert [word for word in words.split() if word not in err] == [], err
    assert contents() == before


def signalled(number, *_, **__):
    """Send this process a signal, and answer as extension modules do that are interrupted while they initialise."""
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_leaves_nothing_behind(run, monkeypatch, number):
    handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, handler)  # jobs in the background start with it ignored
    before, heard = contents(), signal.getsignal(number)
    monkeypatch.setattr(checking, "verify", partial(signalled, number))
    assert run(SLIM) == (128 + number, "", "onnxslim-learn: interrupted.\n")
    assert contents() == before
    assert signal.getsignal(number) is heard, "handlers are put back"


def test_an_interrupt_while_timing_says_what_is_written(run, monkeypatch):
    monkeypatch.setattr(timing, "measure", partial(stop, KeyboardInterrupt()))
    code, _, err = run("slim residual.onnx -o new.onnx --target macs=0.5")
    assert (code, err) == (130, "onnxslim-learn: interrupted.\n")
    assert not Path("new.onnx").exists(), "while it was timed whether to choose again"
    code, _, err = run("slim residual.onnx -o new.onnx --target macs=0.5 --multiple 1")
    assert (code, err.count("\n")) == (130, 1)
    assert "new.onnx is written and verified" in err
    assert slim.analyze("new.onnx").groups


@pytest.mark.parametrize(
    ("arguments", "limit", "words"),
    [
        (SLIM, 2000, "new.onnx: cannot be written File too large Free space"),
        ("analyze residual.onnx --json new.json", 100, "new.json: cannot be written File too large Free space"),
    ],
)
def test_a_full_disk_is_named_with_the_file(refused, arguments, limit, words):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        refused(arguments, 2, words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)


def test_a_defect_shows_where_on_request(run, monkeypatch):
    monkeypatch.setattr(checking, "verify", partial(stop, RuntimeError("odd")))
    monkeypatch.setenv(shell.DEBUG, "1")
    with pytest.raises(RuntimeError, match="odd"):
        commands.main(shlex.split(SLIM))


def test_help_names_every_command(run):
    code, out, err = run("")
    assert (code, err) == (0, "")
    assert [name for name in commands.COMMANDS if name not in out] == []


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_help(run, capsys, name):
    with pytest.raises(SystemExit) as stopped:
        run(f"{name} --help")
    assert stopped.value.code == 0
    assert f"onnxslim-learn {name}" in capsys.readouterr().out


DOCUMENTED = [
    "analyze global_pool.onnx",
    "analyze residual.onnx --why w5:0",
    f"slim residual.onnx -o new.onnx --target macs=0.5 --seconds {BRIEF}",
    f"sparsify residual.onnx -o new.onnx --ratio 0.5 --samples 32 --seconds {BRIEF}",
    "verify residual.onnx thin.onnx --plan slim.json",
    f"profile global_pool.onnx chain.onnx --per-node --seconds {BRIEF}",
]
# Maps whose keys are no fields but names of the model or questions.
NAMED = {
    "inputs",
    "unknown_operators",
    "why",
    "quality.outputs",
    "repair.before",
    "repair.after",
    "repair.nodes",
    "repair.left",
    "trials",
    "deviation",
    "versions",
    "sha256",
}


def fields(told, inside=""):
    """All keys in what JSON tells; ``inside`` is the key that holds it."""
    if isinstance(told, list):
        return {key for item in told for key in fields(item, inside)}
    if not isinstance(told, dict):
        return set()
    named = {key for key in told if {key, f"{inside}.{key}"} & NAMED}
    deeper = [fields(list(v.values()) if key in named and isinstance(v, dict) else v, key) for key, v in told.items()]
    return set(told).union(*deeper)


@pytest.mark.parametrize("line", DOCUMENTED)
def test_every_field_is_documented(run, line):
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", (ROOT / "docs/json.md").read_text()))))
    code, out, err = run(f"{line} --json -")
    advice = "--match-statistics does that."  # to a model that keeps batch statistics
    assert all(told.endswith(advice) for told in err.splitlines()) and code in (0, 1)
    assert fields(strict(out)) - words == set()


def start(*words, **settings):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **settings)


def test_the_console_command_writes_json_to_a_pipe(prepared):
    command = Path(sys.executable).with_name("onnxslim-learn")
    done = start(command, "analyze", "residual.onnx", "--json", "-", cwd=prepared)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = json.loads(json.dumps(records.overview(slim.analyze(prepared / "residual.onnx"))))
    told = strict(done.stdout)
    assert set(told) - set(wanted) == {"verdict", "stages", "run"}
    assert {key: told[key] for key in wanted} | {"model": ""} == wanted | {"model": ""}


def test_a_checkout_runs_without_installation(prepared):
    done = start(sys.executable, ROOT / "cli.py", "analyze", "nowhere.onnx", cwd=prepared)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "onnxslim-learn: nowhere.onnx: no such file. Give the path of an .onnx model.\n"


def test_a_pipe_that_breaks_elsewhere_is_an_error(run, monkeypatch):
    monkeypatch.setattr(checking, "verify", partial(stop, BrokenPipeError(32, "Broken pipe")))
    code, out, err = run(f"{SLIM} --json -")
    assert (code, out) == (2, "")
    assert "Broken pipe" in err


def test_a_closed_pipe_is_no_error(prepared):
    line = f"{sys.executable} {ROOT / 'cli.py'} analyze residual.onnx | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = start("bash", "-c", line, cwd=prepared)
    assert (done.returncode, done.stderr) == (0, "")
