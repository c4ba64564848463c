"""Where a number that is not finite comes from: the first node that makes one, on the way forth or back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from onnxslim_learn.train.losses import Objective
    from onnxslim_learn.train.samples import Portion

LOSS = "the loss function"


def origin(module: fx.GraphModule, objective: Objective, portion: Portion) -> str:
    """Run a portion once more, node by node; returns what made the first NaN or, without one, infinity.

    Values are looked at before gradients. Infinity may be meant, as in a mask; it counts where nothing else is amiss.

    Args:
        module: What :func:`onnxslim_learn.bridge.module.bridge` made; gradients are added to those it has.
        objective: What is minimised.
        portion: The samples.

    Returns:
        The name and operator of a node, :data:`LOSS`, or nothing where all is finite.
    """
    for name, parameter in module.named_parameters():
        if not _finite(parameter):
            return f"weight {name}"
    watch = _Watch(module)
    outputs = watch.run(*(portion.inputs[name] for name in module.meta["inputs"]))
    outputs = {name: _marked(value, LOSS, watch.back) for name, value in outputs.items()}
    total = torch.stack(list(objective(outputs, portion).values())).sum()
    if not _finite(total):
        return (watch.undefined or watch.infinite or [LOSS])[0]
    torch.autograd.backward(total)
    return watch.back[0] if watch.back else ""


def _finite(x: Any) -> bool:
    return not isinstance(x, Tensor) or not x.is_floating_point() or bool(torch.isfinite(x).all())


class _Marked(torch.autograd.Function):
    """Passes values on, and writes down where a gradient that is not finite comes from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, back: list[str]) -> Tensor:
        ctx.name, ctx.back = name, back
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if not _finite(gradient):
            ctx.back.append(ctx.name)
        return gradient, None, None


def _marked(x: Any, name: str, back: list[str]) -> Any:
    if not isinstance(x, Tensor) or not x.requires_grad:
        return x
    return _Marked.apply(x, name, back)  # type: ignore[no-untyped-call]


class _Watch(fx.Interpreter):
    """Runs a module and writes down, in order, which nodes put out NaN, infinity, or gradients of these."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.undefined: list[str] = []
        self.infinite: list[str] = []
        self.back: list[str] = []

    def run_node(self, n: fx.Node) -> Any:
        if "title" not in n.meta:
            return super().run_node(n)
        args, keywords = self.fetch_args_kwargs_from_env(n)
        args = fx.node.map_aggregate(args, lambda x: _marked(x, n.meta["title"], self.back))
        result = self.call_function(n.target, args, keywords)
        for part in result if isinstance(result, tuple) else (result,):
            if not _finite(part):
                (self.undefined if bool(torch.isnan(part).any()) else self.infinite).append(n.meta["title"])
        return result
