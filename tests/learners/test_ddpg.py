"""The agent: what it sees and may do, that it finds what is good, and that a killed search goes on."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.weight_sparse import ddpg
from onnxslim_learn.learners.weight_sparse.rollouts import reward
from onnxslim_learn.learners.weight_sparse.settings import settings
from onnxslim_learn.sparse import layer_ratios
from onnxslim_learn.sparse.maskable import Layer

LAYERS = [Layer(f"w{k}", (8, n, 3, 3), (1,), (0,), ()) for k, n in enumerate([3, 8, 16, 32, 8])]
SIZES = [layer.size for layer in LAYERS]
TARGET = 0.8


def play(shares):
    """The first two layers are dear."""
    return 1 - sum(shares[layer.name] ** 2 * (3 if k < 2 else 0.2) for k, layer in enumerate(LAYERS)) / 8


def asked(**given):
    return settings({"ws_prune_ratio": TARGET, "ws_nb_rlouts": 40, "ws_nb_rlouts_min": 15, **given})


KNOWN = [protocol(SIZES, TARGET) for protocol in (layer_ratios.heurist, layer_ratios.uniform)]


def overall(shares):
    return sum(layer.size * shares[layer.name] for layer in LAYERS) / sum(SIZES)


def searched(given, play, folder, known=(), **how):
    return ddpg.optimal(ddpg.PruningEnvironment(LAYERS, given, play, known), folder, **how)


@pytest.mark.parametrize("kind", ["single-obj", "multi-obj"])
def test_actions_become_shares_within_bounds(kind):
    seen = []
    walk = ddpg.PruningEnvironment(LAYERS, asked(ws_reward_type=kind), lambda shares: seen.append(shares) or 0.5)
    rng = np.random.default_rng(0)
    for _ in range(50):
        state, _ = walk.reset()
        ended = False
        while not ended:
            assert walk.observation_space.contains(state)
            state, earned, ended, _, _ = walk.step(rng.uniform(-1, 1, 1))
            assert ended or earned == 0
    low, high = layer_ratios.bounds(TARGET)
    assert all(low - 1e-9 <= r <= high + 1e-9 for shares in seen for r in shares.values())
    least = min(overall(shares) for shares in seen)
    assert (least >= TARGET - 1e-9) == (kind == "single-obj")
    assert walk.search.rollouts == len(seen) == 50


def test_states_are_what_an_agent_needs_to_know():
    walk = ddpg.PruningEnvironment(LAYERS, asked(), play)
    state, _ = walk.reset()
    assert len(state) == len(LAYERS) + 4 + 1 + 2
    assert state[: len(LAYERS)].tolist() == [1, 0, 0, 0, 0]
    assert state[len(LAYERS) : len(LAYERS) + 4] == pytest.approx([1, 3 / 32, 1, 1])
    assert state[-3] == pytest.approx(SIZES[0] / max(SIZES))
    assert state[-2:] == pytest.approx([0, sum(SIZES[1:]) / sum(SIZES)])
    state = walk.step(np.zeros(1))[0]
    assert state[: len(LAYERS)].tolist() == [0, 1, 0, 0, 0]
    assert state[-2:] == pytest.approx([SIZES[0] * (1 - TARGET) / sum(SIZES), sum(SIZES[2:]) / sum(SIZES)])


def test_rewards_are_above_a_moving_average():
    scores = iter([0.5, 0.7, 0.6])
    walk = ddpg.PruningEnvironment(LAYERS[:1], asked(), lambda shares: next(scores))
    earned = []
    for _ in range(3):
        walk.reset()
        earned.append(walk.step(np.zeros(1))[1])
    assert earned == pytest.approx([0, 0.2, 0.6 - (0.95 * 0.5 + 0.05 * 0.7)])
    assert walk.search.best["score"] == 0.7
    assert reward(0.5, 0.75, "multi-obj") == pytest.approx(0.5 * np.log(1.75))
    assert reward(0.5, 0.75, "single-obj") == 0.5


def test_a_search_begins_from_what_is_known_and_goes_out_from_the_first(tmp_path):
    seen = []
    given, first = (
        asked(ws_nb_rlouts=12, ws_nb_rlouts_min=12),
        layer_ratios.met(SIZES, [0.1, 0.3, 0.6, 0.9, 0.5], TARGET, (0, 1)),
    )
    known = [first, *KNOWN]
    searched(given, lambda shares: seen.append([*shares.values()]) or 0.5, tmp_path, known=known)
    assert len(seen) == 12
    assert np.array(seen[:3]) == pytest.approx(np.array(known), abs=1e-6), "beyond the bounds of the method, too"
    away = np.abs(np.array(seen[3:]) - first)
    assert away.max(1).min() > 0
    assert np.median(away) < 0.1


@pytest.mark.parametrize("target", [0.3, 0.8, 0.95])
def test_shares_are_found_from_actions_and_back(target):
    limits = layer_ratios.bounds(target)
    for middle in (target, *limits):
        for share in np.linspace(*limits, 21):
            action = layer_ratios.to_action(share, middle, limits)
            assert layer_ratios.from_action(action, middle, limits) == pytest.approx(share)


def test_noise_fades_once_the_agent_trains():
    made = asked()
    assert [ddpg.deviation(n, made) for n in (0, 15)] == [0.1, 0.1]
    assert ddpg.deviation(40, made) == pytest.approx(1e-3)
    assert ddpg.deviation(20, made) > ddpg.deviation(30, made)


def test_networks_are_those_of_the_method():
    agent = ddpg._agent(ddpg.PruningEnvironment(LAYERS, asked(), play), 0)
    kinds = [type(m).__name__ for m in agent.actor.mu]
    assert kinds == ["Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm", "ReLU", "Linear", "Near"]
    assert [m.out_features for m in agent.actor.mu if isinstance(m, torch.nn.Linear)] == [64, 64, 1]
    critic = agent.critic.qf0
    assert (critic.first.out_features, critic.rest[0].in_features, critic.rest[2].out_features) == (64, 65, 64)
    assert (agent.tau, agent.gamma, agent.batch_size, agent.learning_rate) == (0.01, 0.9, 64, 1e-3)
    assert any(p is critic.first.weight for group in agent.critic.optimizer.param_groups for p in group["params"])


def test_the_agent_learns_and_the_best_choice_is_kept(tmp_path):
    found = searched(asked(), play, tmp_path, seed=1)
    assert np.mean(found.rewards[-5:]) > np.mean(found.rewards[:15]) + 0.1
    assert found.best["reward"] == max(found.rewards)
    assert play(found.best["ratios"]) == found.best["score"]
    assert overall(found.best["ratios"]) >= TARGET - 1e-9
    assert found.best["ratios"]["w0"] < found.best["ratios"]["w3"]


def test_the_best_few_are_judged_again_beside_those_known_beforehand(tmp_path):
    def lucky(shares):
        return play(shares) + np.random.default_rng(int(1e6 * shares["w4"])).normal() / 2

    seen = []
    judge = {"again": lambda shares: seen.append(play(shares)) or seen[-1], "known": KNOWN}
    found = searched(asked(), lucky, tmp_path, seed=1, **judge)
    assert len(seen) == len(found.finalists) == len(KNOWN) + ddpg.FINALISTS
    assert {choice["rollout"] for choice in found.finalists[: len(KNOWN)]} == {0, 1}
    assert found.best["score"] == play(found.best["ratios"]) == max(seen)
    assert max(seen) >= max(play(dict(zip(found.best["ratios"], known, strict=True))) for known in KNOWN)
    best = sorted(found.rewards[len(KNOWN) :])[-ddpg.FINALISTS :]
    assert sorted(found.rewards[choice["rollout"]] for choice in found.finalists[len(KNOWN) :]) == best


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop", [7, 25])
def test_a_killed_search_goes_on_with_the_same_numbers(tmp_path, stop):
    made = asked(ws_nb_rlouts=30, ws_nb_rlouts_min=10)
    whole = searched(made, play, tmp_path / "whole", seed=2)
    calls = []

    def dying(shares):
        calls.append(shares)
        if len(calls) == stop:
            raise Killed
        return play(shares)

    with pytest.raises(Killed):
        searched(made, dying, tmp_path / "killed", seed=2)
    again = searched(made, play, tmp_path / "killed", seed=2, resume=True)
    assert json.dumps(asdict(again)) == json.dumps(asdict(whole))
    with pytest.raises(InputError, match="other settings"):
        searched(asked(), play, tmp_path / "killed", seed=2, resume=True)
