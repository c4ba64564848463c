"""Labels of any form come out as they went in, batch by batch."""

import numpy as np
import pytest

from onnxslim_learn.errors import InputError
from onnxslim_learn.labels import collated, numeric, rows, structured

RAGGED = [np.arange(n) for n in (2, 0, 3)]


def test_rows_stay_rows():
    for given in ([1, 2, 3], np.array([1, 2, 3]), (1, 2, 3), [[0.5, 1], [1, 2]]):
        labels = rows("data", given)
        assert not structured(labels)
        assert np.array_equal(collated(labels), np.asarray(given))
        assert labels.dtype == np.asarray(given).dtype


def test_parts_are_told_apart_by_sample_and_put_together_again():
    given = {"boxes": RAGGED, "class": np.array([4, 5, 6]), "both": (RAGGED, [7, 8, 9])}
    labels = rows("data", given)
    assert len(labels) == 3
    assert numeric(labels)
    batch = collated(labels[1:])
    assert [list(one) for one in batch["boxes"]] == [[], [0, 1, 2]]
    assert batch["class"].tolist() == [5, 6]
    assert batch["both"][1].tolist() == [8, 9]
    assert labels[0]["boxes"].tolist() == [0, 1]


def test_samples_may_bring_dicts_of_their_own():
    labels = rows("data", [{"box": [1.0, 2.0]}, {"box": [3.0, 4.0]}])
    assert collated(labels)["box"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert [one.tolist() for one in collated(rows("data", [[1], [2, 3]]))] == [[1], [2, 3]]


def test_what_does_not_fit_is_said():
    with pytest.raises(InputError, match=r"disagree on the number of samples \(a 2, b 3\)"):
        rows("data", {"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(InputError, match="not all samples have box"):
        collated(rows("data", [{"box": [1]}, {"frame": [2]}]))
    assert not numeric(rows("data", ["cat", "dog"]))
    assert not numeric(rows("data", [{"name": "cat"}]))
