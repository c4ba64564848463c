"""Zero single weights: which pattern, which method, and what it buys on disk.

The net and its images ship with the package. Needs ``pip install onnxslim-learn``.
"""

# %%
import onnxruntime as ort

import onnxslim_learn as osl
from onnxslim_learn import demo

model = str(demo.model_path())
shown = demo.held_out()
samples, rest = shown["image"][::2], slice(1, None, 2)


def accuracy(file):
    """The share of the other half of the images that is told rightly."""
    (logits,) = ort.InferenceSession(file).run(None, {"image": shown["image"][rest]})
    return (logits.argmax(1) == shown["labels"][rest]).mean()


# %% Three quarters of the weights by magnitude; the same, but those that stay are refitted; two of four; whole units.
ways = {
    "magnitude": {"ratio": 0.75, "method": "magnitude", "protocol": "uniform"},
    "refitted": {"ratio": 0.75},
    "two of four": {"pattern": "2:4"},
    "units": {"pattern": "units", "ratio": 0.3},
}
results = {}
for name, options in ways.items():
    results[name] = osl.sparsify(model, data={"image": samples}, latency=False, **options)
    results[name].save(f"{name}.onnx")

# %%
print("way           zero  accuracy  bytes, compressed")
print(f"{'as it was':12} {0:5.0%} {accuracy(model):9.1%}")
for name, result in results.items():
    file = f"{name}.onnx"
    print(f"{name:12} {result.report['sparsity']:5.0%} {accuracy(file):9.1%} {result.report['files']['gzip']:18,}")

# %% Units that are all zero can go for good: the net is dense again, and smaller.
dense = osl.slim("units.onnx", lossless=True, latency=False)
dense.save("dense.onnx")
before, after = dense.report["before"], dense.report["after"]
print(f"{'units, cut':12} {0:5.0%} {accuracy('dense.onnx'):9.1%}, {after['macs'] / before['macs']:.0%} of the MACs")
