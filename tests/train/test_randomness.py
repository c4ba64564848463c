"""Training leaves the generators of the process as they were."""

import random

import numpy as np
import pytest
import torch

from onnxslim_learn.train.randomness import undisturbed


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_block_seeds_is_forgotten(fails):
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    wanted = drawn(), drawn()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    first = drawn()
    try:
        with undisturbed():
            for seed in (random.seed, np.random.seed, torch.manual_seed):
                seed(7)
            drawn()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert (first, drawn()) == wanted
