"""Samples to train on are those of their source, read once, and memory holds no more than a batch of them."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.data.batch import Batch
from onnxslim_learn.data.signature import Declared, Input
from onnxslim_learn.data.source import Source
from onnxslim_learn.errors import InputError
from onnxslim_learn.train import samples
from tests.laws import examples

FLOAT = np.dtype(np.float32)


def source(batches, declared, labelled=False):
    return Source("made", False, None, labelled, lambda: iter(batches), declared)


def takes(*, batch=None):
    """An image whose samples lie along axis 1, words, and a table that all samples share."""
    image, words = Input("image", FLOAT, (3, "n", "w"), 1), Input("words", np.dtype(object), ("n", "k"), 0)
    table = Input("table", FLOAT, (2,), None)
    return Declared({"image": image, "words": words, "table": table}, batch)


def made(rng, count, width, table, label):
    image = rng.normal(size=(3, count, width)).astype(FLOAT)
    words = np.array([[f"{k}" for k in row] for row in rng.integers(0, 9, (count, width))], object)
    labels = rng.integers(0, 5, (count, *label)).astype(np.int64)
    return Batch({"image": image, "words": words, "table": np.full(2, table, FLOAT)}, labels, count)


KINDS = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 1), st.sampled_from([(), (2,)]))


@examples(40)
@given(kinds=st.lists(KINDS, min_size=1, max_size=8), held=st.integers(0, 3))
def test_nothing_is_lost_or_mixed_up(kinds, held):
    rng, declared = np.random.default_rng(0), takes()
    batches = [made(rng, *kind) for kind in kinds]
    total = sum(batch.count for batch in batches)
    held = min(held, total - 1)
    train, rest = samples.gather(source(batches, declared, labelled=True), held)
    assert (train.count, rest.count) == (total - held, held)
    wanted = [
        (batch.inputs["image"][:, k], batch.inputs["words"][k], batch.inputs["table"], batch.labels[k])
        for batch in batches
        for k in range(batch.count)
    ]
    found = [
        (one.inputs["image"][:, 0], one.inputs["words"][0], one.inputs["table"], one.labels[0])
        for part in (train, rest)
        for one in samples.portions(part, 1)
    ]
    assert len(found) == len(wanted)
    for own, other in zip(found, wanted, strict=True):
        for a, b in zip(own, other, strict=True):
            assert np.array_equal(a, b)


ROW, COUNT = 1 << 16, 1 << 9  # numbers, and samples: 128 MiB


def large():
    declared = Declared({"x": Input("x", FLOAT, ("n", ROW), 0)}, None)

    def stream():
        for start in range(0, COUNT, 8):
            yield Batch({"x": np.repeat(np.arange(start, start + 8, dtype=FLOAT)[:, None], ROW, 1)}, None, 8)

    return Source("large", False, None, False, stream, declared)


def test_memory_holds_no_more_than_some_batches(tmp_path):
    tracemalloc.start()
    try:
        train, held = samples.gather(large(), folder=tmp_path / "new")
        for step in range(train.steps(8)):
            shelf, rows = train.rows(step, 8, seed=0)
            batch = train.take(shelf, rows)
            assert np.array_equal(batch.inputs["x"][:, -1], rows)
        counts = [sum(batch.count for batch in samples.portions(one, 8)) for one in (train, held)]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts == [train.count, held.count]
    assert most < 0.1 * COUNT * ROW * FLOAT.itemsize
    assert not list((tmp_path / "new").iterdir()), "the file has no name: it vanishes whatever happens"


def test_a_full_disk_is_said_in_one_sentence(monkeypatch):
    def full(self, name, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(samples.MappedBuffer, "add", full)
    with pytest.raises(InputError, match=r"large: no room in .* \(No space left on device\)\. Use fewer"):
        samples.gather(large())
