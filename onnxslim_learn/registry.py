"""What users choose by name: one row for every cost, criterion, learner, loss, and so on.

Parser, help, checks, reports and documentation read the rows (:mod:`onnxslim_learn.rows`), so that adding one is all
that adding a cost or a criterion takes. What a row points to is imported when it is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnxslim_learn.rows import Registry, Row, summary

# --- what a model costs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CostRow(Row):
    """A cost; ``where`` makes a :class:`~onnxslim_learn.costs.polynomial.Priced` of a coupling.

    Attributes:
        title: How reports call it; by default its name.
        unit: What it is counted in: ``bytes``, ``us`` (microseconds), any other word, or nothing.
        counted: Whether it is told of every model; one of a user's own, where it was asked for.
        bounded: Whether a target may bound it.
        charged: Whether a learner may charge units for it.
        file: Whether a bound holds for the whole file, with what is in it beside what is counted.
        device: Whether ``where`` takes a device, too, which must be given or measured.
    """

    title: str = ""
    unit: str = ""
    counted: bool = True
    bounded: bool = True
    charged: bool = True
    file: bool = False
    device: bool = False

    @property
    def heading(self) -> str:
        """How reports call it."""
        return self.title or self.name

    @property
    def whole(self) -> bool:
        """Whether it is counted one by one."""
        return self.unit in ("", BYTES)


BYTES, MICROSECONDS = "bytes", "us"
"""Units that reports and targets know to read and to write; others are put behind numbers as they are."""

MACS, PARAMS, FILE, LATENCY = "macs", "params", "bytes", "latency"
"""The costs that the package itself refers to."""

_COSTS = "onnxslim_learn.costs"
COSTS = Registry(
    "⟨cost⟩",
    "costs",
    CostRow,
    [
        CostRow(MACS, f"{_COSTS}.polynomial:macs", "multiply-accumulates", title="MACs", also=("flops",)),
        CostRow(PARAMS, f"{_COSTS}.polynomial:params", "elements of all weights", title="parameters", also=("size",)),
        CostRow(
            FILE,
            f"{_COSTS}.polynomial:weight_bytes",
            "size of the file",
            title="bytes of weights",
            unit=BYTES,
            file=True,
        ),
        CostRow("memory", f"{_COSTS}.activation_memory:peak", "peak of activations, bytes", unit=BYTES, counted=False),
        CostRow(
            LATENCY,
            f"{_COSTS}.roofline:roofline",
            "time of a run, measured here or estimated for a device",
            unit=MICROSECONDS,
            counted=False,
            device=True,
        ),
        CostRow(
            "channels",
            f"{_COSTS}.channels:channels",
            "output channels of layers with MACs",
            counted=False,
            bounded=False,
        ),
        CostRow(
            "elements",
            f"{_COSTS}.channels:elements",
            "elements of all that operators put out",
            counted=False,
            bounded=False,
        ),
    ],
)


@dataclass(frozen=True)
class DeviceRow(Row):
    """A machine as a roofline sees it.

    With numbers ``where`` is what takes them, name first; without, a function that returns a
    :class:`~onnxslim_learn.costs.devices.Device`.

    Attributes:
        gflops: Peak, 10⁹ floating-point operations per second.
        gbytes: Memory bandwidth, 10⁹ bytes per second.
    """

    gflops: float = 0.0
    gbytes: float = 0.0


_DEVICE = f"{_COSTS}.devices:Device"
DEVICES = Registry(  # published peaks and bandwidths; those of MorphNet's latency regularizer
    "⟨device⟩",
    "devices",
    DeviceRow,
    [
        DeviceRow("K80", _DEVICE, "Nvidia Tesla K80", gflops=8740, gbytes=480),
        DeviceRow("P4", _DEVICE, "Nvidia Tesla P4", gflops=5500, gbytes=192),
        DeviceRow("T4", _DEVICE, "Nvidia T4", gflops=8100, gbytes=300),
        DeviceRow("P100", _DEVICE, "Nvidia Tesla P100", gflops=9300, gbytes=732),
        DeviceRow("V100", _DEVICE, "Nvidia V100", gflops=125000, gbytes=900),
        DeviceRow("TPUv2", _DEVICE, "Google TPU v2", gflops=22500, gbytes=300),
    ],
    also="a file that calibrate wrote",
)


# --- what is cut ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CriterionRow(Row):
    """What scores units; ``where`` takes an analysis, groups, and samples or ``None``: one score per column.

    Attributes:
        samples: Whether it cannot do without samples.
        labels: Whether it cannot do without their labels.
        usual: Whether it is used where none is named: of those that need samples, or of the others.
        merges: Whether it looks for units that are alike.
    """

    samples: bool = False
    labels: bool = False
    usual: bool = False
    merges: bool = False


_WEIGHTS, _ACTIVATIONS = "onnxslim_learn.select.weight_criteria", "onnxslim_learn.select.activation_criteria"
_GRADIENTS = "onnxslim_learn.train.gradient_criteria"
CRITERIA = Registry(
    "⟨criterion⟩",
    "criteria",
    CriterionRow,
    [
        CriterionRow("energy", f"{_WEIGHTS}:energy", "output energy lost, from weights and normalisation", usual=True),
        CriterionRow("l1", f"{_WEIGHTS}:l1", "mean magnitude of weights"),
        CriterionRow("l2", f"{_WEIGHTS}:l2", "root mean square of weights"),
        CriterionRow("lamp", f"{_WEIGHTS}:lamp", "square of weights over that of all larger units"),
        CriterionRow("fpgm", f"{_WEIGHTS}:fpgm", "distance to the other filters of the layer"),
        CriterionRow("random", f"{_WEIGHTS}:random", "chance, the baseline"),
        CriterionRow(
            "obs", f"{_ACTIVATIONS}:obs", "what consumers lose after their best refit", samples=True, usual=True
        ),
        CriterionRow("wifv", f"{_ACTIVATIONS}:wifv", "variance of what consumers get", samples=True),
        CriterionRow("wanda", f"{_ACTIVATIONS}:wanda", "magnitude of what consumers get", samples=True),
        CriterionRow("activation", f"{_ACTIVATIONS}:activation", "mean square of the activation", samples=True),
        CriterionRow(
            "taylor", f"{_GRADIENTS}:taylor", "slope of the loss, by magnitude", "train", samples=True, labels=True
        ),
        CriterionRow(
            "fisher", f"{_GRADIENTS}:fisher", "slope of the loss, squared", "train", samples=True, labels=True
        ),
        CriterionRow(
            "folding",
            "onnxslim_learn.select.folding:clusters",
            "merges similar units instead of dropping some",
            merges=True,
        ),
    ],
)


@dataclass(frozen=True)
class MethodRow(Row):
    """What zeroes weights of one node.

    ``where`` takes a :class:`~onnxslim_learn.sparse.solvers.LayerPruning` and moments.

    Attributes:
        refits: Whether it also changes the weights that stay.
    """

    refits: bool = False


_SOLVERS = "onnxslim_learn.sparse.solvers"
METHODS = Registry(
    "⟨method⟩",
    "methods",
    MethodRow,
    [
        MethodRow("admm", f"{_SOLVERS}:admm", "alternating directions; refits the weights that stay", refits=True),
        MethodRow(
            "sparsegpt", f"{_SOLVERS}:sparsegpt", "column after column; refits the weights that stay", refits=True
        ),
        MethodRow("wanda", f"{_SOLVERS}:wanda", "the smallest products of weight and input"),
        MethodRow("magnitude", f"{_SOLVERS}:magnitude", "the smallest weights"),
    ],
)


@dataclass(frozen=True)
class ProtocolRow(Row):
    """How a share of zeros is spread over layers; ``where`` takes sizes of layers and the share: a share for each.

    Attributes:
        sized: Whether that is all it looks at. Others are procedures of the package: ``where`` takes a job and layers.
        learnt: Whether only a learner can carry it out.
    """

    sized: bool = True
    learnt: bool = False


UNIFORM, SPREAD, SEARCH = "uniform", "heurist", "search"
"""The protocols that the package itself refers to."""

_RATIOS, _SPARSE = "onnxslim_learn.sparse.layer_ratios", "onnxslim_learn.learners.weight_sparse.pipeline"
PROTOCOLS = Registry(
    "⟨protocol⟩",
    "protocols",
    ProtocolRow,
    [
        ProtocolRow(UNIFORM, f"{_RATIOS}:uniform", "all layers alike"),
        ProtocolRow(SPREAD, f"{_RATIOS}:heurist", "large ones lose more"),
        ProtocolRow(SEARCH, f"{_SPARSE}:by_search", "by measured losses", sized=False),
        ProtocolRow("optimal", f"{_SPARSE}:by_agent", "by reinforcement", "rl", sized=False, learnt=True),
    ],
)


# --- what is learnt ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearnerRow(Row):
    """A learner; ``where`` takes a :class:`~onnxslim_learn.train.trainer.Task` whose ``wanted`` are its settings.

    Attributes:
        settings: The dataclass of its settings, whose fields are its options, or where it is.
        report: Where the function is that makes a result of what the learner returns.
    """

    settings: str | type = "onnxslim_learn.learners.settings:FinetuneSettings"
    report: str | Callable[..., Any] = "onnxslim_learn.commands.learn:cut"


_LEARNERS = "onnxslim_learn.learners"
LEARNERS = Registry(
    "⟨learner⟩",
    "learners",
    LearnerRow,
    [
        LearnerRow(
            "morphnet",
            f"{_LEARNERS}.morphnet.run:run",
            "widths",
            "train",
            settings=f"{_LEARNERS}.morphnet.settings:MorphNetSettings",
        ),
        LearnerRow(
            "narrow",
            f"{_LEARNERS}.narrow:run",
            "widths by what they are worth on samples, in stages with training between them",
            "train",
            settings=f"{_LEARNERS}.settings:NarrowSettings",
        ),
        LearnerRow(
            "weight-sparse",
            f"{_LEARNERS}.weight_sparse.pipeline:run",
            "zeros",
            "train",
            settings=f"{_LEARNERS}.weight_sparse.settings:WeightSparseSettings",
            report="onnxslim_learn.commands.learn:zeroed",
        ),
        LearnerRow(
            "finetune",
            f"{_LEARNERS}.finetune:run",
            "only weights, after slim or expand",
            "train",
            settings=f"{_LEARNERS}.settings:FinetuneSettings",
        ),
    ],
)


@dataclass(frozen=True)
class OptimizerRow(Row):
    """How weights are trained; ``where`` takes groups of parameters and a rate: an optimizer of torch.

    Attributes:
        rate: The highest learning rate, where nobody says.
        momentum: The share of a step that goes on in the next.
    """

    rate: float = 1e-3
    momentum: float = 0.0


ADAM = "adam"
"""The optimizer that is used where nobody says."""

FP32, FP16 = "fp32", "fp16"
PRECISIONS = {FP32: "float32", "bf16": "bfloat16", FP16: "float16"}
"""What a step may compute in -> the type's name in torch."""

_OPTIMIZERS = "onnxslim_learn.train.optimizer"
OPTIMIZERS = Registry(
    "⟨optimizer⟩",
    "optimizers",
    OptimizerRow,
    [
        OptimizerRow("sgd", f"{_OPTIMIZERS}:sgd", "Nesterov momentum 0.9", "train", rate=0.05, momentum=0.9),
        OptimizerRow(ADAM, f"{_OPTIMIZERS}:adam", "AdamW", "train"),
    ],
)


@dataclass(frozen=True)
class LossRow(Row):
    """A loss; ``where`` takes outputs by name and a :class:`~onnxslim_learn.train.samples.Portion`: one number.

    Attributes:
        labels: Whether it needs labels.
        teacher: Whether it looks at what the teacher makes of samples.
        features: Whether it compares tensors inside.
    """

    labels: bool = False
    teacher: bool = False
    features: bool = False


_LOSSES = "onnxslim_learn.train.losses"
LOSSES = Registry(
    "⟨loss⟩",
    "losses",
    LossRow,
    [
        LossRow("distill", f"{_LOSSES}:distillation", "distance to the teacher's outputs", teacher=True),
        LossRow(
            "features", f"{_LOSSES}:inner", "distance to the teacher's tensors inside", teacher=True, features=True
        ),
        LossRow("cross-entropy", f"{_LOSSES}:cross_entropy", "to labels, classes or shares", labels=True),
        LossRow("mse", f"{_LOSSES}:squared_error", "squared error to labels", labels=True),
    ],
)


@dataclass(frozen=True)
class AugmentationRow(Row):
    """How samples are changed at random before a net is trained on them.

    ``where`` takes tensors by input and, of inputs that are images, the axes of height and width: the changed tensors.

    Attributes:
        mixes: Whether it puts samples together; it then returns, too, the order in which others were mixed in and the
            share of the first, so that a loss counts the labels of both.
    """

    mixes: bool = False


MIX = "mix"
"""The augmentation that the package itself refers to."""

_AUGMENTATIONS = "onnxslim_learn.train.augmentation"
AUGMENTATIONS = Registry(
    "⟨augment⟩",
    "augmentations",
    AugmentationRow,
    [
        AugmentationRow("shift", f"{_AUGMENTATIONS}:shift", "images moved by up to an eighth", "train"),
        AugmentationRow("flip", f"{_AUGMENTATIONS}:flip", "images mirrored left to right", "train"),
        AugmentationRow(MIX, f"{_AUGMENTATIONS}:mix", "images blended with others", "train", mixes=True),
    ],
)


# --- how good it is ---------------------------------------------------------------------------------------------------

_METRICS = "onnxslim_learn.quality.metric"
METRICS = Registry(
    "⟨metric⟩",
    "metrics",
    Row,
    [
        Row("accuracy", f"{_METRICS}:accuracy", "share of samples whose label has the largest output"),
        Row("top5", f"{_METRICS}:top5", "share of samples whose label is among the five largest outputs"),
    ],
)


# --- what samples are made up by --------------------------------------------------------------------------------------

STATISTICS = "statistics"
SAMPLERS = Registry(
    "⟨match_statistics⟩",
    "samplers",
    Row,
    [
        Row(
            STATISTICS,
            "onnxslim_learn.train.bn_matching:matched",
            "noise that fits the stored statistics of batch normalisations",
            "train",
        )
    ],
)


# --- what operators do ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OperatorRow(Row):
    """An operator of a domain that the package does not know, named ``domain:op_type``.

    ``where`` is its rule, a function of a :class:`~onnxslim_learn.coupling.context.NodeContext`, or what the operator
    table says of an operator (:class:`~onnxslim_learn.coupling.operators.facts.Operator`). A function of this name that
    a file holds stays a function there, so that onnxruntime can run it.

    Attributes:
        torch: The torch function, which takes inputs in order and attributes as keywords; needed to train alone.
    """

    torch: str | Callable[..., Any] | None = None


OPERATORS: Registry[OperatorRow] = Registry("⟨operator⟩", "operators", OperatorRow, [])


@functools.cache
def _installed_operators() -> frozenset[str]:
    """Operators that installed packages declare."""
    from importlib.metadata import entry_points

    return frozenset(entry.name for entry in entry_points(group=OPERATORS.group))


def operator(domain: str, op_type: str) -> OperatorRow | None:
    """The row of an operator that a user or an installed package declared, if one did."""
    name = f"{domain}:{op_type}"
    if name in OPERATORS:
        return OPERATORS[name]
    return OPERATORS.find(name) if name in _installed_operators() else None


def register_operator(
    domain: str, op_type: str, rule: Any, *, torch: str | Callable[..., Any] | None = None
) -> OperatorRow:
    """Declare an operator of a custom domain for the rest of the process.

    Args:
        domain: Of the operator.
        op_type: Its name there.
        rule: What it does with labels: a function of a :class:`~onnxslim_learn.coupling.context.NodeContext`, such as
            those of :mod:`onnxslim_learn.coupling.operators.elementwise`, or an
            :class:`~onnxslim_learn.coupling.operators.facts.Operator` that also says what the operator is.
        torch: What it computes, to train models that have it.

    Raises:
        InputError: If it is declared already.
    """
    return OPERATORS.add(OperatorRow(f"{domain}:{op_type}", rule, summary(rule), torch=torch))
