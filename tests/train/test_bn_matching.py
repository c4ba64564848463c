"""Matched inputs show normalisations what they have stored, stay in range, and change no index and no mask."""

import numpy as np
import pytest
import torch

from nets.notation import Net
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.coupling.solver import couple
from onnxslim_learn.data.class_balance import confident
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.errors import InputError
from onnxslim_learn.train.bn_matching import matched, normalisations
from tests.data.models import graph

TWO = Net(
    """(float[batch, 3, 16, 16] x, int64[batch] kind) => (float[batch, 6] y, int64[batch] kinds) {
        a = Conv<pads=[1,1,1,1]>(x, w1)
        b = BatchNormalization(a, s1, t1, m1, v1)
        c = Relu(b)
        d = Conv<pads=[1,1,1,1]>(c, w2)
        e = BatchNormalization(d, s2, t2, m2, v2)
        y = ReduceMean<axes=[2, 3], keepdims=0>(e)
        kinds = Identity(kind)
    }""",
    "w1 5x3x3x3, s1 t1 m1 v1 5, w2 6x5x3x3, s2 t2 m2 v2 6",
)
RANGE = ((-3.0, 4.0),)


@pytest.fixture(scope="module")
def coupling():
    return couple(load(TWO.build()), sensitive=False)


def joined(source, name="x"):
    return np.concatenate([batch.inputs[name] for batch in source.batches()])


def seen(coupling, images):
    """What the first normalisation reads, by an independent computation: mean and deviation of every channel."""
    tensors = {name: value.const_value.numpy() for name, value in coupling.graph.initializers.items()}
    values = torch.conv2d(torch.from_numpy(images), torch.from_numpy(np.array(tensors["w1"])), padding=1)
    means, deviations = values.mean((0, 2, 3)), values.std((0, 2, 3))
    gap = (means - torch.from_numpy(np.array(tensors["m1"]))) / torch.from_numpy(np.array(tensors["v1"])).sqrt()
    ratio = deviations / torch.from_numpy(np.array(tensors["v1"])).sqrt() - 1
    return float((gap.square() + ratio.square()).mean())


def test_statistics_come_closer(coupling):
    options = DataSettings(samples=16, input_range=RANGE)
    plain, made = confident(coupling, options), matched(coupling, options)
    assert seen(coupling, joined(made)) < 0.3 * seen(coupling, joined(plain))


def test_ranges_hold_and_other_inputs_stay(coupling):
    options = DataSettings(samples=12, batch_size=5, input_range=RANGE)
    plain, made = confident(coupling, options), matched(coupling, options)
    images = joined(made)
    assert (RANGE[0][0] <= images.min(), images.max() <= RANGE[0][1]) == (True, True)
    assert images.dtype == np.float32
    assert not np.array_equal(images, joined(plain))
    np.testing.assert_array_equal(joined(made, "kind"), joined(plain, "kind"))
    assert [batch.count for batch in made.batches()] == [5, 5, 2]
    assert (made.synthetic, made.labelled, made.count) == (True, False, 12)
    assert "2 batch normalisations" in made.name


def test_the_same_inputs_come_every_time(coupling):
    options = DataSettings(samples=4)
    np.testing.assert_array_equal(
        joined(matched(coupling, options, steps=3)), joined(matched(coupling, options, steps=3))
    )


def test_no_step_changes_nothing(coupling):
    options = DataSettings(samples=4, input_range=RANGE)
    np.testing.assert_array_equal(joined(matched(coupling, options, steps=0)), joined(confident(coupling, options)))


def test_progress_is_told(coupling):
    told = []
    matched(coupling, DataSettings(samples=150), steps=1, progress=told.append)
    assert told[0] == 0
    assert told == sorted(told)
    assert len(told) == 2


def test_a_model_without_normalisations_is_refused():
    assert normalisations(graph("image")) == []
    with pytest.raises(InputError, match="keeps no batch statistics"):
        matched(couple(graph("image"), sensitive=False))
