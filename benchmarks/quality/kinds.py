"""Inputs of the kind that pretrained models were made for: photographs, lines and pages of text, beginnings of files.

Photographs come with scikit-image, scikit-learn and matplotlib, fonts with matplotlib, files with Python itself.
What is judged on is drawn from other photographs, fonts and files than what is repaired with.
"""

import importlib.util
import string
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float32]

# Package -> photographs in it; the first are repaired with, the second judged on.
PHOTOS = {
    "skimage": (
        ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "camera.png", "brick.png"),
        ("rocket.jpg", "coins.png", "grass.png"),
    ),
    "sklearn": (("china.jpg",), ("flower.jpg",)),
    "matplotlib": ((), ("grace_hopper.jpg",)),
}
FOLDERS = {"skimage": "data", "sklearn": "datasets/images", "matplotlib": "mpl-data/sample_data"}
FONTS = (  # to repair with, and to judge on
    "DejaVuSans DejaVuSans-BoldOblique DejaVuSerif DejaVuSerif-BoldItalic DejaVuSansMono-Bold DejaVuSansMono-Oblique "
    "STIXGeneralBol STIXGeneralItalic cmss10 cmtt10",
    "DejaVuSans-Bold DejaVuSans-Oblique DejaVuSerif-Italic DejaVuSansMono STIXGeneral cmr10",
)
SUFFIXES = (".py", ".pyc", ".so", ".txt", ".json", ".h", ".html", ".png", ".jpg", ".gz", ".npz", ".toml", ".md", ".css")
ENDS, PADDING = 1024, 256  # bytes that magika looks at from either end of a file, and what stands for none


def _inside(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        raise SystemExit(f"{package}: is not installed, but photographs in it are used. Run pip install {package}.")
    return Path(spec.origin).parent / path


@cache
def photographs(part: int) -> tuple[Image.Image, ...]:
    """Photographs to repair with (0) or to judge on (1)."""
    return tuple(Image.open(path).convert("RGB") for _, path in paths(part))


def paths(part: int) -> list[tuple[str, Path]]:
    """Names of the photographs of a part, and where they lie."""
    return [(name, _inside(p, f"{FOLDERS[p]}/{name}")) for p, names in PHOTOS.items() for name in names[part]]


def crop(rng: np.random.Generator, part: int, size: tuple[int, int]) -> Image.Image:
    """A part of a photograph, of any scale, flipped by chance."""
    image = photographs(part)[rng.integers(len(photographs(part)))]
    side = rng.uniform(0.4, 1.0) * min(image.size)
    left, top = (rng.uniform(0, full - side) for full in image.size)
    found = image.resize(size[::-1], Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else found


def words(rng: np.random.Generator) -> str:
    """A few made-up words and numbers."""
    letters = (string.ascii_lowercase * 4 + string.ascii_uppercase + string.digits) + ".,:-"
    lengths = rng.integers(2, 9, rng.integers(1, 5))
    return " ".join("".join(rng.choice(list(letters), n)) for n in lengths)


def line(rng: np.random.Generator, part: int, size: tuple[int, int]) -> Image.Image:
    """A line of dark or light text that fills the height of an image."""
    return written(rng, part, size)[0]


def written(rng: np.random.Generator, part: int, size: tuple[int, int]) -> tuple[Image.Image, str]:
    """A line of text and what it says, nothing where it is longer than the image."""
    dark, light = sorted(rng.integers(0, 256, (2, 3)).tolist(), key=sum)
    if sum(light) - sum(dark) < 200:
        dark, light = [20, 20, 20], [235, 235, 235]
    ink, paper = (dark, light) if rng.random() < 0.7 else (light, dark)
    image = Image.new("RGB", size[::-1], tuple(paper))
    height = int(size[0] * rng.uniform(0.5, 0.8))
    draw = ImageDraw.Draw(image)
    left, text = rng.integers(2, 12), words(rng)
    font = _font(rng, part, height)
    draw.text((left, (size[0] - height) // 3), text, tuple(ink), font)
    return image, text if left + font.getlength(text) < size[1] else ""


def code(rng: np.random.Generator, part: int, size: tuple[int, int], text: str) -> Image.Image:
    """Letters one by one at their own height and angle, in grey, with strokes and dots over them, as captchas are."""
    image = Image.new("L", size[::-1], int(rng.integers(200, 256)))
    room = size[1] // len(text)
    for place, letter in enumerate(text):
        drawn = Image.new("L", (size[0], size[0]))
        font = _font(rng, part, int(size[0] * rng.uniform(0.5, 0.75)))
        ImageDraw.Draw(drawn).text((size[0] // 2, size[0] // 2), letter, 255, font, anchor="mm")
        drawn = drawn.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
        middle = int(room * (place + 0.5)) - size[0] // 2
        image.paste(int(rng.integers(0, 110)), (middle, int(rng.integers(-4, 5))), drawn)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 4)):
        ends = [(int(rng.integers(0, size[1])), int(rng.integers(0, size[0]))) for _ in range(2)]
        draw.line(ends, int(rng.integers(60, 180)), int(rng.integers(1, 3)))
    for _ in range(rng.integers(0, 60)):
        draw.point((int(rng.integers(0, size[1])), int(rng.integers(0, size[0]))), int(rng.integers(0, 180)))
    return image


def _font(rng: np.random.Generator, part: int, height: int) -> ImageFont.FreeTypeFont:
    name = rng.choice(FONTS[part].split())
    return ImageFont.truetype(str(_inside("matplotlib", f"mpl-data/fonts/ttf/{name}.ttf")), height)


def page(rng: np.random.Generator, part: int, size: tuple[int, int]) -> Image.Image:
    """Lines of text on paper or on a photograph."""
    plain = rng.random() < 0.5
    image = Image.new("RGB", size[::-1], tuple(rng.integers(180, 256, 3).tolist())) if plain else crop(rng, part, size)
    draw = ImageDraw.Draw(image)
    for top in range(10, size[0] - 30, int(rng.integers(28, 60))):
        ink = tuple(rng.integers(0, 90, 3).tolist()) if plain else tuple(rng.integers(0, 256, 3).tolist())
        draw.text((rng.integers(5, size[1] // 3), top), words(rng), ink, _font(rng, part, int(rng.integers(12, 28))))
    return image


def turned(rng: np.random.Generator, part: int, size: tuple[int, int]) -> Image.Image:
    """A line of text, half of the time upside down."""
    found = line(rng, part, size)
    return found.rotate(180) if rng.random() < 0.5 else found


@cache
def _files(part: int) -> tuple[Path, ...]:
    roots = [Path(sysconfig.get_paths()[key]) for key in ("stdlib", "purelib")]
    found = sorted(p for root in roots for p in root.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    return tuple(p for k, p in enumerate(found) if k % 2 == part and p.stat().st_size >= 16)


def contents(rng: np.random.Generator, part: int) -> NDArray[np.int32]:
    """The first and last bytes of a file, every kind of file as likely as any other, ``(2048,)``."""
    return file(rng, part)[0]


def file(rng: np.random.Generator, part: int) -> tuple[NDArray[np.int32], str]:
    """The first and last bytes of a file, ``(2048,)``, and its suffix."""
    suffix = SUFFIXES[rng.integers(len(SUFFIXES))]
    same = [p for p in _files(part) if p.suffix == suffix] or list(_files(part))
    data = same[rng.integers(len(same))].read_bytes()
    first, last = data[:4096].lstrip()[:ENDS], data[-4096:].rstrip()[-ENDS:]
    row = np.full(2 * ENDS, PADDING, np.int32)
    row[: len(first)] = list(first)
    row[2 * ENDS - len(last) :] = list(last)
    return row, suffix
