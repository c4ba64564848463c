"""Arrays in temporary files."""

import numpy as np
import pytest

from onnxslim_learn.runtime.scratch import Scratch, on_disk


def drawn(rng, size):
    return rng.integers(-100, 100, size).astype(np.float32)


def test_what_is_written_over_is_gone():
    """Arrays, views of them and arrays of other sizes come and go; all that are there are what they were."""
    scratch, rng = Scratch(), np.random.default_rng(0)
    held = []
    for _ in range(200):
        array = drawn(rng, int(rng.integers(1, 5000)))
        copy = scratch.put(array)
        held.append((copy[::-1][3:] if rng.random() < 0.3 else np.asarray(copy), array))
        held[-1] = (held[-1][0], array[::-1][3:] if len(held[-1][0]) != len(array) else array)
        del copy
        if len(held) > 20:
            held.pop(int(rng.integers(len(held))))
        assert all(np.array_equal(*pair) for pair in held)


def test_a_file_is_no_larger_than_what_lay_in_it_at_once():
    scratch, arrays = Scratch(), [np.full(10_000, k, np.float32) for k in range(50)]
    for array in arrays:
        assert scratch.put(array)[0] == array[0]
    assert scratch._file.seek(0, 2) < 2 * arrays[0].nbytes


@pytest.mark.parametrize("array", [np.array(["text"], object), np.zeros(0, np.float32)])
def test_what_no_file_takes_stays(array):
    assert on_disk(array) is array
    lying = on_disk(np.ones(3))
    assert on_disk(lying) is lying
