"""What can be asked of every learner: which samples teach, for how long, and how steps are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from onnxslim_learn.data.options import DataSettings, SampleSettings
from onnxslim_learn.errors import InputError
from onnxslim_learn.readers import AUTO, bound, number, positive, share, whole
from onnxslim_learn.registry import AUGMENTATIONS, FP32, LEARNERS, LOSSES, METRICS, OPTIMIZERS, PRECISIONS
from onnxslim_learn.runtime.settings import RuntimeSettings
from onnxslim_learn.settings import Option, declared, option, part
from onnxslim_learn.workflow.options import (
    CONFIG,
    EMPTY,
    MULTIPLE,
    NO_REPAIR,
    PLAN_OUT,
    PROTECT,
    SENSITIVE,
    TARGET,
    ClockSettings,
    InputSettings,
    ReportSettings,
    ResultSettings,
)

STRUCTURE = ("structure", "what is learnt; see --learner")
TRAINING = ("training", "")
WIDTHS = "structure learning"  # purpose
AFTER = "training after structure learning"  # purpose
FROM_SCRATCH = Option("draw weights anew before fine-tuning")


def compares_features(loss: Any) -> bool:
    """Whether a loss compares tensors inside with the teacher's."""
    parts = loss.split(",") if isinstance(loss, str) else loss if isinstance(loss, Mapping) else [loss]
    named = [part.partition("=")[0] if isinstance(part, str) else part for part in parts]
    return any(name in LOSSES and LOSSES[name].features for name in named)


def _losses(text: str) -> str:
    """Losses as they are given, refused where there is none of a name."""
    for part_of_loss in text.split(","):
        LOSSES.checked(part_of_loss.partition("=")[0].strip())
    return text


def _augmentations(text: str) -> tuple[str, ...]:
    """Augmentations as they are given, refused where there is none of a name."""
    return tuple(AUGMENTATIONS.checked(name.strip()) for name in text.split(","))


@dataclass(frozen=True)
class LearningSteps:
    """How long is learnt.

    Attributes:
        steps: Of learning; ``None`` for two epochs.
        epochs: The same in epochs.
    """

    TITLE: ClassVar = TRAINING

    steps: int | None = option(
        None, "steps of learning (default: two epochs)", metavar="N", read=positive, purpose=WIDTHS
    )
    epochs: float | None = option(None, "the same in epochs", read=number, purpose=WIDTHS)


@dataclass(frozen=True)
class FinetuneSteps:
    """How long, and how fast, what was learnt is trained.

    Attributes:
        finetune_steps: ``None`` for four epochs, 0 for none.
        finetune_epochs: The same in epochs.
        finetune_rate: The highest learning rate; ``None`` for that of learning.
    """

    TITLE: ClassVar = TRAINING

    finetune_steps: int | None = option(
        None, "steps after that (default: four epochs)", metavar="N", read=whole, purpose=AFTER
    )
    finetune_epochs: float | None = option(None, "the same in epochs", read=number, purpose=AFTER)
    finetune_rate: float | None = option(None, "of fine-tuning (default: the same)", read=number, purpose=AFTER)


@dataclass(frozen=True)
class TrainingSettings:
    """How is trained, whatever is learnt.

    Attributes:
        teacher: The model whose outputs are wanted; ``None`` for the one that is trained.
        val_data: Samples to judge by; ``None`` for a tenth of the others.
        metric: A metric by name, or a function of outputs and labels, told on held-back samples.
        learning_rate: The highest; ``None`` for what suits the model.
        optimizer: By name, or a function of groups of parameters and a rate; ``None`` for what suits the model.
        norms: Whether batch normalisation uses the statistics of batches; ``auto`` where weights are drawn anew.
        loss: See :func:`onnxslim_learn.train.losses.objective`.
        features: Regular expressions of the tensors that the loss ``features`` compares.
        augment: How samples are changed at random: names, or functions (see
            :data:`onnxslim_learn.registry.AUGMENTATIONS`).
        average: The share of a running mean of weights that a step of fine-tuning keeps; 0 for no mean.
        temperature: Of distillation.
        accumulate: Portions of a batch.
        clip: Largest norm of gradients; 0 for any.
        precision: Of the numbers that a step computes in.
        compile: Whether a step is compiled.
        channels_last: Whether images lie in memory pixel by pixel.
        stream: Whether samples are read whenever they are wanted.
        data_workers: Processes that read samples ahead.
        train_on: ``cpu``, ``cuda``, or ``auto``.
        checkpoint_dir: Where checkpoints go.
        checkpoint_every: Steps between two checkpoints.
        resume: Whether to go on from there.
        config: A file of options.
    """

    TITLE: ClassVar = TRAINING

    teacher: Any = option(
        None, "model whose outputs are wanted (default: the one given)", metavar="MODEL", reads=True, decides=False
    )
    val_data: Any = option(
        None, "samples to judge by (default: a tenth of --data)", metavar="SRC", reads=True, decides=False
    )
    metric: Any = option(
        None,
        f"{', '.join(METRICS.names())}, or module:function of outputs and labels: told while a net is trained, and of"
        " the original and the result, on samples held back",
        metavar="NAME",
        read=METRICS.checked,
        decides=False,
    )
    learning_rate: float | None = option(None, "the highest (default: by the model)", read=number, also=("lr",))
    optimizer: Any = option(
        None,
        f"{OPTIMIZERS.listed()}, or module:function (default: by the model)",
        metavar="NAME",
        read=OPTIMIZERS.checked,
    )
    norms: str = option("auto", "batch normalisation", choices=("auto", "frozen", "batch"))
    loss: Any = option(
        "distill",
        f"{LOSSES.listed()}, module:function, or several with weights: distill=1,cross-entropy=0.5 (default distill)",
        metavar="LOSS",
        read=_losses,
    )
    features: tuple[str, ...] = option(
        (),
        "tensors that --loss features compares (default: the sums of residual branches, else what layers read)",
        metavar="REGEX",
        repeat=True,
    )
    augment: Any = option(
        (),
        f"how samples are changed at random, several with commas: {AUGMENTATIONS.listed()}, or module:function"
        " (default: not at all)",
        metavar="NAMES",
        read=_augmentations,
    )
    average: float = option(
        0.0,
        "fine-tuning ends with a running mean of the weights: the share of it that a step keeps, such as 0.99"
        " (default: with the last ones)",
        metavar="X",
        read=share,
    )
    temperature: float = option(4.0, "of distillation", metavar="T", read=number)
    accumulate: int = option(1, "portions of a batch", metavar="N", read=positive)
    clip: float = option(5.0, "largest norm of gradients; 0 for any", read=bound)
    precision: str = option(
        FP32,
        "of what a step computes, where torch says that it is safe; weights stay in single precision (default fp32)",
        choices=tuple(PRECISIONS),
    )
    compile: bool = option(
        False, "compile a step with torch.compile: it begins later, after a minute or so, and is faster on GPUs"
    )
    channels_last: bool = option(
        False, "lay images out pixel by pixel, which makes convolutions faster, those of MobileNets most"
    )
    stream: bool = option(
        False,
        "folders and .tar files of images, .parquet files: read samples whenever a step wants them, rather than all of"
        " them once into a file",
        decides=False,
    )
    data_workers: int = option(
        0, "processes that read samples ahead (default: none)", metavar="N", read=whole, decides=False
    )
    train_on: str = option("auto", "default: a GPU, if any", choices=("auto", "cpu", "cuda"), decides=False)
    checkpoint_dir: str | None = option(
        None, "keep checkpoints, summaries and structures here", metavar="DIR", keeps=True, decides=False
    )
    checkpoint_every: int = option(500, "steps", metavar="N", read=positive, decides=False)
    resume: bool = option(False, "go on from --checkpoint-dir", decides=False)
    config: str | None = declared(None, CONFIG)


@dataclass(frozen=True)
class LearnSettings:
    """What can be asked of ``learn`` whatever the learner; its own settings come on top.

    Attributes:
        learner: What is learnt.
    """

    TITLE: ClassVar = STRUCTURE

    result: ResultSettings = part(ResultSettings)
    learner: str = option(
        "morphnet",
        f"what is learnt (default morphnet): {LEARNERS.listed()}, or module:function; for the options of one:"
        " --learner NAME --help",
        metavar="NAME",
    )
    clock: ClockSettings = part(ClockSettings)
    training: TrainingSettings = part(TrainingSettings)
    inputs: InputSettings = part(InputSettings)
    samples: SampleSettings = part(SampleSettings, reading=DataSettings(batch_size=64))
    runtime: RuntimeSettings = part(RuntimeSettings)
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class NarrowSettings:
    """What can be asked of narrowing in stages.

    Attributes:
        target: Cost -> bound; at most 1 is a fraction.
        stages: In how many stages it is met.
        multiple: Widths are multiples of this.
        protect: Regular expressions; groups they find stay whole.
        allow_sensitive: Whether axes that are normalised over are cut, too.
        allow_empty: Whether whole branches may go.
        no_repair: Whether weights are not refitted after a stage.
        length: How long is trained between stages, all in all.
        after: How long is trained after the last.
        plan_out: Where the plan is written.
    """

    TITLE: ClassVar = STRUCTURE

    target: Mapping[str, float | str] = declared({}, replace(TARGET, purpose=WIDTHS))
    stages: int = option(
        3, "narrow: stages in which the target is met (default 3)", metavar="N", read=positive, purpose=WIDTHS
    )
    multiple: int | str = declared(AUTO, replace(MULTIPLE, purpose=WIDTHS))
    protect: tuple[str, ...] = declared((), replace(PROTECT, purpose=WIDTHS))
    allow_sensitive: bool = declared(False, replace(SENSITIVE, purpose=WIDTHS))
    allow_empty: bool = declared(False, replace(EMPTY, purpose=WIDTHS))
    no_repair: bool = declared(False, replace(NO_REPAIR, purpose=WIDTHS))
    length: LearningSteps = part(LearningSteps)
    after: FinetuneSteps = part(FinetuneSteps)
    plan_out: str | None = declared(None, replace(PLAN_OUT, purpose=WIDTHS))

    def check(self, shared: LearnSettings) -> None:
        """Refuse what cannot be asked for together.

        Raises:
            InputError: With the parameter at fault.
        """
        if not self.target:
            raise InputError("learn: no ⟨target⟩ is given. For example ⟨target.macs⟩=0.5.")
        if compares_features(shared.training.loss):
            raise InputError("⟨loss⟩: what is inside changes from stage to stage. Use ⟨loss⟩ distill.")


@dataclass(frozen=True)
class FinetuneSettings:
    """What can be asked of fine-tuning.

    Attributes:
        length: How long.
        from_scratch: Whether weights are drawn anew first.
        plan_out: Where the plan, which keeps all, is written.
    """

    TITLE: ClassVar = TRAINING

    length: FinetuneSteps = part(FinetuneSteps)
    from_scratch: bool = declared(False, FROM_SCRATCH)
    plan_out: str | None = declared(None, replace(PLAN_OUT, purpose=WIDTHS))
