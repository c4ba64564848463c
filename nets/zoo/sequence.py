"""Zoo nets over tokens: attention and its variants, gated units, recurrence."""

from nets.notation import Net

_ATTEND = """
            raw = MatMul(q, k)
            scores = Mul(raw, {0.5})
            weights = Softmax<axis=-1>(scores)
            mixed = MatMul(weights, v)
            rows = Transpose<perm=[0,2,1,3]>(mixed)
            joined = Reshape(rows, [2, 5, 16])
            out = MatMul(joined, wo)
            y = Add(out, bo)
        }"""
"""`q` and `v` of ``[2, 4, 5, 4]``, `k` of ``[2, 4, 4, 5]``, projected to ``y [2, 5, 6]``."""

_OUT = "wo 16x6, bo 6"


def _rotate(name: str) -> str:
    """Return rotary embedding of ``{name}0 [2, 4, 5, 4]`` as `{name}`."""
    return f"""
            {name}_lo = Slice({name}0, [0], [2], [3])
            {name}_hi = Slice({name}0, [2], [9223372036854775807], [-1])
            {name}_neg = Neg({name}_hi)
            {name}_half = Concat<axis=-1>({name}_neg, {name}_lo)
            {name}_cos = Mul({name}0, cosine)
            {name}_sin = Mul({name}_half, sine)
            {name}_turned = Add({name}_cos, {name}_sin)"""


SEQUENCE = {
    "einsum": Net(
        """(float[2,5,6] x) => (float[2,5,4] y) {
            h = Einsum<equation="bti,io->bto">(x, w1)
            a = Add(h, b1)
            r = Relu(a)
            y = Einsum<equation="b t i, o i -> b t o">(r, w2)
        }""",
        "w1 6x12, b1 12, w2 4x12",
    ),
    "swiglu": Net(
        """(float[batch,seq,6] x) => (float[batch,seq,6] y) {
            h = MatMul(x, w0)
            g = MatMul(h, wg)
            u = MatMul(h, wu)
            s = Sigmoid(g)
            a = Mul(g, s)
            m = Mul(a, u)
            d = MatMul(m, wd)
            z = Add(h, d)
            y = MatMul(z, w1)
        }""",
        "w0 6x16, wg wu 16x24, wd 24x16, w1 16x6",
    ),
    "swiglu_fused": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            h = MatMul(x, w1)
            b = Add(h, b1)
            g, u = Split<axis=-1>(b, [16, 16])
            s = Sigmoid(g)
            a = Mul(g, s)
            m = Mul(a, u)
            d = MatMul(m, w2)
            y = Add(d, x)
        }""",
        "w1 6x32, b1 32, w2 16x6",
    ),
    "tied_embedding": Net(
        """(int64[2,seq] ids) => (float[2,seq,12] y) {
            e = Gather(table, ids)
            a = MatMul(e, w1)
            r = Relu(a)
            b = MatMul(r, w2)
            h = Add(e, b)
            head = Transpose<perm=[1,0]>(table)
            y = MatMul(h, head)
        }""",
        "table 12x8, w1 8x16, w2 16x8",
    ),
    "layer_norm": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            h = MatMul(x, w0)
            n = LayerNormalization<axis=-1>(h, s, t)
            a = MatMul(n, w1)
            g = Add(a, b1)
            e = Erf(g)
            f = Mul(e, g)
            c = MatMul(f, w2)
            z = Add(h, c)
            y = MatMul(z, w3)
        }""",
        "w0 6x16, s t 16, w1 16x24, b1 24, w2 24x16, w3 16x6",
    ),
    "layer_norm_decomposed": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            h = MatMul(x, w0)
            mean = ReduceMean<axes=[-1]>(h)
            d = Sub(h, mean)
            sq = Pow(d, {2.0})
            var = ReduceMean<axes=[-1]>(sq)
            eps = Add(var, {0.00001})
            std = Sqrt(eps)
            u = Div(d, std)
            g = Mul(u, s)
            n = Add(g, t)
            a = MatMul(n, w1)
            r = Relu(a)
            y = MatMul(r, w2)
        }""",
        "w0 6x16, s t 16, w1 16x24, w2 24x6",
    ),
    "attention": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            qx = MatMul(x, wq)
            qb = Add(qx, bq)
            q0 = Reshape(qb, [2, 5, 4, 4])
            q = Transpose<perm=[0,2,1,3]>(q0)
            kx = MatMul(x, wk)
            k0 = Reshape(kx, [2, 5, 4, 4])
            k = Transpose<perm=[0,2,3,1]>(k0)
            vx = MatMul(x, wv)
            vb = Add(bv, vx)
            v0 = Reshape(vb, [2, 5, 4, 4])
            v = Transpose<perm=[0,2,1,3]>(v0)"""
        + _ATTEND,
        "wq wk wv 6x16, bq bv 16," + _OUT,
    ),
    "attention_gemm": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            flat = Reshape(x, [-1, 6])
            qx = Gemm<transB=1>(flat, wq, bq)
            q0 = Reshape(qx, [2, 5, 4, 4])
            q = Transpose<perm=[0,2,1,3]>(q0)
            kx = Gemm<transB=1>(flat, wk, bk)
            k0 = Reshape(kx, [2, 5, 4, 4])
            k = Transpose<perm=[0,2,3,1]>(k0)
            vx = Gemm<transB=1>(flat, wv, bv)
            v0 = Reshape(vx, [2, -1, 4, 4])
            v = Transpose<perm=[0,2,1,3]>(v0)"""
        + _ATTEND,
        "wq wk wv 16x6, bq bk bv 16," + _OUT,
    ),
    "attention_dynamic": Net(
        """(float[batch,seq,6] x) => (float[batch,seq,6] y) {
            h = MatMul(x, w0)
            n = LayerNormalization(h, s, t)
            shape = Shape(n)
            n0 = Gather(shape, {0})
            t0 = Gather(shape, {1})
            n1 = Unsqueeze(n0, [0])
            t1 = Unsqueeze(t0, [0])
            split = Concat<axis=0>(n1, t1, [4], [4])
            merge = Concat<axis=0>(n1, t1, [-1])
            qx = MatMul(n, wq)
            q0 = Reshape(qx, split)
            q = Transpose<perm=[0,2,1,3]>(q0)
            kx = MatMul(n, wk)
            k0 = Reshape(kx, split)
            k = Transpose<perm=[0,2,3,1]>(k0)
            vx = MatMul(n, wv)
            v0 = Reshape(vx, split)
            v = Transpose<perm=[0,2,1,3]>(v0)
            qshape = Shape(q)
            depth = Slice(qshape, [-1], [9223372036854775807])
            real = Cast<to=1>(depth)
            root = Sqrt(real)
            raw = MatMul(q, k)
            scores = Div(raw, root)
            weights = Softmax<axis=-1>(scores)
            mixed = MatMul(weights, v)
            rows = Transpose<perm=[0,2,1,3]>(mixed)
            joined = Reshape(rows, merge)
            out = MatMul(joined, wo)
            z = Add(h, out)
            y = MatMul(z, w1)
        }""",
        "w0 6x16, s t 16, wq wk wv wo 16x16, w1 16x6",
    ),
    "packed_gather": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            qkv = MatMul(x, w)
            biased = Add(qkv, b)
            packed = Reshape(biased, [2, 5, 3, 4, 4])
            turned = Transpose<perm=[2,0,3,1,4]>(packed)
            q = Gather<axis=0>(turned, {0})
            k0 = Gather<axis=0>(turned, {1})
            v = Gather<axis=0>(turned, {2})
            k = Transpose<perm=[0,1,3,2]>(k0)"""
        + _ATTEND,
        "w 6x48, b 48," + _OUT,
    ),
    "packed_split": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            flat = Reshape(x, [10, 6])
            qkv = Gemm<transB=1>(flat, w, b)
            packed = Reshape(qkv, [2, 5, 3, 4, 4])
            turned = Transpose<perm=[2,0,3,1,4]>(packed)
            q1, k1, v1 = Split<axis=0>(turned)
            q = Squeeze(q1, [0])
            k0 = Squeeze(k1, [0])
            v = Squeeze(v1, [0])
            k = Transpose<perm=[0,1,3,2]>(k0)"""
        + _ATTEND,
        "w 48x6, b 48," + _OUT,
    ),
    "relative_bias": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            qkv = MatMul(x, w)
            q1, k1, v1 = Split<axis=-1>(qkv, [16, 16, 16])
            q0 = Reshape(q1, [0, 0, 4, 4])
            q = Transpose<perm=[0,2,1,3]>(q0)
            k0 = Reshape(k1, [0, 0, 4, -1])
            k = Transpose<perm=[0,2,3,1]>(k0)
            v0 = Reshape(v1, [0, 0, -1, 4])
            v = Transpose<perm=[0,2,1,3]>(v0)"""
        + _ATTEND.replace("Mul(raw, {0.5})", "Add(raw, bias)"),
        "w 6x48, bias 1x4x5x5," + _OUT,
    ),
    "grouped_query": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            qx = MatMul(x, wq)
            q0 = Reshape(qx, [2, 5, 4, 4])
            q = Transpose<perm=[0,2,1,3]>(q0)
            kx = MatMul(x, wk)
            k0 = Reshape(kx, [2, 5, 2, 4])
            k1 = Transpose<perm=[0,2,1,3]>(k0)
            k2 = Unsqueeze(k1, [2])
            k3 = Expand(k2, [2, 2, 2, 5, 4])
            k4 = Reshape(k3, [2, 4, 5, 4])
            k = Transpose<perm=[0,1,3,2]>(k4)
            vx = MatMul(x, wv)
            v0 = Reshape(vx, [2, 5, 2, 4])
            v1 = Transpose<perm=[0,2,1,3]>(v0)
            v2 = Unsqueeze(v1, [2])
            v3 = Expand(v2, [1, 1, 2, 1, 1])
            v = Reshape(v3, [2, 4, 5, 4])"""
        + _ATTEND,
        "wq 6x16, wk wv 6x8," + _OUT,
    ),
    "rotary": Net(
        """(float[2,5,6] x) => (float[2,5,6] y) {
            qx = MatMul(x, wq)
            q1 = Reshape(qx, [2, 5, 4, 4])
            q0 = Transpose<perm=[0,2,1,3]>(q1)
            kx = MatMul(x, wk)
            k1 = Reshape(kx, [2, 5, 4, 4])
            k0 = Transpose<perm=[0,2,1,3]>(k1)
            vx = MatMul(x, wv)
            v0 = Reshape(vx, [2, 5, 4, 4])
            v = Transpose<perm=[0,2,1,3]>(v0)"""
        + _rotate("q")
        + _rotate("k")
        + """
            q = Mul(q_turned, gain)
            k = Transpose<perm=[0,1,3,2]>(k_turned)"""
        + _ATTEND,
        "wq wk wv 6x16, cosine sine 5x4, gain 4," + _OUT,
    ),
    "bias_of_two_layers": Net(
        """(float[batch,6] x) => (float[batch,4] y) {
            a = Gemm(x, w1, b1)
            n = LayerNormalization(a, gain, shift)
            p = Gemm(n, w2, b)
            q = Gemm(x, w3, b3)
            c = MatMul(q, w4)
            r = Gemm(c, w5, b)
            y = Add(p, r)
        }""",
        "w1 6x8, b1 gain shift 8, w2 8x4, w3 6x7, b3 7, w4 7x9, w5 9x4, b 4",
    ),
    "class_token": Net(
        """(float[batch,3,8,8] x) => (float[batch,5] y) {
            p = Conv<strides=[4,4]>(x, w0, b0)
            f = Reshape(p, [0, 16, -1])
            h = Transpose<perm=[0,2,1]>(f)
            shape = Shape(x)
            n = Slice(shape, [0], [1])
            target = Concat<axis=0>(n, [1], [16])
            token = Expand(class, target)
            c = Concat<axis=1>(token, h)
            e = Add(c, position)
            m = MatMul(e, w1)
            g = Gelu(m)
            k = MatMul(g, w2)
            z = Add(e, k)
            mean = ReduceMean<keepdims=0>(z, [1])
            first = Gather<axis=1>(z, {0})
            both = Add(first, mean)
            y = Gemm(both, w3, b3)
        }""",
        "w0 16x3x4x4, b0 16, class 1x1x16, position 1x5x16, w1 16x24, w2 24x16, w3 16x5, b3 5",
        opset=20,
    ),
    "lstm": Net(
        """(float[2,5,6] x) => (float[2,5,4] y) {
            h = MatMul(x, w0)
            t = Transpose<perm=[1,0,2]>(h)
            start = ConstantOfShape<value = float[1] {0.0}>([1, 2, 12])
            a, ah, ac = LSTM<hidden_size=12>(t, w1, r1, b1, , start, start)
            s = Squeeze(a, [1])
            b, = LSTM<hidden_size=8>(s, w2, r2, b2)
            q = Squeeze(b, [1])
            u = Transpose<perm=[1,0,2]>(q)
            y = MatMul(u, w3)
        }""",
        "w0 6x8, w1 1x48x8, r1 1x48x12, b1 1x96, w2 1x32x12, r2 1x32x8, b2 1x64, w3 8x4",
    ),
    "gru_bidirectional": Net(
        """(float[5,2,6] x) => (float[10,4] y, float[2,2,8] state) {
            a, state = GRU<hidden_size=8, direction="bidirectional", linear_before_reset=1>(x, w1, r1, b1)
            t = Transpose<perm=[0,2,1,3]>(a)
            f = Reshape(t, [0, 0, -1])
            n = LayerNormalization(f, s, h)
            m = Reshape(n, [10, 16])
            y = Gemm<transB=1>(m, w2, b2)
        }""",
        "w1 2x24x6, r1 2x24x8, b1 2x48, s h 16, w2 4x16, b2 4",
    ),
}
