"""Laws of layouts: moving labels on digits is moving a label array with numpy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.context import _parts
from onnxslim_learn.coupling.relations import Digit, Relations, Value
from tests.laws import examples

LAWS = examples(250)
SIZES = st.sampled_from([1, 2, 3, 4, 6, 8])


def channels(relations: Relations, shape: tuple[int, ...], axis: int) -> Value:
    """Return a value with fresh labels on one axis."""
    digits = [
        relations.digit(n, relations.fresh(n) if a == axis else None) if n != 1 else None for a, n in enumerate(shape)
    ]
    return Value(tuple((digit,) if digit else () for digit in digits))


def labels_of(value: Value) -> np.ndarray:
    """Return the label of every element of a value of which nothing depends on one labelled digit; 0 where none."""
    digits = list(value.digits.values())
    sizes = {d.key: d.size for d in digits}
    inner = [d for d in digits if d.labels is not None and not any(d.key in other.deps for other in digits)]
    if not inner:
        return np.zeros(value.shape, int)
    (digit,) = inner
    return layout.over(digit.labels, (*digit.deps, digit.key), list(sizes), sizes).reshape(value.shape)


def assert_sound(value: Value) -> None:
    """Assert that labels fit the digits they depend on, in no circle, and that size-1 axes have no digit."""
    digits = value.digits
    assert len(digits) == sum(len(axis) for axis in value.axes)
    for digit in digits.values():
        assert digit.size > 1
        if digit.labels is not None:
            assert digit.labels.shape == (*(digits[k].size for k in digit.deps), digit.size)
            assert digit.key not in digit.deps
            assert all(set(digits[k].deps) <= set(digit.deps) for k in digit.deps)
        else:
            assert not digit.deps


@st.composite
def shapes_of(draw: st.DrawFn, total: int) -> tuple[int, ...]:
    """Draw a shape of so many elements."""
    shape = []
    while total > 1 and len(shape) < 4:
        size = draw(st.sampled_from([n for n in range(1, total + 1) if total % n == 0]))
        shape.append(size)
        total //= size
    return (*shape, total)


@st.composite
def moves(draw: st.DrawFn) -> tuple[tuple[int, ...], int, list]:
    """Draw a shape, its labelled axis, and a sequence of reshapes, transposes and selections."""
    shape = draw(st.lists(SIZES, min_size=1, max_size=4).map(tuple))
    axis, steps = draw(st.integers(0, len(shape) - 1)), []
    now = shape
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["regroup", "regroup", "permute", "take"]))
        if kind == "regroup":
            argument = now = draw(shapes_of(math.prod(now)))
        elif kind == "permute":
            argument = tuple(draw(st.permutations(range(len(now)))))
            now = tuple(now[a] for a in argument)
        else:
            along = draw(st.integers(0, len(now) - 1))
            index = draw(st.lists(st.integers(0, now[along] - 1), min_size=2, max_size=6))  # one position has no digit
            argument = along, np.array(index)
            now = (*now[:along], len(index), *now[along + 1 :])
        steps.append((kind, argument))
    return shape, axis, steps


def turned(*last: int) -> tuple:
    """Return moves that cut an axis where its labels repeat, turn the parts about, and reshape them."""
    return (2, 6, 6), 0, [("regroup", (3, 24)), ("permute", (1, 0)), ("regroup", last)]


@LAWS
@given(moves())
@example(turned(3, 12, 2))
@example(turned(3, 24))
def test_moving_labels_is_moving_an_array(drawn):
    shape, axis, steps = drawn
    relations = Relations()
    value = channels(relations, shape, axis)
    wanted = labels_of(value)
    for kind, argument in steps:
        if kind == "regroup":
            value, wanted = layout.regroup(relations, value, argument), wanted.reshape(argument)
        elif kind == "permute":
            value, wanted = layout.permute(value, argument), wanted.transpose(argument)
        else:
            along, index = argument
            value, wanted = layout.take(relations, value, along, index, len(index)), wanted.take(index, axis=along)
        assert_sound(value)
        assert value.shape == wanted.shape
        found, stay = labels_of(value), {atom for pin in relations.pins for atom in pin.atoms}
        assert np.array_equal(np.where(found, wanted, 0), found)
        assert set(wanted[found == 0]) - {0} <= stay
        wanted = found


@LAWS
@given(st.lists(SIZES, min_size=1, max_size=4).map(tuple), st.data())
def test_regroup_there_and_back_keeps_sizes_and_labels(shape, data):
    relations = Relations()
    value = channels(relations, shape, data.draw(st.integers(0, len(shape) - 1)))
    there = layout.regroup(relations, value, data.draw(shapes_of(math.prod(shape))))
    back = layout.regroup(relations, there, shape)
    assert back.shape == shape
    assert np.array_equal(labels_of(back), labels_of(value))
    assert layout.regroup(relations, there, there.shape) == there


@LAWS
@given(st.lists(SIZES, min_size=1, max_size=4).map(tuple), st.data())
def test_regroup_of_many_labelled_axes_keeps_sizes(shape, data):
    relations = Relations()
    value = Value(tuple((relations.digit(n, relations.fresh(n)),) if n > 1 else () for n in shape))
    there = layout.regroup(relations, value, data.draw(shapes_of(math.prod(shape))))
    assert_sound(there)
    back = layout.regroup(relations, there, shape)
    assert_sound(back)
    assert back.shape == shape


def test_what_has_no_entries_is_seen_as_other_shapes_and_its_labels_stay():
    relations = Relations()
    value = channels(relations, (0, 4, 6), 2)
    result = layout.regroup(relations, value, (2, 0, 3))
    assert result.shape == (2, 0, 3)
    (pin,) = relations.pins
    np.testing.assert_array_equal(pin.atoms, value.axes[2][0].labels)


VIEWS = [((6, 5), (2, 3, 5)), ((6, 5), (6, 5, 1)), ((6,), (1, 6)), ((1, 4), (1, 2, 2, 1))]


@pytest.mark.parametrize(("shape", "view"), VIEWS)
def test_axes_of_a_view_make_up_those_of_the_tensor(shape, view):
    counts = _parts(shape, view)
    ends = itertools.accumulate(counts, initial=0)
    assert tuple(math.prod(view[a:b]) for a, b in itertools.pairwise(ends)) == shape
    assert sum(counts) == len(view)


@pytest.mark.parametrize("outer", [2, 3, 4, 6])
def test_split_gives_rows_and_their_cells(outer):
    relations = Relations()
    value = channels(relations, (12,), 0)
    before = value.axes[0][0].labels
    rows, cells = layout.split(relations, value, value.axes[0][0].key, outer).axes[0]
    assert (rows.size, cells.size, cells.deps) == (outer, 12 // outer, (rows.key,))
    assert np.array_equal(cells.labels.reshape(-1), before)
    assert not np.isin(rows.labels, before).any()
    (member,) = relations.member
    assert {(a, b) for a, b in zip(member.a, member.b, strict=True)} == {
        (before[i], rows.labels[i // (12 // outer)]) for i in range(12)
    }
    (grid,) = relations.grids
    assert np.array_equal(grid.cells, cells.labels)
    assert np.array_equal(grid.rows[0], rows.labels)


def test_regroup_leaves_what_lies_behind_a_boundary_that_both_shapes_share():
    relations = Relations()
    first, second, third = (relations.digit(n, relations.fresh(n) if n != 6 else None) for n in (4, 6, 5))
    value = layout.regroup(relations, Value(((first, second, third),)), (6, 4, 5))
    assert value.shape == (6, 4, 5)
    assert value.axes[2] == (third,)


def test_split_of_repeated_labels_makes_no_rows():
    relations = Relations()
    one = relations.fresh(4)
    repeated = Value(((relations.digit(12, np.repeat(one, 3)),),))
    tiled = Value(((relations.digit(12, np.tile(one, 3)),),))
    outer, inner = layout.split(relations, repeated, repeated.axes[0][0].key, 4).axes[0]
    assert np.array_equal(outer.labels, one)
    assert inner.labels is None
    outer, inner = layout.split(relations, tiled, tiled.axes[0][0].key, 3).axes[0]
    assert outer.labels is None
    assert np.array_equal(inner.labels, one)
    assert not relations.member
    assert not relations.grids


def test_two_splits_of_the_same_labels_share_their_rows():
    relations = Relations()
    value = channels(relations, (12,), 0)
    one, two = (layout.split(relations, value, value.axes[0][0].key, 4).axes[0] for _ in range(2))
    assert np.array_equal(one[0].labels, two[0].labels)
    assert len(relations.grids) == 1


def test_fusing_what_was_split_gives_the_labels_back():
    relations = Relations()
    value = channels(relations, (12, 5), 0)
    parted = layout.split(relations, value, value.axes[0][0].key, 4)
    fused = layout.fuse_digits(relations, parted, parted.axes[0])
    assert np.array_equal(fused.axes[0][0].labels, value.axes[0][0].labels)
    assert fused.shape == (12, 5)
    assert not relations.weak


def test_fusing_two_labelled_digits_makes_cells_of_rows_that_are_columns_of_the_inner_one():
    relations = Relations()
    outer, inner = relations.fresh(2), relations.fresh(3)
    value = Value(((relations.digit(2, outer), relations.digit(3, inner)),))
    (digit,) = layout.fuse_digits(relations, value, value.axes[0]).axes[0]
    cells = digit.labels.reshape(2, 3)
    assert len(np.unique(cells)) == 6
    (member,) = relations.member
    assert set(zip(member.a, member.b, strict=True)) == {(cells[i, j], outer[i]) for i in range(2) for j in range(3)}
    (weak,) = relations.weak
    assert set(zip(weak.a, weak.b, strict=True)) == {(cells[i, j], inner[j]) for i in range(2) for j in range(3)}
    assert any(np.array_equal(grid.cells, cells) for grid in relations.grids)


def test_fused_axis_that_is_too_long_is_pinned(monkeypatch):
    monkeypatch.setattr(layout, "LARGEST", 5)
    relations = Relations()
    labels = relations.fresh(3)
    value = Value(((relations.digit(3, labels), relations.digit(4)),))
    (digit,) = layout.fuse_digits(relations, value, value.axes[0]).axes[0]
    assert digit.labels is None
    assert [list(pin.atoms) for pin in relations.pins] == [list(labels)]


def test_taking_part_of_an_axis_keeps_something_of_it():
    relations = Relations()
    value = channels(relations, (6,), 0)
    part = layout.take(relations, value, 0, np.array([1, 2]), 2)
    assert [list(atoms) for _, atoms in relations.some] == [list(part.axes[0][0].labels)]


def test_forgetting_a_digit_ties_what_depended_on_it_as_columns():
    relations = Relations()
    value = layout.regroup(relations, channels(relations, (6,), 0), (2, 3))
    cells = value.axes[1][0].labels
    dropped = layout.drop(relations, value, [0])
    (digit,) = dropped.axes[0]
    assert digit.deps == ()
    (weak,) = relations.weak
    assert set(zip(weak.a, weak.b, strict=True)) == {(cells[i, j], digit.labels[j]) for i in range(2) for j in range(3)}
    assert relations.under == relations.weak


@pytest.mark.parametrize("own", [(0, 1), (1, 0), (2, 0)])
def test_over_is_numpy_broadcasting(own):
    sizes = {0: 2, 1: 3, 2: 4}
    labels = np.arange(math.prod(sizes[k] for k in own)).reshape([sizes[k] for k in own])
    spread = layout.over(labels, own, (0, 1, 2), sizes)
    for index in np.ndindex(2, 3, 4):
        assert spread[index] == labels[tuple(index[k] for k in own)]


def test_tying_to_a_position_that_cannot_go_pins():
    relations = Relations()
    labels = relations.fresh(3)
    relations.tie(labels, np.array([0, labels[1], 0]))
    assert [list(pin.atoms) for pin in relations.pins] == [[labels[0], labels[2]]]
    assert not relations.strong


def test_all_pinned_labels_make_a_free_digit():
    relations = Relations()
    assert relations.digit(4, np.zeros(4, int)) == Digit(0, 4)
