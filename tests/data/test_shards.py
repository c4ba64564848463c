"""Images in .tar files are those in folders, and any of them can be read by itself."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.errors import InputError
from onnxslim_learn.train import samples
from tests.data.models import graph

COUNT = 12


def packed(path, files):
    """Write a shard."""
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


def picture(k):
    """An image as a file's bytes."""
    file = io.BytesIO()
    Image.new("RGB", (12 + k, 9), (10 * k, 10, 200)).save(file, "PNG")
    return file.getvalue()


def opened(place, **options):
    return open_source(place, graph("pixels"), DataSettings(batch_size=5, **options))


@pytest.fixture
def both(tmp_path):
    """The same images in a folder, and in two shards."""
    for k in range(COUNT):
        path = tmp_path / "photos" / str(k % 2) / f"{k:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(k))
    order = sorted(range(COUNT), key=lambda k: (k % 2, k))
    (tmp_path / "shards").mkdir()
    for part in range(2):
        some = order[part * 6 :][:6]
        files = {f"a/{k:02}.png": picture(k) for k in some} | {f"a/{k:02}.cls": f"{k % 2}\n".encode() for k in some}
        packed(tmp_path / "shards" / f"{part}.tar", files)
    return tmp_path


def test_shards_are_read_as_a_folder_is(both):
    one, other = (list(opened(both / name).batches()) for name in ("photos", "shards"))
    assert sum(batch.count for batch in one) == COUNT
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.inputs["image"], b.inputs["image"])
        assert np.array_equal(a.labels, b.labels)
    assert opened(both / "shards" / "1.tar").count == COUNT // 2


@pytest.mark.parametrize("name", ["photos", "shards"])
def test_what_is_read_when_wanted_is_what_is_read_once(both, name):
    stores = [samples.gather(opened(both / name), 4, unread=unread) for unread in (False, True)]
    for once, wanted in zip(*stores, strict=True):
        assert (once.count, once.labelled) == (wanted.count, wanted.labelled) == (once.count, True)
        for step in range(3):
            assert np.array_equal(once.rows(step, 3, 0)[1], wanted.rows(step, 3, 0)[1])
            pair = [store.take(*store.rows(step, 3, 0)) for store in (once, wanted)]
            assert np.array_equal(*(batch.inputs["image"] for batch in pair))
            assert np.array_equal(*(batch.labels for batch in pair))


def test_arrays_are_not_read_when_wanted():
    source = open_source({"image": np.zeros((9, 3, 8, 6), np.uint8)}, graph("pixels"), DataSettings(as_given=True))
    with pytest.raises(InputError, match=r"stream: is for folders and \.tar files of images"):
        samples.gather(source, 1, unread=True)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.png": picture(1), "b.png": picture(2), "b.cls": b"1"}, r"a\.png: has no class \(\.cls\) beside it"),
        ({"a.png": picture(1), "a.cls": b"cat"}, r"a\.cls: expected the number of a class, but found 'cat'"),
        ({"a.txt": b"no image"}, "hold no images"),
        (None, r"no plain \.tar file that can be read"),
    ],
)
def test_a_shard_that_does_not_serve_is_told_in_a_sentence(files, words, tmp_path):
    place = tmp_path / "some.tar"
    place.write_bytes(b"x" * 2000) if files is None else packed(place, files)
    with pytest.raises(InputError, match=words):
        opened(place)
