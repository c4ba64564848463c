"""In what blocks of channels onnxruntime's kernels work on this machine's CPU: read from it, never timed."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from onnxslim_learn.runtime.session import CPU, create, session_options

CHANNELS, FILTERS = 32, 4  # of a convolution whose weight onnxruntime pads to whole blocks, where it has blocks
CONVOLUTION = (
    f'<ir_version: 8, opset_import: ["": 17]> net (float[1,{CHANNELS},8,8] x) => (float[1,{FILTERS},8,8] y)'
    f" <float[{FILTERS},{CHANNELS},1,1] w = {{{', '.join(['1'] * FILTERS * CHANNELS)}}}> {{ y = Conv (x, w) }}"
)


@functools.cache
def block() -> int:
    """Channels that a convolution computes at once: 16 with AVX-512, 8 with AVX, 1 where it has no such layout.

    onnxruntime writes the graph that it runs, in which weights of convolutions are padded to whole blocks.
    """
    import onnx
    from onnx import parser

    with tempfile.TemporaryDirectory() as folder:
        options, path = session_options(), Path(folder, "optimized.onnx")
        options.optimized_model_filepath = str(path)
        create(parser.parse_model(CONVOLUTION).SerializeToString(), options, CPU)
        (weight,) = onnx.load(path).graph.initializer
    return int(weight.dims[0]) if weight.dims[0] > FILTERS else 1
