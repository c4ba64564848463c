"""What users choose by name: one row for every cost, criterion, learner, loss, and so on.

A row says where the thing is, what it needs and how it is told; parser, help, checks, reports and documentation read
the rows, so that adding one is all that adding a cost or a criterion takes. What a row points to is imported when it is
used. Wherever a name is accepted, so are a function, ``module:function``, and the name of an entry point that an
installed package declares in the registry's group (``onnxslim_learn.criteria`` and so on). A function that stands in no
row says by its attributes what a row would: ``score.samples = True``, ``prune.settings = PruneSettings``.

Registering in Python changes a registry for the whole process; nothing else in this package has such a state.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

from onnxslim_learn.errors import InputError, meant
from onnxslim_learn.runtime.functions import by_name, is_name

DISTRIBUTION = "onnxslim-learn"
EXTRAS = {
    "train": ("torch", "safetensors"),
    "rl": ("gymnasium", "stable_baselines3"),
    "tensorboard": ("tensorboard",),
}
"""Extra of the distribution -> the modules that it brings."""


@dataclass(frozen=True)
class Row:
    """One thing that users may name.

    Attributes:
        name: What it is called.
        where: ``module:attribute``, imported on first use, or the thing itself.
        help: What it is, in one line.
        extra: The extra of the distribution that it needs, if any: a key of :data:`EXTRAS`.
        also: Other names that users know it by.
    """

    name: str
    where: str | Callable[..., Any]
    help: str = ""
    extra: str = ""
    also: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import what the row points to."""
        return imported(self.where)


def imported(where: Any) -> Any:
    """What ``module:attribute`` of this package names; anything else is the thing itself."""
    if not isinstance(where, str):
        return where
    module, _, path = where.partition(":")
    module_loaded: Any = importlib.import_module(module)
    for part in path.split("."):
        module_loaded = getattr(module_loaded, part)
    return module_loaded


R = TypeVar("R", bound=Row)


class Registry(Mapping[str, R], Generic[R]):
    """Rows by name, in the order in which they are told.

    Attributes:
        parameter: What users give a name for; errors begin with it.
        group: The group of entry points that adds to the rows.
    """

    def __init__(self, parameter: str, group: str, kind: type[R], rows: Iterable[R], *, also: str = "") -> None:
        """Take up the rows, all of one kind; ``also`` is what else the parameter takes, in words."""
        self.parameter, self.group, self._kind, self._also = parameter, f"onnxslim_learn.{group}", kind, also
        self._rows = {row.name: row for row in rows}

    def __getitem__(self, name: str) -> R:
        also = (row for row in self._rows.values() if name in row.also)
        row = self._rows.get(name) or next(also, None)
        if row is None:
            raise KeyError(name)
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: R) -> R:
        """Add a row for the rest of the process.

        Raises:
            InputError: If its name is taken.
        """
        if row.name in self:
            raise InputError(f"{self.parameter} {row.name}: there is one of this name already. Choose another name.")
        self._rows[row.name] = row
        return row

    def installed(self) -> dict[str, str]:
        """Names that installed packages add to the rows -> the packages; nothing of them is imported."""
        from importlib.metadata import entry_points

        names = {entry.name: entry.dist.name if entry.dist else "" for entry in entry_points(group=self.group)}
        return {name: names[name] for name in sorted(set(names) - set(self._rows))}

    def names(self) -> list[str]:
        """All names that are accepted: those of rows, and those that installed packages add."""
        return [*self._rows, *self.installed()]

    def find(self, name: str) -> R | None:
        """The row of a name, an installed package's included; ``None`` if there is none."""
        return self.get(name) or self._entry(name)

    def listed(self, which: Callable[[R], bool] = lambda row: True) -> str:
        """Rows in words, for help: ``name (what it is), name (what it is), name (of an installed package)``."""
        told = {" or ".join((row.name, *row.also)): row.help for row in self._rows.values() if which(row)}
        told |= {name: f"of {package}" for name, package in self.installed().items()}
        return ", ".join(f"{name} ({said})" for name, said in told.items())

    def register(self, name: str, where: str | Callable[..., Any] | None = None, /, **data: Any) -> Any:
        """Add a function under a name for the rest of the process; without a function, decorate one.

        Args:
            name: What it is called.
            where: The function, or where it is.
            **data: The other attributes of a row.

        Raises:
            InputError: If the name is taken.
        """
        if where is None:
            return lambda function: (self.register(name, function, **data), function)[1]
        return self.add(self._kind(name, where, **{"help": _summary(where), **data}))

    def remove(self, name: str) -> None:
        """Take a row out again."""
        del self._rows[name]

    @contextmanager
    def having(self, name: str, where: str | Callable[..., Any], /, **data: Any) -> Iterator[R]:
        """Have a row for as long as a block runs."""
        row: R = self.register(name, where, **data)
        try:
            yield row
        finally:
            self.remove(name)

    def row(self, value: str | Callable[..., Any], parameter: str = "") -> R:
        """The row of what a user gave: a name, a function, ``module:function``, or an entry point.

        Args:
            value: What was given.
            parameter: What it was given for, if not for the registry's parameter.

        Raises:
            InputError: If it is none of these.
        """
        if callable(value):
            return self._of(value, f"{value.__module__}:{getattr(value, '__qualname__', type(value).__qualname__)}")
        asked = parameter or self.parameter
        if value not in self and is_name(value):
            return self._of(by_name(value, asked), value)
        return self.find(value) or self._refuse(value, asked)

    def load(self, value: str | Callable[..., Any], parameter: str = "") -> Any:
        """What a user gave, imported; see :meth:`row`.

        Raises:
            InputError: If there is no such thing, or it needs an extra that is not installed.
        """
        row = self.row(value, parameter)
        require(row.extra, f"{parameter or self.parameter} {row.name}")
        return row.load()

    def told(self, value: str | Callable[..., Any]) -> str:
        """How reports call what a user gave: a name as it is, a function by its row."""
        return self.row(value).name if callable(value) else value

    def _of(self, function: Callable[..., Any], name: str) -> R:
        """The row of a function: the one that it was registered with, or of what its attributes say."""
        known = (row for row in self._rows.values() if row.where is function)
        return next(known, None) or self._kind(name, function, _summary(function), **_attributes(self._kind, function))

    def _entry(self, name: str) -> R | None:
        """The row of an entry point, which may hold a function or a row."""
        from importlib.metadata import entry_points

        for entry in entry_points(group=self.group, name=name):
            try:
                loaded = entry.load()
            except Exception as error:
                said = f"{type(error).__name__} ({error})"
                raise InputError(f"{self.parameter} {name}: {entry.value} raised {said}. Correct it.") from error
            return self.add(replace(loaded, name=name) if isinstance(loaded, self._kind) else self._of(loaded, name))
        return None

    def _refuse(self, value: str, parameter: str) -> R:
        known = self.names()
        names = [*known, *(also for row in self._rows.values() for also in row.also)]
        others = " or ".join(filter(None, [self._also, "module:function"]))
        guess = meant(value, names) or "Use one of them."
        raise InputError(f"{parameter} {value}: expected {', '.join(known)}, or {others}. {guess}")


def require(extra: str, what: str) -> None:
    """Refuse to go on without what an extra brings.

    Args:
        extra: The extra; nothing is needed for an empty one.
        what: What needs it; the error begins with it.

    Raises:
        InputError: If it is not installed.
    """
    for module in EXTRAS.get(extra, ()):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{what}: needs {module}. Install {DISTRIBUTION}[{extra}].")


def _summary(function: object) -> str:
    """The first line of a function's documentation."""
    return (getattr(function, "__doc__", None) or "").strip().partition("\n")[0].rstrip(".")


def _attributes(kind: type[Row], function: object) -> dict[str, Any]:
    """What a function says of itself by attributes that are named, and of the kind, as those of a row."""
    told = {}
    for one in fields(kind):
        value = getattr(function, one.name, None)
        if one.name not in ("name", "where", "help") and isinstance(value, type(one.default) | type):
            told[one.name] = value
    return told


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
    """

    samples: bool = False
    labels: bool = False
    usual: bool = False


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
            "folding", "onnxslim_learn.select.folding:clusters", "merges similar units instead of dropping some"
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
    return OPERATORS.add(OperatorRow(f"{domain}:{op_type}", rule, _summary(rule), torch=torch))
