"""Heads of caches that are inputs and outputs: a model that is narrowed computes what the masked original does."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

import onnxslim_learn as osl
from nets.large import FusedDecoder
from nets.notation import Net
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import InputError
from onnxslim_learn.rewrite import caches
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.workflow import slim as workflow
from tests import laws

HEADS, SIZE = 4, 16
_INS, _OUTS = ("float[batch,4,past,16] past_" + c for c in "kv"), ("float[batch,4,total,16] now_" + c for c in "kv")
_HEAD = f"(float[batch,seq,6] x, {', '.join(_INS)}) => (float[batch,seq,5] y, {', '.join(_OUTS)})"
_SPLIT = " ".join(
    f"{c}x = MatMul(x, w{c}) {c}r = Reshape({c}x, [0, 0, 4, 16]) {c} = Transpose<perm=[0,2,1,3]>({c}r)" for c in "qkv"
)
PLAIN = Net(
    f"""{_HEAD} {{
        {_SPLIT}
        now_k = Concat<axis=2>(past_k, k) now_v = Concat<axis=2>(past_v, v)
        t = Transpose<perm=[0,1,3,2]>(now_k) raw = MatMul(q, t) p = Softmax<axis=-1>(raw) m = MatMul(p, now_v)
        back = Transpose<perm=[0,2,1,3]>(m) joined = Reshape(back, [0, 0, -1]) y = MatMul(joined, wo)
    }}""",
    "wq wk wv 6x64, wo 64x5",
)
NATIVE = Net(
    f"""{_HEAD} {{
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
        a, now_k, now_v = Attention<q_num_heads=8, kv_num_heads=4>(q, k, v, , past_k, past_v)
        y = MatMul(a, wo)
    }}""",
    "wq 6x128, wk wv 6x64, wo 128x5",
    opset=23,
)


def decoder(folder):
    """Write a small decoder as onnxruntime's builders do, weights beside it."""
    net = FusedDecoder(1, 128, 8, HEADS, 96, 50, TensorProto.FLOAT, past=True)
    return net.fill(net.write(folder / "net.onnx"))


def written(net, folder):
    onnx.save(net.build(), folder / "net.onnx")
    return folder / "net.onnx"


def feeds(model, batch, length, past):
    """Return inputs by name: tokens, masks, and caches of so many former positions."""
    rng, sizes = np.random.default_rng(length), {"batch": batch, "batch_size": batch, "seq": length, "past": past}
    sizes |= {"sequence_length": length, "past_sequence_length": past, "total_sequence_length": length + past}
    found = {}
    for info in model.graph.input:
        tensor = info.type.tensor_type
        shape = [sizes[d.dim_param] if d.dim_param else d.dim_value for d in tensor.shape.dim]
        whole = np.ones(shape, np.int64) if info.name == "mask" else rng.integers(0, 50, shape)
        found[info.name] = rng.normal(size=shape).astype("f") if tensor.elem_type == TensorProto.FLOAT else whole
    return found


@pytest.mark.parametrize("form", ["builder's", "plain", "native"])
def test_narrowed_caches_are_those_of_the_masked_original(form, tmp_path):
    path = decoder(tmp_path) if form == "builder's" else written({"plain": PLAIN, "native": NATIVE}[form], tmp_path)
    assert osl.caches(path, output=tmp_path / "open.onnx").report["caches"]
    analysis = workflow.analyze(onnx.load(tmp_path / "open.onnx"))
    selects = [g for g in analysis.groups if g.pin is None and any(".selected.by:0" in name for name in g.members)]
    (heads,) = [group for group in selects if group.width == HEADS][:1]
    gone = np.zeros(analysis.coupling.columns, bool)
    gone[heads.units[[0, 2]]] = True
    removal = Removal(analysis.coupling, analysis.coupling.close(gone))
    onnx.save(ir.to_proto(slim(removal)), tmp_path / "slim.onnx")
    report = osl.caches(tmp_path / "slim.onnx", output=tmp_path / "narrow.onnx", narrow=True).report
    kept = {one["name"]: list(one["kept"]) for one in report["caches"]}
    assert len(kept) == 4
    assert set(map(tuple, kept.values())) == {(1, 3)}
    small, reference = onnx.load(tmp_path / "narrow.onnx"), laws.masked(removal)
    original = onnx.load(path)
    assert [v.name for v in (*small.graph.input, *small.graph.output)] == [
        v.name for v in (*original.graph.input, *original.graph.output)
    ]
    for sizes in ((1, 3, 0), (2, 1, 4)):
        wide = feeds(original, *sizes)
        narrow = {name: array[:, kept[name]] if name in kept else array for name, array in wide.items()}
        wanted = laws.run(reference, wide)
        for name, array in laws.run(small, narrow).items():
            laws.assert_close(array, wanted[name][:, kept[name]] if name in kept else wanted[name], name)


def test_what_has_no_caches_or_open_ones_is_refused(tmp_path):
    path = written(PLAIN, tmp_path)
    module = ir.load(path)
    with pytest.raises(InputError, match="no heads of caches are open"):
        caches.narrow(module)
    caches.open_heads(module)
    with pytest.raises(InputError, match="open already"):
        caches.open_heads(module)
    product = next(node for node in module.graph if node.op_type == "Einsum")
    product.inputs[0].const_value = ir.tensor(np.full((HEADS, HEADS), 0.5, np.float32))
    with pytest.raises(InputError, match="must select heads"):
        caches.narrow(module)
    with pytest.raises(InputError, match="is put out again"):
        caches.open_heads(ir.from_proto(laws.ALL["residual"].build()))
