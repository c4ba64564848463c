"""A YOLOv8n detector: what it finds in a photograph, before and after.

The detector is that of NudeNet, which finds faces, too. Needs ``pip install onnxslim-learn scikit-image matplotlib``,
and ``pip install --no-deps nudenet``, which ships the file.
"""

# %%
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
from matplotlib.cbook import get_sample_data
from PIL import Image
from skimage import data

import onnxslim_learn as osl

package = find_spec("nudenet")
if package is None:
    raise SystemExit("The detector is not here: pip install --no-deps nudenet")
model = str(Path(package.origin).parent / "320n.onnx")


def prepared(image):
    """Pixels as the model takes them: ``(3, 320, 320)`` from 0 to 1."""
    return np.asarray(image.convert("RGB").resize((320, 320)), np.float32).transpose(2, 0, 1) / 255


# %% Crops of photographs to choose by and to repair on; nobody says what is on them.
rng = np.random.default_rng(0)
photographs = [Image.fromarray(image()) for image in (data.astronaut, data.chelsea, data.coffee)]
samples = []
for k in range(24):
    photograph = photographs[0 if k % 2 else k // 2 % 3]
    side = rng.uniform(0.5, 1) * min(photograph.size)
    left, top = (rng.uniform(0, full - side) for full in photograph.size)
    samples.append(prepared(photograph.crop((left, top, left + side, top + side))))

# %%
slim = osl.slim(model, macs=0.8, data={"images": np.stack(samples)}, work="5G", latency=False, output="slim.onnx")
print(
    f"{slim.report['after']['macs'] / slim.report['before']['macs']:.0%} of the MACs,",
    slim.report["verdict"]["quality"],
)


# %%
def boxes(file, image):
    """Class, score and corners of what is found: of boxes that overlap, the surest."""
    (rows,) = ort.InferenceSession(file).run(None, {"images": image[None]})[0]
    scores, kept = rows[4:].max(0), []
    corners = np.concatenate([rows[:2] - rows[2:4] / 2, rows[:2] + rows[2:4] / 2])
    for k in np.argsort(-scores)[: (scores > 0.25).sum()]:
        far = [(np.abs(corners[:, k] - corners[:, j]).max() > 40) for j in kept]
        kept += [k] if all(far) else []
    return [(int(rows[4:, k].argmax()), scores[k], corners[:, k].round().astype(int)) for k in kept]


portrait = prepared(Image.open(get_sample_data("grace_hopper.jpg")))
print("file         class  score  left, top, right, bottom")
for name, file in (("original", model), ("slim", "slim.onnx")):
    for kind, score, corners in boxes(file, portrait):
        print(f"{name:12} {kind:5}  {score:5.2f}  {', '.join(map(str, corners))}")
