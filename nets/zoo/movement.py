"""Zoo nets that move channels about: split, shuffle, pad, regroup."""

from nets.notation import Net

MOVES = {
    "c2f": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            h = Conv(x, w0, b0)
            a, b = Split<axis=1>(h, [8, 8])
            c1 = Conv<pads=[1,1,1,1]>(b, w1, b1)
            r1 = Relu(c1)
            c2 = Conv<pads=[1,1,1,1]>(r1, w2, b2)
            e = Add(b, c2)
            c = Concat<axis=1>(a, b, e)
            r = Relu(c)
            y = Conv(r, w3, b3)
        }""",
        "w0 16x3x1x1, b0 16, w1 12x8x3x3, b1 12, w2 8x12x3x3, b2 8, w3 5x24x1x1, b3 5",
    ),
    "split_attribute": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            h = Conv(x, w0, b0)
            a, b, c = Split<axis=1, split=[8, 4, 12]>(h)
            d = Concat<axis=1>(c, a)
            r = Relu(d)
            k = Conv(r, w1, b1)
            q = Sigmoid(b)
            z = Mul(k, q)
            y = Conv(z, w2, b2)
        }""",
        "w0 24x3x1x1, b0 24, w1 4x20x1x1, b1 4, w2 5x4x1x1, b2 5",
        opset=11,
    ),
    "reorder": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            h = Conv(x, w0, b0)
            odd = Slice(h, [1], [12], [1], [2])
            flip = Slice(h, [-1], [-100], [1], [-1])
            pick = Gather<axis=1>(h, [3, 0, 7, -1, 3])
            c = Concat<axis=1>(odd, flip, pick)
            r = Relu(c)
            y = Conv(r, w1, b1)
        }""",
        "w0 12x3x1x1, b0 12, w1 5x23x1x1, b1 5",
    ),
    "shuffle_between_groups": Net(
        """(float[2,4,4,4] x) => (float[2,5,4,4] y) {
            b = Conv<group=2>(x, w2)
            s = Reshape(b, [2, 2, 8, 4, 4])
            t = Transpose<perm=[0,2,1,3,4]>(s)
            u = Reshape(t, [2, 16, 4, 4])
            c = Conv<group=2>(u, w3)
            r = Relu(c)
            y = Conv(r, w4)
        }""",
        "w2 16x2x1x1, w3 16x8x1x1, w4 5x16x1x1",
    ),
    "groups_across_parts": Net(
        """(float[2,8,4,4] x) => (float[2,5,4,4] y) {
            a = Conv(x, w1)
            c = Concat<axis=1>(a, x)
            b = Conv<group=4>(c, w2)
            r = Relu(b)
            y = Conv(r, w3)
        }""",
        "w1 12x8x1x1, w2 16x5x1x1, w3 5x16x1x1",
    ),
    "rows_of_repeated_channels": Net(
        """(float[2,3,2,2] x) => (float[2,5] y) {
            a = Conv(x, w1)
            c = Concat<axis=1>(a, a, a)
            s = Reshape(c, [2, 4, 12, 2, 2])
            t = Transpose<perm=[0,2,1,3,4]>(s)
            f = Reshape(t, [2, 192])
            h = MatMul(f, w2)
            y = MatMul(h, w3)
        }""",
        "w1 16x3x1x1, w2 192x8, w3 8x5",
    ),
    "channel_shuffle": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv(x, w0, b0)
            b = Conv<group=2>(a, w1, b1)
            s1 = Reshape(b, [2, 2, 8, 8, 8])
            s2 = Transpose<perm=[0,2,1,3,4]>(s1)
            s3 = Reshape(s2, [2, 16, 8, 8])
            c = Conv<group=2, pads=[1,1,1,1]>(s3, w2, b2)
            r = Relu(c)
            y = Conv(r, w3, b3)
        }""",
        "w0 8x3x1x1, b0 8, w1 16x4x1x1, b1 16, w2 12x8x3x3, b2 12, w3 5x12x1x1, b3 5",
    ),
    "shufflenet_v2": Net(
        """(float[batch,3,8,8] x) => (float[batch,5,8,8] y) {
            h = Conv(x, w0, b0)
            l, r = Split<axis=1, num_outputs=2>(h)
            a = Conv(r, w1, b1)
            ra = Relu(a)
            d = Conv<group=8, pads=[1,1,1,1]>(ra, w2, b2)
            e = Conv(d, w3, b3)
            re = Relu(e)
            c = Concat<axis=1>(l, re)
            s1 = Reshape(c, [-1, 2, 8, 8, 8])
            s2 = Transpose<perm=[0,2,1,3,4]>(s1)
            s3 = Reshape(s2, [-1, 16, 8, 8])
            y = Conv(s3, w4, b4)
        }""",
        "w0 16x3x1x1, b0 16, w1 8x8x1x1, b1 8, w2 8x1x3x3, b2 8, w3 8x8x1x1, b3 8, w4 5x16x1x1, b4 5",
        opset=18,
    ),
    "pad_shortcut": Net(
        """(float[2,3,8,8] x) => (float[2,5,4,4] y) {
            h = Conv<pads=[1,1,1,1]>(x, w0, b0)
            g = Relu(h)
            a = Conv<pads=[1,1,1,1], strides=[2,2]>(g, w1, b1)
            r = Relu(a)
            b = Conv<pads=[1,1,1,1]>(r, w2, b2)
            k = Slice(g, [0, 0], [8, 8], [2, 3], [2, 2])
            p = Pad(k, [0, 4, 0, 0, 0, 4, 0, 0], {0.0})
            z = Add(b, p)
            q = Relu(z)
            y = Conv(q, w3, b3)
        }""",
        "w0 8x3x3x3, b0 8, w1 12x8x3x3, b1 12, w2 16x12x3x3, b2 16, w3 5x16x1x1, b3 5",
    ),
    "pad_pool": Net(
        """(float[2,3,8,8] x) => (float[2,5] y) {
            a = Conv(x, w1, b1)
            p = Pad(a, [0, 0, 1, 1, 0, 0, 1, 1])
            k = MaxPool<kernel_shape=[2,2], strides=[2,2]>(p)
            c = Conv(k, w2, b2)
            f = Flatten(c)
            y = Gemm(f, w3, b3)
        }""",
        "w1 8x3x3x3, b1 8, w2 8x8x3x3, b2 8, w3 32x5, b3 5",
    ),
    "depth_to_space": Net(
        """(float[2,3,8,8] x) => (float[2,5,32,32] y) {
            a = Conv(x, w0, b0)
            d = DepthToSpace<blocksize=2, mode="CRD">(a)
            b = Conv(d, w1, b1)
            r = Relu(b)
            e = DepthToSpace<blocksize=2, mode="DCR">(r)
            y = Conv(e, w2, b2)
        }""",
        "w0 32x3x1x1, b0 32, w1 32x8x1x1, b1 32, w2 5x8x1x1, b2 5",
    ),
    "space_to_depth": Net(
        """(float[2,3,8,8] x) => (float[2,5,4,4] y) {
            a = Conv(x, w0, b0)
            r = Relu(a)
            d = SpaceToDepth<blocksize=2>(r)
            y = Conv(d, w1, b1)
        }""",
        "w0 8x3x1x1, b0 8, w1 5x32x1x1, b1 5",
    ),
    "pixel_shuffle": Net(
        """(float[2,3,8,8] x) => (float[2,5,16,16] y) {
            a = Conv(x, w0, b0)
            s1 = Reshape(a, [2, 8, 2, 2, 8, 8])
            s2 = Transpose<perm=[0,1,4,2,5,3]>(s1)
            s3 = Reshape(s2, [2, 8, 16, 16])
            y = Conv(s3, w1, b1)
        }""",
        "w0 32x3x1x1, b0 32, w1 5x8x1x1, b1 5",
    ),
    "windows": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            h = Conv(x, w0, b0)
            s1 = Reshape(h, [2, 8, 2, 4, 2, 4])
            s2 = Transpose<perm=[0,2,4,3,5,1]>(s1)
            s3 = Reshape(s2, [8, 16, 8])
            a = MatMul(s3, w1)
            r = Relu(a)
            b = MatMul(r, w2)
            u1 = Reshape(b, [2, 2, 2, 4, 4, 8])
            u2 = Transpose<perm=[0,5,1,3,2,4]>(u1)
            u3 = Reshape(u2, [2, 8, 8, 8])
            z = Add(u3, h)
            y = Conv(z, w3, b3)
        }""",
        "w0 8x3x1x1, b0 8, w1 8x12, w2 12x8, w3 5x8x1x1, b3 5",
    ),
    "group_norm": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y)
        <float[4] ones = {1.0, 1.0, 1.0, 1.0}, float[4] zeros = {0.0, 0.0, 0.0, 0.0}> {
            a = Conv<pads=[1,1,1,1]>(x, w0, b0)
            g1 = Reshape(a, [0, 4, -1])
            i1 = InstanceNormalization(g1, ones, zeros)
            k1 = Reshape(i1, [2, 16, 8, 8])
            m1 = Mul(k1, s1)
            n1 = Add(m1, t1)
            r1 = Relu(n1)
            b = Conv<pads=[1,1,1,1]>(r1, w1, b1)
            shape = Shape(b)
            g2 = Reshape(b, [0, 4, -1])
            i2 = InstanceNormalization(g2, ones, zeros)
            k2 = Reshape(i2, shape)
            m2 = Mul(k2, s2)
            n2 = Add(m2, t2)
            y = Conv(n2, w2, b2)
        }""",
        "w0 16x3x3x3, b0 16, s1 t1 16x1x1, w1 8x16x3x3, b1 8, s2 t2 8x1x1, w2 5x8x1x1, b2 5",
    ),
    "group_norm_native": Net(
        """(float[2,3,8,8] x) => (float[2,5,8,8] y) {
            a = Conv<pads=[1,1,1,1]>(x, w0, b0)
            n = GroupNormalization<num_groups=4>(a, s, t)
            r = Relu(n)
            y = Conv(r, w1, b1)
        }""",
        "w0 16x3x3x3, b0 16, s t 16, w1 5x16x1x1, b1 5",
        opset=21,
    ),
}
