"""Peers that cut whole heads and hidden units of a decoder without training, each as its authors run it.

All score by the inputs of the two layers that read those units, the output projection of attention and the last layer
of the hidden units, and leave the stream whole, so that all that is asked for comes from heads and hidden units.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.quality.language_net import Attention, Gated, Language, Layer

STEPS = 10  # halvings of the interval in which the ratio is searched


@dataclass(frozen=True)
class Moments:
    """What flows into a layer: numbers per input channel.

    Attributes:
        mean: Over all tokens.
        squares: Mean of squares.
    """

    mean: Tensor
    squares: Tensor

    @property
    def variance(self) -> Tensor:
        """The mean squared distance to the mean."""
        return self.squares - self.mean**2


def readers(layers: Iterable[Layer]) -> Iterator[tuple[Attention | Gated, nn.Linear]]:
    """What is cut of layers, and the one inside that reads its units."""
    for layer in layers:
        yield layer.attention, layer.attention.o
        yield layer.hidden, layer.hidden.down


@torch.inference_mode()
def through(layers: Iterable[Layer], x: Tensor) -> Tensor:
    """What layers make of a stream ``(N, T, width)``."""
    parts = []
    for part in x.split(16):
        for layer in layers:
            part = layer(part)  # noqa: PLW2901
        parts.append(part)
    return torch.cat(parts)


@torch.inference_mode()
def moments(layers: Iterable[Layer], x: Tensor) -> dict[nn.Linear, Moments]:
    """What flows into everything that reads units, when layers get a stream."""
    told: dict[nn.Linear, list[Tensor]] = {reader: [] for _, reader in readers(layers)}
    hooks = [m.register_forward_pre_hook(lambda m, given: told[m].append(given[0].flatten(0, -2))) for m in told]
    through(layers, x)
    for hook in hooks:
        hook.remove()
    rows = {module: torch.cat(parts).double() for module, parts in told.items()}
    return {module: Moments(x.mean(0).float(), (x**2).mean(0).float()) for module, x in rows.items()}


def _units(part: Attention | Gated, by_channel: Tensor, pool: Callable[..., Tensor]) -> Tensor:
    """Numbers of channels as numbers of units: heads have several channels each."""
    return pool(by_channel.reshape(part.heads, -1), dim=1) if isinstance(part, Attention) else by_channel


def _keep(part: Attention | Gated, kept: Tensor) -> None:
    """Leave some units of a layer, in place."""
    if isinstance(part, Attention):
        kept = (torch.arange(part.heads * part.size).reshape(part.heads, -1)[kept]).flatten()
        part.heads = len(kept) // part.size
    writers = (part.q, part.k, part.v) if isinstance(part, Attention) else (part.gate, part.up)
    for module in writers:
        module.weight = nn.Parameter(module.weight.detach()[kept])
    reader = part.o if isinstance(part, Attention) else part.down
    reader.weight = nn.Parameter(reader.weight.detach()[:, kept])


def _lowest_stay_out(score: Tensor, ratio: float) -> Tensor:
    """The units that stay when that share, those with the lowest scores, goes; one at least stays."""
    gone = min(round(ratio * len(score)), len(score) - 1)
    return score.argsort()[gone:].sort().values


def magnitude(net: Language, tokens: Tensor, ratio: float) -> Language:
    """The same share of every layer by the norm of the weights that read a unit (the baseline of FLAP's authors)."""
    net = copy.deepcopy(net)
    for part, reader in readers(net.layers):
        _keep(part, _lowest_stay_out(_units(part, reader.weight.detach().norm(dim=0), torch.sum), ratio))
    return net


def wanda(net: Language, tokens: Tensor, ratio: float) -> Language:
    """Wanda-sp: the same share of every layer by |W| times the norm of its input, layer after layer.

    Sun et al., arXiv:2306.11695, on structures as in An et al., arXiv:2312.11983, whose code sums scores over a head
    and scores a layer on what the layers cut before put out.
    """
    net = copy.deepcopy(net)
    x = net.embedding(tokens).detach()
    for layer in net.layers:
        told = moments([layer], x)
        for part, reader in readers([layer]):
            score = (reader.weight.detach().abs() * told[reader].squares.sqrt()).mean(0)
            _keep(part, _lowest_stay_out(_units(part, score, torch.sum), ratio))
        x = through([layer], x)
    return net


def flap(net: Language, tokens: Tensor, ratio: float) -> Language:
    """FLAP: fluctuation of the input times the squared norm of its weights, standardised, over all layers at once.

    An et al., arXiv:2312.11983: heads and hidden units of all layers in one ranking, in which each counts as many
    parameters as it has, and the mean of what went is put into a bias.
    """
    net = copy.deepcopy(net)
    told, parts = moments(net.layers, net.embedding(tokens).detach()), list(readers(net.layers))
    scores, sizes = [], []
    for part, reader in parts:
        score = _units(part, told[reader].variance * reader.weight.detach().pow(2).sum(0), torch.mean)
        scores.append((score - score.mean()) / score.std())
        each = 4 * part.size if isinstance(part, Attention) else 3
        sizes.append(torch.full_like(score, each))
    order = torch.cat(scores).argsort()
    size = torch.cat(sizes)[order]
    gone = torch.zeros(len(order), dtype=torch.bool)
    gone[order] = size.cumsum(0) <= ratio * size.sum()
    for (part, reader), score, away in zip(parts, scores, gone.split([len(s) for s in scores]), strict=True):
        away[score.argmax()] = False
        channels = away.repeat_interleave(reader.in_features // len(score))
        reader.bias = nn.Parameter(reader.weight.detach() @ (told[reader].mean * channels))
        _keep(part, (~away).nonzero()[:, 0])
    return net


PEERS: Mapping[str, Callable[[Language, Tensor, float], Language]] = {
    "magnitude": magnitude,
    "Wanda-sp": wanda,
    "FLAP": flap,
}


def parameters(net: nn.Module) -> int:
    """Numbers in all weights."""
    return sum(p.numel() for p in net.parameters())


def at_parameters(net: Language, tokens: Tensor, bound: float, peer: str) -> Language:
    """The least cut net whose parameters are within a bound."""
    cut, low, high = partial(PEERS[peer], net, tokens), 0.0, 0.95
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if parameters(cut(middle)) <= bound else (middle, high)
    return cut(high)
