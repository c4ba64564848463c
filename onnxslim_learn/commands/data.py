"""Open samples for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.commands import models
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.keywords import takes
from onnxslim_learn.workflow.settings import LoadSettings

if TYPE_CHECKING:
    from onnxslim_learn.commands.models import Model
    from onnxslim_learn.data.source import Source


@takes(LoadSettings)
def load_data(model: Model, data: Any = None, *, settings: LoadSettings) -> Source:
    """Open samples, and check that they fit a model; ``.batches()`` of what is returned yields them.

    Args:
        model: Path of an ``.onnx`` file, a model in memory, or its analysis.
        data: An ``.npz`` or ``.npy`` file, a folder of images, ``module:function``, arrays by input name, an array, a
            function or batches; made up without.
        settings: Its keywords, below.

    Raises:
        InputError: If it is nothing of the kind, or does not fit the model.
    """
    analysis, reading = models.understood(model, settings.inputs), settings.samples.reading
    given = settings.samples.data if data is None else data
    reading.check(given)
    return synthetic(analysis.coupling, reading) if given is None else open_source(given, analysis.graph, reading)
