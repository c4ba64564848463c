"""An operator that no table knows: say what it does to axes, and it is cut like any other.

Needs ``pip install "onnxslim-learn[train]"``.
"""

# %% A file with an operator that only its own runtime has, and therefore with the shape of what it puts out.
import numpy as np
import onnx
import torch
from onnx import parser

import onnxslim_learn as osl
from onnxslim_learn.coupling.operators.elementwise import elementwise

model = parser.parse_model("""
    <ir_version: 9, opset_import: ["" : 17, "my.domain" : 1]>
    net (float[2, 4] a) => (float[2, 3] z) <float[2, 16] s> {
        [first] h = MatMul(a, w1)
        [wave] s = my.domain.Wave(h)
        [last] z = MatMul(s, w2)
    }
""")
rng = np.random.default_rng(0)
for name, shape in {"w1": (4, 16), "w2": (16, 3)}.items():
    model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype("f4"), name))


# %%
def groups():
    """What can go, and what pins the rest."""
    for group in osl.analyze(model).groups:
        print(f"{group.name:6} {group.width:3} units, {'free' if group.pin is None else group.pin.reason}")


print("unknown:")
groups()

# %% Elementwise: what goes of its input goes of its output. In torch it is a sine, so it can be trained, too.
osl.register_operator("my.domain", "Wave", elementwise, torch=torch.sin)
print("registered:")
groups()
module = osl.to_torch(model)
print("in torch:", tuple(next(iter(module(torch.zeros(2, 4)).values())).shape))
