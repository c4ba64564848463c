"""Of made-up samples those are chosen that a classifier is surest of, as many of every class."""

import numpy as np
import onnxruntime as ort

from nets.notation import Net
from onnxslim_learn import demo
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.coupling.solver import couple
from onnxslim_learn.data import class_balance as module
from onnxslim_learn.data.class_balance import confident, surest
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.synthetic import synthetic
from tests.data.models import graph


def test_every_class_gives_its_surest_in_turns():
    sure = np.log([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7], [0.05, 0.95]])
    assert surest(sure, 3).tolist() == [0, 4, 2]
    assert surest(sure, 5).tolist() == [0, 4, 2, 3, 1]


def drawn(source):
    return np.concatenate([next(iter(batch.inputs.values())) for batch in source.batches()])


def test_a_trained_net_is_surer_of_what_was_chosen_and_sees_more_classes():
    coupling = couple(load(demo.model_path()), sensitive=False)
    options = DataSettings(samples=100, seed=3)
    session = ort.InferenceSession(str(demo.model_path()))
    shares = []
    for source in (synthetic(coupling, options), confident(coupling, options)):
        images = drawn(source)
        assert len(images) == source.count == 100
        (logits,) = session.run(None, {session.get_inputs()[0].name: images})
        ratio = np.exp(logits - logits.max(1, keepdims=True))
        shares.append(((1 / ratio.sum(1)).mean(), np.bincount(logits.argmax(1), minlength=10).max()))
    assert shares[1][0] > shares[0][0]
    assert shares[1][1] < shares[0][1]
    assert "surest" in source.name
    np.testing.assert_array_equal(images, drawn(source))


def test_what_classifies_nothing_and_what_is_too_large_gets_the_first_samples(monkeypatch):
    for name, affordable in (("image", 1), ("state", 10**12)):
        monkeypatch.setattr(module, "WORK", affordable)
        coupling = couple(graph(name), sensitive=False)
        options = DataSettings(samples=4)
        np.testing.assert_array_equal(drawn(confident(coupling, options)), drawn(synthetic(coupling, options)))


def test_an_output_that_is_one_number_has_no_rows_to_choose_from():
    text = """(float[1, 6] x) => (float total, float[1, 4] y) {
        h = MatMul(x, w1) r = Relu(h) total = ReduceMax<keepdims=0>(r) z = MatMul(r, w2) y = Softmax<axis=1>(z)
    }"""
    coupling = couple(load(Net(text, "w1 6x8, w2 8x4").build()), sensitive=False)
    assert confident(coupling, DataSettings(samples=8)).count == 8
