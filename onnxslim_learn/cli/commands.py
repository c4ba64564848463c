"""The command line: what each command does, in a few calls; :mod:`onnxslim_learn.cli.shell` says how it answers."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.cli import arguments as config
from onnxslim_learn.cli import shell, values
from onnxslim_learn.errors import InputError, TargetError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.runtime.timing import Timings
    from onnxslim_learn.select.calibration import Evidence
    from onnxslim_learn.workflow.slimmed import Slimmed
    from onnxslim_learn.workflow.sparsify import Sparsified, Stored

VERIFIED = 8  # samples: verification runs both models without optimisations
SENSITIVITY = 60.0  # seconds to measure what each group's width is worth, where there are real samples


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return shell.answer(lambda: _run(config.parse(arguments)))


def _run(options: argparse.Namespace) -> int:
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    if options.version:
        from importlib.metadata import version

        print(version("onnxslim-learn"))
        return 0
    if options.command is None:
        config.parser().print_help()
        return 0
    return int(COMMANDS[options.command](options) or 0)


def analyze(options: argparse.Namespace) -> None:
    """Show what can be cut."""
    from dataclasses import asdict

    from onnxslim_learn.coupling import explain
    from onnxslim_learn.report import records
    from onnxslim_learn.report.sections import slim as pages
    from onnxslim_learn.workflow import slim as api

    shell.claim(options, options.model)
    with shell.progress() as stage:
        stage("analyzing")
        shapes, device = values.shapes(options.input), shell.device(options)
        told, sensitive = values.given(options.value), options.allow_sensitive
        found = api.analyze(options.model, inputs=shapes, values=told, allow_sensitive=sensitive, device=device)
        result = records.overview(found)
        if options.why:
            answers = [explain.why(found.coupling, found.groups, text) for text in options.why]
            result["why"] = {
                text: [asdict(step) for step in steps] for text, steps in zip(options.why, answers, strict=True)
            }
    shell.emit(result, options, pages.analysis(result))


def slim(options: argparse.Namespace) -> None:
    """Cut a model to its targets."""
    from onnxslim_learn.cli import advice
    from onnxslim_learn.report.sections import training
    from onnxslim_learn.workflow import pareto
    from onnxslim_learn.workflow import slim as api

    wishes, shapes = values.each(options.target), values.shapes(options.input)
    target = next(iter(wishes.values()))
    if bool(target) == options.lossless:
        raise InputError("slim: expected --target, such as --target macs=0.5, or --lossless. Give one of them.")
    shell.claim(options, options.model)
    output = Path(options.output)
    with shell.progress() as stage:
        stage("analyzing")
        sensitive, device = options.allow_sensitive, shell.device(options)
        told = values.given(options.value)
        found = api.analyze(options.model, inputs=shapes, values=told, allow_sensitive=sensitive, device=device)
        watch = None
        if "latency" in target and device is None:
            found, watch = shell.watch(options, found, stage)
        settings: dict[str, Any] = {
            "criterion": options.criterion,
            "multiple": options.multiple,
            "protect": options.protect,
        }
        settings["allow_empty"] = options.allow_empty
        if options.lossless:
            return _slim_lossless(options, found, output, stage)
        source = samples(options, found, stage)
        asked = {"repair": not options.no_repair, "watch": watch, "stage": stage, **settings}
        asked |= {"evidence": evidence(options, found, source), "real": real_inputs(options, source)}
        try:
            if len(wishes) > 1:
                rows = pareto.slim_each(found, wishes, output, options.plan_out, **asked)
                return shell.emit({"model": options.model, "targets": rows}, options, training.targets(rows))
            slimmed, check = api.slim_to(found, target, output, **asked)
        except TargetError as error:
            raise TargetError(f"{error}{advice.advise(found, settings, error)}") from error
        finish(options, slimmed, check, output, stage)


def _slim_lossless(options: argparse.Namespace, found: Analysis, output: Path, stage: Any) -> None:
    from onnxslim_learn.data.open import open_source
    from onnxslim_learn.workflow import slim as api

    asked = config.data_options(options)
    source = open_source(options.data, found.graph, asked) if options.data is not None else None
    progress = stage("looking for what changes nothing")
    slimmed = api.slim_lossless(found, protect=options.protect, allow_empty=options.allow_empty, progress=progress)
    stage("cutting and verifying")
    finish(options, slimmed, slimmed.save(output, real=real_inputs(options, source)), output, stage)


def learn(options: argparse.Namespace) -> None:
    """Learn a structure or which weights are zero, and write the trained model."""
    from onnxslim_learn.cli import learn as learning
    from onnxslim_learn.report.sections import training

    shell.claim(options, options.model, *filter(None, [options.teacher]))
    with shell.progress() as stage:
        made = learning.learn(options, stage, shell.watching(stage))
        if isinstance(made, tuple):
            end = finish_sparse if options.learner == "weight-sparse" else finish
            end(options, *made, Path(options.output), stage)
    if isinstance(made, list):
        shell.emit({"model": options.model, "strengths": made}, options, training.sweep(made))


def sparsify(options: argparse.Namespace) -> None:
    """Zero weights in one go."""
    from onnxslim_learn.select.calibration import Evidence
    from onnxslim_learn.workflow import slim as api
    from onnxslim_learn.workflow import sparsify as work

    shell.claim(options, options.model)
    chosen = (options.ratio, options.pattern, options.method, options.protocol)
    asked = work.Asked(*chosen, tuple(options.protect), options.search_seconds)
    asked.target()
    with shell.progress() as stage:
        stage("analyzing")
        found = api.analyze(options.model, inputs=values.shapes(options.input), values=values.given(options.value))
        source = samples(options, found, stage)
        assert source is not None
        made = work.sparsify(found, asked, Evidence(found.coupling, source), stage=stage)
        stage("verifying")
        stored = made.save(options.output, sparse=options.sparse_initializers, lossless=options.lossless)
        finish_sparse(options, made, stored, Path(options.output), stage)


def finish_sparse(options: argparse.Namespace, made: Sparsified, stored: Stored, output: Path, stage: Any) -> None:
    """Time both models, and report what zeros buy."""
    from onnxslim_learn.report.sections import sparsity

    timings, feeds = None, dict[str, Any]()
    if not options.no_latency:
        timings, feeds = _timed(options, made.analysis, output, stage)
    result = sparsity.outcome(made, output, stored, timings, feeds)
    shell.emit(result, options, sparsity.blocks(result))


def expand(options: argparse.Namespace) -> None:
    """Widen a model."""
    from onnxslim_learn.latency.profile import Setting
    from onnxslim_learn.report import records
    from onnxslim_learn.report.sections import training
    from onnxslim_learn.workflow import expand as expanding
    from onnxslim_learn.workflow import latency_target
    from onnxslim_learn.workflow import slim as api

    shell.claim(options, options.model, *filter(None, [options.like]))
    target, shapes = values.targets(options.target), values.shapes(options.input)
    with shell.progress() as stage:
        stage("analyzing")
        device = shell.device(options)
        measured = "latency" in target and device is None
        if measured:
            stage("measuring this machine")
            device = latency_target.this_machine(options.threads, options.provider)
        told = values.given(options.value)
        found = api.analyze(options.model, inputs=shapes, values=told, device=device)
        like = api.analyze(options.like, inputs=shapes, values=told, device=device) if options.like else None
        setting = Setting(options.threads, options.provider)
        watch = latency_target.stopwatch(found, setting, seconds=options.seconds) if measured else None
        stage("widening and verifying")
        how = (options.multiple, options.protect, options.fresh, options.seed)
        asked = expanding.Widening(target, like, *how, watch)
        made = expanding.expand(found, asked, Path(options.output))
    result = records.widened(options.model, options.output, made)
    shell.emit(result, options, training.widened(result))


def apply(options: argparse.Namespace) -> None:
    """Carry out a plan."""
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.workflow import slim as api

    shell.claim(options, options.model, options.plan)
    chosen, output = Plan.load(options.plan), Path(options.output)
    with shell.progress() as stage:
        stage("analyzing")
        found = _analyzed_for(options, options.model, chosen)
        stage("cutting and verifying")
        slimmed = api.slim(found, chosen)
        source = samples(options, found, stage)
        known = None if options.no_repair else evidence(options, found, source)
        if known is not None:
            slimmed.repair(known, progress=stage("repairing"))
        finish(options, slimmed, slimmed.save(output, real=real_inputs(options, source)), output, stage)


def _analyzed_for(options: argparse.Namespace, model: str, chosen: Plan) -> Analysis:
    from onnxslim_learn.workflow import slim as api

    sensitive = bool(chosen.provenance.get("allow_sensitive", False))
    shapes, told = values.shapes(options.input), values.given(options.value)
    return api.analyze(model, inputs=shapes, values=told, allow_sensitive=sensitive)


def samples(options: argparse.Namespace, found: Analysis, stage: Any) -> Source | None:
    """Where samples come from: what ``--data`` names, else made up to repair on, or in the range that was given."""
    from dataclasses import replace

    from onnxslim_learn.data.class_balance import confident
    from onnxslim_learn.data.open import open_source
    from onnxslim_learn.data.synthetic import synthetic
    from onnxslim_learn.workflow.samples import affordable, matched

    asked = config.data_options(options)
    if options.data is not None:
        return open_source(options.data, found.graph, asked)
    if not vars(options).get("no_repair", True):  # as many as take little time
        asked = replace(asked, samples=options.samples or affordable(found.coupling))
        if options.match_statistics:
            return matched(found.coupling, asked, stage("matching statistics"))
        return confident(found.coupling, asked, stage("making samples up"))
    return synthetic(found.coupling, asked) if asked.input_range else None


def evidence(options: argparse.Namespace, found: Analysis, source: Source | None) -> Evidence | None:
    """Samples to choose and repair by; what a width is worth is measured on real ones, or for as long as asked."""
    from onnxslim_learn.select.calibration import Evidence

    if source is None or (options.no_repair and options.data is None):
        return None
    seconds = vars(options).get("sensitivity_seconds")
    if seconds is None:
        seconds = 0.0 if options.data is None else SENSITIVITY
    return Evidence(found.coupling, source, seconds=seconds)


def real_inputs(options: argparse.Namespace, source: Source | None) -> list[dict[str, Any]]:
    """Samples to verify on, beside random inputs: those of which the user said something."""
    if source is None or (options.data is None and not options.input_range):
        return []
    return [batch.inputs for batch in source.batches(VERIFIED)]


def finish(options: argparse.Namespace, slimmed: Slimmed, check: Any, output: Path, stage: Any) -> None:
    """Time both models, write the plan, and report."""
    from onnxslim_learn.report import records
    from onnxslim_learn.report.sections import slim as pages
    from onnxslim_learn.rewrite import save

    if not slimmed.plan.groups and "training" not in slimmed.plan.provenance:
        why = "had to be cut" if slimmed.folded is None else "can go without a change"
        print(f"onnxslim-learn: nothing {why}; the result is a copy.", file=sys.stderr)
    if getattr(options, "plan_out", None):
        save.write_text(Path(options.plan_out), slimmed.plan.to_json())
    timings, feeds = None, dict[str, Any]()
    if not options.no_latency:
        timings, feeds = _timed(options, slimmed.analysis, output, stage)
    result = records.outcome(slimmed, output, check, timings, feeds)
    shell.emit(result, options, pages.outcome(result))


def _timed(options: argparse.Namespace, found: Analysis, output: Path, stage: Any) -> tuple[Timings, dict[str, Any]]:
    """Time the original against what was written, and the inputs that were used."""
    from onnxslim_learn.data import random_inputs
    from onnxslim_learn.runtime import timing as measure

    assert found.graph.source is not None
    feeds = random_inputs.random_inputs(found.coupling, found.graph.shapes.nominal)
    try:
        timings = measure.measure(
            [found.graph.source, output],
            [feeds, feeds],
            threads=options.threads,
            provider=options.provider,
            seconds=options.seconds,
            progress=stage("timing"),
        )
    except BaseException as error:
        error.add_note(f"{output} is written and verified; only its latency is missing.")
        raise
    return timings, feeds


def verify(options: argparse.Namespace) -> int:
    """Check a slimmed model."""
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.report.sections import slim as pages
    from onnxslim_learn.workflow import slim as api

    shell.claim(options, options.original, options.slimmed, options.plan)
    chosen = Plan.load(options.plan)
    with shell.progress() as stage:
        stage("verifying")
        original = _analyzed_for(options, options.original, chosen)
        real = real_inputs(options, samples(options, original, stage))
        found = api.verify(original, options.slimmed, chosen, real)
    repaired = (chosen.provenance.get("repair") or {}).get("weights", [])
    result = {"original": options.original, "slimmed": options.slimmed, "verify": found.to_dict(), "repaired": repaired}
    result["lossless"] = "lossless" in chosen.provenance
    shell.emit(result, options, pages.verified(result))
    return 0 if found.passed else 1


def profile(options: argparse.Namespace) -> int:
    """Time models."""
    from onnxslim_learn.latency import profile as profiling
    from onnxslim_learn.report.sections import profile as timing
    from onnxslim_learn.runtime import session

    shell.claim(options, *options.models)
    if options.compare and len(options.models) < 2:
        raise InputError("--compare: compares models with the first one, but there is only one. Give two.")
    for provider in options.providers:
        session.check_provider(provider)
    asked = profiling.settings(options.threads, options.providers, options.batch, bind=options.io_binding)
    with shell.progress() as stage:
        result = profiling.profile(
            [Path(model) for model in options.models],
            asked,
            values.shapes(options.input),
            values=values.given(options.value),
            seconds=options.seconds,
            per_node=options.per_node,
            stage=stage,
        )
    shell.emit(result, options, timing.profile(result))
    every = [one["faster"] for setting in result["settings"] for one in setting["comparisons"]]
    return int(options.compare and not all(every))


def calibrate(options: argparse.Namespace) -> None:
    """Measure this machine."""
    from dataclasses import asdict

    from onnxslim_learn.latency import calibrate as measuring
    from onnxslim_learn.report.sections import latency
    from onnxslim_learn.rewrite import save

    shell.claim(options)
    with shell.progress() as stage:
        stage("measuring this machine")
        found = measuring.calibrate(
            options.name, threads=options.threads, provider=options.provider, seconds=options.seconds
        )
    if options.output:
        save.write_text(Path(options.output), found.to_toml())
    shell.emit(asdict(found), options, latency.device(asdict(found), options.output))


def demo(options: argparse.Namespace) -> None:
    """Tell the whole story on the net that ships with the package."""
    from onnxslim_learn.demo import story

    shell.claim(options)
    with shell.progress() as stage:
        result = story.tell(Path(options.output) if options.output else None, stage)
    shell.emit(result, options, story.blocks(result))


COMMANDS: dict[str, Callable[[Any], int | None]] = {
    "analyze": analyze,
    "slim": slim,
    "learn": learn,
    "expand": expand,
    "sparsify": sparsify,
    "apply": apply,
    "verify": verify,
    "profile": profile,
    "calibrate": calibrate,
    "demo": demo,
}

if __name__ == "__main__":
    raise SystemExit(main())
