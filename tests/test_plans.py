"""A plan is data: it survives JSON, says what it says of every tensor, and is refused when it was tampered with."""

import json
from importlib import metadata

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

import onnxslim_learn as osl
from nets.fused import plain
from nets.operators import EXAMPLES
from nets.zoo import NETS
from onnxslim_learn.errors import PlanError
from onnxslim_learn.plans import origin
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import ALL, CUT, PLANS, analysed, draw_removal

NETS_CUT = [name for name in CUT if plain(name) not in EXAMPLES]


@pytest.mark.parametrize("name", NETS_CUT)
@PLANS
@given(st.data())
def test_plan_survives_json_and_gives_the_same_removal(name, data):
    analysis = analysed(name)
    removal = draw_removal(data.draw, analysis)
    plan = slim.describe(analysis, removal, {"criterion": "none", "target": {"macs": 0.5}})
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert np.array_equal(slim.realize(analysis, again).gone, removal.gone)
    assert np.array_equal(slim.realize(analysis, Plan(plan.groups, plan.widths)).gone, removal.gone)


@pytest.mark.parametrize("name", NETS_CUT)
@PLANS
@given(st.data())
def test_tensors_say_what_is_kept_of_every_weight(name, data):
    """Whoever slices the source's initializers by `tensors` gets the written ones."""
    analysis = analysed(name)
    removal = draw_removal(data.draw, analysis)
    plan = slim.describe(analysis, removal, {})
    before = arrays_of(laws.normal(analysis))
    for tensor, after in arrays_of(laws.written(analysis, removal)).items():
        if tensor in analysis.coupling.values:
            assert np.array_equal(after, sliced(before[tensor], plan.tensors.get(tensor, {}))), tensor


def sliced(array, axes):
    """Slice an array by what a plan lists of it.

    An axis that is listed row by row has its rows along the first axis if that is long enough, else along the axis of
    as many positions.
    """
    uneven = {int(axis): kept for axis, kept in axes.items() if np.ndim(kept[0])}
    if uneven:
        count = len(next(iter(uneven.values())))
        row = 0 if len(array) % count == 0 else array.shape.index(count)
        array, parts = np.moveaxis(array, row, 0), []
        for i in axes.get(str(row), range(len(array))):
            part = array[i]
            for axis, kept in uneven.items():
                part = part.take(kept[i * count // len(array)], axis=axis - (axis > row))
            parts.append(part)
        array = np.moveaxis(np.stack(parts), 0, row)
        axes = {axis: kept for axis, kept in axes.items() if int(axis) not in (row, *uneven)}
    for axis, kept in axes.items():
        array = array.take(kept, axis=int(axis))
    return array


def arrays_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("name", NETS_CUT)
def test_provenance_says_source_and_costs(name, tmp_path):
    onnx.save(ALL[name].build(), tmp_path / "net.onnx")
    analysis = slim.analyze(tmp_path / "net.onnx")
    group = laws.free(analysis)[0]
    removal = laws.close(analysis, laws.units(group, 1, np.random.default_rng(0)))
    made = slim.describe(analysis, removal, {"criterion": "l1"}).provenance
    assert made["source"] == "net.onnx"
    assert made["sha256"] == analysis.graph.digest
    assert made["criterion"] == "l1"
    assert made["before"] == analysis.price(analysis.whole)
    assert made["after"] == analysis.price(removal)


def test_plan_fits_another_file_of_the_same_model():
    """Same names, other weights: a fine-tuned copy takes the plan of the first."""
    model = ALL["residual"].build()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values * np.float32(0.9), tensor.name))
    plan = slim.plan(analysed("residual"), {"macs": 0.5})
    assert slim.realize(slim.analyze(model), plan).gone.sum() == slim.realize(analysed("residual"), plan).gone.sum()


# --- tampering --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan():
    return slim.plan(analysed("residual"), {"macs": 0.5})


def edited(plan, **parts):
    """Return a copy of a plan, by way of JSON, with parts of its groups, widths or tensors replaced."""
    data = json.loads(plan.to_json())
    for part, changes in parts.items():
        data[part] |= changes
    return Plan.from_json(json.dumps(data))


def refusal(plan, name="residual"):
    """Return why a plan is refused, which is one sentence or two on one line."""
    with pytest.raises(PlanError) as caught:
        slim.slim(analysed(name), plan)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 300
    return text


def test_unknown_group_is_refused(plan):
    assert "w9:0" in refusal(edited(plan, groups={"w9:0": [0]}, widths={"w9:0": 8}))


def test_width_of_another_model_is_refused(plan):
    assert "w1:0" in refusal(edited(plan, widths={"w1:0": 13}))


@pytest.mark.parametrize("kept", [[0, 1, 12], [-1, 0], [0, 0, 1], [10**9]])
def test_indices_out_of_range_or_twice_are_refused(plan, kept):
    assert "w1:0" in refusal(edited(plan, groups={"w1:0": kept}))


def test_tensors_that_disagree_with_groups_are_refused(plan):
    tensor, axes = next(iter(plan.tensors.items()))
    axis, kept = next(iter(axes.items()))
    lost = next(i for i in range(99) if i not in kept)
    assert tensor in refusal(edited(plan, tensors={tensor: {**axes, axis: [*kept[:-1], lost]}}))
    assert tensor in refusal(edited(plan, tensors={tensor: {**axes, "7": [0]}}))
    assert "w9" in refusal(edited(plan, tensors={"w9": {"0": [0]}}))


def test_a_group_edited_without_its_tensors_is_refused(plan):
    kept = plan.groups["w1:0"]
    assert refusal(edited(plan, groups={"w1:0": kept[:-1]})).startswith("plan: tensor ")


def test_an_empty_group_is_refused(plan):
    assert refusal(Plan({"w1:0": []}, {"w1:0": 12}))


def test_a_pinned_group_is_refused():
    assert "output tap" in refusal(Plan({"w1:0": [0, 1]}, {"w1:0": 8}), "pinned_by_output")


def test_heads_of_unequal_size_are_refused():
    assert refusal(Plan({"wq:1": [*range(15)]}, {"wq:1": 16}), "attention")


def test_a_plan_of_another_model_is_refused_with_its_name(tmp_path):
    onnx.save(ALL["residual"].build(), tmp_path / "first.onnx")
    foreign = slim.plan(slim.analyze(tmp_path / "first.onnx"), {"macs": 0.5})
    assert "first.onnx" in refusal(foreign, "unet")


GOOD = {"format": "onnxslim-learn plan 1", "groups": {"w1:0": [0, 1]}, "widths": {"w1:0": 12}}


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "[]",
        "null",
        json.dumps({**GOOD, "format": "onnxslim-learn plan 2"}),
        json.dumps({key: value for key, value in GOOD.items() if key != "format"}),
        json.dumps({**GOOD, "groups": [["w1:0", [0]]]}),
        json.dumps({**GOOD, "groups": {"w1:0": 3}}),
        json.dumps({**GOOD, "groups": {"w1:0": ["0"]}}),
        json.dumps({**GOOD, "groups": {"w1:0": [True]}}),
        json.dumps({**GOOD, "groups": {"w1:0": [0.5]}}),
        json.dumps({**GOOD, "widths": {}}),
        json.dumps({**GOOD, "widths": {"w1:0": 12, "w3:0": 10}}),
        json.dumps({**GOOD, "tensors": [0]}),
        json.dumps({**GOOD, "provenance": "me"}),
    ],
)
def test_text_that_is_no_plan_is_refused(data):
    assert Plan.from_json(json.dumps(GOOD)).groups == GOOD["groups"]
    with pytest.raises(PlanError) as caught:
        Plan.from_json(data, "here.json")
    assert str(caught.value).startswith("here.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tensors", [{"w1": 5}, {"w1": {"0": 5}}, {"w1": {"zero": [0]}}, {"w1": [[0]]}])
def test_malformed_tensors_are_refused(plan, tensors):
    assert "w1" in refusal(edited(plan, tensors=tensors))


def test_plan_file_round_trip(plan, tmp_path):
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"PK\x03\x04"])
def test_plan_file_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.json"):
        Plan.load(path)


def test_a_former_plan_had_times_in_microseconds(plan):
    target = {"latency": 4500.0, "macs": 3e6}
    told = json.loads(plan.to_json())
    told["provenance"]["target"] = target
    again = Plan.from_json(json.dumps(told))
    assert again.groups == plan.groups
    assert again.provenance["target"] == {"latency": "4.5ms", "macs": 3e6}
    assert Plan.from_json(again.to_json()) == again
    told["provenance"]["target"] = {"latency": 0.7}
    assert Plan.from_json(json.dumps(told)).provenance["target"] == {"latency": 0.7}


def test_a_written_model_says_what_made_it(tmp_path):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    made = osl.slim(tmp_path / "net.onnx", macs=0.5, repair=False, no_latency=True, plan_out=tmp_path / "plan.json")
    made.save(tmp_path / "slim.onnx")
    (told,) = (p.value for p in onnx.load(tmp_path / "slim.onnx").metadata_props if p.key == origin.KEY)
    plan = Plan.load(tmp_path / "plan.json")
    assert json.loads(told) == {
        "version": metadata.version("onnxslim-learn"),
        "plan": origin.fingerprint(plan),
        "target": {"macs": 0.5},
    }
    assert origin.fingerprint(plan) != origin.fingerprint(Plan({}, {}))
    again = osl.apply(tmp_path / "net.onnx", tmp_path / "plan.json", repair=False, no_latency=True)
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "slim.onnx").read_bytes()
