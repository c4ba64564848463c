"""What a choice of shares per layer is worth: mask the pretrained weights, repair shortly, fine-tune shortly, evaluate.

A roll-out begins with what is sparsified in one go, where training would begin so, too. Otherwise it masks the smallest
weights of every layer, then fits each layer's output to what the full network puts out there, from the inputs that the
pruned network has by then (a few steps of Adam per layer on half the squared error, weights of that layer alone). Then
it trains all weights for a few steps, and judges on samples that are not trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from onnxslim_learn.learners.weight_sparse.learner import Fixed, WeightSparse
from onnxslim_learn.learners.weight_sparse.settings import SINGLE
from onnxslim_learn.output_kinds import classifies, log_probabilities
from onnxslim_learn.sparse.schedule import Schedule
from onnxslim_learn.train import samples as pool
from onnxslim_learn.train.augmentation import augmentation
from onnxslim_learn.train.loop import LoopTask, train
from onnxslim_learn.train.optimizer import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from onnxslim_learn.learners.weight_sparse.settings import MethodSettings
    from onnxslim_learn.sparse.maskable import Layer
    from onnxslim_learn.sparse.patterns import Pattern
    from onnxslim_learn.train.trainer import Trainer

REGRESSED = 512  # samples of a roll-out's regression; each of its steps sees a batch of them


@dataclass(frozen=True)
class Rollouts:
    """What roll-outs need.

    Attributes:
        trainer: Samples, teacher and loss.
        module: The net, of which the weights are used up.
        dense: Its weights as they were.
        layers: What is masked.
        settings: How long everything takes.
        pattern: Where zeros may be.
        begun: Gives the module sparse weights for shares in one go, where that is asked for.
    """

    trainer: Trainer
    module: fx.GraphModule
    dense: dict[str, Tensor]
    layers: Sequence[Layer]
    settings: MethodSettings
    pattern: Pattern
    begun: Callable[[Mapping[str, float]], None] | None = None

    @classmethod
    def of(
        cls,
        trainer: Trainer,
        module: fx.GraphModule,
        layers: Sequence[Layer],
        settings: MethodSettings,
        pattern: Pattern,
    ) -> Rollouts:
        """Remember the weights of a module."""
        dense = {name: value.clone() for name, value in module.state_dict().items()}
        return cls(trainer, module, dense, layers, settings, pattern)

    def run(self, ratios: Mapping[str, float], times: int = 1) -> float:
        """How good the net is with these shares, from 0 to 1, on so many times the batches of a roll-out."""
        settings, trainer = self.settings, self.trainer
        self.module.load_state_dict(self.dense)
        learner = WeightSparse(self.module, self.layers, ratios, Schedule(1), self.pattern)
        if self.begun is not None:
            self.begun(ratios)
            learner.keep_zeros()
        else:
            learner.refresh(1.0)
            if settings.ws_nb_iters_rg:
                self._regress(learner)
        if settings.ws_nb_iters_ft:
            training = trainer.training
            recipe = Recipe(settings.ws_nb_iters_ft, training.batch_size, rate=settings.ws_lrn_rate_ft, decay=0.0)
            recipe = replace(recipe, schedule="constant", warmup=0.0, clip=0.0, seed=training.seed)
            recipe = replace(recipe, accumulate=training.accumulate)
            alone = replace(trainer.world, rank=0, size=1)
            train(
                LoopTask(self.module, trainer.objective, trainer.samples, trainer.teacher, recipe, alone),
                Fixed(learner),
            )
        return self.score(times)

    @property
    def more(self) -> bool:
        """Whether more samples are held back than a roll-out is judged by."""
        return self.trainer.held.count > self.settings.ws_nb_iters_feval * self.trainer.training.batch_size

    def score(self, times: int = 1) -> float:
        """How good the net is on held-back samples, from 0 to 1.

        Share of right classes; without labels, of the original's probabilities that are the net's, too; where there are
        no classes, 1/(1 + squared error). Samples are changed as in training, alike every time: where the original was
        trained on them, it was not on these.
        """
        trainer, predictions = self.trainer, []
        size = trainer.training.batch_size
        held = trainer.held if trainer.held.count else trainer.samples
        augment = augmentation(trainer.training.augment, held.declared)
        self.module.eval()
        torch.manual_seed(trainer.training.seed)
        for batch in islice(pool.portions(held, size), times * self.settings.ws_nb_iters_feval):
            inputs, labels = pool.tensors(batch, trainer.world.device)
            if augment is not None:
                inputs, shares = augment(inputs)
                labels = None if shares else labels
            with torch.no_grad():
                outputs = self.module(*(inputs[name] for name in self.module.meta["inputs"]))
            predictions.append((judged(outputs, trainer.teacher(inputs), labels), batch.count))
        scores, counts = np.transpose(predictions)
        return float(np.average(scores, weights=counts))

    def _regress(self, learner: WeightSparse) -> None:
        """Fit every layer to what the full net puts out there."""
        samples, device = self.trainer.samples, self.trainer.world.device
        shelf = samples.shelves[0]
        count = min(REGRESSED, shelf.count) if samples.declared.batch is None else samples.declared.batch
        batch = samples.take(0, np.random.default_rng(self.trainer.training.seed).permutation(shelf.count)[:count])
        inputs, _ = pool.tensors(batch, device)
        given = [inputs[name] for name in self.module.meta["inputs"]]
        nodes = readers(self.module, learner)
        self.module.eval()
        sparse = {name: value.clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.dense)
        full = _Listening(self.module, set(nodes))
        with torch.no_grad():
            full.run(*given)
        self.module.load_state_dict(sparse)
        torch.manual_seed(self.trainer.training.seed)
        size = count if samples.declared.batch else self.trainer.training.batch_size
        _Regression(self.module, nodes, full.heard, learner, (self.settings, size)).run(*given)


def judged(outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], labels: Any) -> float:
    """How good outputs are, from 0 to 1 (see :meth:`Rollouts.score`)."""
    name, first = next(iter(outputs.items()))
    known = wanted[name].float().cpu().numpy() if first.is_floating_point() else None
    if known is not None and classifies(known, name):
        if isinstance(labels, torch.Tensor) and labels.ndim == 1 and not labels.is_floating_point():
            return float((first.argmax(1) == labels).to(torch.float32).mean())
        shares = [np.exp(log_probabilities(x)) for x in (known, first.float().cpu().numpy())]
        return float(np.minimum(*shares).sum(axis=1).mean())
    floats = [n for n, value in outputs.items() if value.is_floating_point()]
    errors = [float((outputs[n] - wanted[n]).norm() / wanted[n].norm().clamp_min(1e-6)) ** 2 for n in floats]
    return 1 / (1 + float(np.mean(errors)))


def reward(score: float, ratio: float, kind: str) -> float:
    """``single-obj``: the score; ``multi-obj``: score · ln(1 + overall share)."""
    return score if kind == SINGLE else score * math.log(1 + ratio)


def readers(module: fx.GraphModule, learner: WeightSparse) -> dict[fx.Node, str]:
    """The calls that multiply by a masked weight as it is in the module -> that weight.

    A weight that is moved first, or that several nodes read, is left to fine-tuning.
    """
    paths = {path: name for name, path in module.meta["initializers"].items() if name in learner.parameters}
    calls = {}
    for node in module.graph.nodes:
        if node.op == "get_attr" and node.target in paths and len(node.users) == 1:
            user = next(iter(node.users))
            if user.op == "call_function" and any(n.op != "get_attr" for n in user.all_input_nodes):
                calls[user] = paths[node.target]
    return calls


class _Listening(fx.Interpreter):
    """Runs a module and keeps what some nodes put out."""

    def __init__(self, module: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(module)
        self.wanted, self.heard = wanted, dict[fx.Node, Any]()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.wanted:
            self.heard[n] = result
        return result


class _Regression(fx.Interpreter):
    """Runs a module and, at every layer, fits its weights before it goes on."""

    def __init__(
        self,
        module: fx.GraphModule,
        nodes: Mapping[fx.Node, str],
        wanted: Mapping[fx.Node, Any],
        learner: WeightSparse,
        pace: tuple[MethodSettings, int],
    ) -> None:
        super().__init__(module)
        self.nodes, self.targets, self.learner = nodes, wanted, learner
        self.settings, self.size = pace

    def run_node(self, n: fx.Node) -> Any:
        target = self.targets.get(n)
        if n in self.nodes and isinstance(target, torch.Tensor):
            self._fit(n, self.learner.parameters[self.nodes[n]], target)
        with torch.no_grad():
            return super().run_node(n)

    def _fit(self, n: fx.Node, weight: nn.Parameter, target: Tensor) -> None:
        mask = self.learner.masks[self.nodes[n]]
        optimizer = torch.optim.Adam([weight], lr=self.settings.ws_lrn_rate_rg)
        args, keywords = self.fetch_args_kwargs_from_env(n)
        data = [
            isinstance(node, fx.Node)
            and node.op != "get_attr"
            and isinstance(a, torch.Tensor)
            and a.ndim > 0
            and len(a) == len(target)
            for node, a in zip(n.args, args, strict=True)
        ]

        def run(rows: Tensor) -> Tensor:
            part = tuple(a[rows] if by_rows else a for a, by_rows in zip(args, data, strict=True))
            result: Tensor = self.call_function(n.target, part, keywords)
            return result

        everything = torch.arange(len(target))
        apart = any(data) and self._apart(run, everything)
        for _ in range(self.settings.ws_nb_iters_rg):
            rows = torch.randperm(len(target))[: self.size] if apart else everything
            result = run(rows)
            loss = 0.5 * (result - target[rows].detach()).square().sum() / len(rows)
            (gradient,) = torch.autograd.grad(loss, [weight])
            weight.grad = gradient * mask
            optimizer.step()
        weight.grad = None
        with torch.no_grad():
            weight.mul_(mask)

    def _apart(self, run: Callable[[Tensor], Tensor], rows: Tensor) -> bool:
        """Whether what a layer puts out for some rows of its input is those rows of what it puts out for all."""
        some = rows.flip(0)[: self.size]
        with torch.no_grad():
            whole = run(rows)
            try:
                result = run(some)
            except RuntimeError:
                return False
        return result.shape == whole[some].shape and torch.allclose(result, whole[some], rtol=1e-3, atol=1e-4)
