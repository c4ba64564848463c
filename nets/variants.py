"""Nets beside the zoo: what its nets spell, in a combination none of them has."""

from nets.notation import Net

VARIANTS = {
    "routed_experts": Net(
        """(float[2,4,6] x) => (float[2,4,5] y) {
            a = MatMul(x, w1) f = Reshape(a, [-1, 8])
            logits = MatMul(f, router) chances = Softmax<axis=-1>(logits) best, chosen = TopK<axis=-1>(chances, [2])
            total = ReduceSum(best, [-1]) shares = Div(best, total)
            t = Unsqueeze(f, [1]) repeated = Expand(t, [1, 2, 1]) rows = Reshape(repeated, [-1, 8, 1])
            flat = Reshape(chosen, [-1]) ups = Gather(up, flat)
            u = MatMul(ups, rows) v = Squeeze(u, [2]) gates, values = Split<axis=1>(v, [6, 6])
            g = Sigmoid(gates) h = Mul(g, values) columns = Unsqueeze(h, [2])
            places = Unsqueeze(flat, [-1]) downs = GatherND(down, places) o = MatMul(downs, columns)
            share = Reshape(shares, [-1, 1, 1]) p = Mul(o, share) q = Reshape(p, [8, 2, 8])
            sum = ReduceSum<keepdims=0>(q, [1]) z = Reshape(sum, [2, 4, 8]) s = Add(z, a) y = MatMul(s, w2)
        }""",
        "w1 6x8, router 8x5, up 5x12x8, down 5x8x6, w2 8x5",
    ),
    "routed_by_groups": Net(
        """(float[2,4,6] x) => (float[2,4,5] y) <float[8,2] none = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
                                               0.0, 0.0, 0.0, 0.0, 0.0, 0.0}> {
            a = MatMul(x, w1) f = Reshape(a, [8, 8])
            logits = MatMul(f, router) chances = Sigmoid(logits) favoured = Add(chances, favour)
            groups = Reshape(favoured, [8, 2, 4]) two, at = TopK<axis=-1>(groups, [2])
            sums = ReduceSum<keepdims=0>(two, [2])
            first, group = TopK<axis=-1>(sums, [1]) ones = ConstantOfShape<value = float[1] {1.0}>([8, 1])
            open = ScatterElements<axis=1>(none, group, ones) wide = Unsqueeze(open, [2]) all = Expand(wide, [8, 2, 4])
            mask = Reshape(all, [8, 8]) kept = Mul(favoured, mask) top, chosen = TopK<axis=-1>(kept, [2])
            shares = GatherElements<axis=1>(chances, chosen)
            hot = OneHot(chosen, depth, ends) weighed = Unsqueeze(shares, [2]) spread = Mul(hot, weighed)
            each = ReduceSum<keepdims=0>(spread, [1])
            u = Einsum<equation="tc,efc->tef">(f, up) r = Relu(u) o = Einsum<equation="tef,ecf->tec">(r, down)
            e = Unsqueeze(each, [2]) p = Mul(o, e) sum = ReduceSum<keepdims=0>(p, [1])
            z = Reshape(sum, [2, 4, 8]) s = Add(z, a) y = MatMul(s, w2)
        }""".replace("depth", "{8}").replace("ends", "[0.0, 1.0]"),
        "w1 6x8, router 8x8, favour 8, up 8x6x8, down 8x8x6, w2 8x5",
    ),
    "read_at_places": Net(
        """(float[4,6] x) => (float[4,3] y) {
            a = MatMul(x, w1) c = Softmax<axis=1>(a) t, i = TopK<axis=1>(c, [2])
            b = MatMul(x, w2) v = Relu(b) g = GatherElements<axis=1>(v, i) s = Mul(g, t) y = MatMul(s, w3)
        }""",
        "w1 w2 6x8, w3 2x3",
    ),
    "bidirectional": Net(
        """(float[5,2,6] x) => (float[5,2,4] y) {
            a, ah, ac = LSTM<hidden_size=8, direction="bidirectional">(x, w1, r1, b1)
            t = Transpose<perm=[0,2,1,3]>(a)
            f = Reshape(t, [0, 0, -1])
            b, = GRU<hidden_size=6, direction="bidirectional", linear_before_reset=1>(f, w2, r2, b2)
            u = Transpose<perm=[0,2,1,3]>(b)
            g = Reshape(u, [0, 0, -1])
            y = MatMul(g, w3)
        }""",
        "w1 2x32x6, r1 2x32x8, b1 2x64, w2 2x18x16, r2 2x18x6, b2 2x36, w3 12x4",
    ),
    "shuffle_of_three": Net(
        """(float[2,3,4,4] x) => (float[2,5,4,4] y) {
            a = Conv(x, w1)
            b = Conv<group=3>(a, w2)
            s = Reshape(b, [2, 3, 4, 4, 4])
            t = Transpose<perm=[0,2,1,3,4]>(s)
            u = Reshape(t, [2, 12, 4, 4])
            c = Conv<group=2>(u, w3)
            r = Relu(c)
            y = Conv(r, w4)
        }""",
        "w1 12x3x1x1, w2 12x4x1x1, w3 12x6x1x1, w4 5x12x1x1",
    ),
    "segment_sum": Net(
        """(float[seq,4] x) => (float[seq,5] y) {
            h = MatMul(x, w1)
            r = Relu(h)
            c = Slice(x, [0], [1], [1])
            p1 = Sigmoid(c)
            k = Cast<to=7>(p1)
            s = Shape(r)
            i = Expand(k, s)
            t = Shape(i)
            p = Slice(r, [0, 0], t)
            z = ConstantOfShape(s)
            a = ScatterElements<axis=0, reduction="add">(z, i, p)
            y = MatMul(a, w2)
        }""",
        "w1 4x12, w2 12x5",
    ),
    "multi_query": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            qx = MatMul(x, wq)
            q0 = Reshape(qx, [2, 5, 4, 4])
            q = Transpose<perm=[0,2,1,3]>(q0)
            kx = MatMul(x, wk)
            k0 = Reshape(kx, [2, 5, 1, 4])
            k = Transpose<perm=[0,2,3,1]>(k0)
            vx = MatMul(x, wv)
            v0 = Unsqueeze(vx, [2])
            v = Transpose<perm=[0,2,1,3]>(v0)
            raw = MatMul(q, k)
            weights = Softmax<axis=-1>(raw)
            mixed = MatMul(weights, v)
            rows = Transpose<perm=[0,2,1,3]>(mixed)
            joined = Reshape(rows, [2, 5, 16])
            y = MatMul(joined, wo)
        }""",
        "wq 6x16, wk wv 6x4, wo 16x6",
    ),
    "joined_and_cut_elsewhere": Net(
        """(float[2,3,4,4] x) => (float[2,5,4,4] y) {
            a = Conv(x, w1)
            b = Conv(x, w2)
            c = Concat<axis=1>(a, b, a)
            p, q, r = Split<axis=1>(c, [5, 9, 6])
            u = Conv(p, w3)
            v = Conv(q, w4)
            w = Slice(r, [-1], [-100], [1], [-2])
            d = Concat<axis=1>(w, u)
            e = Add(d, v)
            f = Relu(e)
            y = Conv(f, w5)
        }""",
        "w1 6x3x1x1, w2 8x3x1x1, w3 5x5x1x1, w4 8x9x1x1, w5 5x8x1x1",
    ),
    "cached_attention": Net(
        """(float[3,5,6] x) => (float[3,5,4] y, float[3,2,9,4] present_value) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            a, present_key, present_value = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1>(q, k, v, , pk, pv)
            y = MatMul(a, wo)
        }""",
        "wq 6x16, wk wv 6x8, pk 3x2x4x4, pv 3x2x4x4, wo 16x4",
        opset=23,
    ),
    "rows_of_two": Net(
        """(float[2,6] x) => (float[2,5] y) {
            a = MatMul(x, w1) b = MatMul(x, w2) c = Reshape(a, [2, 3, 1, 4]) d = Reshape(b, [2, 1, 2, 4])
            s = Add(c, d) r = Relu(s) f = Reshape(r, [2, 24]) y = MatMul(f, w3)
        }""",
        "w1 6x12, w2 6x8, w3 24x5",
    ),
}
