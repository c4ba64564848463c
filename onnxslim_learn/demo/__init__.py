"""The trained network and held-out data that ship with the package."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def model_path() -> Path:
    """Where the demo network lies.

    It classifies 8x8 grey images of handwritten digits: input ``image`` float32 [N, 1, 8, 8] with values in [0, 1],
    output ``logits`` float32 [N, 10], any batch size N.

    Returns:
        The path of ``digits.onnx`` in the installed package.
    """
    return Path(str(files(__name__) / "digits.onnx"))


def held_out() -> dict[str, NDArray[Any]]:
    """Images the demo network was not trained on, with their classes.

    Returns:
        ``image``, float32 [450, 1, 8, 8] with values in [0, 1], and ``labels``, int64 [450] with values 0 to 9.
    """
    return _arrays("digits.npz")


def calibration() -> dict[str, NDArray[Any]]:
    """Some of the demo network's training images, for statistics that need no labels.

    Returns:
        ``image``, float32 [256, 1, 8, 8] with values in [0, 1].
    """
    return _arrays("calibration.npz")


def _arrays(name: str) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz`` file of this folder by name."""
    with (files(__name__) / name).open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return dict(stored)
