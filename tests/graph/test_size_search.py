"""Sizes of open dimensions: those that are given, those that the file bakes in, those that weights fix."""

import pytest

from nets.notation import Net
from onnxslim_learn import analysis
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph import input_sizes
from onnxslim_learn.workflow import slim

BAKED = "(float[n, s, 6] x) => (float[n, s, 3] y) { a = MatMul(x, w1) b = Reshape(a, [-1, 9, 8]) y = MatMul(b, w2) }"
TABLE = "(float[n, s, 6] x) => (float[n, s, 3] y) { a = MatMul(x, w1) b = Add(a, p) y = MatMul(b, w2) }"
IMAGE = """(float[n, 3, h, w] x) => (float[n, t, 2] y) {
    a = Conv<strides=[4, 4]>(x, w1)
    b = Reshape(a, [0, 8, -1])
    c = Transpose<perm=[0, 2, 1]>(b)
    d = Add(c, p)
    y = MatMul(d, w2)
}"""
STATE = """(float[1, batch, 8] state, float[batch, s, 6] x) => (float[batch, s, 3] y) {
    a = MatMul(x, w1)
    z = Squeeze(state, [0])
    b = Unsqueeze(z, [1])
    c = Add(a, b)
    y = MatMul(c, w2)
}"""
CHANNELS = "(float[b, c, t] x) => (float[b, 4, u] y) { a = Conv(x, w1) r = Relu(a) y = Conv(r, w2) }"


def sampled(text, weights, inputs=None):
    shapes = analysis.analyze(Net(text, weights).build(), inputs=inputs).graph.shapes
    return [sample.inputs for sample in shapes.samples]


@pytest.mark.parametrize(("text", "weights"), [(BAKED, "w1 6x8, w2 8x3"), (TABLE, "w1 6x8, w2 8x3, p 1x9x8")])
def test_a_length_that_the_file_bakes_in_is_the_one_to_use(text, weights):
    assert sampled(text, weights) == [{"x": (n, 9, 6)} for n in (*input_sizes.BATCH, 5)]


def test_a_table_bounds_a_length_that_stays_open():
    text = """(float[n, s, 6] x) => (float[n, s, 3] y) {
        m = Shape(x) e = Gather(m, [1]) t = Slice(p, [0], e, [1]) a = MatMul(x, w1) b = Expand(t, m) c = Add(a, b)
        y = MatMul(c, w2)
    }"""
    sizes = [inputs["x"][1] for inputs in sampled(text, "w1 6x6, p 1x40x6, w2 6x3")]
    assert len(set(sizes)) == len(sizes) > 1
    assert max(sizes) <= 40


def test_places_that_are_counted_from_a_length_lie_in_their_table():
    text = """(float[n, s, 6] x) => (float[n, s, 3] y) {
        m = Shape(x) e = Gather(m, {1}) r = Range({0}, e, {1}) b = Gather(p, r) a = Add(x, b) y = MatMul(a, w)
    }"""
    sizes = [inputs["x"][1] for inputs in sampled(text, "p 40x6, w 6x3")]
    assert len(set(sizes)) == len(sizes) > 1
    assert max(sizes) <= 40


def test_places_after_a_cache_are_read_at_smaller_sizes_where_their_table_is_short():
    """A length and, as it seems, a height fill a table together: at the larger ones that are usual neither fits."""
    text = """(float[n, s, 6] x, float[n, 4, u, 6] cache) => (float[n, v, 3] y) {
        m = Shape(x) e = Gather(m, {1}) k = Shape(cache) f = Gather(k, {2}) g = Add(f, e) r = Range(f, g, {1})
        b = Gather(p, r) a = Add(x, b) h = ReduceSum<keepdims=0>(cache, [1]) c = Concat<axis=1>(h, a) y = MatMul(c, w)
    }"""
    sizes = sampled(text, "p 64x6, w 6x3")
    lengths = [(inputs["x"][1], inputs["cache"][2]) for inputs in sizes]
    assert all(
        len(set(one)) == len(sizes) > 1 and sum(both) <= 64 for one in zip(*lengths, strict=True) for both in lengths
    )


def test_distances_between_rows_of_an_image_lie_in_their_table():
    text = """(float[n, 3, h, w] x) => (float[n, 2, v, u] y) {
        a = Conv<strides=[16, 16]>(x, w1) m = Shape(a) e = Gather(m, {2}) f = Sub(e, {1}) r = Range({0}, e, {1})
        k = Unsqueeze(r, [1]) d = Sub(k, r) g = Add(d, f) t = Gather(p, g) b = ReduceMax<axes=[0, 1], keepdims=0>(t)
        c = Reshape(b, [6, 1, 1]) z = Add(a, c) y = Conv(z, w2)
    }"""
    heights = [inputs["x"][2] for inputs in sampled(text, "w1 6x3x16x16, p 11x6, w2 2x6x1x1")]
    assert len(set(heights)) == len(heights) > 1
    assert max(heights) < 112, "seven rows are up to six apart, which need thirteen places"


def test_an_image_of_patches_that_overlap_has_the_size_of_its_table():
    text = """(float[n, 3, h, w] x) => (float[n, 2, v, u] y) {
        a = Conv<strides=[8, 8]>(x, w1) b = Add(a, p) y = Conv(b, w2)
    }"""
    sizes = sampled(text, "w1 8x3x16x16, p 1x8x7x7, w2 2x8x1x1")
    assert {inputs["x"][2:] for inputs in sizes} == {(64, 64)}


@pytest.mark.parametrize(("patch", "table"), [(4, 3), (12, 20)])  # the usual sizes are no multiples of 12
def test_height_and_width_follow_from_a_table_of_positions(patch, table):
    text = IMAGE.replace("[4, 4]", f"[{patch}, {patch}]")
    sizes = sampled(text, f"w1 8x3x{patch}x{patch}, p 1x{table**2}x8, w2 8x2")
    assert sizes == [{"x": (n, 3, patch * table, patch * table)} for n in (*input_sizes.BATCH, 5)]


def test_a_table_that_no_image_fits_is_named_with_what_meets_it():
    text = IMAGE.replace("y =", "e = Add(d, q) y =").replace("(d, w2)", "(e, w2)")
    with pytest.raises(InputError, match=r"node d \(Add\): 1x3136x8 and 1x9x8 do not fit at x 1x3x224x224"):
        sampled(text, "w1 8x3x4x4, p 1x9x8, q 1x7x8, w2 8x2")


def test_a_baked_length_with_a_token_before_it_is_found():
    text = """(float[n, s, 6] x) => (float[n, t, 3] y) {
        m = Shape(x) b = Slice(m, [0], [1], [0]) k = Concat<axis=0>(b, [1, 6]) e = Expand(p, k) c = Concat<axis=1>(e, x)
        d = Reshape(c, [-1, 10, 6]) y = MatMul(d, w)
    }"""
    assert {inputs["x"][1] for inputs in sampled(text, "p 1x1x6, w 6x3")} == {9}


def test_a_length_that_a_table_bounds_and_another_layer_bakes_in_is_found():
    text = """(float[n, s, 6] x) => (float[n, s, 3] y) {
        m = Shape(x) e = Gather(m, [1]) t = Slice(p, [0], e, [1]) b = Add(x, t) c = Reshape(b, [-1, 9, 6])
        y = MatMul(c, w)
    }"""
    assert {inputs["x"][1] for inputs in sampled(text, "p 1x32x6, w 6x3")} == {9}


def test_two_pictures_have_the_size_of_a_grid_that_is_baked_in():
    text = """(float[n, 3, h, w] x, float[n, 3, v, u] z) => (float[n, 3, 8, 8] y) {
        c = Conv<strides=[2, 2]>(x, w1) d = Conv<strides=[2, 2]>(z, w1) a = Add(c, d) y = Add(a, grid)
    }"""
    sizes = sampled(text, "w1 3x3x2x2, grid 1x3x8x8")
    assert {inputs[name][2:] for inputs in sizes for name in ("x", "z")} == {(16, 16)}


def test_what_is_open_along_two_axes_of_an_input_is_no_batch():
    text = "(float[v, 6] x, float[v, v] near) => (float[v, 3] y) { a = MatMul(x, w) y = MatMul(near, a) }"
    assert sampled(text, "w 6x3")[0] == {"x": (128, 6), "near": (128, 128)}


def test_a_window_that_no_attribute_tells_fits_all_the_same():
    text = "(float[b, 1, t] x) => (float[b, 4, u] y) { a = Conv<strides=[64]>(x, w1) r = Relu(a) y = Conv(r, w2) }"
    assert all(inputs["x"][2] >= 200 for inputs in sampled(text, "w1 8x1x200, w2 4x8x1"))


def test_a_pooling_rounded_up_may_reach_beyond_its_image():
    text = """(float[b, 3, h, w] x) => (float[b, 4, 1, 1] y) {
        a = Conv<strides=[4, 4]>(x, w1) p = AveragePool<kernel_shape=[600, 600], strides=[600, 600], ceil_mode=1>(a)
        y = Conv(p, w2)
    }"""
    assert sampled(text, "w1 8x3x4x4, w2 4x8x1x1")[0] == {"x": (1, 3, 224, 224)}


def test_lengths_at_which_a_part_that_is_added_would_be_empty_are_not_taken():
    text = """(float[n, s, 6] x) => (float[n, 3] y) {
        m = Shape(x) e = Slice(m, [1], [2], [0]) q = Div(e, [100]) k = Min(q, [1]) t = Slice(x, [0], k, [1])
        g = ReduceMean<axes=[1]>(x) a = Add(g, t) r = ReduceSum<keepdims=0>(a, [1]) y = MatMul(r, w)
    }"""
    assert all(inputs["x"][1] >= 100 for inputs in sampled(text, "w 6x3"))


def test_a_length_is_found_at_which_something_was_padded_where_that_is_cut_off_again():
    """``x[:, :-0]`` is empty: lengths that are multiples of four leave nothing."""
    text = """(float[n, s, 6] x) => (float[n, s, 3] y) {
        m = Shape(x) e = Gather(m, {1}) q = Mod(e, {4}) r = Sub({4}, q) k = Mod(r, {4}) t = Neg(k) u = Unsqueeze(t, [0])
        c = MatMul(x, w1) d = Slice(c, [0], u, [1]) g = Transpose<perm=[0, 2, 1]>(d) a = MatMul(c, g) b = MatMul(a, d)
        y = MatMul(b, w2)
    }"""
    assert all(inputs["x"][1] % 4 for inputs in sampled(text, "w1 6x6, w2 6x3"))


def test_sizes_are_found_at_which_places_lie_in_a_table_that_is_computed():
    text = """(float[n, s, 6] x) => (float[k, 3] y) {
        a = MatMul(x, w1) b = Reshape(a, [-1, 6]) c = Gather(b, [5, 20000]) y = MatMul(c, w2)
    }"""
    assert all(shapes["x"][0] * shapes["x"][1] > 20000 for shapes in sampled(text, "w1 6x6, w2 6x3"))
    assert slim.analyze(Net(text, "w1 6x6, w2 6x3").build()).groups


def test_lengths_that_are_in_proportion_stay_open():
    """One length is four times another one: neither can vary alone."""
    text = """(float[n, t, 8] x, float[n, samples] z) => (float[n, u, 2] y) {
        a = MatMul(x, w1) b = Reshape(z, [0, -1, 4]) c = Concat<axis=2>(a, b) y = MatMul(c, w2)
    }"""
    sizes = sampled(text, "w1 8x6, w2 10x2")
    assert all(inputs["z"][1] == 4 * inputs["x"][1] for inputs in sizes)
    assert len({inputs["x"][1] for inputs in sizes}) == len(sizes)
    assert len({inputs["x"][0] for inputs in sizes}) > 1


def test_sizes_that_are_given_come_first_and_stay():
    assert sampled(TABLE, "w1 6x8, w2 8x3, p 1x1x8", {"x": (4, 5, 6)})[0] == {"x": (4, 5, 6)}
    told = "node b .Reshape.: it makes -1x9x8 of 1x5x8 at input sizes x 1x5x6: other sizes of its inputs are baked in"
    with pytest.raises(InputError, match=told):
        sampled(BAKED, "w1 6x8, w2 8x3", {"x": (1, 5, 6)})


def test_one_name_is_one_size_wherever_it_stands():
    for sizes in sampled(STATE, "w1 6x8, w2 8x3"):
        assert sizes["state"][1] == sizes["x"][0] <= 5
    with pytest.raises(InputError, match="dimension batch has one size, but is given 2 by state, 3 by x"):
        sampled(STATE, "w1 6x8, w2 8x3", {"state": (1, 2, 8), "x": (3, 5, 6)})


RECURRENT = """(float[n, s, 6] x, float[1, 1, 8] h) => (float[k, 8] y) {
    t = Transpose<perm=[1, 0, 2]>(x)
    u, v = GRU<hidden_size=8>(t, w, r, , , h)
    y = Squeeze(v, [0])
}"""
SQUEEZED = """(float[n, 3, s, 4] x) => (float[k] y) {
    a = Conv(x, w1)
    p = GlobalAveragePool(a)
    y = Squeeze(p)
}"""


def test_an_initial_state_fixes_the_batch():
    sizes = [sample["x"] for sample in sampled(RECURRENT, "w 1x24x6, r 1x24x8")]
    assert {shape[0] for shape in sizes} == {1}
    assert len({shape[1] for shape in sizes}) > 1


def test_sizes_at_which_tensors_have_other_numbers_of_axes_are_not_mixed():
    shapes = analysis.analyze(Net(SQUEEZED, "w1 5x3x1x1").build()).graph.shapes
    assert {len(sample.shape["y"]) for sample in shapes.samples} == {1}
    assert {sample.inputs["x"][0] for sample in shapes.samples} == {1}
    assert len({sample.inputs["x"][2] for sample in shapes.samples}) > 1


def test_a_weight_fixes_the_channels_of_an_input():
    weights = "w1 16x1x5, w2 4x16x5"
    assert all(sizes["x"][1] == 1 for sizes in sampled(CHANNELS, weights))
    found = slim.analyze(Net(CHANNELS, weights).build())
    steps = found.graph.shapes.nominal.inputs["x"][2]
    assert all(sizes["x"][1] == 1 for sizes in sampled(CHANNELS, weights, {"x": (1, 1, 64)}))
    assert found.price(found.whole)["macs"] == 16 * 5 * (steps - 4) + 4 * 16 * 5 * (steps - 8)
    with pytest.raises(InputError, match="its input x must have 1 along axis 1, not 2"):
        sampled(CHANNELS, weights, {"x": (1, 2, 64)})


def test_sizes_at_which_a_tensor_is_very_large_are_not_taken_if_smaller_ones_fit():
    """Attention over all places of an image grows with the fourth power of its side."""
    text = """(float[n, 3, h, w] x) => (float[n, p, p] y) {
        a = Conv(x, w1) b = Reshape(a, [0, 8, -1]) c = Transpose<perm=[0, 2, 1]>(b) y = MatMul(c, b)
    }"""
    sizes = sampled(text, "w1 8x3x1x1")
    assert [inputs["x"][2:] for inputs in sizes[:2]] == [(32, 32), (64, 64)]
    assert sampled(text, "w1 8x3x1x1", {"x": (1, 3, 224, 224)})[0] == {"x": (1, 3, 224, 224)}


def test_what_a_file_asks_to_be_computed_is_bounded():
    """A vector of sizes may ask for any number of elements: such values are data, and are not computed."""
    text = """(float[n, 6] x) => (float[n, 3] y) {
        a = MatMul(x, w1)
        z = ConstantOfShape([40000, 40000])
        s = Shape(z)
        r = Range({0}, {1000000000000}, {1})
        t = Tile([1, 2], [1000000000000])
        e = Expand([1], [1000000, 1000000])
        y = MatMul(a, w2)
    }"""
    assert slim.analyze(Net(text, "w1 6x8, w2 8x3").build()).groups


def test_variations_differ_from_the_size_and_from_each_other():
    for size in (1, 2, 3, 16, 128, 24):
        for others in (found for place in range(4) for found in input_sizes.variations(size, (128, 16, 24), place)):
            assert len({size, *others}) == len(others) + 1 >= 3
            assert min(others) > 0


def test_smaller_sizes_are_not_padded_alike_to_whole_windows():
    for size in range(9, 200):
        for place in range(4):
            (others,) = input_sizes.variations(size, (128, 16, 24), place)[3:]
            assert len({one % 4 for one in (size, *others)}) > 1


def test_heights_and_widths_differ_after_strides():
    for triples in input_sizes.SIZES:
        size, triple = triples["height"][0], triples["height"]
        height, width = (input_sizes.variations(size, triple, place)[0] for place in (0, 1))
        for stride in (1, 4, 16):
            assert any(-(-a // stride) != -(-b // stride) for a, b in zip(height, width, strict=True))


def test_remedies_are_positive_and_whole():
    kinds = {"h": "height", "w": "width", "n": "batch"}
    sizes = {"h": 224, "w": 224, "n": 1}
    found = input_sizes.remedies(sizes, kinds, [(197, 577), (3, 7)])
    assert {"h": 384, "w": 384} in found
    assert all(isinstance(size, int) and size > 0 for change in found for size in change.values())
    assert len(found) == len({tuple(sorted(change.items())) for change in found})


def test_weights_fix_the_features_of_several_inputs():
    head = "(float[n, f] x, float[n, g] z) => (float[n, 3] y) "
    joined = head + "{ k = Concat<axis=1>(x, z) a = MatMul(k, w1) y = Relu(a) }"
    for sizes in sampled(joined, "w1 700x3"):
        (n, f), (m, g) = sizes["x"], sizes["z"]
        assert (n, f + g) == (m, 700)
        assert n <= 8  # features say nothing about the batch
    centred = head + "{ c = Sub(x, w) a = MatMul(c, w1) b = MatMul(z, w2) y = Add(a, b) }"
    assert {(s["x"][1], s["z"][1]) for s in sampled(centred, "w 12, w1 12x3, w2 7x3")} == {(12, 7)}


def test_places_of_an_image_are_moved_to_the_nearest_number_that_fits():
    """A whole number of windows of two by two places is asked for: no batch of so many, and no image so large."""
    kinds = {"n": "batch", "h": "height", "w": "width"}
    first, *_ = input_sizes.remedies({"n": 1, "h": 224, "w": 224}, kinds, [(1, 256), (64, 2), (7, 4), (3136, 4096)])
    assert first == {"h": 256, "w": 256}
