"""What the laws share: random removals, a plain run in onnxruntime, and the masked original as the oracle."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import settings
from hypothesis import strategies as st

from nets.fused import in_all_forms, plain
from nets.operators import EXAMPLES, VARIANTS
from nets.zoo import NETS as ZOO
from nets.zoo import feeds
from onnxslim_learn.coupling import groups as grouping
from onnxslim_learn.coupling.layout import over
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.graph.stored_types import as_stored
from onnxslim_learn.rewrite.mask import OPEN, mask
from onnxslim_learn.workflow import slim

NETS = in_all_forms(ZOO)
ALL = in_all_forms({**ZOO, **VARIANTS, **EXAMPLES})
"""Nets that laws are checked on, each as it is and as onnxruntime fuses it."""

WHOLE = {"spatial_attention", "gru_bidirectional"}
"""Nets of which nothing can go: their channels are normalised over, or an output."""

CUT = [name for name in ALL if plain(name) not in WHOLE]
"""Those of which something can go."""

ZOO_CUT = [name for name in CUT if name in NETS]


def examples(count: int) -> settings:
    """Return settings for so many random examples: all of them in the slow run, a share in the default one."""
    return settings(max_examples=max(1, round(count * settings.default.max_examples / 100)))


PLANS = examples(5)
"""A few random plans per net; the same ones on every run."""

RELATIVE = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-5}
"""Largest difference allowed, of an output's largest magnitude: another order of summation changes the last bits of
some hundred addends. Doubles run through the same masks as floats, and a few operators compute them in single."""

OTHER_SIZES = ({"batch": 1, "seq": 7, "height": 9, "width": 12}, {"batch": 5, "seq": 2, "height": 11, "width": 10})
"""Input sizes beside the usual ones, for nets with open dimensions: a batch of one, and a batch no analysis saw."""


@functools.cache
def analysed(name: str, *, sensitive: bool = False) -> slim.Analysis:
    """Return the analysis of one of the nets; shared, so do not change it."""
    return slim.analyze(ALL[name].build(), allow_sensitive=sensitive)


def free(analysis: slim.Analysis) -> list[slim.Group]:
    """Return the groups that can lose units."""
    return [group for group in analysis.groups if group.pin is None]


# --- removals ---------------------------------------------------------------------------------------------------------


def draw_removal(draw: st.DrawFn, analysis: slim.Analysis) -> Removal:
    """Draw a valid removal that is not empty.

    Every group loses a random number of levels of random units in each stratum, unless the removal would be invalid
    with it. Groups that cannot go alone are tried with the others: all at one fraction, half of the time.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    together = draw(st.sampled_from([0.0, 0.0, 0.25, 0.5]))
    if together:
        stated = [group for group in grouping.find(analysis.coupling) if group.pin is None]
        columns = np.concatenate([units(group, max(1, int(group.levels * together)), rng) for group in stated])
        found = close(analysis, columns)
        if valid(found) and found.gone.any():
            return found
    able = free(analysis)
    assert able, "nothing can go"
    levels = [draw(st.integers(0, group.spare)) for group in able]
    if not any(levels):
        levels[draw(st.integers(0, len(able) - 1))] = 1
    columns = np.zeros(0, np.int64)
    for k in rng.permutation(len(able)):
        for level in {levels[k], min(levels[k], 1)} - {0}:
            wider = np.concatenate([columns, units(able[k], level, rng)])
            if valid(close(analysis, wider)):
                columns = wider
                break
    if not len(columns):  # units that go with some others alone: the step that was looked at when groups were found
        (group,) = rng.permutation(np.array(able, object))[:1]
        columns = group.units[np.concatenate([part[: len(part) // group.levels] for part in group.strata])]
    assert valid(close(analysis, columns)), "no group can lose one level of units"
    return close(analysis, columns)


def units(group: slim.Group, level: int, rng: np.random.Generator) -> np.ndarray:
    """Return the columns of a group's random units, so many levels of every stratum."""
    parts = [rng.permutation(part)[: len(part) * level // group.levels] for part in group.strata]
    return group.units[np.concatenate(parts)]


def close(analysis: slim.Analysis, columns: np.ndarray) -> Removal:
    """Return the removal of columns and of what goes with them, unchecked."""
    chosen = np.zeros(int(analysis.coupling.column.max()) + 1, bool)
    chosen[columns] = True
    return Removal(analysis.coupling, analysis.coupling.close(chosen))


def valid(removal: Removal) -> bool:
    """Tell whether a removal breaks no constraint."""
    return not removal.coupling.faults(removal.gone)


def kept(removal: Removal, name: str) -> np.ndarray:
    """Return which elements of a value stay, in its shape."""
    layout = removal.coupling.values[name]
    digits = list(layout.digits.values())
    keys, sizes = [d.key for d in digits], {d.key: d.size for d in digits}
    stays = np.ones([d.size for d in digits], bool)
    for digit in digits:
        if digit.labels is not None:
            gone = removal.gone[removal.coupling.strong[digit.labels]] & (digit.labels > 0)
            stays &= ~over(gone, (*digit.deps, digit.key), keys, sizes)
    return stays.reshape(layout.shape)


# --- models -----------------------------------------------------------------------------------------------------------


def written(analysis: slim.Analysis, removal: Removal) -> onnx.ModelProto:
    """Carry out a removal by way of a plan and a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slim.onnx"
        slim.slim(analysis, slim.describe(analysis, removal, {})).save(path, check=False)
        return onnx.load(path)


def normal(analysis: slim.Analysis) -> onnx.ModelProto:
    """Return the original in normal form, with weights in the types of the file."""
    return ir.to_proto(as_stored(analysis.graph.model))


def masked(removal: Removal, *, lift: bool = False) -> onnx.ModelProto:
    """Return the original with the removed positions zeroed where they are consumed, or with all masks lifted."""
    model = ir.to_proto(mask(removal))
    (switch,) = [info for info in model.graph.input if info.name == OPEN]
    model.graph.input.remove(switch)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(lift), OPEN))
    return model


def exposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model of which every tensor is an output."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    given = {info.name for info in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in given]
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return wide


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model in onnxruntime, with graph optimisations off and one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [info.name for info in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def analysis_inputs(analysis: slim.Analysis) -> dict[str, np.ndarray]:
    """Return random inputs at the sizes that layouts speak of."""
    return random_inputs(analysis.coupling, analysis.graph.shapes.analysis)


def input_sets(model: onnx.ModelProto, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Return random inputs at the usual sizes and, where dimensions are open, at other ones."""
    listed = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in listed]
    dynamic = any(d.dim_param for info in inputs for d in info.type.tensor_type.shape.dim)
    return [feeds(model, seed, **sizes) for sizes in ({}, *(OTHER_SIZES if dynamic else ()))]


def assert_close(found: np.ndarray, wanted: np.ndarray, what: object) -> None:
    """Assert that two tensors have the same shape and type and agree to rounding."""
    assert found.shape == wanted.shape, (what, found.shape, wanted.shape)
    assert found.dtype == wanted.dtype, (what, found.dtype, wanted.dtype)
    if wanted.dtype.kind != "f":
        assert np.array_equal(found, wanted), what
        return
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-2)  # small sums of addends of one differ by last bits of these
    gap = float(np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max(initial=0))
    assert gap <= RELATIVE[wanted.dtype.name] * scale, (what, gap, scale)


def assert_cut_is_masked(
    model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], share: float = 0.5
) -> slim.Analysis:
    """Assert slim = mask where a share of every free group goes, at the analysis sizes and on the given inputs."""
    analysis = slim.analyze(model)
    rng, chosen = np.random.default_rng(0), np.zeros(0, np.int64)
    for group in free(analysis):
        wider = np.concatenate([chosen, units(group, max(1, int(group.levels * share)), rng)])
        chosen = wider if valid(close(analysis, wider)) else chosen
    assert len(chosen), [(group.name, group.pin and group.pin.reason) for group in analysis.groups]
    removal = close(analysis, chosen)
    small, reference, lifted = written(analysis, removal), masked(removal), masked(removal, lift=True)
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert any(list(tensor.dims) != sizes.get(tensor.name, list(tensor.dims)) for tensor in small.graph.initializer)
    for feed in (analysis_inputs(analysis), *feeds):
        wanted, source = run(reference, feed), run(model, feed)
        for name, found in run(small, feed).items():
            assert_close(found, wanted[name], name)
        for name, found in run(lifted, feed).items():
            assert_close(found, source[name], f"{name} without masks")
    return analysis
