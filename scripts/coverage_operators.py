"""Write the operator section of ``docs/coverage.md``: what every node test of the onnx package says about the table.

    python -m scripts.coverage_operators              # all, into the document; takes some minutes
    python -m scripts.coverage_operators Conv LSTM    # print what the probe finds for these

Every node test is analysed as it is shipped: it may be refused in one sentence, never crash. Then every operator with
a rule is probed (``scripts/axis_probe.py``) on its node tests, with settings such as axes as constants, and on nets of
``tests`` that hold it. Needs the ``dev`` extra.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from nets.forms import NETS as FORMS
from nets.notation import Net
from nets.operators import EXAMPLES, UNRUNNABLE, is_only_counted
from nets.zoo import NETS, feeds
from onnxslim_learn.coupling.operators.table import CONTRIB, OPAQUE, TABLE
from onnxslim_learn.coupling.operators.table import row as declaration
from onnxslim_learn.errors import InputError
from onnxslim_learn.workflow import slim
from scripts.axis_probe import MODES, Case, Finding, probe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "coverage.md"
BEGIN, END = "<!-- operators -->", "<!-- /operators -->"
STANDARD = ("", "ai.onnx")

CONTROL = "control flow: what a body captures is pinned; branches with a constant condition go inline"
SEQUENCES = "sequences and optionals are no tensors with axes"
STRINGS = "strings have no channels"
LOSS = "losses and optimizers are for training"
DATA = "its shape or positions depend on data"
WHOLE = "needs whole axes: every output position reads all input positions"
LATER = "no rule yet: pins what it touches"
REASONS: dict[str, str] = {
    **dict.fromkeys(["If", "Loop", "Scan", "SequenceMap"], CONTROL),
    **dict.fromkeys(["ConcatFromSequence", "SplitToSequence"], SEQUENCES),
    **dict.fromkeys(["Optional", "OptionalGetElement", "OptionalHasElement"], SEQUENCES),
    **dict.fromkeys(
        [f"Sequence{name}" for name in ("At", "Construct", "Empty", "Erase", "Insert", "Length")], SEQUENCES
    ),
    **dict.fromkeys(["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"], STRINGS),
    **dict.fromkeys(["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"], LOSS),
    **dict.fromkeys(["Adagrad", "Adam", "Gradient", "Momentum"], LOSS),
    **dict.fromkeys(["Compress", "Unique"], DATA),
    **dict.fromkeys(["STFT"], WHOLE),
    "Constant": "folded into an initializer at load",
    "ImageDecoder": "decodes a file: no channels of the model",
}
CLASSIC = "features and trees of classical learning"

UNPROMISED: dict[str, str] = {
    **dict.fromkeys(["BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix", "Range"], "made of numbers"),
    **dict.fromkeys(
        ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"],
        "cut where no seed tells its numbers",
    ),
    **dict.fromkeys(["NonMaxSuppression", "NonZero", "Multinomial"], "yields positions: inputs are pinned"),
    "EyeLike": "reads a shape: inputs are pinned",
    "AffineGrid": "yields positions: inputs are pinned",
    "OneHot": "cut where its numbers are places along an axis that is cut",
    "MaxUnpool": "flat positions: inputs are pinned",
    "com.microsoft.DynamicQuantizeMatMul": "one scale for all of the first input, which zeros in it leave as it is",
}
"""Operators with a rule that promises nothing about their axes."""


@dataclass
class Row:
    """What is known of an operator.

    Attributes:
        tests: Node tests of it alone.
        refused: Those refused in one sentence.
        crashes: Those that raised something else.
        cases: Models to probe.
        finding: What the probes saw, summed.
    """

    tests: int = 0
    refused: int = 0
    crashes: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    finding: Finding = field(default_factory=Finding)


@functools.cache
def node_cases() -> tuple[Case, ...]:
    """Return every node test that the onnx package ships."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    names = [[info.name for info in case.model.graph.input] for case in found]
    return tuple(
        Case(case.name, case.model, dict(zip(inputs, case.data_sets[0][0], strict=False)))
        for case, inputs in zip(found, names, strict=True)
    )


@functools.cache
def net_cases(operator: str) -> tuple[Case, ...]:
    """Return nets of the tests that hold an operator: all its forms, else its example, else the smallest two others."""
    forms = [name for name in FORMS if operator in operators_of(FORMS[name])]
    examples = [name for name in (operator,) if name in EXAMPLES]
    others = sorted((n for n in NETS if operator in operators_of(NETS[n])), key=lambda n: len(NETS[n].text))
    chosen = forms or examples or others[:2]
    nets: Mapping[str, Net] = {**NETS, **EXAMPLES, **FORMS}
    return tuple(Case(name, nets[name].build(), feeds(nets[name].build())) for name in chosen)


@functools.cache
def operators_of(net: Net) -> frozenset[str]:
    """Return the operators of a net, with their domain unless it is the standard one."""
    return frozenset(Case("", net.build(), {}).operators)


def declared() -> list[str]:
    """Return every operator with a rule, not those that only have a row for their work."""
    known = {**TABLE, **{f"com.microsoft.{name}": row for name, row in CONTRIB.items()}}
    return [name for name in (*sorted(TABLE), *sorted(known.keys() - TABLE.keys())) if not is_only_counted(known[name])]


def is_declared(operator: str) -> bool:
    """Tell whether an operator has a rule."""
    domain, _, name = operator.rpartition(".")
    return declaration(domain, name) is not OPAQUE


def unknown() -> list[str]:
    """Return every operator of the onnx package without a rule."""
    names = {f"{schema.domain}.{schema.name}".lstrip(".") for schema in onnx.defs.get_all_schemas()}
    return sorted(name for name in names if not is_declared(name))


# --- measuring --------------------------------------------------------------------------------------------------------


def analysed(case: Case) -> str:
    """Analyse a case as it is; returns "" or what went wrong: "refused", or the crash."""
    try:
        slim.analyze(case.model)
    except InputError:
        return "refused"
    except Exception as error:
        return f"{case.name}: {type(error).__name__}: {str(error).splitlines()[0][:90]}"
    return ""


def measure(wanted: Sequence[str] = ()) -> tuple[dict[str, Row], Row]:
    """Analyse and probe; returns a row per operator, and one for the bodies of functions."""
    rows, bodies = defaultdict[str, Row](Row), Row()
    for case in node_cases():
        single = len(case.model.graph.node) == 1
        if wanted and not (single and case.operators <= set(wanted)):
            continue
        (operator,) = case.operators if single else ("",)
        row = rows[operator] if single else bodies
        outcome = analysed(case)
        row.tests += 1
        row.refused += outcome == "refused"
        row.crashes += [outcome] * (outcome not in ("", "refused"))
        row.cases.append(case)
    for operator in wanted or declared():
        if operator not in UNPROMISED:
            rows[operator].cases += net_cases(operator)
    for operator in (name for name in rows if is_declared(name)):
        try_out(rows[operator])
    return rows, bodies


def try_out(row: Row) -> None:
    """Probe the cases of a row."""
    for case in row.cases:
        for mode in MODES:
            try:
                found = probe(case, mode)
            except Exception as error:
                found = Finding(breaches=[f"{case.name} ({mode}): {type(error).__name__}: {error}".splitlines()[0]])
            row.finding.removals += found.removals
            row.finding.breaches += found.breaches
            row.finding.apart += found.apart
            row.finding.pinned += found.pinned
            row.finding.skipped = row.finding.skipped or found.skipped


# --- the document -----------------------------------------------------------------------------------------------------


def verdict(operator: str, row: Row) -> str:
    """Say what the probe found."""
    found = row.finding
    if found.breaches:
        return f"**broken**: {found.breaches[0]}"
    if found.removals:
        return f"holds ({found.removals} cuts)"
    name = operator.rpartition(".")[2]
    return UNPROMISED.get(operator) or UNRUNNABLE.get(operator) or f"nothing to cut in {len(row.cases)} cases of {name}"


def why_opaque(operator: str) -> str:
    """Say why an operator has no rule."""
    domain, _, name = operator.rpartition(".")
    return REASONS.get(name) or (CLASSIC if domain == "ai.onnx.ml" else LATER)


def section(rows: Mapping[str, Row], bodies: Row) -> str:
    """Return the section in Markdown."""
    every = [*rows.values(), bodies]
    tests, refused = sum(row.tests for row in every), sum(row.refused for row in every)
    crashes = [text for row in every for text in row.crashes]
    loaded, version = tests - refused - len(crashes), onnx.__version__
    known = [name for name in declared() if name in rows]
    broken = sum(len(row.finding.breaches) for row in every)
    cuts = sum(row.finding.removals for row in every)
    lines = [
        "## Operators",
        "",
        f"{len(known)} operators have a rule. All {tests} node tests of onnx {version} are analysed as shipped: "
        f"{loaded} load, {refused} are refused in one sentence (no shapes without data, types "
        f"that onnxruntime {ort.__version__} lacks), {len(crashes)} crash. `scripts/coverage_operators.py` wrote this.",
        "",
        "*Probe*: of every operator with a rule, all axes of all inputs are labelled, and what a rule lets go is cut: "
        "other values at cut positions may move no output position that stays, not by a bit; and the operator on cut "
        f"inputs must give the cut of the masked output. {cuts} cuts, {broken} broken. *Conservative*: axes, over "
        "all cases, that the operator keeps apart and the rule pins (as a kernel of size 1 keeps space apart).",
        "",
        f"{bodies.tests} of the tests are function bodies of several nodes, analysed but not probed.",
        "",
        "| operator | node tests | refused | crashes | probe | conservative |",
        "|---|---|---|---|---|---|",
    ]
    for name in known:
        row = rows[name]
        apart = f"{row.finding.pinned} of {row.finding.apart}" if row.finding.pinned else "0"
        counts = f"{row.tests} | {row.refused} | {len(row.crashes)}"
        lines.append(f"| {name} | {counts} | {verdict(name, row)} | {apart} |")
    lines += ["", "Operators without a rule pin what they touch and are reported by name:", ""]
    lines += ["| operator | node tests | refused | crashes | why |", "|---|---|---|---|---|"]
    lines += list(without_rule(rows))
    lines += ["", "Crashes:", "", *(f"- {text}" for text in crashes)] if crashes else []
    return "\n".join(lines)


def without_rule(rows: Mapping[str, Row]) -> Iterator[str]:
    """Yield the table of operators without a rule, those of one reason in one line."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in unknown():
        names[why_opaque(name)].append(name)
    for why, members in sorted(names.items(), key=lambda item: (item[0] == LATER, item[0])):
        total = Counter[str]()
        for row in (rows.get(name, Row()) for name in members):
            total.update(tests=row.tests, refused=row.refused, crashes=len(row.crashes))
        yield f"| {', '.join(members)} | {total['tests']} | {total['refused']} | {total['crashes']} | {why} |"


def write(text: str) -> None:
    """Replace the section between the markers, and nothing else, at once."""
    old = PAGE.read_text() if PAGE.exists() else "# Coverage\n"
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=PAGE.parent, delete=False) as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")
    os.chmod(file.name, 0o644)
    os.replace(file.name, PAGE)


def main(wanted: Sequence[str]) -> None:
    """Write the section, or print the findings of some operators."""
    ort.set_default_logger_severity(4)
    rows, bodies = measure(wanted)
    if not wanted:
        write(section(rows, bodies))
    for name in wanted or sorted(rows):
        found = rows[name].finding
        if wanted or found.breaches:
            print(f"{name}: {found.removals} cuts, conservative {found.pinned} of {found.apart}; {found.skipped}")
            print("".join(f"  {text}\n" for text in dict.fromkeys(found.breaches)), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
