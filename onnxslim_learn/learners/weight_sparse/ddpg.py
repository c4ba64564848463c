"""Shares per layer by reinforcement learning (DDPG, Lillicrap et al. 2016, arXiv:1509.02971).

An agent walks over the layers and says for each how large a share of its weights goes; what the whole choice is worth
a roll-out tells at the end. The agent is Stable-Baselines3's; this module says what it sees and may do, and keeps the
best choice ever seen. It begins from choices that are known: the first roll-outs are those, an actor that has not
learnt yet makes the first of them, and its noise leads away from there. (The original begins from one share for all
layers, with noise over all that is allowed, and lets the last layers bear what the first ones did not: here all do.)
The best of many roll-outs is partly luck, so the best few and the known ones can be judged again, on more samples.
Agent, replay buffer and results are written after every roll-out, from where a search goes on.

The last layer of the actor is a hyperbolic tangent brought to [-1, 1] times a span.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import scipy.special
import torch
from stable_baselines3 import DDPG
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.td3.policies import Actor, TD3Policy
from torch import Tensor, nn

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.weight_sparse.rollouts import reward
from onnxslim_learn.learners.weight_sparse.settings import SINGLE
from onnxslim_learn.sparse import layer_ratios
from onnxslim_learn.train import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from stable_baselines3.common.policies import ContinuousCritic

    from onnxslim_learn.learners.weight_sparse.settings import MethodSettings
    from onnxslim_learn.sparse.maskable import Layer

Play = Callable[[dict[str, float]], float]  # shares by weight -> score

WIDTH = 64
TAU, GAMMA, RATE, BATCH = 0.01, 0.9, 1e-3, 64
BASELINE = 0.95  # of the moving average that rewards are compared with
SPAN = 0.3  # of all that is allowed, how far an actor leads away from the first choice
NOISE = (0.1, 1e-3)  # deviation of actions in [0, 1] until the agent begins to train, and at the end
DIMS = 4  # numbers of a weight's shape that the agent sees
ROOM = 100_000  # transitions kept
FINALISTS = 5  # choices that are judged again, beside those known beforehand


@dataclass
class RatioSearch:
    """Where a search stands.

    Attributes:
        rollouts: How many roll-outs were made.
        best: The best reward, its score, overall share, shares by weight and roll-out.
        finalists: Those known beforehand and the best few others, each like ``best``.
        baseline: Moving average of rewards, ``None`` before the first.
        rewards: All of them.
    """

    rollouts: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    finalists: list[dict[str, Any]] = field(default_factory=list)
    baseline: float | None = None
    rewards: list[float] = field(default_factory=list)


class PruningEnvironment(gymnasium.Env[Array, Array]):
    """A walk over the layers; an episode is a roll-out."""

    def __init__(
        self, layers: Sequence[Layer], settings: MethodSettings, play: Play, known: Sequence[Sequence[float]] = ()
    ) -> None:
        """Prepare.

        Args:
            layers: What is masked.
            settings: The parameters ``ws_*``.
            play: Makes a roll-out and tells its score.
            known: Choices that the first roll-outs try, each a share for every layer; the search goes out from the
                first (by default the same share for all). Where they pass the bounds of the method, all may.
        """
        self.layers, self.settings, self.play = layers, settings, play
        self.sizes, target = [layer.size for layer in layers], settings.ws_prune_ratio
        self.known = [list(shares) for shares in known] or [layer_ratios.uniform(self.sizes, target)]
        low, high = layer_ratios.bounds(target)
        self.limits = min(low, *map(min, self.known)), max(high, *map(max, self.known))
        self.chosen: list[float] = []
        self.search = RatioSearch()
        self.fixed = features(layers)
        width = self.fixed.shape[1] + 2
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (width,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin at the first layer."""
        super().reset(seed=seed)
        self.chosen = []
        return self._state(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Choose the share of the next layer."""
        target, middle = self.settings.ws_prune_ratio, self.known[0][len(self.chosen)]
        share = layer_ratios.from_action((float(action[0]) + 1) / 2, middle, self.limits)
        self.chosen.append(float(np.clip(share, *self.limits)))
        ends = len(self.chosen) == len(self.layers)
        if ends and self.settings.ws_reward_type == SINGLE:
            self.chosen = layer_ratios.met(self.sizes, self.chosen, target, self.limits)
        return self._state(), self._rewarded() if ends else 0.0, ends, False, {}

    def _state(self) -> Array:
        """Which layer, its shape and size, weights kept so far and weights to come, each between 0 and 1."""
        place, total = min(len(self.chosen), len(self.layers) - 1), sum(self.sizes)
        kept = sum(n * (1 - r) for n, r in zip(self.sizes, self.chosen, strict=False))
        rest = [kept / total, sum(self.sizes[len(self.chosen) + 1 :]) / total]
        return np.concatenate([self.fixed[place], rest]).astype(np.float32)

    def _rewarded(self) -> float:
        """Play the roll-out; the reward is what it is above the moving average."""
        search, shares = self.search, {layer.name: r for layer, r in zip(self.layers, self.chosen, strict=True)}
        overall = sum(n * r for n, r in zip(self.sizes, self.chosen, strict=True)) / sum(self.sizes)
        score = self.play(shares)
        reward_of_play = reward(score, overall, self.settings.ws_reward_type)
        choice = {
            "reward": reward_of_play,
            "score": score,
            "ratio": overall,
            "ratios": shares,
            "rollout": search.rollouts,
        }
        if not search.best or reward_of_play > search.best["reward"]:
            search.best = choice
        known = len(self.known)
        ranked = sorted([*search.finalists, choice], key=lambda c: (c["rollout"] >= known, -c["reward"]))
        search.finalists = ranked[: known + FINALISTS]
        above = reward_of_play - (reward_of_play if search.baseline is None else search.baseline)
        before = reward_of_play if search.baseline is None else search.baseline
        search.baseline = BASELINE * before + (1 - BASELINE) * reward_of_play
        search.rewards.append(reward_of_play)
        search.rollouts += 1
        return above


def features(layers: Sequence[Layer]) -> Array:
    """What an agent knows of every layer beforehand: one-hot place, four numbers of its shape, its size, by column."""
    shapes = np.array([(*layer.shape, 1, 1, 1, 1)[:DIMS] for layer in layers], float)
    table = np.concatenate([np.eye(len(layers)), shapes, [[layer.size] for layer in layers]], axis=1)
    result: Array = table / table.max(axis=0)
    return result


class Late(nn.Module):
    """A critic that sees the action after one layer."""

    def __init__(self, states: int) -> None:
        """Make its layers."""
        super().__init__()
        self.states = states
        self.first = nn.Linear(states, WIDTH)
        self.rest = nn.Sequential(
            nn.Linear(WIDTH + 1, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
        )

    def forward(self, both: Tensor) -> Tensor:
        """Value of states with actions behind them."""
        states, actions = both[:, : self.states], both[:, self.states :]
        value: Tensor = self.rest(torch.cat([torch.relu(self.first(states)), actions], 1))
        return value


class Near(nn.Tanh):
    """A hyperbolic tangent brought to :data:`SPAN`."""

    def forward(self, x: Tensor) -> Tensor:
        """Actions of what an actor's last layer puts out."""
        return SPAN * super().forward(x)


class Policy(TD3Policy):
    """Actor 2×64 with layer normalisation, 0 at first; critic 64 on the state, then with the action 2×64."""

    def make_actor(self, features_extractor: Any = None) -> Actor:
        """The actor."""
        actor = super().make_actor(features_extractor)
        inner = [nn.Linear(actor.features_dim, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU()]
        inner += [nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU()]
        last = nn.Linear(WIDTH, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        actor.mu = nn.Sequential(*inner, last, Near()).to(actor.device)
        return actor

    def make_critic(self, features_extractor: Any = None) -> ContinuousCritic:
        """The critic."""
        critic = super().make_critic(features_extractor)
        critic.qf0 = Late(critic.features_extractor.features_dim).to(critic.device)
        critic.q_networks = [critic.qf0]
        return critic


class Agent(DDPG):
    """DDPG that explores by a normal distribution cut off at the ends of the actions, ever narrower."""

    walk: PruningEnvironment

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> tuple[Array, Array]:
        """An action and what the buffer keeps: as known, then around the actor's."""
        walk = self.walk
        if walk.search.rollouts < min(len(walk.known), walk.settings.ws_nb_rlouts_min):
            share, origin = (choice[len(walk.chosen)] for choice in (walk.known[walk.search.rollouts], walk.known[0]))
            first = 2 * layer_ratios.to_action(share, origin, walk.limits) - 1
            return (np.full((n_envs, 1), first, np.float32),) * 2
        assert self._last_obs is not None
        middle = self.predict(self._last_obs, deterministic=True)[0].astype(np.float64)
        wide = 2 * deviation(walk.search.rollouts, walk.settings)  # actions are 2 wide
        low, high = (scipy.special.ndtr((end - middle) / wide) for end in (-1.0, 1.0))
        drawn = middle + wide * scipy.special.ndtri(low + (high - low) * np.random.random(middle.shape))
        action = np.clip(np.where(np.isfinite(drawn), drawn, middle), -1, 1).astype(np.float32)
        return action, action


def deviation(rollouts: int, settings: MethodSettings) -> float:
    """Deviation of noise on [0, 1] after so many roll-outs: falls geometrically once the agent trains."""
    training = max(settings.ws_nb_rlouts - settings.ws_nb_rlouts_min, 1)
    share = min(max(rollouts - settings.ws_nb_rlouts_min, 0) / training, 1.0)
    return float(NOISE[0] * (NOISE[1] / NOISE[0]) ** share)


def optimal(
    walk: PruningEnvironment,
    folder: Path,
    *,
    again: Play | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: Callable[..., None] = lambda share, said="": None,
) -> RatioSearch:
    """Search shares by reinforcement learning; the best are in what is returned.

    Args:
        walk: What is masked, and what a choice is worth.
        folder: Where the agent is kept.
        again: As what a walk plays, but surer: decides between the finalists.
        resume: Whether to go on from there.
        seed: Determines the agent and the noise.
        progress: Called with the share done and the best reward.

    Raises:
        InputError: If what is in the folder is of another search.
    """
    layers, settings = walk.layers, walk.settings
    facts = {
        "settings": asdict(settings),
        "layers": [layer.name for layer in layers],
        "seed": seed,
        "known": walk.known,
    }
    agent = _agent(walk, seed)
    checkpoint = checkpoints.load(folder) if resume else None
    if checkpoint is not None:
        if checkpoint.facts["made"] != json.loads(json.dumps(facts)):
            raise InputError(f"⟨resume⟩: {folder} is of a search with other settings. Give the same ones.")
        walk.search = RatioSearch(**checkpoint.facts["search"])
        _take_up(agent, checkpoint)
        agent.num_timesteps = walk.search.rollouts * len(layers)
    left = settings.ws_nb_rlouts - walk.search.rollouts
    if left > 0:
        agent.learn(left * len(layers), callback=_Keep(walk, folder, facts, progress), reset_num_timesteps=False)
    return walk.search if again is None else _final(walk.search, again, settings)


def _final(search: RatioSearch, again: Play, settings: MethodSettings) -> RatioSearch:
    """Judge the finalists again; the best of them is the result, of equal ones one known beforehand."""
    judged = []
    for choice in search.finalists:
        score = again(choice["ratios"])
        judged.append({**choice, "score": score, "reward": reward(score, choice["ratio"], settings.ws_reward_type)})
    return replace(search, finalists=judged, best=max(judged, key=lambda choice: choice["reward"]))


def _agent(walk: PruningEnvironment, seed: int) -> Agent:
    agent = Agent(
        Policy,
        walk,
        learning_rate=RATE,
        buffer_size=ROOM,
        learning_starts=walk.settings.ws_nb_rlouts_min * len(walk.layers),
        batch_size=BATCH,
        tau=TAU,
        gamma=GAMMA,
        train_freq=(1, "episode"),
        gradient_steps=-1,
        seed=seed,
        device="cpu",
    )
    agent.walk = walk
    return agent


BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def _tensors(agent: DDPG) -> dict[str, Tensor]:
    """Networks, optimizers and replay buffer."""
    buffer: Any = agent.replay_buffer
    end = buffer.buffer_size if buffer.full else buffer.pos
    tensors = {f"policy/{k}": v for k, v in agent.policy.state_dict().items()}
    for name, one in (("actor", agent.actor), ("critic", agent.critic)):
        tensors |= {f"{name}/{k}": v for k, v in checkpoints.optimizer_state(one.optimizer).items()}
    return tensors | {f"buffer/{name}": torch.from_numpy(getattr(buffer, name)[:end].copy()) for name in BUFFER}


def _take_up(agent: DDPG, checkpoint: checkpoints.Checkpoint) -> None:
    """Undo :func:`_tensors`."""
    agent.policy.load_state_dict(checkpoint.part("policy/"))
    for name, one in (("actor", agent.actor), ("critic", agent.critic)):
        if state := checkpoint.part(f"{name}/"):
            checkpoints.load_optimizer(one.optimizer, state)
    buffer: Any = agent.replay_buffer
    for name, value in checkpoint.part("buffer/").items():
        getattr(buffer, name)[: len(value)] = value.numpy()
        buffer.pos, buffer.full = len(value) % buffer.buffer_size, len(value) == buffer.buffer_size


class _Keep(BaseCallback):
    """Keeps everything after every roll-out, and lets chance follow from the seed and the roll-out alone."""

    def __init__(
        self, walk: PruningEnvironment, folder: Path, facts: dict[str, Any], progress: Callable[..., None]
    ) -> None:
        super().__init__()
        self.walk, self.folder, self.facts, self.progress, self.kept = (
            walk,
            folder,
            facts,
            progress,
            walk.search.rollouts,
        )

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._keep()
        seed = self.facts["seed"] * 1_000_003 + self.walk.search.rollouts
        set_random_seed(seed)
        self.model.action_space.seed(seed)

    def _on_rollout_end(self) -> None:
        """Every step of a roll-out earns what the whole was worth."""
        buffer: Any = self.model.replay_buffer  # type: ignore[attr-defined]
        steps = np.arange(buffer.pos - len(self.walk.layers), buffer.pos)
        buffer.rewards[steps] = buffer.rewards[buffer.pos - 1]

    def _on_training_end(self) -> None:
        self._keep()

    def _keep(self) -> None:
        search = self.walk.search
        if search.rollouts == self.kept:
            return
        self.kept = search.rollouts
        facts = {"step": search.rollouts, "made": self.facts, "search": asdict(search)}
        assert isinstance(self.model, Agent)
        checkpoints.save(self.folder, checkpoints.Checkpoint(_tensors(self.model), facts))
        self.progress(self.kept / self.walk.settings.ws_nb_rlouts, f"best {search.best['score']:.4f}")
