"""Training after a repair: outputs come nearer on samples that nothing was fitted on, or it is undone."""

import copy

import numpy as np
import onnx
import pytest

import onnxslim_learn
from onnxslim_learn import rows
from onnxslim_learn.data.open import open_source
from onnxslim_learn.errors import InputError, TrainError
from onnxslim_learn.metrics import deviation, total
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim as api
from tests.laws import ALL, run

ASKED = {"macs": 0.6, "work": 0, "latency": False, "multiple": 1}
COUNT = 64  # samples
SLOW = ("residual", "half", "function", "quantized", "squeeze_excite_gemm-basic")


def samples(model):
    """Draw inputs of which the first axis is samples."""
    rng = np.random.default_rng(0)
    shapes = {one.name: [d.dim_value or 8 for d in one.type.tensor_type.shape.dim[1:]] for one in model.graph.input}
    types = {
        one.name: onnx.helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type) for one in model.graph.input
    }
    return {name: rng.standard_normal((COUNT, *shape)).astype(types[name]) for name, shape in shapes.items()}


def cut(model, data, steps, **asked):
    """Cut a model, and train it for some steps."""
    return onnxslim_learn.slim(model, data=data, finetune_steps=steps, **ASKED, **asked)


def built(model):
    """Say of what a model is built: nodes, and initializers with their shapes and types."""
    graph = model.graph
    return [(n.op_type, *n.input, *n.output) for n in graph.node], [
        (t.name, *t.dims, t.data_type) for t in graph.initializer
    ]


def far(model, other, feeds):
    """Measure how far outputs are from another model's."""
    runs = [[run(one, feed) for feed in feeds] for one in (other, model)]
    return total(deviation(*({name: np.concatenate([r[name] for r in rs]) for name in rs[0]} for rs in runs)))


@pytest.mark.parametrize("name", ["multi_io", "siamese", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_outputs_come_nearer_and_the_model_stays_as_it_is_built(name):
    model = ALL[name].build()
    data = samples(model)
    plain, trained = (cut(model, data, steps).model for steps in (0, 12))
    analysis = api.analyze(model)
    held = Calibration(analysis.coupling, open_source(data, analysis.graph)).held.feeds
    assert far(trained, model, held) <= far(plain, model, held)
    assert built(trained) == built(plain)


@pytest.fixture(scope="module")
def siamese():
    """Return a net, samples of it, and its analysis."""
    model = ALL["siamese"].build()
    return model, samples(model), api.analyze(model)


@pytest.mark.parametrize("fails", [False, True])
def test_training_that_does_harm_is_undone(siamese, fails, tmp_path):
    _, data, analysis = siamese

    def spoil(cut, path, samples, output, steps):
        if fails:
            raise TrainError("training: the loss became inf.")
        spoilt = onnx.load(path)
        for tensor in spoilt.graph.initializer:
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
        onnx.save(spoilt, output)

    files = [tmp_path / "plain.onnx", tmp_path / "spoilt.onnx"]
    for file, finetune in zip(files, (None, lambda slimmed, known: slimmed.finetune(known, 3, spoil)), strict=True):
        known = Calibration(analysis.coupling, open_source(data, analysis.graph), work=0)
        slimmed, check = api.slim_to(analysis, {"macs": 0.6}, file, calibration=known, finetune=finetune, bases="none")
        assert check.passed
    assert slimmed.finetuned is not None
    assert not slimmed.finetuned.kept
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_plan_says_that_weights_were_trained_and_gives_them_again(siamese, tmp_path):
    model, data, _ = copy.deepcopy(siamese[0]), *siamese[1:]
    files = [tmp_path / f"{name}.onnx" for name in ("original", "slim", "plain", "again")]
    onnx.save(model, files[0], save_as_external_data=True, location="weights", size_threshold=0)
    plan = str(tmp_path / "plan.json")
    asked = {"data": data, "latency": False}
    done = cut(str(files[0]), data, 12, output=str(files[1]), plan_out=plan)
    assert done.report["repair"]["finetune"]["kept"]
    plain = onnxslim_learn.apply(str(files[0]), plan, output=str(files[2]), **asked)
    assert any("trained for 12 steps" in note for note in plain.notes)
    again = onnxslim_learn.apply(str(files[0]), plan, output=str(files[3]), finetune_steps=12, **asked)
    assert not any("trained" in note for note in again.notes)
    assert onnxslim_learn.verify(str(files[0]), str(files[1]), plan=plan).passed
    slim, repaired, same = ([onnx.numpy_helper.to_array(t) for t in onnx.load(f).graph.initializer] for f in files[1:])
    assert all(np.array_equal(a, b) for a, b in zip(slim, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(slim, repaired, strict=True))


def test_what_cannot_be_trained_is_said_at_once(siamese, monkeypatch):
    model, data, _ = siamese
    few = {name: array[:8] for name, array in data.items()}
    with pytest.raises(InputError, match="finetune_steps: 8 samples are too few"):
        cut(model, few, 3)
    with pytest.raises(InputError, match="finetune_steps: training goes on from a repair"):
        cut(model, data, 3, repair=False)
    with pytest.raises(InputError, match="finetune_steps: needs real samples"):
        cut(model, None, 3)
    monkeypatch.setitem(rows.EXTRAS, "train", ("no_such_module",))
    with pytest.raises(InputError, match=r"finetune_steps: needs no_such_module. Install onnxslim-learn\[train\]"):
        cut(model, data, 3)
