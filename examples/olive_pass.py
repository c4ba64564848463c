"""A pass of Olive that slims a model, beside its conversion, fusion and quantization.

Needs ``pip install onnxslim-learn olive-ai``. Run as it stands it slims the net that ships with the package; in a
workflow, a package configuration says where the pass is: ``{"passes": {"Slim": {"module_path": "olive_pass.Slim"}}}``.
"""

# %%
from pathlib import Path

from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.passes import Pass
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.pass_config import PassConfigParam

import onnxslim_learn as osl
from onnxslim_learn import demo


class Slim(Pass):
    """Cut what costs most and is needed least, and repair what stays."""

    @classmethod
    def _default_config(cls, accelerator_spec):
        """What a workflow may say."""
        return {
            "target": PassConfigParam(type_=dict, default_value={"macs": 0.5}, description="cost -> bound"),
            "data": PassConfigParam(type_=str, default_value=None, description="samples: a file or a folder"),
            "options": PassConfigParam(type_=dict, default_value={}, description="other keywords of slim"),
        }

    def _run_for_config(self, model, config, output_model_path):
        """Slim the model that the pass before it wrote."""
        output = resolve_onnx_path(output_model_path, Path(model.model_path).name)
        osl.slim(model.model_path, data=config.data, output=output, **config.target, **config.options)
        return ONNXModelHandler(output)


# %%
if __name__ == "__main__":  # a workflow imports the pass alone
    settings = {"data": str(demo.model_path().with_name("calibration.npz")), "options": {"latency": False}}
    slim = create_pass_from_dict(Slim, settings, disable_search=True)
    model = ONNXModelHandler(str(demo.model_path()))
    for name, file in (("before", model), ("after", slim.run(model, "slimmed"))):
        costs = osl.analyze(file.model_path).report["costs"]
        print(f"{name:7} {costs['macs']:9,} MACs, {costs['params']:7,} parameters")
