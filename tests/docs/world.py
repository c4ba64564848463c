"""What pages of the documentation have at hand: the files that readers have, made from what ships with the package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from nets.pretrained import fetch
from onnxslim_learn import demo

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES, STREET = 200, 24


def model(path: Path) -> None:
    """The trained net that ships with the package."""
    shutil.copy(demo.model_path(), path)


def photos(path: Path) -> None:
    """A folder of images by class."""
    shown = demo.held_out()
    for number, (image, label) in enumerate(zip(shown["image"][:IMAGES], shown["labels"], strict=False)):
        folder = path / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(folder / f"{number:03d}.png")


def training(path: Path) -> None:
    """Samples to train on, with labels, half of those that the package shows."""
    shown = demo.held_out()
    np.savez(path, image=shown["image"][::2], labels=shown["labels"][::2])


def test_set(path: Path) -> None:
    """The other half."""
    shown = demo.held_out()
    np.savez(path, image=shown["image"][1::2], labels=shown["labels"][1::2])


def street(path: Path) -> None:
    """Crops of photographs, as a camera gives them."""
    path.mkdir()
    rng = np.random.default_rng(0)
    for number in range(STREET):
        photograph = load_sample_images().images[number % 2]
        top, left = (int(rng.integers(0, size - 320)) for size in photograph.shape[:2])
        Image.fromarray(photograph[top : top + 320, left : left + 320]).save(path / f"{number:02d}.jpg")


def detector(path: Path) -> None:
    """A pretrained YOLOv8n."""
    shutil.copy(fetch("yolov8n"), path)


FILES: dict[str, Callable[[Path], None]] = {
    "model.onnx": model,
    "photos": photos,
    "train.npz": training,
    "test.npz": test_set,
    "yolov8n.onnx": detector,
    "street": street,
}
