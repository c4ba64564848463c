"""From what is asked of a learner to the model it makes: samples, teacher, and a place for checkpoints."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn import settings as declared
from onnxslim_learn.analysis import analyze
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import LATENCY, OPTIMIZERS
from onnxslim_learn.train import distributed
from onnxslim_learn.train.run_manifest import begin, fingerprint
from onnxslim_learn.train.trainer import Task, Training, trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Stage
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.learners.settings import LearnSettings
    from onnxslim_learn.registry import LearnerRow
    from onnxslim_learn.runtime.settings import RuntimeSettings
    from onnxslim_learn.train.distributed import World
    from onnxslim_learn.train.trainer import Tell, Trainer

ALL = 1_000_000_000  # samples


def run(
    row: LearnerRow,
    analysis: Callable[[World], Analysis],
    asked: tuple[LearnSettings, Any],
    output: Path,
    stage: Stage,
    *,
    tell: Tell | None = None,
) -> Any:
    """Carry out a learner in the processes that take part.

    Args:
        row: The learner.
        analysis: Analyses the model.
        asked: What is asked of every learner, and of this one.
        output: Where the model is written.
        stage: Called with the name of each stage.
        tell: See :class:`onnxslim_learn.train.trainer.Task`.

    Returns:
        What the learner made; ``None`` in a process that does not lead.
    """
    act, (shared, wanted) = row.load(), asked
    with distributed.joined(shared.training.train_on) as world, _folder(shared, wanted, world) as folder:
        model = analysis(world)
        source, taught = _school(model, asked, folder, world, stage)
        outcome = act(Task(model, source, wanted, taught, output, stage, row.name, _runtime(asked, world), tell))
        return outcome if world.leads else None


def _runtime(asked: tuple[LearnSettings, Any], world: World) -> RuntimeSettings | None:
    """How what was learnt is timed; not where that is left out, asked for anyway, or would differ among processes."""
    shared, wanted = asked
    given = declared.given(wanted)
    on_time = LATENCY in {given.get("cost"), *(given.get("target") or ())}
    return None if shared.result.no_latency or on_time or world.size > 1 else shared.runtime


@contextmanager
def _folder(shared: LearnSettings, wanted: Any, world: World) -> Iterator[Path]:
    """Where checkpoints go: what was asked for, or a place that does not stay."""
    asked = shared.training.checkpoint_dir or declared.given(wanted).get("ws_save_path")
    if asked:
        folder = Path(asked)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"⟨checkpoint_dir⟩ {folder}: is no folder. Give another name.")
        try:
            yield folder
        except KeyboardInterrupt as error:
            error.add_note(f"Given again with --resume, the command goes on from the last checkpoint in {folder}.")
            raise
        return
    if shared.training.resume:
        raise InputError("⟨resume⟩: goes on from a folder. Give it with ⟨checkpoint_dir⟩.")
    if world.size > 1:
        raise InputError("⟨checkpoint_dir⟩: is needed where several processes train. Give a folder that all see.")
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def _school(
    analysis: Analysis, asked: tuple[LearnSettings, Any], folder: Path, world: World, stage: Stage
) -> tuple[Source, Trainer]:
    """Samples, and what is needed to train on them."""
    shared, wanted = asked
    source = _samples(analysis, shared, shared.samples.data)
    val = None if shared.training.val_data is None else _samples(analysis, shared, shared.training.val_data)
    how = _training(shared, wanted, folder, source)
    teacher = _teacher(analysis, shared)
    taught = trainer(analysis, source, how, world, val=val, teacher=teacher, stage=stage)
    facts = {**_deciding(shared), **_deciding(wanted)}
    facts |= {"a model": analysis.graph.digest, "a teacher": teacher and teacher.graph.digest}
    facts |= {"data of": fingerprint(taught.samples)}
    world.led(lambda: begin(how.folder, facts, resume=how.resume))
    return source, taught


def _deciding(settings: Any) -> dict[str, Any]:
    """The options that decide about what is learnt, as errors name them."""
    known, values = declared.options(type(settings)), declared.given(settings)
    return {f"⟨{name}⟩": values[name] for name, one in known.items() if one.option.decides}


def _samples(analysis: Analysis, shared: LearnSettings, data: Any) -> Source:
    """Samples to train on: all of them, or made-up ones."""
    reading = shared.samples.reading
    reading.check(data)
    if data is None:
        return synthetic(analysis.coupling, reading)
    return open_source(data, analysis.graph, replace(reading, samples=reading.samples or ALL))


def _training(shared: LearnSettings, wanted: Any, folder: Path, source: Source) -> Training:
    """How to train; as many steps as epochs take, where those were asked for."""
    asked, options_given, reading = shared.training, declared.given(wanted), shared.samples.reading
    training = Training(
        options_given.get("steps"),
        options_given.get("finetune_steps"),
        reading.batch_size,
        asked.learning_rate,
        options_given.get("finetune_rate"),
        asked.optimizer and OPTIMIZERS.told(asked.optimizer),
        asked.norms,  # type: ignore[arg-type]
        asked.loss,
        asked.features,
        asked.temperature,
        asked.accumulate,
        asked.precision,
        asked.clip,
        reading.seed,
        folder,
        asked.checkpoint_every,
        asked.resume,
        (asked.augment,) if isinstance(asked.augment, str) or callable(asked.augment) else tuple(asked.augment),
        asked.average,
        asked.channels_last,
        asked.metric,
        asked.compile,
        asked.stream,
        asked.data_workers,
    )
    epoch = max((source.count or 0) * 9 // 10 // training.batch_size, 1)
    times = {"steps": options_given.get("epochs"), "finetune_steps": options_given.get("finetune_epochs")}
    steps = {name: max(round(number * epoch), 1) for name, number in times.items() if number is not None}
    return replace(training, **steps, **getattr(wanted, "training", {}))


def _teacher(analysis: Analysis, shared: LearnSettings) -> Analysis | None:
    """The model whose outputs are wanted, where it is another one.

    Raises:
        InputError: If it does not take or give the same.
    """
    given = shared.training.teacher
    if given is None:
        return None
    other = (
        given if hasattr(given, "coupling") else analyze(given, inputs=shared.inputs.input, values=shared.inputs.value)
    )
    for side in ("inputs", "outputs"):
        ours, theirs = ([str(value.name) for value in getattr(x.graph.model.graph, side)] for x in (analysis, other))
        if sorted(ours) != sorted(theirs):
            raise InputError(
                f"⟨teacher⟩ {given}: its {side} are {', '.join(theirs)}, and the model's {', '.join(ours)}. "
                "Give a model of which this one was made."
            )
    for name in (str(value.name) for value in analysis.graph.model.graph.outputs):
        sizes, its = (x.graph.shapes.nominal.shape.get(name, ())[1:] for x in (analysis, other))
        if sizes != its:
            raise InputError(
                f"⟨teacher⟩ {given}: a sample's output {name} has shape {[*its]}, and the model's "
                f"{[*sizes]}. Give a model of which this one was made."
            )
    return other
