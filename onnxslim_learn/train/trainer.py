"""What every learner needs beside itself: samples, a teacher, a loss, recipes, and a judge of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
import torch

from onnxslim_learn import detection_lists
from onnxslim_learn.array_types import Array, Done, Stage
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.errors import InputError
from onnxslim_learn.metrics import accuracy, deviation
from onnxslim_learn.quality.detections import detections
from onnxslim_learn.quality.metric import metric
from onnxslim_learn.registry import FP32, OPTIMIZERS
from onnxslim_learn.train import feature_distillation as features
from onnxslim_learn.train import losses
from onnxslim_learn.train import optimizer as recipes
from onnxslim_learn.train import samples as pool
from onnxslim_learn.train.augmentation import augmentation
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.loop import Keeping, Learner, LoopTask, train
from onnxslim_learn.train.optimizer import Recipe
from onnxslim_learn.train.samples import Portion
from onnxslim_learn.train.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.graph.load import Graph
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.runtime.settings import RuntimeSettings
    from onnxslim_learn.train.losses import Objective
    from onnxslim_learn.train.samples import SampleStore
    from onnxslim_learn.workflow.slimmed import Slimmed

JUDGED = 8  # batches
LOOKED = 2  # batches, while a net is trained
LOOK = "held", "right", "metric"  # loss on them, share of which the class is right, and what was asked for
WORSE = 1.1  # times the loss there was on held-back samples: less can be chance, as they are few
ENOUGH = 8  # samples; fewer say nothing
SETTLING = 40  # batches until running statistics have forgotten other weights
EPOCHS = {"steps": 2, "finetune_steps": 4}
FEWEST, MOST = 200, 20_000  # steps, where nobody says


@dataclass(frozen=True)
class Training:
    """How to train, as asked for.

    Attributes:
        steps: Of learning; ``None`` for two epochs.
        finetune_steps: Of training what was learnt; ``None`` for four epochs, 0 for none.
        batch_size: Samples a step.
        rate: The highest learning rate, or ``None`` for what suits the model.
        finetune_rate: The same for what was learnt; ``None`` for the same.
        optimizer: See :data:`onnxslim_learn.registry.OPTIMIZERS`; ``None`` for what suits the model.
        norms: Whether batch normalisation uses the statistics of batches; ``auto`` where weights are drawn anew.
        loss: See :func:`onnxslim_learn.train.losses.objective`.
        features: Regular expressions of the tensors that the loss ``features`` compares; by default see
            :func:`onnxslim_learn.train.feature_distillation.find`.
        temperature: Of distillation.
        accumulate: See :class:`onnxslim_learn.train.optimizer.Recipe`.
        precision: Likewise.
        clip: Likewise.
        seed: Likewise.
        folder: Where checkpoints go, and what is on its way.
        every: Steps between two checkpoints.
        resume: Whether to go on from the folder's.
        augment: See :func:`onnxslim_learn.train.augmentation.augmentation`.
        average: See :class:`onnxslim_learn.train.optimizer.Recipe`; of fine-tuning.
        channels_last: Likewise.
        metric: See :data:`onnxslim_learn.registry.METRICS`; ``None`` for none.
        compile: See :class:`onnxslim_learn.train.optimizer.Recipe`.
        stream: Whether samples are read whenever they are wanted, rather than once into a file.
        data_workers: Processes that read samples ahead.
    """

    steps: int | None = None
    finetune_steps: int | None = None
    batch_size: int = 64
    rate: float | None = None
    finetune_rate: float | None = None
    optimizer: str | None = None
    norms: Literal["auto", "frozen", "batch"] = "auto"
    loss: losses.Spec = "distill"
    features: Sequence[str] = ()
    temperature: float = losses.TEMPERATURE
    accumulate: int = 1
    precision: str = FP32
    clip: float = 5.0
    seed: int = 0
    folder: Path = field(default_factory=Path)
    every: int = 500
    resume: bool = False
    augment: Sequence[Any] = ()
    average: float = 0.0
    channels_last: bool = False
    metric: Any = None
    compile: bool = False
    stream: bool = False
    data_workers: int = 0


@dataclass(frozen=True)
class Trainer:
    """What every stage of training shares.

    Attributes:
        samples: To train on.
        held: To judge by.
        teacher: What outputs are compared with: the original, or another model.
        objective: What is minimised.
        training: How.
        world: Who takes part.
        stage: Called with the name of each stage; returns what is called after every step with the share done and the
            step's numbers.
        features: Tensors inside that are compared.
    """

    samples: SampleStore
    held: SampleStore
    teacher: Teacher
    objective: Objective
    training: Training
    world: World
    stage: Stage
    features: tuple[str, ...] = ()

    def recipe(self, graph: Graph, what: Literal["steps", "finetune_steps"]) -> Recipe:
        """How a stage trains: learning at one rate, what was learnt on a schedule."""
        training = self.training
        optimizer, rate = recipes.sensible(graph)
        if training.optimizer is not None and training.optimizer != optimizer:
            optimizer, rate = training.optimizer, OPTIMIZERS.row(training.optimizer).rate
        asked = training.rate if what == "steps" else training.finetune_rate or training.rate
        steps = getattr(training, what)
        if steps is None:
            steps = int(np.clip(EPOCHS[what] * self.samples.steps(training.batch_size), FEWEST, MOST))
        return Recipe(
            steps,
            training.batch_size,
            optimizer,
            asked or rate,
            "constant" if what == "steps" else "cosine",
            clip=training.clip,
            accumulate=training.accumulate,
            precision=training.precision,
            compile=training.compile,
            channels_last=training.channels_last,
            seed=training.seed,
            average=training.average if what == "finetune_steps" else 0.0,
        )

    def module(self, source: Graph | Analysis, *, fresh: bool = False) -> fx.GraphModule:
        """A net to train; ``fresh`` where its weights will be drawn anew."""
        norms = self.training.norms
        if norms == "auto":  # the teacher sees no noise of batches: without it, distillation comes far nearer
            norms = "batch" if fresh else "frozen"
        return bridge(source, norms=norms, features=self.features)

    def comparing(self, compared: Mapping[str, Mapping[int, Any]]) -> Trainer:
        """The same trainer, by which other parts of inner tensors are compared (:mod:`.features`)."""
        return replace(self, teacher=self.teacher.comparing(compared))

    def run(self, name: str, module: fx.GraphModule, recipe: Recipe, learner: Learner | None = None) -> dict[str, Any]:
        """Train a net in a stage of its own; returns what is worth reporting."""
        begun: list[Done] = []
        seen: dict[str, float] = {}

        def begin(step: int) -> None:
            begun.append(self.stage(f"{name} from step {step} of {recipe.steps}" if step else name))

        def show(step: int, numbers: Mapping[str, float]) -> None:
            seen.update({key: numbers[key] for key in LOOK if key in numbers})
            begun[-1]((step + 1) / recipe.steps, {**numbers, **seen})

        training = self.training
        kept = training.folder / name, training.every, training.resume
        keeping = Keeping(*kept, show, begin, partial(self.look, module), training.data_workers)
        augment = augmentation(training.augment, self.samples.declared)
        task = LoopTask(module, self.objective, self.samples, self.teacher, recipe, self.world, augment)
        history = train(task, learner, keeping)
        return {"recipe": asdict(recipe), "history": history}

    def improve(
        self, name: str, module: fx.GraphModule, recipe: Recipe, learner: Learner | None = None
    ) -> dict[str, Any]:
        """As :meth:`run`; but if the loss on held-back samples grew, and not just by chance, that is undone.

        Too few of them say nothing; but what does worse on the samples it was trained on does so on others, too.
        """
        held = self.held.count >= ENOUGH
        weights = {key: value.clone() for key, value in module.state_dict().items()}
        before = self.distance(module, held=held)
        told = self.run(name, module, recipe, learner)
        self.settle(module)
        after = self.distance(module, held=held)
        worse = after > WORSE * before
        if worse:
            module.load_state_dict(weights)
        kept = "before" if worse else "after"
        return {**told, "held": {"before": before, "after": after, "kept": kept, "trained_on": not held}}

    def settle(self, module: fx.GraphModule) -> None:
        """Let running statistics catch up with the weights."""
        size, seed = self.training.batch_size // self.training.accumulate, self.training.seed
        module.to(self.world.device).train()
        with torch.no_grad():
            for step in range(SETTLING if _updates(module) else 0):
                shelf, rows = self.samples.rows(step, size, seed)
                mine = np.split(rows, self.world.size)[self.world.rank] if self.world.size > 1 else rows
                inputs, _ = pool.tensors(self.samples.take(shelf, mine), self.world.device)
                module(*(inputs[name] for name in module.meta["inputs"]))

    def distance(self, module: fx.GraphModule, *, held: bool = False) -> float:
        """Mean objective of a net on all held-back samples, or on some hundred of those it is trained on."""
        student, distances, counts = Teacher(module, self.world.device), [], []
        student.compared = {name: {} for name in module.meta["features"]}
        batches = pool.portions(self.held if held else self.samples, self.training.batch_size)
        for batch in islice(batches, None if held else JUDGED):
            inputs, labels = pool.tensors(batch, self.world.device)
            with torch.no_grad():
                terms = self.objective(student(inputs), Portion(inputs, labels, self.teacher(inputs)))
            distances.append(sum(float(value) for value in terms.values()))
            counts.append(batch.count)
        student.module.requires_grad_(True)
        return float(np.average(distances, weights=counts))

    def look(self, module: fx.GraphModule) -> dict[str, float]:
        """How a net in training does on some held-back samples: its loss and, with classes, the share it gets right."""
        losses_of, outputs_of, labels_of, counts = [], [], [], []
        module.eval()
        for batch in islice(pool.portions(self.held, self.training.batch_size), LOOKED):
            inputs, labels = pool.tensors(batch, self.world.device)
            with torch.no_grad():
                outputs = module(*(inputs[name] for name in module.meta["inputs"]))
                targets = self.teacher(inputs) if self.objective.taught else {}
                terms = self.objective(outputs, Portion(inputs, labels, targets))
            losses_of.append(sum(float(value) for value in terms.values()))
            outputs_of.append({name: outputs[name].detach().float().cpu().numpy() for name in module.meta["outputs"]})
            labels_of.append(batch.labels)
            counts.append(batch.count)
        module.train()
        if not counts:
            return {}
        all_outputs = _joined(outputs_of, counts)
        told = float(np.average(losses_of, weights=counts)), accuracy(all_outputs, labels_of)
        both = (*told, self.measured(all_outputs, labels_of))
        return {name: value for name, value in zip(LOOK, both, strict=True) if value is not None}

    def measured(self, outputs: Mapping[str, Array], labels: Sequence[Array | None]) -> float | None:
        """What the metric says of outputs, if there is one."""
        return None if self.training.metric is None else metric(self.training.metric)(outputs, labels)

    def judge(self, module: fx.GraphModule) -> dict[str, Any]:
        """How far a net is from the teacher on held-back samples, and how often both find the label."""
        if not self.held.count:
            nothing = dict.fromkeys(("detections", "accuracy", "original_accuracy", "metric"))
            return {"samples": 0, "fitted": self.samples.count, "outputs": {}, **nothing}
        teacher, student = self.teacher.comparing({}), Teacher(module, self.world.device)
        wanted, outputs_of_net, labels, counts = [], [], [], list[int]()
        for batch in pool.portions(self.held, self.training.batch_size):
            inputs, _ = pool.tensors(batch, self.world.device)
            wanted.append({name: value.float().cpu().numpy() for name, value in teacher(inputs).items()})
            outputs_of_net.append({name: value.float().cpu().numpy() for name, value in student(inputs).items()})
            labels.append(batch.labels)
            counts.append(batch.count)
        student.module.requires_grad_(True)
        both = [_joined(side, counts) for side in (wanted, outputs_of_net)]
        right = [accuracy(side, labels) for side in both]
        outputs = {name: asdict(d) for name, d in deviation(both[0], both[1]).items()}
        matched = detections(both[0], both[1])
        return {
            "samples": sum(counts),
            "fitted": self.samples.count,
            "outputs": outputs,
            "detections": None if matched is None else asdict(matched),
            "accuracy": right[1],
            "original_accuracy": right[0],
            "metric": None if self.training.metric is None else self._told(both, labels),
        }

    def _told(self, both: Sequence[Mapping[str, Array]], labels: Sequence[Array | None]) -> dict[str, Any]:
        """What the metric says of the teacher and of a net."""
        asked = metric(self.training.metric)
        before, after = (asked(side, labels) for side in both)
        return {"name": asked.name, "before": before, "after": after, "higher_is_better": asked.higher}


def _joined(batches: Sequence[Mapping[str, Array]], counts: Sequence[int]) -> dict[str, Array]:
    """Outputs by name over all samples; those whose rows differ between batches, as states do, are left out."""
    every = {name: [np.atleast_1d(one[name]) for one in batches] for name in batches[0]}
    kept, _ = detection_lists.filled(every, counts)
    return {name: np.concatenate(parts) for name, parts in kept.items() if len({x.shape[1:] for x in parts}) == 1}


def _updates(module: fx.GraphModule) -> bool:
    """Whether running statistics follow the batches."""
    return any(node.op == "get_attr" and node.target == "training" for node in module.graph.nodes)


def _kinds(tutor: Teacher, samples: SampleStore) -> dict[str, losses.Taught]:
    """What the outputs are that can be trained.

    Raises:
        InputError: If there are none.
    """
    kinds = tutor.kinds(samples)
    if not kinds:
        raise InputError(
            "model: none of its outputs is of floating-point numbers, so nothing of it can be trained. Let it put out"
            " the numbers that it chooses by, such as the input of its ArgMax."
        )
    return kinds


def trainer(
    analysis: Analysis,
    source: Source,
    training: Training,
    world: World,
    *,
    val: Source | None = None,
    teacher: Analysis | None = None,
    stage: Stage,
) -> Trainer:
    """Get samples, teacher and loss ready.

    Args:
        analysis: The original.
        source: Samples to train on; a tenth is held back unless ``val`` gives others.
        training: How.
        world: Who takes part.
        val: Samples to judge by.
        teacher: What outputs are compared with, by default the original.
        stage: See :class:`Trainer`.

    Raises:
        InputError: If samples, labels and loss do not fit together.
    """
    stage("reading samples")
    gather = partial(pool.gather, folder=training.folder, unread=training.stream)
    samples, held = gather(source, None) if val is None else (gather(source, 0)[0], gather(val, 0)[0])
    tutor, inner = _teacher(analysis, teacher, training, world)
    kinds = _kinds(tutor, samples)
    if losses.told(training.loss) == "distill" and kinds.keys() <= tutor.uneven(samples):
        stage("numbers decide how many rows outputs have: tensors inside are compared instead")
        training = replace(training, loss="features")
        tutor, inner = _teacher(analysis, teacher, training, world)
    objective = losses.objective(
        training.loss,
        kinds,
        temperature=training.temperature,
        labelled=samples.labelled,
        features=tutor.variances(samples),
    )
    training = _fixed(samples, training, world)
    trainer = Trainer(samples, held, tutor, objective, training, world, stage, inner)
    augmentation(training.augment, samples.declared)  # refused before anything is run
    if training.metric is not None and held.count:
        first = next(pool.portions(held, training.batch_size))  # a metric that fails does so before anything is learnt
        outputs = tutor.comparing({})(pool.tensors(first, world.device)[0])
        trainer.measured({name: value.float().cpu().numpy() for name, value in outputs.items()}, [first.labels])
    if objective.taught and not training.augment:
        steps = sum(trainer.recipe(analysis.graph, what).steps for what in ("steps", "finetune_steps"))
        tutor.look_ahead(samples, steps * training.batch_size, stage("running the original"))
    return trainer


def _teacher(
    analysis: Analysis, teacher: Analysis | None, training: Training, world: World
) -> tuple[Teacher, tuple[str, ...]]:
    """The teacher, and the tensors inside that are compared with its own."""
    inner = _features(analysis, training)
    make = partial(bridge, teacher or analysis, features=inner)
    tutor = Teacher(make(), world.device, make)
    return tutor.comparing({name: {} for name in inner}), inner


def _features(analysis: Analysis, training: Training) -> tuple[str, ...]:
    """The tensors inside that the loss compares."""
    if not losses.compares_features(training.loss):
        if training.features:
            raise InputError("⟨features⟩: names what ⟨loss⟩ features compares. Give ⟨loss⟩ distill=1,features=1.")
        return ()
    return features.find(analysis, training.features)


def _fixed(samples: SampleStore, training: Training, world: World) -> Training:
    """The batch of a step in portions that the model takes: where it fixes their size, as many as make up the batch."""
    fixed = samples.declared.batch
    if fixed:
        parts = max(training.accumulate, round(training.batch_size / (fixed * world.size)), 1)
        return replace(training, accumulate=parts, batch_size=fixed * parts * world.size)
    parts, size = training.accumulate * world.size, training.batch_size
    if size > (most := max(FAR * samples.count, Training.batch_size)):
        raise InputError(f"⟨batch_size⟩ {size}: there are {samples.count} samples. Give {most} at most.")
    if size % parts:
        raise InputError(f"⟨batch_size⟩ {size}: expected a multiple of {parts}, the number of portions. Change it.")
    return training


FAR = 16  # times the samples that a batch may be: they repeat in it

W = TypeVar("W")
Tell: TypeAlias = "Callable[[tuple[Slimmed, Verification], Path, Stage], Mapping[str, Any]]"


@dataclass(frozen=True)
class Task(Generic[W]):
    """One file to make smaller by training.

    Attributes:
        analysis: The original.
        source: Samples: to repair and compare with, or to measure curves on.
        wanted: What to learn.
        trainer: How to train.
        output: Where to write.
        stage: Called with the name of each stage; returns what to call with the share done.
        learner: What the learner is called.
        runtime: How widths that were learnt are timed, to choose again those that are slower than the original's;
            ``None`` where they are not.
        tell: What is reported of one of several models by itself, once it is written.
    """

    analysis: Analysis
    source: Source
    wanted: W
    trainer: Trainer
    output: Path
    stage: Stage
    learner: str = ""
    runtime: RuntimeSettings | None = None
    tell: Tell | None = None

    @property
    def folder(self) -> Path:
        """Where checkpoints go, and what is on its way."""
        return self.trainer.training.folder
