"""The commands that train: from their options to what :mod:`onnxslim_learn.train` takes."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from onnxslim_learn.array_types import Stage
from onnxslim_learn.cli import arguments, shell, sparse_arguments, values
from onnxslim_learn.errors import InputError
from onnxslim_learn.workflow import slim

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.learners.morphnet.settings import Widths
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.train.distributed import World
    from onnxslim_learn.train.trainer import Job, School, Training, Watch
    from onnxslim_learn.workflow.slimmed import Slimmed
    from onnxslim_learn.workflow.sparsify import Sparsified, Stored

Made: TypeAlias = "tuple[Slimmed, Verification]"
EXTRA = {"torch": "train", "safetensors": "train"}
AGENT = {"gymnasium": "rl", "stable_baselines3": "rl"}
ALL = 1_000_000_000  # samples
# fmt: off
# Options that do not decide about what is learnt, or are told by what they name.
APART = frozenset([
    "checkpoint_dir", "checkpoint_every", "colour", "command", "config", "data", "html", "json", "measure_seconds",
    "model", "no_latency", "output", "plan_out", "provider", "resume", "seconds", "teacher", "threads", "train_on",
    "val_data", "version", "ws_save_path",
])
# What only some learners take.
WIDTHS = (
    "target", "strength", "sweep", "cycles", "cost", "regularizer", "combine", "threshold", "l1_fraction", "tau",
    "proximal", "least_width", "no_calibration", "count_depthwise_twice", "force_group", "protect", "multiple",
    "allow_empty", "no_repair", "allow_sensitive",
)
# fmt: on
SPARSE = (*sparse_arguments.NAMES, "one_shot", "pattern", "lossless", "sparse_initializers")


def check_extra(command: str, modules: Mapping[str, str] = EXTRA) -> None:
    """Refuse to go on without what an extra brings.

    Args:
        command: What needs it.
        modules: Module -> extra.

    Raises:
        InputError: If it is not installed.
    """
    for module, extra in modules.items():
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{command}: needs {module}. Install onnxslim-learn[{extra}].")


def learn(options: argparse.Namespace, stage: Stage, watch: Watch) -> tuple[Any, Any] | list[dict[str, Any]] | None:
    """Carry out ``learn``; returns what was made and how it was checked, or ``None`` in a process that does not lead.

    With ``--sweep`` it returns a row for every strength.

    Raises:
        SlimError: In one sentence; nothing is written then.
    """
    check_extra("learn")
    from onnxslim_learn.train import distributed

    world = distributed.join(options.train_on)
    try:
        with _folder(options, world) as folder:
            stage("analyzing")
            found = _analyzed(options, world, stage)
            made: Any = LEARNERS[options.learner](options, found, folder, world, (stage, watch))
            return made if world.leads else None
    finally:
        distributed.leave()


def _analyzed(options: argparse.Namespace, world: World, stage: Stage) -> Analysis:
    """The model; where latency counts, with what widths are worth on the device that was given, or on this machine."""
    shapes, sensitive = values.shapes(options.input), options.allow_sensitive
    given = shell.device(options)
    told = values.given(options.value)
    found = slim.analyze(options.model, inputs=shapes, values=told, allow_sensitive=sensitive, device=given)
    counts = options.cost == "latency" or any(text.startswith("latency=") for text in options.target)
    if not counts or given is not None:
        return found
    if options.cycles > 1:
        raise InputError("--cycles: with --target latency, the machine must be given. Use --device, see calibrate.")
    if world.size > 1:
        raise InputError("--target latency: several processes would measure differently. Give --device, see calibrate.")
    return shell.watch(options, found, stage)[0]


@contextmanager
def _folder(options: argparse.Namespace, world: World) -> Iterator[Path]:
    """Where checkpoints go: what was asked for, or a place that does not stay."""
    asked = options.checkpoint_dir or vars(options).get("ws_save_path")
    if asked:
        folder = Path(asked)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--checkpoint-dir {folder}: is no folder. Give another name.")
        yield folder
        return
    if options.resume:
        raise InputError("--resume: goes on from a folder. Give it with --checkpoint-dir.")
    if world.size > 1:
        raise InputError("--checkpoint-dir: is needed where several processes train. Give a folder that all see.")
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def morphnet(
    options: argparse.Namespace, found: Analysis, folder: Path, world: World, talk: tuple[Stage, Watch]
) -> Made | list[dict[str, Any]] | None:
    """Learn widths: for one target or strength, for several strengths, or in turns with widening."""
    from onnxslim_learn.learners.morphnet import shrink_expand, strength_sweep

    _refuse(options, "for weight-sparse", SPARSE)
    if options.sweep and options.plan_out:
        raise InputError("--plan-out: names one plan, but --sweep makes several. Leave one of them out.")
    job = _job(options, found, folder, world, talk)
    if options.sweep:
        return strength_sweep.sweep(job, strength_sweep.strengths(options.sweep, options.strength or 1.0))
    return shrink_expand.shrink(job, options.cycles)


def finetune(
    options: argparse.Namespace, found: Analysis, folder: Path, world: World, talk: tuple[Stage, Watch]
) -> Made | None:
    """Train the weights alone."""
    from onnxslim_learn.learners import finetune

    _refuse(options, "for structure learning", (*WIDTHS, "steps", "epochs"))
    _refuse(options, "for weight-sparse", SPARSE)
    return finetune.finetune(_job(options, found, folder, world, talk))


def _job(
    options: argparse.Namespace, found: Analysis, folder: Path, world: World, talk: tuple[Stage, Watch]
) -> Job[Widths]:
    """What to learn of a file's widths, and how."""
    from onnxslim_learn.train.trainer import Job

    wanted, (source, taught) = widths(options), _school(options, found, world, talk, training(options, folder))
    return Job(found, source, wanted, taught, Path(options.output), talk[0])


def _school(
    options: argparse.Namespace, found: Analysis, world: World, talk: tuple[Stage, Watch], how: Training
) -> tuple[Source, School]:
    """Samples, and what is needed to train on them."""
    from onnxslim_learn.train.run_manifest import begin, fingerprint
    from onnxslim_learn.train.trainer import school

    source, val = samples(options, found, options.data), samples(options, found, options.val_data, val=True)
    assert source is not None
    how = epochs(options, how, source)
    teacher = tutor(options, found)
    taught = school(found, source, how, world, val=val, teacher=teacher, stage=talk[0], watch=talk[1])
    made = {f"--{name.replace('_', '-')}": value for name, value in vars(options).items() if name not in APART}
    made |= {"a model": found.graph.digest, "a teacher": teacher and teacher.graph.digest}
    made |= {"data of": fingerprint(taught.samples)}
    world.led(lambda: begin(how.folder, made, resume=how.resume))
    return source, taught


def tutor(options: argparse.Namespace, found: Analysis) -> Analysis | None:
    """The model whose outputs are wanted, where it is another one."""
    from onnxslim_learn.train import losses

    if options.teacher is None:
        return None
    if losses.compares_features(options.loss):
        raise InputError("--teacher: what is inside another model is not compared. Use --loss distill.")
    other = slim.analyze(options.teacher, inputs=values.shapes(options.input), values=values.given(options.value))
    for side in ("inputs", "outputs"):
        ours, theirs = ([str(value.name) for value in getattr(x.graph.model.graph, side)] for x in (found, other))
        if sorted(ours) != sorted(theirs):
            raise InputError(
                f"--teacher {options.teacher}: its {side} are {', '.join(theirs)}, and the model's {', '.join(ours)}. "
                "Give a model of which this one was made."
            )
    for name in (str(value.name) for value in found.graph.model.graph.outputs):
        own, its = (x.graph.shapes.nominal.shape.get(name, ())[1:] for x in (found, other))
        if own != its:
            raise InputError(
                f"--teacher {options.teacher}: a sample's output {name} has shape {[*its]}, and the model's "
                f"{[*own]}. Give a model of which this one was made."
            )
    return other


def widths(options: argparse.Namespace) -> Widths:
    """What structure to learn."""
    from onnxslim_learn.learners.morphnet.settings import Widths
    from onnxslim_learn.select.budget import Freedom
    from onnxslim_learn.train import losses

    target = values.targets(options.target)
    asked = [flag for flag, given in (("--strength", options.strength), ("--sweep", options.sweep)) if given]
    if asked and target:
        raise InputError(f"{asked[0]}: and --target are two ways to say how far to go. Leave one of them out.")
    if options.cycles > 1 and not target:
        raise InputError("--cycles: widens to the original's cost in between. Say how far to shrink with --target.")
    if options.cycles > 1 and losses.compares_features(options.loss):
        raise InputError("--cycles: what is widened has no features in common with the original. Use --loss distill.")
    return Widths(
        target,
        options.cost,
        options.regularizer,
        options.combine,
        l1=options.l1_fraction,
        threshold=options.threshold,
        tau=options.tau,
        strength=options.strength,
        proximal=options.proximal,
        calibrated=not options.no_calibration,
        double=options.count_depthwise_twice,
        least=options.least_width,
        force_group=options.force_group,
        protect=options.protect,
        freedom=Freedom(options.multiple, empty=options.allow_empty),
        from_scratch=options.from_scratch,
        repair=not options.no_repair,
    )


def weight_sparse(
    options: argparse.Namespace, found: Analysis, folder: Path, world: World, talk: tuple[Stage, Watch]
) -> tuple[Sparsified, Stored] | None:
    """Learn which weights are zero."""
    from onnxslim_learn.learners.weight_sparse import pipeline as sparse
    from onnxslim_learn.learners.weight_sparse.learner import settings
    from onnxslim_learn.sparse import patterns
    from onnxslim_learn.train.trainer import Job

    _refuse(options, "for structure learning", (*(name for name in WIDTHS if name != "protect"), "plan_out"))
    _refuse(options, "for training after structure learning", ("finetune_steps", "finetune_epochs", "finetune_rate"))
    asked = settings({name: value for name, value in vars(options).items() if name in sparse_arguments.NAMES})
    fixed = patterns.parse(options.pattern).ratio
    if fixed is not None and options.ws_prune_ratio not in (None, fixed):
        raise InputError(f"--ws-prune-ratio: the pattern {options.pattern} zeroes {fixed:g}. Leave it out.")
    if fixed is not None and options.ws_prune_ratio_prtl not in (None, "uniform"):
        raise InputError(f"--ws-prune-ratio-prtl: the pattern {options.pattern} fixes all shares. Leave it out.")
    if asked.ws_prune_ratio_prtl == "optimal":
        check_extra("--ws-prune-ratio-prtl optimal", AGENT)
    if asked.enbl_dst and options.loss != "distill":
        raise InputError("--enbl-dst: and --loss are two ways to say what is minimised. Leave one of them out.")
    how = replace(training(options, folder), **({} if not asked.enbl_dst else asked.taught))
    source, taught = _school(options, found, world, talk, how)
    wanted = sparse.Wanted(asked, options.pattern, tuple(options.protect), options.from_scratch, options.one_shot)
    job = Job(found, source, wanted, taught, Path(options.output), talk[0])
    return sparse.sparsen(job, sparse=options.sparse_initializers, lossless=options.lossless)


def _refuse(options: argparse.Namespace, why: str, names: Sequence[str]) -> None:
    """Refuse options that the learner would not look at.

    Raises:
        InputError: If one of them is not at its default.
    """
    usual = vars(arguments.parser().parse_args(["learn", options.model, "-o", options.output]))
    for name in names:
        if getattr(options, name) != usual[name]:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag}: is {why}, not for --learner {options.learner}. Leave it out.")


LEARNERS: dict[str, Callable[..., tuple[Any, Any] | list[dict[str, Any]] | None]] = {
    "morphnet": morphnet,
    "weight-sparse": weight_sparse,
    "finetune": finetune,
}


def samples(options: argparse.Namespace, found: Analysis, spec: str | None, *, val: bool = False) -> Source | None:
    """Samples to train on: all of them, or made-up ones."""
    from onnxslim_learn.data.open import open_source
    from onnxslim_learn.data.synthetic import synthetic

    if spec is None and val:
        return None
    asked = arguments.data_options(options)
    if spec is not None:
        return open_source(spec, found.graph, replace(asked, samples=options.samples or ALL))
    return synthetic(found.coupling, asked)


def epochs(options: argparse.Namespace, how: Training, source: Source) -> Training:
    """The same training, as long as so many times all samples take."""
    epoch = max((source.count or 0) * 9 // 10 // how.batch_size, 1)
    asked = {"steps": options.epochs, "finetune_steps": options.finetune_epochs}
    given = {name: max(round(times * epoch), 1) for name, times in asked.items() if times is not None}
    return replace(how, **given)


def training(options: argparse.Namespace, folder: Path) -> Training:
    """How to train."""
    from onnxslim_learn.train.trainer import Training

    return Training(
        options.steps,
        options.finetune_steps,
        options.batch_size or 64,
        options.learning_rate,
        options.finetune_rate,
        options.optimizer,
        options.norms,
        options.loss,
        options.features,
        options.temperature,
        options.accumulate,
        options.bf16,
        options.clip,
        options.seed or 0,
        folder,
        options.checkpoint_every,
        options.resume,
    )
