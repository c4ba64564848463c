"""Positions that a model counts from its tokens end with its tables, and tokens are drawn from all the vocabulary."""

import numpy as np
import onnx
import onnx.parser

from onnxslim_learn.analysis import analyze
from onnxslim_learn.data.random_inputs import random_inputs

NET = """<ir_version: 8, opset_import: ["": 17]>
net (int64[batch, seq] ids) => (float[batch, seq, 4] y)
<float[50, 6] words, float[24, 6] places, float[2, 6] kinds, int64[1, 24] buffer, float[6, 4] w,
int64 pad = {1}, int64 axis = {1}, int64[1] all = {24}>
{
    is_pad = Equal(ids, pad)
    is_word = Not(is_pad)
    one = Cast<to: int = 7>(is_word)
    count = CumSum(one, axis)
    behind = Mul(count, one)
    position = Add(behind, pad)
    batch_size = Shape<end: int = 1>(position)
    shape = Concat<axis: int = 0>(batch_size, all)
    rows = Expand(buffer, shape)
    kind = GatherElements<axis: int = 1>(rows, position)
    a = Gather(words, ids)
    b = Gather(places, position)
    c = Gather(kinds, kind)
    ab = Add(a, b)
    abc = Add(ab, c)
    y = MatMul(abc, w)
}"""


def net():
    model, rng = onnx.parser.parse_model(NET), np.random.default_rng(0)
    for name, shape in {"words": (50, 6), "places": (24, 6), "kinds": (2, 6), "w": (6, 4)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 24), np.int64), "buffer"))
    return model


def test_lengths_stay_within_the_tables_and_tokens_are_all_drawn():
    analysis = analyze(net())
    nominal = analysis.graph.shapes.nominal
    (_, length) = nominal.inputs["ids"]
    assert 1 < length <= 22, "the last place is one behind the number of tokens, and the table ends at 23"
    drawn = [random_inputs(analysis.coupling, nominal, seed)["ids"] for seed in range(8)]
    assert max(ids.max() for ids in drawn) > 25
    assert min(ids.min() for ids in drawn) >= 0
