"""The pieces random graphs are made of.

A piece looks for tensors it applies to and appends nodes, or nothing where none fits. To extend the generator, write
one and give it a weight in `PIECES`.
"""

import math
from collections.abc import Callable

import numpy as np

from tests.random_growth import Growing, Shape


def is_map(shape: Shape) -> bool:
    """Tell ``[N, C, H, W]``."""
    return len(shape) == 4


def is_tokens(shape: Shape) -> bool:
    """Tell ``[N, T, C]``."""
    return len(shape) == 3


def spatial(shape: Shape) -> bool:
    """Tell maps of at least 4 by 4."""
    return is_map(shape) and min(shape[2:]) >= 4


def conv(g: Growing) -> None:
    """Convolve: pointwise or 3 wide, plain, grouped, depthwise or with a depth multiplier, over maps or sequences."""
    if not (x := g.pick(lambda s: len(s) in (3, 4))):
        return
    _, channels, *size = g.shape(x)
    group = g.choose([1, 1, 1, *(d for d in (2, 4, channels) if channels % d == 0)])
    wide = channels if group == channels and channels > 1 else g.choose([8, 12, 16])
    wide = wide * g.choose([1, 2]) if wide <= 12 else wide
    kernel = g.choose([1, 3])
    stride = g.choose([1, 1, 2]) if min(size) >= 4 else 1
    weight = g.weight((wide, channels // group, *[kernel] * len(size)), "Conv")
    bias = [g.weight((wide,), "Conv", 2)] if g.choose([True, True, False]) else []
    g.node("Conv", x, weight, *bias, group=group, pads=[kernel // 2] * 2 * len(size), strides=[stride] * len(size))


def conv_transpose(g: Growing) -> None:
    """Convolve transposed, in one group or two."""
    if x := g.pick(lambda s: is_map(s) and s[1] <= 16 and s[2] <= 4):
        channels = g.shape(x)[1]
        group = g.choose([1, 2]) if channels % 2 == 0 else 1
        weight = g.weight((channels, 8 // group, 2, 2), "ConvTranspose")
        g.node("ConvTranspose", x, weight, group=group, strides=[g.choose([1, 2])] * 2)


def batch_norm(g: Growing) -> None:
    """Normalise by stored statistics."""
    if x := g.pick(lambda s: len(s) > 1):
        g.node("BatchNormalization", x, *(g.weight((g.shape(x)[1],), "BatchNormalization", i) for i in range(1, 5)))


def activation(g: Growing) -> None:
    """Apply an elementwise function."""
    if x := g.pick(lambda _: True):
        op = g.choose(["Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Softplus", "Neg", "Abs", "Clip"])
        limits = [g.constant(np.float32(-1)), g.constant(np.float32(2))] if op == "Clip" else []
        g.node(op, x, *limits)


def prelu(g: Growing) -> None:
    """Apply a slope per channel."""
    if x := g.pick(is_map):
        g.node("PRelu", x, g.weight((g.shape(x)[1], 1, 1), "PRelu"))


def combine(g: Growing) -> None:
    """Combine two tensors, the second of the same shape or of size one on some axes."""
    if x := g.pick(lambda _: True):
        shape = g.shape(x)
        y = g.pick(lambda s: len(s) == len(shape) and all(b in (a, 1) for a, b in zip(shape, s, strict=True)))
        op = g.choose(["Add", "Mul"] if x == y else ["Add", "Mul", "Sub", "Max"])
        g.node(op, *((x, y) if g.choose([True, True, False]) else (y, x)))


def residual(g: Growing) -> None:
    """Add to a tensor a function of it, two layers deep."""
    if not (x := g.pick(lambda s: len(s) in (3, 4))):
        return
    shape = g.shape(x)
    inner = g.choose([8, 12])
    if is_tokens(shape):
        hidden = g.node("Relu", g.node("MatMul", x, g.weight((shape[2], inner), "MatMul")))
        g.node("Add", x, g.node("MatMul", hidden, g.weight((inner, shape[2]), "MatMul")))
    else:
        hidden = g.node("Conv", x, g.weight((inner, shape[1], 3, 3), "Conv"), pads=[1] * 4)
        hidden = g.node("Relu", hidden)
        g.node("Add", g.node("Conv", hidden, g.weight((shape[1], inner, 1, 1), "Conv")), x)


def with_constant(g: Growing) -> None:
    """Add or multiply by a constant per channel."""
    if x := g.pick(lambda s: len(s) > 1):
        op = g.choose(["Add", "Mul"])
        channels = g.shape(x)[1] if is_map(g.shape(x)) else g.shape(x)[-1]
        g.node(op, x, g.weight((channels, 1, 1) if is_map(g.shape(x)) else (channels,), op))


def concat(g: Growing) -> None:
    """Join two or three tensors on channels."""
    if not (x := g.pick(lambda s: len(s) > 2 and s[_channels(s)] <= 32)):
        return
    shape = g.shape(x)
    axis = _channels(shape)
    rest = np.delete(shape, axis).tolist()
    parts = [x]
    for _ in range(g.choose([1, 2])):
        parts.append(g.pick(lambda s: len(s) == len(shape) and s[axis] <= 32 and np.delete(s, axis).tolist() == rest))
    g.node("Concat", *(parts if g.choose([True, False]) else parts[::-1]), axis=g.choose([axis, axis - len(shape)]))


def split(g: Growing) -> None:
    """Cut channels into two or three parts."""
    if x := g.pick(lambda s: s[_channels(s)] >= 8):
        shape = g.shape(x)
        width = shape[_channels(shape)]
        first = g.choose([width // 2, width // 4, 3])
        sizes = [first, width - first] if g.choose([True, False]) else [first, 2, width - first - 2]
        g.node_many("Split", x, g.constant(sizes), outputs=len(sizes), axis=_channels(shape))


def slice_channels(g: Growing) -> None:
    """Take a range of channels, also strided or backwards."""
    if x := g.pick(lambda s: s[_channels(s)] >= 8):
        axis = _channels(g.shape(x))
        start, end, step = g.choose([(0, 4, 1), (2, -1, 1), (1, 1 << 40, 2), (-1, -(1 << 40), -1), (-2, 0, -3)])
        g.node("Slice", x, *(g.constant([i]) for i in (start, end, axis, step)))


def gather_channels(g: Growing) -> None:
    """Take channels in any order, some of them twice."""
    if x := g.pick(lambda s: s[_channels(s)] >= 4):
        axis = _channels(g.shape(x))
        width = g.shape(x)[axis]
        indices = g.rng.integers(-width, width, g.choose([8, 5]))
        g.node("Gather", x, g.constant(indices), axis=axis)


def pool(g: Growing) -> None:
    """Pool space, by windows or whole."""
    if x := g.pick(spatial):
        op = g.choose(["MaxPool", "AveragePool", "GlobalAveragePool"])
        window = g.choose([{"kernel_shape": [2, 2], "strides": [2, 2]}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}])
        g.node(op, x, **({} if op.startswith("Global") else window))


def resize(g: Growing) -> None:
    """Double the size of maps."""
    if x := g.pick(lambda s: is_map(s) and s[2] == s[3] <= 4):
        g.node("Resize", x, "", g.constant(np.float32([1, 1, 2, 2])), mode="nearest")


def shuffle(g: Growing) -> None:
    """Interleave channel groups."""
    if x := g.pick(lambda s: is_map(s) and s[1] % 4 == 0):
        _, channels, *size = g.shape(x)
        groups = g.choose([2, 4])
        apart = g.reshape(x, groups, channels // groups, *size)
        g.reshape(g.node("Transpose", apart, perm=[0, 2, 1, 3, 4]), channels, *size)


def group_norm(g: Growing) -> None:
    """Normalise channel groups, spelled as instance normalisation."""
    if x := g.pick(lambda s: spatial(s) and s[1] % 4 == 0):
        _, channels, *size = g.shape(x)
        scale, shift = (g.weight((4,), "InstanceNormalization", i) for i in (1, 2))
        normal = g.node("InstanceNormalization", g.reshape(x, 4, -1), scale, shift)
        g.node("Mul", g.reshape(normal, channels, *size), g.weight((channels, 1, 1), "Mul"))


def squeeze_excite(g: Growing) -> None:
    """Scale channels by a function of their means."""
    if x := g.pick(lambda s: spatial(s) and s[1] >= 4):
        channels = g.shape(x)[1]
        inner = g.node("Conv", g.node("GlobalAveragePool", x), g.weight((8, channels, 1, 1), "Conv"))
        outer = g.node("Conv", g.node("Relu", inner), g.weight((channels, 8, 1, 1), "Conv"))
        g.node("Mul", x, g.node("Sigmoid", outer))


def flatten(g: Growing) -> None:
    """Flatten maps into a fully connected layer."""
    if x := g.pick(lambda s: is_map(s) and math.prod(s[1:]) <= 512):
        size = math.prod(g.shape(x)[1:])
        flat = g.node("Flatten", x) if g.choose([True, False]) else g.reshape(x, -1)
        bias = g.weight((8,), "Gemm", 2)
        if g.choose([True, False]):
            g.node("Gemm", flat, g.weight((8, size), "Gemm"), bias, transB=1)
        else:
            g.node("Gemm", flat, g.weight((size, 8), "Gemm"), bias)


def unflatten(g: Growing) -> None:
    """Go between ``[N, C]`` and ``[N, C, 1, 1]``."""
    if x := g.pick(lambda s: len(s) == 2 or s[2:] == (1, 1)):
        if len(g.shape(x)) == 2:
            g.node("Unsqueeze", x, g.constant([2, 3]))
        else:
            g.node("Squeeze", x, g.constant([2, 3]))


def to_tokens(g: Growing) -> None:
    """Turn maps into tokens, pixel by pixel."""
    if x := g.pick(is_map):
        g.node("Transpose", g.reshape(x, g.shape(x)[1], -1), perm=[0, 2, 1])


def to_map(g: Growing) -> None:
    """Turn a square number of tokens into maps."""
    if x := g.pick(lambda s: is_tokens(s) and math.isqrt(s[1]) ** 2 == s[1]):
        _, tokens, channels = g.shape(x)
        side = math.isqrt(tokens)
        if g.choose([True, False]):
            g.reshape(g.node("Transpose", x, perm=[0, 2, 1]), channels, side, side)
        else:
            g.node("Transpose", g.reshape(x, side, side, channels), perm=[0, 3, 1, 2])


def matmul(g: Growing) -> None:
    """Multiply the last axis by a matrix, with or without a bias."""
    if x := g.pick(lambda s: len(s) in (2, 3)):
        wide = g.choose([8, 12, 16])
        y = g.node("MatMul", x, g.weight((g.shape(x)[-1], wide), "MatMul"))
        if g.choose([True, False]):
            g.node("Add", y, g.weight((wide,), "Add"))


def attention(g: Growing) -> None:
    """Attend over tokens with two or four heads."""
    if not (x := g.pick(lambda s: is_tokens(s) and s[1] <= 16)):
        return
    _, tokens, channels = g.shape(x)
    heads, depth = g.choose([(2, 4), (4, 4), (4, 2)])
    wide = heads * depth
    q, k, v = (
        g.node("Transpose", g.reshape(g.node("MatMul", x, weight), tokens, heads, depth), perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        for weight in [g.weight((channels, wide), "MatMul")]
    )
    scores = g.node("MatMul", q, k)
    if g.choose([True, True, False]):
        scores = g.node("Softmax", scores, axis=-1)
    mixed = g.node("Transpose", g.node("MatMul", scores, v), perm=[0, 2, 1, 3])
    joined = g.reshape(mixed, tokens, wide)
    if g.choose([True, False]):
        g.node("Add", x, g.node("MatMul", joined, g.weight((wide, channels), "MatMul")))


def gram(g: Growing) -> None:
    """Multiply two token tensors over their channels."""
    if x := g.pick(lambda s: is_tokens(s) and s[1] <= 16):
        width = g.shape(x)[2]
        y = g.pick(lambda s: is_tokens(s) and s[2] == width and s[1] <= 16)
        g.node("MatMul", x, g.node("Transpose", y, perm=[0, 2, 1]))


def normalise_last(g: Growing) -> None:
    """Normalise the last axis."""
    if x := g.pick(lambda s: len(s) in (2, 3) and s[-1] >= 4):
        wide = g.shape(x)[-1]
        if g.choose([True, True, False]):
            g.node("LayerNormalization", x, *(g.weight((wide,), "LayerNormalization", i) for i in (1, 2)))
        else:
            g.node("Softmax", x, axis=-1)


def reduce(g: Growing) -> None:
    """Reduce space, or channels, keeping the axes."""
    if x := g.pick(lambda s: is_map(s) or is_tokens(s)):
        op = g.choose(["ReduceMean", "ReduceSum", "ReduceMax"])
        axes = g.choose([[2, 3], [1]] if is_map(g.shape(x)) else [[1], [-1]])
        g.node(op, x, g.constant(axes)) if op == "ReduceSum" else g.node(op, x, axes=axes)


def pad(g: Growing) -> None:
    """Put zeros before or after channels, or around maps."""
    if x := g.pick(lambda s: is_map(s) and s[1] <= 16 and s[2] <= 8):
        pads = g.choose([[0, 0, 0, 0, 0, 4, 0, 0], [0, 2, 0, 0, 0, 3, 0, 0], [0, 0, 1, 1, 0, 0, 1, 1]])
        g.node("Pad", x, g.constant(pads), *([g.constant(np.float32(0))] if g.choose([True, False]) else []))


def depth_to_space(g: Growing) -> None:
    """Trade channels for space, or space for channels."""
    if x := g.pick(lambda s: is_map(s) and s[1] % 4 == 0 and s[2] <= 4):
        g.node("DepthToSpace", x, blocksize=2, mode=g.choose(["DCR", "CRD"]))
    elif x := g.pick(lambda s: is_map(s) and s[1] <= 12 and s[2] % 2 == s[3] % 2 == 0):
        g.node("SpaceToDepth", x, blocksize=2)


def repeat(g: Growing) -> None:
    """Broadcast ``[N, C, 1, 1]`` over space, or repeat the channels."""
    if x := g.pick(lambda s: s[2:] == (1, 1)):
        g.node("Expand", x, g.constant([1, 1, 4, 4]))
    elif x := g.pick(lambda s: len(s) > 2 and s[_channels(s)] <= 12):
        shape = g.shape(x)
        g.node("Tile", x, g.constant([2 if i == _channels(shape) else 1 for i in range(len(shape))]))


def cumulative(g: Growing) -> None:
    """Sum channels cumulatively, which no channel can leave."""
    if x := g.pick(is_map):
        g.node("CumSum", x, g.constant(1))


def _channels(shape: Shape) -> int:
    return 2 if is_tokens(shape) else 1


PIECES: dict[Callable[[Growing], None], int] = {
    conv: 6,
    activation: 4,
    batch_norm: 3,
    combine: 5,
    residual: 2,
    matmul: 3,
    concat: 3,
    split: 2,
    squeeze_excite: 1,
    prelu: 1,
    with_constant: 1,
    pool: 2,
    shuffle: 2,
    group_norm: 1,
    flatten: 2,
    unflatten: 1,
    to_tokens: 2,
    to_map: 2,
    attention: 2,
    gram: 1,
    normalise_last: 2,
    reduce: 2,
    slice_channels: 2,
    gather_channels: 1,
    pad: 2,
    depth_to_space: 2,
    repeat: 1,
    resize: 1,
    conv_transpose: 1,
    cumulative: 1,
}
"""Every piece, and how often it is tried."""
