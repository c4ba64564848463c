"""Fashion-MNIST (Xiao et al., 2017) as arrays: 60,000 images to train on and 10,000 to test on, 28×28 grey, 10 classes.

On Debian ``apt-get install dataset-fashion-mnist`` brings the files; elsewhere name the folder that holds the four
``*-ubyte.gz`` files with ``--data`` or the environment variable ``FASHION_MNIST``.
"""

import gzip
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
MEAN, STD = 0.286, 0.353  # of the training pixels, over 255
SIDE = 28
CLASSES = 10
HEADER = {"images": 16, "labels": 8}  # bytes before the payload


def _payload(folder: Path, part: str, kind: str) -> NDArray[np.uint8]:
    path = folder / f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file. {' '.join((__doc__ or '').split(chr(10) * 2)[1].split())}")
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=HEADER[kind])


def read(part: str, folder: Path = FOLDER) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one part.

    Args:
        part: ``train`` or ``t10k``.
        folder: Where the files are.

    Returns:
        Images ``(N, 1, 28, 28)`` and labels ``(N,)``.
    """
    images = _payload(folder, part, "images").reshape(-1, 1, SIDE, SIDE)
    return images, _payload(folder, part, "labels").astype(np.int64)


def pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images as the nets take them: between 0 and 1."""
    return images.astype(np.float32) / 255
