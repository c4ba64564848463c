"""What is open in a file stays open in the result: batches of any size go through as their samples alone do."""

import numpy as np
import onnxruntime as ort
import pytest

from nets.notation import Net
from onnxslim_learn.workflow import slim
from tests import laws

FAR = 1000000000  # what exporters write for "up to the end"
BATCHES = (1, 2, 3, 7)  # the analysis sees 1, 2 and 3

NETS = {
    "a slice of every axis": Net(
        f"""(float[batch, 3, 10, 10] x) => (float[batch, 5, 6, 6] y) {{
            a = Conv(x, w1)
            b = Slice(a, [0, 0, 1, 1], [{FAR}, {FAR}, {FAR}, {FAR}], [0, 1, 2, 3])
            y = Conv(b, w2)
        }}""",
        "w1 8x3x3x3, w2 5x8x2x2",
    ),
    "axes in another order, one backwards": Net(
        f"""(float[batch, 3, 10, 10] x) => (float[batch, 5, 8, 8] y) {{
            a = Conv(x, w1)
            b = Slice(a, [0, -1, 0], [{FAR}, -{FAR}000, {FAR}], [0, 2, 1], [1, -1, 1])
            y = Conv(b, w2)
        }}""",
        "w1 8x3x3x3, w2 5x8x1x1",
    ),
}


SEGNET = """(float[n, 3, h, w] x) => (float[n, 2, h2, w2] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1)
    b, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)
    c = Conv<pads=[1,1,1,1]>(b, w2)
    d, k = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)
    e = Relu(d)
    OUTER
    s = Conv<pads=[1,1,1,1]>(f, w3)
    g = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(s, i)
    y = Conv<pads=[1,1,1,1]>(g, w4)
}"""
SEGNET_WEIGHTS = "w1 8x3x3x3, w2 12x8x3x3, w3 8x12x3x3, w4 2x8x3x3"
IMAGES = [(n, 3, h, w) for n, h, w in ((1, 16, 16), (4, 24, 8))]
TOKENS = [(1, 9, 6), (4, 3, 6)]

DIVIDED = "heads in a batch that is divided by their number, at once and in two steps"
COUNTED = "as many places as eights of the features of all, with a rest that a cut may leave none of"
CUT = {
    "positions of poolings, put back to": (
        SEGNET.replace("OUTER", "f = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(e, k)"),
        SEGNET_WEIGHTS,
        IMAGES,
        [8, 12],
    ),
    "positions of poolings, put back to a computed size": (
        SEGNET.replace("OUTER", "t = Shape(c) f = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(e, k, t)"),
        SEGNET_WEIGHTS,
        IMAGES,
        [8, 12],
    ),
    "a part that is an input": (
        """(float[n, s, 6] x, float[n, s, 3] z) => (float[n, s, 2] y) {
            a = MatMul(x, w1) b = Concat<axis=-1>(a, z) c = Relu(b) d = MatMul(c, w2) y = MatMul(d, w3)
        }""",
        "w1 6x8, w2 11x10, w3 10x2",
        TOKENS,
        [8, 10],
    ),
    "products of pairs of features beside features": (
        """(float[n, s, 6] x) => (float[n, 2] y) {
            f = ReduceMean<axes=[1], keepdims=0>(x)
            a = MatMul(f, w1)
            r = Reshape(a, [0, 4, 8])
            t = Transpose<perm=[0, 2, 1]>(r)
            p = MatMul(r, t)
            q = Reshape(p, [0, 16])
            i = Gather<axis=1>(q, [1, 2, 3, 6, 7, 11])
            h = MatMul(f, w2)
            c = Concat<axis=1>(h, i)
            y = MatMul(c, w3)
        }""",
        "w1 6x32, w2 6x10, w3 16x2",
        TOKENS,
        None,
    ),
    "heads in a computed batch": (
        """(float[n, s, 6] x) => (float[n, s, 2] y) {
            a = MatMul(x, w1) q = MatMul(a, wq) k = MatMul(a, wk) v = MatMul(a, wv)
            m = Shape(x) n = Gather(m, [0]) s = Gather(m, [1]) nh = Mul(n, [4])
            four = Concat<axis=0>(n, s, [4], [4])
            three = Concat<axis=0>(nh, s, [4])
            rows = Concat<axis=0>(nh, [-1], s)
            q4 = Reshape(q, four) q5 = Transpose<perm=[0, 2, 1, 3]>(q4) q6 = Reshape(q5, three)
            k4 = Reshape(k, four) k5 = Transpose<perm=[0, 2, 3, 1]>(k4) k6 = Reshape(k5, rows)
            v4 = Reshape(v, four) v5 = Transpose<perm=[0, 2, 1, 3]>(v4) v6 = Reshape(v5, three)
            e = MatMul(q6, k6)
            f = Softmax(e)
            g = MatMul(f, v6)
            back = Concat<axis=0>(n, [4], s, [4])
            g4 = Reshape(g, back)
            g5 = Transpose<perm=[0, 2, 1, 3]>(g4)
            flat = Concat<axis=0>(n, s, [16])
            g6 = Reshape(g5, flat)
            y = MatMul(g6, wo)
        }""",
        "w1 6x16, wq wk wv 16x16, wo 16x2",
        TOKENS,
        [16, 16, 16, 4],
    ),
    DIVIDED: (
        """(float[n, s, 6] x) => (float[n, s, 2] y) {
            a = MatMul(x, w1) b = Reshape(a, [0, 0, 4, 2]) c = Transpose<perm=[0, 2, 1, 3]>(b)
            m = Shape(x) s = Gather(m, [1]) rows = Concat<axis=0>([-1], s, [2]) d = Reshape(c, rows) e = Mul(d, w2)
            t = Shape(e) h = Gather(t, {0}) k = Div(h, {4}) n = Unsqueeze(k, [0]) back = Concat<axis=0>(n, [4], s, [2])
            f = Reshape(e, back)
            half = Div(h, {2}) fourth = Div(half, {2}) q = Unsqueeze(fourth, [0]) again = Concat<axis=0>(q, [4], s, [2])
            g = Reshape(d, again) i = Add(f, g) j = Transpose<perm=[0, 2, 1, 3]>(i) l = Reshape(j, [0, 0, 8])
            y = MatMul(l, w3)
        }""",
        "w1 6x8, w2 2, w3 8x2",
        TOKENS,
        None,
    ),
    "a mask of every head that is made of sizes alone": (
        """(float[n, s, 6] x) => (float[n, s, 2] y) {
            a = MatMul(x, w1) b = Reshape(a, [0, 0, 4, 4]) c = Transpose<perm=[0, 2, 1, 3]>(b)
            m = Shape(x) k = Slice(m, [0], [2], [0]) z = ConstantOfShape(k) d = Cast<to=7>(z) e = Unsqueeze(d, [1, 3])
            f = Expand(e, [1, 4, 1, 1]) g = Cast<to=1>(f) h = Add(c, g)
            i = Transpose<perm=[0, 2, 1, 3]>(h) j = Reshape(i, [0, 0, 16]) y = MatMul(j, w2)
        }""",
        "w1 6x16, w2 16x2",
        TOKENS,
        [16, 4],
    ),
    "heads, places and a batch in one axis": (
        """(float[n, s, 6] x) => (float[n, s, 2] y) {
            a = MatMul(x, w1) b = Reshape(a, [0, 0, 4, 4]) c = Transpose<perm=[0, 2, 1, 3]>(b) d = Reshape(c, [-1, 4])
            e = MatMul(d, w2) f = Relu(e)
            m = Shape(x) n = Gather(m, [0]) s = Gather(m, [1])
            back = Concat<axis=0>(n, [4], s, [4])
            g = Reshape(f, back) h = Transpose<perm=[0, 2, 1, 3]>(g) i = Reshape(h, [0, 0, 16]) y = MatMul(i, w3)
        }""",
        "w1 6x16, w2 4x4, w3 16x2",
        TOKENS,
        None,
    ),
    "as large as what is cut, and stays": (
        """(float[n, s, 6] x) => (float[n, s, 2] y) {
            a = MatMul(x, w1) m = Shape(a) z = ConstantOfShape(m) q = Add(z, p) b = Softmax<axis=-1>(q)
            c = MatMul(b, w2) d = MatMul(a, w3) y = Add(c, d)
        }""",
        "w1 6x8, p 8, w2 8x2, w3 8x2",
        TOKENS,
        [8],
    ),
    "places seen as channels": (
        """(float[n, 3, h, w] x) => (float[n, 2, h2, w2] y) {
            a = Conv<strides=[32, 32]>(x, w1) k = Conv<strides=[32, 32]>(x, w4)
            b = Reshape(k, [0, 64, -1]) c = Transpose<perm=[0, 2, 1]>(b)
            m = Shape(a) d = Reshape(c, m) e = Add(a, d) f = Conv(e, w2) y = Conv(f, w3)
        }""",
        "w1 w4 64x3x1x1, w2 6x64x1x1, w3 2x6x1x1",
        [(1, 3, 64, 96), (3, 3, 160, 64)],
        [6],
    ),
    "halves of channels beside a height and a width": (
        """(float[n, 3, h, w] x) => (float[n, 2, h2, w2] y) {
            a = Conv<strides=[16, 16]>(x, w1)
            m = Shape(a) n = Gather(m, [0]) c = Gather(m, [1]) p = Gather(m, [2]) q = Gather(m, [3])
            half = Div(c, [2]) to = Concat<axis=0>(n, [2], half, p, q) b = Reshape(a, to)
            d = ReduceSum<keepdims=0>(b, [1]) e = Relu(d) y = Conv(e, w2)
        }""",
        "w1 16x3x1x1, w2 2x8x1x1",
        [(1, 3, 64, 96), (3, 3, 160, 48)],
        [8, 2],
    ),
    "counted windows, longer than most samples": (
        """(float[n, s, 6] x) => (float[n, k, 200, 2] y) {
            a = MatMul(x, w1) m = Shape(x) n = Gather(m, [0]) e = Gather(m, [1])
            f = Add(e, [199]) k = Div(f, [200]) full = Mul(k, [200]) rest = Sub(full, e)
            pads = Concat<axis=0>([0, 0, 0, 0], rest, [0]) b = Pad(a, pads)
            to = Concat<axis=0>(n, k, [200, 8]) c = Reshape(b, to) d = Relu(c) y = MatMul(d, w2)
        }""",
        "w1 6x8, w2 8x2",
        [(1, 9, 6), (2, 250, 6)],
        [8],
    ),
    "windows that are whole at most lengths that fit": (
        """(float[n, s, 6] x) => (float[n, k, 128, 2] y, float[m, 64, 2] z) {
            g = Reshape(x, [-1, 64, 6]) z = MatMul(g, w3) a = MatMul(x, w1)
            m = Shape(x) n = Gather(m, [0]) e = Gather(m, [1])
            f = Add(e, [127]) k = Div(f, [128]) full = Mul(k, [128]) rest = Sub(full, e)
            pads = Concat<axis=0>([0, 0, 0, 0], rest, [0]) b = Pad(a, pads)
            to = Concat<axis=0>(n, k, [128, 8]) c = Reshape(b, to) d = Relu(c) y = MatMul(d, w2)
        }""",
        "w1 6x8, w2 8x2, w3 6x2",
        [(1, 128, 6), (2, 192, 6)],
        [8],
    ),
    "padding that is never less than none": (
        """(float[n, s, 6] x) => (float[n, k, 8, 2] y) {
            a = MatMul(x, w1) m = Shape(x) n = Gather(m, [0]) e = Gather(m, [1]) f = Cast<to=1>(e)
            g = Div(f, {8.0}) h = Ceil(g) i = Mul(h, {8.0}) j = Sub(i, f) l = Clip(j, {0.0}) rest = Cast<to=7>(l)
            pads = Concat<axis=0>([0, 0, 0, 0], rest, [0]) b = Pad(a, pads)
            to = Concat<axis=0>(n, [-1, 8, 8]) c = Reshape(b, to) d = Relu(c) y = MatMul(d, w2)
        }""",
        "w1 6x8, w2 8x2",
        TOKENS,
        [8],
    ),
    COUNTED: (
        """(float[n, s, 6] x) => (float[n, k, 2] y) {
            a = MatMul(x, w1) f = Reshape(a, [0, -1]) t = Shape(f) p = Gather(t, {1}) q = Div(p, {8})
            ends = Unsqueeze(q, [0]) d = Concat<axis=1>(a, a) b = Slice(d, [0], ends, [1]) c = Relu(b) y = MatMul(c, w2)
        }""",
        "w1 6x12, w2 12x2",
        TOKENS,
        [12],
    ),
    "weights of experts in chunks of a computed size": (
        """(float[n, s, 6] x) => (float[n, s, 2] y) {
            z = Shape(w) e = Gather(z, {0}) one = Div(e, {2}) ends = Unsqueeze(one, [0]) far = Mul(ends, [2])
            w1 = Slice(w, [0], ends, [0]) w2 = Slice(w, ends, far, [0])
            a = MatMul(x, w1) b = MatMul(x, w2) c = Relu(a) d = Mul(c, b) y = MatMul(d, v)
        }""",
        "w 12x8, v 8x2",
        TOKENS,
        [8],
    ),
}


@pytest.mark.parametrize(
    ("name", "share"), [*((name, 0.5) for name in CUT), (DIVIDED, 0.25), (DIVIDED, 0.75), (COUNTED, 0.34)]
)
def test_what_shares_axes_with_open_ones_is_cut(name, share):
    text, weights, sizes, widths = CUT[name]
    rng = np.random.default_rng(0)
    model = Net(text, weights).build()
    feeds = []
    for size in sizes:
        shapes = {info.name: (*size[:-1], info.type.tensor_type.shape.dim[-1].dim_value) for info in model.graph.input}
        shapes["x"] = size
        feeds.append({name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})
    analysis = laws.assert_cut_is_masked(model, feeds, share)
    assert widths is None or [group.width for group in laws.free(analysis)] == widths


def test_open_axes_of_operator_sets_that_can_mask_nothing_at_run_time_are_cut():
    text = """(float[n, 6, h, w] x) => (float[n, 2] y) {
        a = Conv(x, w1) r = Relu(a) f = GlobalAveragePool(r) g = Flatten(f) y = MatMul(g, w2)
    }"""
    feed = np.random.default_rng(0).standard_normal((3, 6, 5, 4)).astype(np.float32)
    laws.assert_cut_is_masked(Net(text, "w1 8x6x1x1, w2 8x2", opset=8).build(), [{"x": feed}])


@pytest.mark.parametrize("name", NETS)
def test_batches_go_through_as_their_samples_do(name, tmp_path):
    found = slim.analyze(NETS[name].build())
    slimmed = slim.slim(found, slim.plan(found, {"macs": 0.6}))
    assert slimmed.plan.groups
    slimmed.save(tmp_path / "slim.onnx")
    session = ort.InferenceSession(tmp_path / "slim.onnx")
    images = np.random.default_rng(0).standard_normal((max(BATCHES), 3, 10, 10)).astype(np.float32)
    alone = np.concatenate([session.run(None, {"x": images[k : k + 1]})[0] for k in range(len(images))])
    for size in BATCHES:
        (together,) = session.run(None, {"x": images[:size]})
        np.testing.assert_allclose(together, alone[:size], rtol=1e-4, atol=1e-5)
