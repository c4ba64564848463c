"""Zoo nets over feature maps, from a plain chain to group normalisation and channel shuffles."""

from nets.notation import Net

VISION = {
    "chain": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            n = BatchNormalization(a, s, t, m, v)
            r = Relu(n)
            y = Conv(r, w2, b2)
        }""",
        "w1 8x3x3x3, b1 8, s t m v 8, w2 5x8x1x1, b2 5",
    ),
    "flatten_gemm": Net(
        """(float[2,3,8,8] x) => (float[2,5] y) {
            a = Conv<strides=[2,2], kernel_shape=[3,3]>(x, w1, b1)
            r = Relu(a)
            f = Flatten(r)
            y = Gemm<transB=1>(f, w2, b2)
        }""",
        "w1 8x3x3x3, b1 8, w2 5x72, b2 5",
    ),
    "flatten_matmul": Net(
        """(float[batch,3,8,8] x) => (float[batch,5] y) {
            a = Conv<strides=[2,2]>(x, w1)
            r = Relu(a)
            f = Reshape(r, [0, -1])
            h = MatMul(f, w2)
            n = BatchNormalization(h, s, t, m, v)
            g = Relu(n)
            y = MatMul(g, w3)
        }""",
        "w1 8x3x3x3, w2 72x12, s t m v 12, w3 12x5",
    ),
    "flatten_nhwc": Net(
        """(float[2,8,8,3] x) => (float[2,5] y) {
            c = Transpose<perm=[0,3,1,2]>(x)
            a = Conv<strides=[2,2]>(c, w1, b1)
            r = Relu(a)
            l = Transpose<perm=[0,2,3,1]>(r)
            b = Add(l, bias)
            f = Reshape(b, [2, 72])
            y = Gemm(f, w2, b2)
        }""",
        "w1 8x3x3x3, b1 8, bias 8, w2 72x5, b2 5",
    ),
    "residual": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            h0 = Conv<pads=[1,1,1,1]>(x, w0, b0)
            a1 = Conv<pads=[1,1,1,1]>(h0, w1)
            n1 = BatchNormalization(a1, s1, t1, m1, v1)
            r1 = Relu(n1)
            c1 = Conv<pads=[1,1,1,1]>(r1, w2, b2)
            h1 = Add(h0, c1)
            g1 = Relu(h1)
            a2 = Conv<pads=[1,1,1,1]>(g1, w3)
            n2 = BatchNormalization(a2, s2, t2, m2, v2)
            r2 = Relu(n2)
            c2 = Conv<pads=[1,1,1,1]>(r2, w4, b4)
            h2 = Add(c2, g1)
            y = Conv(h2, w5, b5)
        }""",
        "w0 8x3x3x3, b0 8, w1 12x8x3x3, s1 t1 m1 v1 12, w2 8x12x3x3, b2 8,"
        "w3 10x8x3x3, s2 t2 m2 v2 10, w4 8x10x3x3, b4 8, w5 5x8x1x1, b5 5",
    ),
    "bottleneck": Net(
        """(float[2,3,8,8] x) => (float[2,5] y) {
            h = Conv<pads=[1,1,1,1]>(x, w0, b0)
            p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(h)
            a = Conv(p, w1, b1)
            ra = Relu(a)
            b = Conv<pads=[1,1,1,1], strides=[2,2]>(ra, w2, b2)
            rb = Relu(b)
            c = Conv(rb, w3)
            n = BatchNormalization(c, s, t, m, v)
            k = Conv<strides=[2,2]>(p, w4, b4)
            z = Add(n, k)
            r = Relu(z)
            g = GlobalAveragePool(r)
            f = Flatten(g)
            y = Gemm<transB=1>(f, w5, b5)
        }""",
        "w0 16x3x3x3, b0 16, w1 8x16x1x1, b1 8, w2 8x8x3x3, b2 8, w3 24x8x1x1,"
        "s t m v 24, w4 24x16x1x1, b4 24, w5 5x24, b5 5",
    ),
    "concat": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv(x, w1, b1)
            b = Conv<pads=[1,1,1,1]>(x, w2, b2)
            c = Concat<axis=1>(a, b)
            r = Relu(c)
            y = Conv<pads=[1,1,1,1]>(r, w3, b3)
        }""",
        "w1 8x3x1x1, b1 8, w2 12x3x3x3, b2 12, w3 5x20x3x3, b3 5",
    ),
    "dense": Net(
        """(float[2,3,8,8] x) => (float[2,5] y) {
            a = Conv<pads=[1,1,1,1]>(x, w0)
            n1 = BatchNormalization(a, s1, t1, m1, v1)
            r1 = Relu(n1)
            b = Conv<pads=[1,1,1,1]>(r1, w1)
            ab = Concat<axis=1>(a, b)
            n2 = BatchNormalization(ab, s2, t2, m2, v2)
            r2 = Relu(n2)
            c = Conv<pads=[1,1,1,1]>(r2, w2)
            abc = Concat<axis=-3>(a, b, c)
            n3 = BatchNormalization(abc, s3, t3, m3, v3)
            r3 = Relu(n3)
            p = AveragePool<kernel_shape=[8,8]>(r3)
            f = Flatten(p)
            y = Gemm(f, w3, b3)
        }""",
        "w0 8x3x3x3, s1 t1 m1 v1 8, w1 8x8x3x3, s2 t2 m2 v2 16, w2 8x16x3x3, s3 t3 m3 v3 24, w3 24x5, b3 5",
    ),
    "global_pool": Net(
        """(float[batch,3,height,width] x) => (float[batch,5] y) {
            a = Conv(x, w1, b1)
            r = Relu(a)
            g = GlobalAveragePool(r)
            f = Flatten(g)
            y = Gemm<alpha=0.5>(f, w2, b2)
        }""",
        "w1 8x3x3x3, b1 8, w2 8x5, b2 5",
        opset=11,
    ),
    "reduce_mean": Net(
        """(float[2,3,8,8] x) => (float[2,5] y, float[2,12] z) {
            a = Conv(x, w1, b1)
            r = Relu(a)
            g = ReduceMean<keepdims=0>(r, [2, 3])
            y = MatMul(g, w2)
            k = Conv(r, w3)
            q = ReduceMean(k, [-1, -2])
            z = Squeeze(q, [2, 3])
        }""",
        "w1 8x3x3x3, b1 8, w2 8x5, w3 12x8x1x1",
        opset=18,
    ),
    "prelu": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            p = PRelu(a, slope)
            y = Conv(p, w2, b2)
        }""",
        "w1 8x3x3x3, b1 8, slope 8x1x1, w2 5x8x1x1, b2 5",
    ),
    "activations": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            ca = Clip(a, {0.0}, {6.0})
            b = Conv(ca, w2, b2)
            hb = HardSwish(b)
            c = Conv(hb, w3, b3)
            hc = HardSigmoid<alpha=0.16666667>(c)
            g = Sub(hc, {0.5})
            d = Conv(g, w4, b4)
            e = Gelu(d)
            y = Conv(e, w5, b5)
        }""",
        "w1 8x3x3x3, b1 8, w2 8x8x1x1, b2 8, w3 12x8x1x1, b3 12, w4 8x12x1x1, b4 8, w5 5x8x1x1, b5 5",
        opset=20,
    ),
    "depthwise": Net(
        """(float[2,3,8,8] x) => (float[2,5,4,4] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            r = Clip(a, {0.0}, {6.0})
            d = Conv<group=8, pads=[1,1,1,1], strides=[2,2]>(r, w2)
            n = BatchNormalization(d, s, t, m, v)
            q = Relu(n)
            p = Conv(q, w3, b3)
            y = Conv(p, w4, b4)
        }""",
        "w1 8x3x3x3, b1 8, w2 8x1x3x3, s t m v 8, w3 12x8x1x1, b3 12, w4 5x12x1x1, b4 5",
    ),
    "depth_multiplier": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv(x, w1, b1)
            d = Conv<group=8, pads=[1,1,1,1]>(a, w2, b2)
            r = Relu(d)
            y = Conv(r, w3, b3)
        }""",
        "w1 8x3x1x1, b1 8, w2 16x1x3x3, b2 16, w3 5x16x1x1, b3 5",
    ),
    "grouped": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv(x, w0, b0)
            b = Conv<group=2, pads=[1,1,1,1]>(a, w1, b1)
            r = Relu(b)
            c = Conv<group=4, pads=[1,1,1,1]>(r, w2, b2)
            q = Relu(c)
            y = Conv(q, w3, b3)
        }""",
        "w0 8x3x1x1, b0 8, w1 8x4x3x3, b1 8, w2 12x2x3x3, b2 12, w3 5x12x1x1, b3 5",
    ),
    "conv1d": Net(
        """(float[2,3,16] x) => (float[2,5,14] y) {
            a = Conv<dilations=[2], pads=[1,1]>(x, w1, b1)
            n = BatchNormalization(a, s, t, m, v)
            r = LeakyRelu(n)
            y = Conv(r, w2, b2)
        }""",
        "w1 8x3x3, b1 8, s t m v 8, w2 5x8x1, b2 5",
    ),
    "conv3d": Net(
        """(float[2,2,4,6,6] x) => (float[2,5] y) {
            a = Conv<pads=[1,1,1,1,1,1]>(x, w1, b1)
            r = Relu(a)
            p = MaxPool<kernel_shape=[2,2,2], strides=[2,2,2]>(r)
            b = Conv(p, w2, b2)
            g = GlobalAveragePool(b)
            f = Flatten(g)
            y = Gemm(f, w3, b3)
        }""",
        "w1 8x2x3x3x3, b1 8, w2 12x8x1x1x1, b2 12, w3 12x5, b3 5",
    ),
    "conv_transpose": Net(
        """(float[2,3,8,8] x) => (float[2,5,18,18] y) {
            a = Conv(x, w1, b1)
            t1 = ConvTranspose<strides=[2,2], kernel_shape=[2,2]>(a, w2, b2)
            r = Relu(t1)
            t2 = ConvTranspose<group=2>(r, w3, b3)
            q = Relu(t2)
            y = Conv(q, w4, b4)
        }""",
        "w1 8x3x1x1, b1 8, w2 8x12x2x2, b2 12, w3 12x5x3x3, b3 10, w4 5x10x1x1, b4 5",
    ),
    "unet": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            r = Relu(a)
            p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
            b = Conv<pads=[1,1,1,1]>(p, w2, b2)
            q = Relu(b)
            u = Resize<mode="nearest">(q, , [1.0, 1.0, 2.0, 2.0])
            c = Concat<axis=1>(u, r)
            d = Conv<pads=[1,1,1,1]>(c, w3, b3)
            e = Relu(d)
            y = Conv(e, w4, b4)
        }""",
        "w1 8x3x3x3, b1 8, w2 12x8x3x3, b2 12, w3 8x20x3x3, b3 8, w4 5x8x1x1, b4 5",
        opset=13,
    ),
    "squeeze_excite": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            g = GlobalAveragePool(a)
            e = Conv(g, w2, b2)
            r = Relu(e)
            k = Conv(r, w3, b3)
            q = Sigmoid(k)
            z = Mul(a, q)
            y = Conv(z, w4, b4)
        }""",
        "w1 16x3x3x3, b1 16, w2 8x16x1x1, b2 8, w3 16x8x1x1, b3 16, w4 5x16x1x1, b4 5",
    ),
    "squeeze_excite_gemm": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            p = GlobalAveragePool(a)
            f = Reshape(p, [2, 16])
            e = Gemm(f, w2, b2)
            r = Relu(e)
            k = Gemm<transB=1>(r, w3, b3)
            q = Sigmoid(k)
            q4 = Reshape(q, [2, 16, 1, 1])
            z = Mul(a, q4)
            p2 = ReduceMean<axes=[2,3], keepdims=0>(z)
            e2 = MatMul(p2, w4)
            q2 = HardSigmoid(e2)
            u = Unsqueeze(q2, [2, 3])
            z2 = Mul(u, z)
            y = Conv(z2, w5, b5)
        }""",
        "w1 16x3x3x3, b1 16, w2 16x8, b2 8, w3 16x8, b3 16, w4 16x16, w5 5x16x1x1, b5 5",
    ),
    "spatial_attention": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            m = ReduceMean<axes=[1]>(a)
            k = ReduceMax<axes=[1]>(a)
            c = Concat<axis=1>(m, k)
            d = Conv<pads=[1,1,1,1]>(c, w2, b2)
            q = Sigmoid(d)
            z = Mul(a, q)
            y = Conv(z, w3, b3)
        }""",
        "w1 8x3x3x3, b1 8, w2 1x2x3x3, b2 1, w3 5x8x1x1, b3 5",
    ),
    "convnext": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            h = Conv<pads=[1,1,1,1]>(x, w0, b0)
            d = Conv<group=8, pads=[3,3,3,3]>(h, w1, b1)
            l = Transpose<perm=[0,2,3,1]>(d)
            n = LayerNormalization<axis=-1>(l, s, t)
            a = MatMul(n, w2)
            g = Gelu<approximate="tanh">(a)
            c = MatMul(g, w3)
            k = Mul(c, scale)
            u = Transpose<perm=[0,3,1,2]>(k)
            z = Add(h, u)
            y = Conv(z, w4, b4)
        }""",
        "w0 8x3x3x3, b0 8, w1 8x1x7x7, b1 8, s t 8, w2 8x16, w3 16x8, scale 8, w4 5x8x1x1, b4 5",
        opset=20,
    ),
}
