"""Zoo nets of what real files do rarely: weights put together in the graph, heads on the batch axis, odd joins."""

from nets.notation import Net

RARE = {
    "pooled_heads": Net(
        """(float[2,16,6] x) => (float[2,16,5] y) {
            h = MatMul(x, w1)
            r = Reshape(h, [2, 16, 3, 4])
            t = Transpose<perm=[0,2,3,1]>(r)
            s = Reshape(t, [6, 4, 4, 4])
            c = Conv<group=4, pads=[1,1,1,1]>(s, w2)
            q = Reshape(c, [2, 3, 4, 16])
            u = Transpose<perm=[0,3,1,2]>(q)
            v = Reshape(u, [2, 16, 12])
            y = MatMul(v, w3)
        }""",
        "w1 6x12, w2 4x1x3x3, w3 12x5",
    ),
    "lstm_computed": Net(
        """(float[2,5,6] x) => (float[5,2,4] y) {
            h = MatMul(x, w0)
            t = Transpose<perm=[1,0,2]>(h)
            i1, o1, f1, c1 = Split<axis=0>(w1, [8, 8, 8, 8])
            i2, o2, f2, c2 = Split<axis=0>(w2, [8, 8, 8, 8])
            wa = Concat<axis=0>(i1, f1, o1, c1)
            wb = Concat<axis=0>(i2, f2, o2, c2)
            ua = Unsqueeze(wa, [0])
            ub = Unsqueeze(wb, [0])
            w = Concat<axis=0>(ua, ub)
            a, = LSTM<hidden_size=8, direction="bidirectional">(t, w, r, b)
            q = Transpose<perm=[0,2,1,3]>(a)
            f = Reshape(q, [5, 2, 16])
            y = MatMul(f, w3)
        }""",
        "w0 6x12, w1 w2 32x12, r 2x32x8, b 2x64, w3 16x4",
    ),
    "interleaved_rotary": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            q = MatMul(x, w1)
            h = Reshape(q, [2, 5, 3, 8])
            even = Slice(h, [0], [8], [3], [2])
            odd = Slice(h, [1], [8], [3], [2])
            n = Neg(odd)
            e4 = Unsqueeze(even, [4])
            n4 = Unsqueeze(n, [4])
            s = Concat<axis=-1>(n4, e4)
            turned = Reshape(s, [2, 5, 3, 8])
            a = Mul(turned, sine)
            b = Mul(h, cosine)
            c = Add(a, b)
            f = Reshape(c, [2, 5, 24])
            y = MatMul(f, w2)
        }""",
        "w1 6x24, sine cosine 5x1x8, w2 24x6",
    ),
    "anchors": Net(
        """(float[2,3,8,8] x) => (float[2,160,3] y) {
            a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)
            r = Relu(a)
            p = Conv(r, w2, b2)
            s = Conv<pads=[1,1,1,1], strides=[2,2]>(r, w3, b3)
            q = Conv(s, w2, b2)
            p5 = Reshape(p, [2, 8, 3, 4, 4])
            p6 = Transpose<perm=[0,3,4,1,2]>(p5)
            p3 = Reshape(p6, [2, 128, 3])
            q5 = Reshape(q, [2, 8, 3, 2, 2])
            q6 = Transpose<perm=[0,3,4,1,2]>(q5)
            q3 = Reshape(q6, [2, 32, 3])
            y = Concat<axis=1>(p3, q3)
        }""",
        "w1 8x3x3x3, b1 8, w2 24x8x1x1, b2 24, w3 8x8x3x3, b3 8",
    ),
    "positions_from_mask": Net(
        """(int64[2,9] mask, float[2,9,6] x) => (float[2,9,5] y) {
            n = CumSum(mask, {1})
            m = Mul(n, mask)
            p = Add(m, {2})
            e = Gather(table, p)
            h = MatMul(x, w1)
            a = Add(h, e)
            y = MatMul(a, w2)
        }""",
        "table 12x8, w1 6x8, w2 8x5",
    ),
    "size_computed_with": Net(
        """(float[batch,3,8,8] x) => (float[batch,5,8,8] y) {
            a = Conv(x, w1, b1)
            n = Size(a)
            f = Cast<to=1>(n)
            r = Div(f, {999.0})
            s = Mul(a, r)
            b = Conv(s, w2, b2)
            c = Conv(b, w3, b3)
            d = Shape(c)
            rows = Slice(d, [0], [2])
            target = Concat<axis=0>(rows, [-1])
            flat = Reshape(c, target)
            g = Reshape(flat, d)
            y = Conv(g, w4, b4)
        }""",
        "w1 8x3x1x1, b1 8, w2 6x8x1x1, b2 6, w3 7x6x1x1, b3 7, w4 5x7x1x1, b4 5",
    ),
    "lstm_dynamic": Net(
        """(float[batch,seq,6] x) => (float[batch,seq,4] y) {
            t = Transpose<perm=[1,0,2]>(x)
            shape = Shape(x)
            n = Slice(shape, [0], [1])
            sizes = Concat<axis=0>([1], n, [12])
            zeros = ConstantOfShape<value = float[1] {0.0}>(sizes)
            more = Expand({0.0}, sizes)
            a, = LSTM<hidden_size=12>(t, w1, r1, b1, , zeros, more)
            s = Squeeze(a, [1])
            u = Transpose<perm=[1,0,2]>(s)
            y = MatMul(u, w2)
        }""",
        "w1 1x48x6, r1 1x48x12, b1 1x96, w2 12x4",
    ),
    "patches_by_root": Net(
        """(float[batch,3,8,8] x) => (float[batch,5] y) {
            p = Conv<strides=[2,2]>(x, w0, b0)
            side = Pow({16.0}, {0.5})
            n = Cast<to=7>(side)
            n1 = Unsqueeze(n, [0])
            sizes = Concat<axis=0>([0], [8], n1, n1)
            flat = Reshape(p, [0, 8, 16])
            t = Transpose<perm=[0,2,1]>(flat)
            z = Add(t, position)
            u = Transpose<perm=[0,2,1]>(z)
            q = Reshape(u, sizes)
            r = Relu(q)
            g = GlobalAveragePool(r)
            f = Flatten(g)
            y = Gemm(f, w1, b1)
        }""",
        "w0 8x3x2x2, b0 8, position 1x16x8, w1 8x5, b1 5",
    ),
    "standardised_weight": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            m0 = ReduceMean<axes=[1,2,3]>(w0)
            c0 = Sub(w0, m0)
            q0 = Mul(c0, c0)
            v0 = ReduceMean<axes=[1,2,3]>(q0)
            d0 = Sqrt(v0)
            k0 = Div(c0, d0)
            a = Conv<pads=[1,1,1,1]>(x, k0, b0)
            r = Relu(a)
            f1 = Reshape(w1, [1, 8, -1])
            n1, = BatchNormalization<training_mode=0>(f1, ones, zeros, mean, var)
            s1 = Softmax<axis=-1>(n1)
            g1 = Mul(s1, {9.0})
            k1 = Reshape(g1, [8, 8, 3, 3])
            b = Conv<pads=[1,1,1,1]>(r, k1, b1)
            q = Relu(b)
            y = Conv(q, w2, b2)
        }""",
        "w0 8x3x3x3, b0 8, w1 8x8x3x3, b1 8, ones var 8, zeros mean 8, w2 5x8x1x1, b2 5",
    ),
    "bias_without_key": Net(
        """(float[2,5,6] x) => (float[2,5,6] y)
        <int64[16,1] places = {16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}> {
            b = ScatterND(b0, places, zeros)
            m = MatMul(x, w)
            p = Add(m, b)
            q0, k0, v0 = Split<axis=2>(p, [16, 16, 16])
            q1 = Reshape(q0, [2, 5, 4, 4])
            q = Transpose<perm=[0,2,1,3]>(q1)
            k1 = Reshape(k0, [2, 5, 4, 4])
            k = Transpose<perm=[0,2,3,1]>(k1)
            v1 = Reshape(v0, [2, 5, 4, 4])
            v = Transpose<perm=[0,2,1,3]>(v1)
            raw = MatMul(q, k)
            weights = Softmax<axis=-1>(raw)
            mixed = MatMul(weights, v)
            rows = Transpose<perm=[0,2,1,3]>(mixed)
            joined = Reshape(rows, [2, 5, 16])
            y = MatMul(joined, wo)
        }""",
        "w 6x48, b0 48, zeros 16, wo 16x6",
    ),
}
