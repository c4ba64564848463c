"""Peak memory: it holds what a model needs at least, and grows with the inputs."""

import sys

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime import process_memory
from tests.runtime.timed_nets import matmul_net, one_sentence, saved

MIB = 1 << 20

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the system tells less")


def wide_net(folder, megabytes):
    """A net with so many MiB of weights."""
    weight = numpy_helper.from_array(np.ones((256, megabytes * 1024), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [[helper.make_tensor_value_info(n, 1, s)] for n, s in (("x", ["n", 256]), ("y", ["n", megabytes * 1024]))]
    net = helper.make_model(helper.make_graph([node], "net", *ends, [weight]), ir_version=9)
    net.opset_import[0].version = 18
    return saved(net, folder, f"{megabytes}.onnx")


@linux
def test_weights_and_activations_are_in_the_peak(tmp_path):
    small, large = (wide_net(tmp_path, size) for size in (1, 64))
    one = {"x": np.ones((1, 256), np.float32)}
    many = {"x": np.ones((256, 256), np.float32)}  # 64 MiB of outputs for 64 MiB of weights
    least = process_memory.peak(small, one)
    assert process_memory.peak(large, one) >= least + 63 * MIB
    assert process_memory.peak(large, many) >= least + 2 * 63 * MIB


@linux
def test_what_this_process_holds_is_not_counted(tmp_path):
    path = saved(matmul_net(8), tmp_path)
    feeds = {"x": np.ones((1, 8), np.float32)}
    ballast = np.ones(256 * MIB, np.uint8)
    assert process_memory.peak(path, feeds) < 128 * MIB
    assert ballast.all()


def test_a_model_that_does_not_run_is_refused_in_one_sentence(tmp_path):
    path = saved(matmul_net(8), tmp_path)
    with pytest.raises(InputError) as error:
        process_memory.peak(path, {"x": np.ones((1, 9), np.float32)})
    assert one_sentence(error)
