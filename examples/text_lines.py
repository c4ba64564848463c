"""The recogniser of PP-OCR: lines of text, read before and after.

Needs ``pip install onnxslim-learn matplotlib`` (fonts) and ``pip install --no-deps rapidocr-onnxruntime``, which ships
the file.
"""

# %%
import string
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

import onnxslim_learn as osl

package = find_spec("rapidocr_onnxruntime")
if package is None:
    raise SystemExit("The recogniser is not here: pip install --no-deps rapidocr-onnxruntime")
model = str(Path(package.origin).parent / "models/ch_PP-OCRv4_rec_infer.onnx")
characters = ort.InferenceSession(model).get_modelmeta().custom_metadata_map["character"].splitlines()
fonts = ("DejaVuSans", "DejaVuSerif-Bold", "cmr10"), ("DejaVuSans-Bold", "DejaVuSerif", "STIXGeneral")


# %% Lines of made-up words; those to judge on are of other fonts than those to repair with.
def written(rng, part):
    """An image ``(3, 48, 320)`` of a line, and what it says."""
    text = " ".join("".join(rng.choice(list(string.ascii_letters + string.digits), 5)) for _ in range(2))
    image = Image.new("RGB", (320, 48), tuple(rng.integers(190, 256, 3).tolist()))
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{rng.choice(fonts[part])}.ttf", int(rng.integers(24, 34)))
    ImageDraw.Draw(image).text((8, 6), text, tuple(rng.integers(0, 90, 3).tolist()), font)
    return ((np.asarray(image, np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1), text


samples = np.stack([written(np.random.default_rng((0, k)), 0)[0] for k in range(32)])
lines, texts = zip(*(written(np.random.default_rng((1, k)), 1) for k in range(64)), strict=True)

# %%
sizes = {"x": (1, 3, 48, 320)}
slim = osl.slim(model, macs=0.8, data={"x": samples}, input=sizes, work="5G", latency=False, output="slim.onnx")
print(
    f"{slim.report['after']['macs'] / slim.report['before']['macs']:.0%} of the MACs,",
    slim.report["verdict"]["quality"],
)


# %%
def read(file):
    """What a model reads in every line: the likeliest character of each step, doubled ones and blanks left out."""
    known = ["", *characters, " "]
    chosen = ort.InferenceSession(file).run(None, {"x": np.stack(lines)})[0].argmax(-1)
    return ["".join(known[c] for c, before in zip(row, [0, *row], strict=False) if c != before) for row in chosen]


print("file       lines read exactly  the first")
for name, file in (("original", model), ("slim", "slim.onnx")):
    told = read(file)
    right = np.mean([a.replace(" ", "") == b.replace(" ", "") for a, b in zip(told, texts, strict=True)])
    print(f"{name:10} {right:18.1%}  {told[0]!r}, says {texts[0]!r}")
