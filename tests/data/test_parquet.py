"""Rows of .parquet files are what arrays and folders of the same samples are, each row group read once a pass."""

import io
import types
from functools import lru_cache

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet as written

from onnxslim_learn import rows
from onnxslim_learn.data import images as pictures
from onnxslim_learn.data import parquet
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.signature import declared
from onnxslim_learn.errors import InputError
from onnxslim_learn.train import samples
from tests.data.models import graph
from tests.data.test_shards import picture

COUNT, GROUP = 60, 5


def stored(folder, columns, files=2):
    """Write columns into some files."""
    folder.mkdir(exist_ok=True)
    table = pyarrow.table(columns)
    part = -(-len(table) // files)
    for k in range(files):
        written.write_table(table.slice(k * part, part), folder / f"{k}.parquet", row_group_size=GROUP)
    return folder


def opened(place, **options):
    return open_source(place, graph("pixels"), DataSettings(batch_size=7, as_given=True, **options))


def images(count=COUNT):
    return {
        "image": [{"bytes": picture(k % 20), "path": f"{k}.png"} for k in range(count)],
        "label": pyarrow.array(range(count), pyarrow.int64()),
    }


@pytest.mark.parametrize("kind", ["nested", "flat", "tensor"])
def test_columns_are_arrays(kind, tmp_path):
    arrays = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 8, 6), np.uint8)
    flat = arrays.reshape(COUNT, -1)
    column = {
        "nested": lambda: pyarrow.array(arrays.tolist(), pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.uint8())))),
        "flat": lambda: pyarrow.FixedSizeListArray.from_arrays(flat.reshape(-1), flat.shape[1]),
        "tensor": lambda: pyarrow.FixedShapeTensorArray.from_numpy_ndarray(arrays),
    }[kind]()
    place = stored(tmp_path / kind, {"image": column, "labels": list(range(COUNT))})
    for options in ({}, {"samples": 20}):
        batches = list(opened(place, **options).batches())
        labels = np.concatenate([batch.labels for batch in batches])
        assert len(set(labels)) == options.get("samples", COUNT)
        assert np.array_equal(np.concatenate([batch.inputs["image"] for batch in batches]), arrays[labels])


def test_images_in_rows_are_read_in_windows_of_groups(tmp_path, monkeypatch):
    place, reads = stored(tmp_path / "images", images()), []
    once = parquet._read.__wrapped__
    monkeypatch.setattr(parquet, "WINDOW", 4)
    monkeypatch.setattr(parquet, "_read", lru_cache(maxsize=5)(lambda *of: reads.append(of) or once(*of)))
    source = opened(place)
    assert (source.count, source.labelled, sum(source.blocks)) == (COUNT, True, COUNT)
    store, rest = samples.gather(source, 6, unread=True)
    for epoch in range(2):
        reads.clear()
        seen = [store.take(*store.rows(step, 6, 0)) for step in range(9 * epoch, 9 * epoch + 9)]
        labels = np.concatenate([batch.labels for batch in seen])
        assert len(set(labels)) == COUNT - rest.count == 54
        assert len({*np.diff(labels)}) > 3, "in an order by chance"
        assert len(reads) <= COUNT // GROUP + 1, "each group is read once, but for the one that held samples share"
    read = samples.gather(opened(place), 6)[0]
    assert sorted(read.take(0, np.arange(read.count)).labels) == sorted(labels)
    for batch in seen[:2]:
        expected = [opened_image(k % 20) for k in batch.labels]
        assert np.array_equal(batch.inputs["image"], np.stack(expected))


def opened_image(k):
    """What a folder makes of an image."""
    net = graph("pixels")
    look = pictures.look("", declared(net), net, DataSettings())
    return pictures.picture(types.SimpleNamespace(open=lambda: io.BytesIO(picture(k))), look)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["a"]}, r"its columns are text, but the model's inputs are image\. Name columns after inputs"),
        ({"image": [[1, 2], [1]]}, r"lists of column image are not equally long\. Pad them"),
        ({"image": [[1, None]]}, r"column image holds list<.*>, and not all are numbers"),
        ({"image": [b""]}, r"image of row 0 of group 0: no image that can be read"),
        ({"image": [picture(1)], "label": ["cat"]}, r"column label holds string"),
        ({"image": pyarrow.array([], pyarrow.binary())}, r"its \.parquet files hold no rows"),
        (None, r"no \.parquet file that can be read"),
    ],
)
def test_what_does_not_serve_is_told_in_a_sentence(columns, words, tmp_path):
    place = tmp_path / "some.parquet"
    place.write_bytes(b"x" * 200) if columns is None else written.write_table(pyarrow.table(columns), place)
    with pytest.raises(InputError, match=words):
        opened(place)


def test_files_that_differ_and_an_extra_that_is_not_there(tmp_path, monkeypatch):
    stored(tmp_path, images(4), 1)
    written.write_table(pyarrow.table({"other": [1]}), tmp_path / "1.parquet")
    with pytest.raises(InputError, match=r"1\.parquet: its columns are not those of .*0\.parquet"):
        opened(tmp_path)
    monkeypatch.setitem(rows.EXTRAS, "parquet", ("no_such_module",))
    with pytest.raises(InputError, match=r"needs no_such_module\. Install onnxslim-learn\[parquet\]"):
        opened(tmp_path)
