"""Zoo nets that are odd in how the file is written or in what holds their channels in place."""

from nets.notation import Net
from nets.zoo.vision import VISION

_CHAIN = VISION["chain"]

ODD = {
    "bare_constants": Net(_CHAIN.text, _CHAIN.weights, bare=True),
    "listed_initializers": Net(_CHAIN.text, _CHAIN.weights, listed=True),
    "half": Net(_CHAIN.text.replace("float[", "float16["), _CHAIN.weights, dtype="float16"),
    "double": Net(
        """(double[2,6] x) => (double[2,5] y) {
            h = Gemm(x, w1, b1)
            r = Tanh(h)
            y = MatMul(r, w2)
        }""",
        "w1 6x8, b1 8, w2 8x5",
        dtype="float64",
    ),
    "siamese": Net(
        """(float[2,3,8,8] x1, float[2,3,8,8] x2) => (float[2,5,8,8] y) {
            a1 = Conv(x1, w, b)
            a2 = Conv(x2, w, b)
            r1 = Relu(a1)
            r2 = Relu(a2)
            d = Sub(r1, r2)
            k = Abs(d)
            y = Conv(k, w2, b2)
        }""",
        "w 8x3x1x1, b 8, w2 5x8x1x1, b2 5",
    ),
    "shared_across_depth": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            h = Conv(x, w0, b0)
            a = Conv<pads=[1,1,1,1]>(h, w, b)
            r = Relu(a)
            c = Conv<pads=[1,1,1,1]>(r, w, b)
            q = Relu(c)
            y = Conv(q, w1, b1)
        }""",
        "w0 8x3x1x1, b0 8, w 8x8x3x3, b 8, w1 5x8x1x1, b1 5",
    ),
    "multi_io": Net(
        """(float[2,3,8,8] image, float[2,6] vector) => (float[2,5,8,8] map, float[2,4] label) {
            a = Conv<pads=[1,1,1,1]>(image, w1, b1)
            v = Gemm(vector, w2, b2)
            u = Unsqueeze(v, [2, 3])
            h = Add(a, u)
            r = Relu(h)
            map = Conv(r, w3, b3)
            g = GlobalAveragePool(r)
            f = Flatten(g)
            c = Concat<axis=1>(f, v)
            label = Gemm(c, w4, b4)
        }""",
        "w1 8x3x3x3, b1 8, w2 6x8, b2 8, w3 5x8x1x1, b3 5, w4 16x4, b4 4",
    ),
    "pinned_by_input": Net(
        """(float[2,8,8,8] x) => (float[2,5,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            r = Relu(a)
            b = Conv(r, w2, b2)
            z = Add(b, x)
            y = Conv(z, w3, b3)
        }""",
        "w1 12x8x3x3, b1 12, w2 8x12x1x1, b2 8, w3 5x8x1x1, b3 5",
    ),
    "pinned_by_output": Net(
        """(float[2,3,8,8] x) => (float[2,8,8,8] tap, float[2,5,8,8] y) {
            tap = Conv(x, w1, b1)
            r = Relu(tap)
            a = Conv<pads=[1,1,1,1]>(r, w2, b2)
            q = Relu(a)
            y = Conv(q, w3, b3)
        }""",
        "w1 8x3x1x1, b1 8, w2 12x8x3x3, b2 12, w3 5x12x1x1, b3 5",
    ),
    "cumulative": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv(x, w1, b1)
            m = CumSum(a, {1})
            b = Conv(m, w2, b2)
            r = Relu(b)
            y = Conv(r, w3, b3)
        }""",
        "w1 8x3x1x1, b1 8, w2 12x8x1x1, b2 12, w3 5x12x1x1, b3 5",
    ),
    "top_pixels": Net(
        """(float[2,3,8,8] x) => (float[2,5,4] y) {
            a = Conv(x, w1, b1)
            f = Reshape(a, [2, 8, 64])
            top, where = TopK<axis=-1>(f, [4])
            b = Conv(top, w2, b2)
            r = Relu(b)
            y = Conv(r, w3, b3)
        }""",
        "w1 8x3x1x1, b1 8, w2 12x8x1, b2 12, w3 5x12x1, b3 5",
    ),
    "function": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            h = Conv(x, w0, b0)
            a = zoo.Block<slope=0.1>(h, w1, b1)
            b = zoo.Block<slope=0.3>(a, w2, b2)
            y = Conv(b, w3, b3)
        }
        <domain: "zoo", opset_import: ["" : 17]>
        Block<slope>(i, w, b) => (o) {
            c = Conv<pads=[1,1,1,1]>(i, w, b)
            r = LeakyRelu<alpha: float = @slope>(c)
            o = Add(i, r)
        }""",
        "w0 8x3x1x1, b0 8, w1 w2 8x8x3x3, b1 b2 8, w3 5x8x1x1, b3 5",
        domains=', "zoo" : 1',
    ),
    "branch": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv(x, w1, b1)
            b = Conv(a, w2, b2)
            mean = ReduceMean<keepdims=0>(x)
            warm = Greater(mean, {0.0})
            c = If(warm) <
                then_branch = hot () => (float[2,12,8,8] o1) { o1 = Relu(b) },
                else_branch = cold () => (float[2,12,8,8] o2) { o2 = Tanh(b) }
            >
            y = Conv(c, w3, b3)
        }""",
        "w1 8x3x1x1, b1 8, w2 12x8x1x1, b2 12, w3 5x12x1x1, b3 5",
    ),
    "detection_head": Net(
        """(float[2,3,8,8] x) => (float[2,160,4] y) {
            a = Conv<pads=[1,1,1,1]>(x, w0, b0)
            r = Relu(a)
            d = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
            fine = Conv<pads=[1,1,1,1]>(r, w1, b1)
            coarse = Conv<pads=[1,1,1,1]>(d, w1, b1)
            f1 = Reshape(fine, [2, 2, 4, 8, 8])
            f2 = Transpose<perm=[0,3,4,1,2]>(f1)
            f3 = Reshape(f2, [2, -1, 4])
            c1 = Reshape(coarse, [2, 2, 4, 4, 4])
            c2 = Transpose<perm=[0,3,4,1,2]>(c1)
            c3 = Reshape(c2, [2, -1, 4])
            c = Concat<axis=1>(f3, c3)
            y = Sigmoid(c)
        }""",
        "w0 12x3x3x3, b0 12, w1 8x12x3x3, b1 8",
    ),
    "weight_norm": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            norm = ReduceL2<axes=[1,2,3]>(direction)
            scaled = Mul(direction, length)
            w = Div(scaled, norm)
            a = Conv<pads=[1,1,1,1]>(x, w, b1)
            r = Relu(a)
            y = Conv(r, w2, b2)
        }""",
        "direction 8x3x3x3, length 8x1x1x1, b1 8, w2 5x8x1x1, b2 5",
    ),
    "dynamic_weight": Net(
        """(float[2,3,8,8] x, float[2,6] style) => (float[2,5,8,8] y) {
            h = Conv(x, w0, b0)
            s = Gemm(style, w1, b1)
            s5 = Reshape(s, [2, 1, 8, 1, 1])
            w5 = Unsqueeze(w2, [0])
            m = Mul(w5, s5)
            k = Reshape(m, [24, 8, 3, 3])
            g = Reshape(h, [1, 16, 8, 8])
            a = Conv<group=2, pads=[1,1,1,1]>(g, k)
            o = Reshape(a, [2, 12, 8, 8])
            r = Relu(o)
            y = Conv(r, w3, b3)
        }""",
        "w0 8x3x1x1, b0 8, w1 6x8, b1 8, w2 12x8x3x3, w3 5x12x1x1, b3 5",
    ),
    "quantized": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y)
        <float sx = {0.02}, float sa = {0.02}, int8 z = {0}, uint8 zx = {128}> {
            xq = QuantizeLinear(x, sx, zx)
            xd = DequantizeLinear(xq, sx, zx)
            w1 = DequantizeLinear<axis=0>(q1, s1)
            a = Conv<pads=[1,1,1,1]>(xd, w1, b1)
            r = Relu(a)
            rq = QuantizeLinear(r, sa, z)
            rd = DequantizeLinear(rq, sa, z)
            w2 = DequantizeLinear<axis=0>(q2, s2)
            y = Conv(rd, w2, b2)
        }""",
        "q1 8x3x3x3:int8, s1 b1 8, q2 5x8x1x1:int8, s2 b2 5",
    ),
    "similarity": Net(
        """(float[2,5,6] x) => (float[2,5,5] y) {
            h = MatMul(x, w1)
            r = Relu(h)
            t = Transpose<perm=[0,2,1]>(r)
            y = MatMul(r, t)
        }""",
        "w1 6x12",
    ),
}
