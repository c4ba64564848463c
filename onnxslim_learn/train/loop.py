"""The one training loop: a module, what teaches it, and a learner that looks on and interferes.

Everything a step does follows from the seed and the step, so that a run that was stopped goes on from its checkpoint
with the same numbers (on CPU, bit for bit).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from onnxslim_learn.errors import InputError, TrainError
from onnxslim_learn.runtime import atomic
from onnxslim_learn.runtime.stopping import held_back
from onnxslim_learn.train import checkpoints
from onnxslim_learn.train import samples as pool
from onnxslim_learn.train.checkpoints import Checkpoint
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.not_finite import origin
from onnxslim_learn.train.precision import Precision
from onnxslim_learn.train.randomness import undisturbed
from onnxslim_learn.train.read_ahead import Drawn, Steps
from onnxslim_learn.train.samples import Portion
from onnxslim_learn.train.tensorboard import Summarise, summaries

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

    from onnxslim_learn.train.augmentation import Augmentation
    from onnxslim_learn.train.losses import Objective
    from onnxslim_learn.train.optimizer import Recipe
    from onnxslim_learn.train.samples import SampleStore
    from onnxslim_learn.train.teacher import Teacher

Show = Callable[[int, Mapping[str, float]], None]

LOOKS = 10  # a run


class Learner:
    """What is learnt beside the weights; this one learns nothing. Others replace what they need.

    A step calls ``begin``, the module, ``loss``, the backward pass, ``gradients``, the optimizer, ``updated``. Whatever
    chance a learner needs it takes from torch's generator inside these, which is seeded by the step and alike in all
    processes.
    """

    def groups(self) -> list[dict[str, Any]]:
        """Groups of parameters for the optimizer, the module's or others (``factor`` multiplies their rate)."""
        return []

    def meet(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer, once, before the first step and before :meth:`load`."""

    def begin(self, step: int) -> None:
        """Before the module runs."""

    def loss(self, step: int) -> Tensor | None:
        """What is added to the loss of the task."""
        return None

    def gradients(self, step: int) -> None:
        """After the backward pass, before gradients are clipped."""

    def updated(self, step: int, rate: float) -> None:
        """After the optimizer's step, which was taken at this rate."""

    def settled(self, step: int) -> bool:
        """Whether nothing more is to be learnt."""
        return False

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside weights and optimizer, by name."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`state` gave."""

    def scalars(self) -> dict[str, float]:
        """Numbers to show for the last step."""
        return {}

    def parts(self) -> dict[str, float]:
        """Numbers of single groups or layers, to show now and then."""
        return {}

    def histograms(self) -> dict[str, Tensor]:
        """Numbers whose distribution is worth seeing."""
        return {}

    def structure(self, step: int) -> dict[str, str]:
        """What was learnt so far: name of a file under the run's folder -> its text."""
        return {}


@dataclass(frozen=True)
class LoopTask:
    """What is trained.

    Attributes:
        module: The net; trained in place.
        objective: What is minimised.
        samples: What it is shown.
        teacher: What it is compared with, if the objective wants one.
        recipe: How.
        world: Who takes part.
        augment: How samples are changed at random.
    """

    module: fx.GraphModule
    objective: Objective
    samples: SampleStore
    teacher: Teacher | None
    recipe: Recipe
    world: World = field(default_factory=World)
    augment: Augmentation | None = None


@dataclass(frozen=True)
class Keeping:
    """What a run leaves behind.

    Attributes:
        folder: For checkpoints, summaries and structures; ``None`` for none.
        every: Steps between checkpoints and between structures.
        resume: Whether to go on from the folder's checkpoint.
        show: Called after every step with its numbers.
        begin: Called with the first step before it, 0 unless a run goes on.
        look: Called :data:`LOOKS` times in a run, for numbers that take more than a step gives.
        workers: Processes that read samples ahead.
    """

    folder: Path | None = None
    every: int = 500
    resume: bool = False
    show: Show = lambda step, numbers: None
    begin: Callable[[int], None] = lambda step: None
    look: Callable[[], Mapping[str, float]] = dict
    workers: int = 0


def train(task: LoopTask, learner: Learner | None = None, keeping: Keeping | None = None) -> list[dict[str, float]]:
    """Train a module.

    Returns:
        Numbers of some steps, in order: ``step``, ``loss``, ``rate``, those of the loss's terms and of the learner.

    Raises:
        InputError: If samples, loss and batch size do not fit together, or a checkpoint is of another run.
        TrainError: If the loss or its gradient is no longer finite; it names the node that is to blame.
    """
    with undisturbed(task.world.device):
        return _Run(task, learner or Learner(), keeping or Keeping()).go()


class _Run:
    """A run: what is set up once."""

    def __init__(self, task: LoopTask, learner: Learner, keeping: Keeping) -> None:
        self.task, self.learner, self.keeping = task, learner, keeping
        recipe, world = task.recipe, task.world
        parts = recipe.accumulate * world.size
        least = parts * (task.samples.declared.batch or 1)
        if recipe.batch_size % least or (task.samples.declared.batch and recipe.batch_size != least):
            raise InputError(
                f"⟨batch_size⟩ {recipe.batch_size}: expected a multiple of {parts} portions of the model's batch, "
                f"{least}. Change it."
            )
        if recipe.channels_last:
            for parameter in task.module.parameters():
                parameter.data = _laid_out(parameter.data)
        self.joined = world.wrap(task.module.to(world.device).train())
        self.module: Callable[..., Any] = torch.compile(self.joined) if recipe.compile else self.joined
        parameters = [p for p in task.module.parameters() if p.requires_grad]
        if not parameters:
            raise InputError("model: it has no weights that train. Repair it instead.")
        groups = learner.groups()
        apart = {id(p) for group in groups for p in group["params"]}
        self.optimizer = recipe.make([p for p in parameters if id(p) not in apart], groups)
        self.steps = Steps(task.samples, recipe, world)
        learner.meet(self.optimizer)
        self.precision = Precision(recipe.precision, world.device)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.mean = [p.detach().clone() for p in self.parameters] if recipe.average else []
        self.history: list[dict[str, float]] = []
        self.done, self.ended = 0, False
        self.spacing = max(recipe.steps // 200, 1)

    def go(self) -> list[dict[str, float]]:
        """Run all steps that are left."""
        recipe, start = self.task.recipe, self._resume()
        leads, looks = self.task.world.leads, max(recipe.steps // LOOKS, 1)
        self.keeping.begin(start)
        with self._kept_if_stopped(), self._summaries(start) as summarise:
            ahead = self.steps.ahead(start, self.keeping.workers)
            for step, drawn in zip(range(start, recipe.steps), ahead, strict=True):
                with held_back():
                    numbers = self.step(step, drawn)
                    self.done, self.ended = step + 1, step + 1 == recipe.steps or self.learner.settled(step)
                    looked = leads and (self.done % looks == 0 or self.ended)
                    if looked:
                        numbers = {**numbers, **self.learner.parts(), **self.keeping.look()}
                    if step % self.spacing == 0 or looked:
                        self.history.append({"step": step, **numbers})
                        summarise(step, numbers, self.learner.histograms())
                self.keeping.show(step, numbers)
                if self.ended:
                    self._take_mean()
                if self.ended or self.done % self.keeping.every == 0:
                    self._keep()
                if self.ended:
                    break
        return self.history

    def _summaries(self, start: int) -> AbstractContextManager[Summarise]:
        """What the leading process is watched by."""
        return summaries(self.keeping.folder if self.task.world.leads else None, start, self.history)

    @contextmanager
    def _kept_if_stopped(self) -> Iterator[None]:
        """Write a checkpoint where a run is interrupted, between two steps."""
        try:
            yield
        except KeyboardInterrupt:
            if self.done:
                self._keep()
            raise

    def step(self, step: int, drawn: Sequence[Drawn]) -> dict[str, float]:
        """One step of the optimizer, on these samples."""
        recipe, learner = self.task.recipe, self.learner
        _seed(recipe.seed, step)
        learner.begin(step)
        _seed(recipe.seed, step, self.task.world.rank + 1)
        self.optimizer.zero_grad(set_to_none=True)
        numbers: dict[str, float] = {}
        for number, part in enumerate(drawn, 1):
            for name, value in self._backward(step, part, last=number == len(drawn)):
                numbers[name] = numbers.get(name, 0.0) + value
        _seed(recipe.seed, step, 0)
        learner.gradients(step)
        norm = self.precision.clipped(self.optimizer, self.parameters, recipe.clip)
        if not math.isfinite(norm) and not self.precision.overflows and not self._finite():
            portions = (self._portion(part)[0] for part in drawn)
            raise self._failed("gradient", norm, step, portions)
        rate = recipe.pace(self.optimizer, step)
        self.precision.step(self.optimizer)
        learner.updated(step, rate)
        self._average(step)
        return {**numbers, "rate": rate, **learner.scalars()}

    def _backward(self, step: int, drawn: Drawn, *, last: bool) -> list[tuple[str, float]]:
        """Gradients of a portion; the learner's loss comes with the last."""
        task, parts = self.task, self.task.recipe.accumulate
        portion, shares = self._portion(drawn)
        with _silent(self.joined, unless=last):
            with self.precision.computing():
                outputs = self.module(*(portion.inputs[name] for name in task.module.meta["inputs"]))
            terms: dict[str, Tensor] = {}
            for share, labels in shares:
                for name, value in task.objective(outputs, replace(portion, labels=labels)).items():
                    terms[name] = terms.get(name, 0.0) + share * value / parts
            extra = self.learner.loss(step) if last else None
            if extra is not None:
                terms["regularization"] = extra
            total = torch.stack(list(terms.values())).sum()
            if not bool(torch.isfinite(total)):
                raise self._failed("loss", float(total.detach()), step, [portion])
            self.precision.backward(total)
        return [("loss", float(total.detach())), *((name, float(value.detach())) for name, value in terms.items())]

    def _average(self, step: int) -> None:
        """Let the running mean of parameters follow them, closely while it has seen few."""
        if self.mean:
            kept = min(self.task.recipe.average, (step + 1) / (step + 10))
            torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1 - kept)

    def _take_mean(self) -> None:
        """End with the running mean."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.mean, strict=False):
                parameter.copy_(mean)

    def _finite(self) -> bool:
        """Whether all gradients are, though their norm is not."""
        return all(bool(torch.isfinite(p.grad).all()) for p in self.parameters if p.grad is not None)

    def _failed(self, what: str, value: float, step: int, portions: Iterable[Portion]) -> TrainError:
        """What to say where a loss or a gradient is not finite."""
        task = self.task
        with self.precision.computing():
            blamed = next(filter(None, (origin(task.module, task.objective, one) for one in portions)), "")
        first = f": numbers of {blamed} are the first that are not finite" if blamed else ""
        return TrainError(f"training: the {what} became {value} at step {step}{first}. Use a lower ⟨learning_rate⟩.")

    def _portion(self, drawn: Drawn) -> tuple[Portion, list[tuple[float, Any]]]:
        """Samples as the module takes them, with what the teacher makes of them; and labels, with their shares."""
        task, batch = self.task, drawn.batch
        inputs, labels = pool.tensors(batch, task.world.device)
        if task.recipe.channels_last:
            inputs = {name: _laid_out(x) for name, x in inputs.items()}
        if task.augment is None:
            targets = task.teacher.outputs(drawn.shelf, drawn.rows, inputs) if task.teacher is not None else {}
            return Portion(inputs, labels, targets), [(1.0, labels)]
        inputs, shares = task.augment(inputs)
        targets = task.teacher(inputs) if task.teacher is not None else {}
        portion = Portion(inputs, labels, targets)
        if batch.labels is None or not shares:
            return portion, [(1.0, labels)]
        mixed = [replace(batch, labels=batch.labels[order.numpy()]) for _, order in shares]
        both = [pool.tensors(one, task.world.device)[1] for one in mixed]
        return portion, [(share, one) for (share, _), one in zip(shares, both, strict=True)]

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        folder = self.keeping.folder
        if folder is None or not self.task.world.leads:
            return
        for name, text in self.learner.structure(self.done).items():
            place = folder.parent / name  # beside the stages, as MorphNet has it
            place.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(place, text)
        tensors = {f"module/{k}": v for k, v in self.task.module.state_dict().items()}
        tensors |= {f"optimizer/{k}": v for k, v in checkpoints.optimizer_state(self.optimizer).items()}
        tensors |= {f"learner/{k}": v for k, v in self.learner.state().items()}
        tensors |= {f"precision/{k}": v for k, v in self.precision.state().items()}
        tensors |= {f"mean/{k}": v for k, v in enumerate(self.mean)}
        facts = {"step": self.done, "ended": self.ended, "recipe": asdict(self.task.recipe), "history": self.history}
        checkpoints.save(folder, Checkpoint(tensors, facts))

    def _resume(self) -> int:
        """Take up a checkpoint; returns the step to go on with."""
        folder = self.keeping.folder
        checkpoint = checkpoints.load(folder) if self.keeping.resume and folder is not None else None
        if checkpoint is None:
            return 0
        recipe, asked = checkpoint.facts["recipe"], asdict(self.task.recipe)
        other = [name for name in asked if recipe.get(name) != asked[name]]
        if other:
            name = other[0]
            was = f"{name} {recipe.get(name)}, not {asked[name]}"
            raise InputError(f"⟨resume⟩: {folder} is of a run with {was}. Give the same options.")
        try:
            self.task.module.load_state_dict(checkpoint.part("module/"))
        except RuntimeError as error:
            raise InputError(f"⟨resume⟩: {folder} is of another model. Start again without ⟨resume⟩.") from error
        checkpoints.load_optimizer(self.optimizer, checkpoint.part("optimizer/"))
        self.learner.load(checkpoint.part("learner/"))
        self.precision.load(checkpoint.part("precision/"))
        known = checkpoint.part("mean/")
        self.mean = [known[str(k)].to(mean.device) for k, mean in enumerate(self.mean)]
        self.history = list(checkpoint.facts["history"])
        return self.task.recipe.steps if checkpoint.facts["ended"] else int(checkpoint.facts["step"])


def _laid_out(x: Tensor) -> Tensor:
    """A tensor with its channels last in memory, if it has rank 4."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _seed(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for a part of a step."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]) >> 1)


def _silent(module: nn.Module, *, unless: bool) -> AbstractContextManager[None]:
    """Leave out the exchange of gradients between processes."""
    if unless or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()
