"""Models whose numbers run away on made-up inputs are cut, verified in stretches, and not repaired; that is said."""

import json
from pathlib import Path

import onnx

from nets.large import chain


def test_what_overflows_on_made_up_inputs_is_cut_and_not_repaired(run):
    model = onnx.load(chain(Path("deep.onnx"), 240))
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(30 * array, tensor.name))
    onnx.save(model, "deep.onnx")
    code, out, err = run("slim deep.onnx -o small.onnx --target params=0.6 --no-latency --json told.json")
    assert code == 0, err
    assert "Nothing was repaired" in err
    assert "--data" in err
    told = json.loads(Path("told.json").read_text())
    assert told["repair"] is None
    assert told["verify"]["passed"]
    assert told["verify"]["stretches"] > 1
    assert f"in {told['verify']['stretches']} stretches" in " ".join(out.split())
