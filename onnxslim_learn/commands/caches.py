"""Open the heads of caches that are inputs and outputs of a model, and narrow caches after a cut."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxslim_learn.array_types import Watcher, staged
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import Result
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph.load import check_file, read
from onnxslim_learn.report.sections.caches import told
from onnxslim_learn.rewrite import caches as work
from onnxslim_learn.rewrite import save
from onnxslim_learn.runtime import atomic
from onnxslim_learn.workflow.settings import CachesSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@command("caches", CachesSettings)
def caches(model: str | Path, *, progress: Watcher | None = None, settings: CachesSettings) -> Result:
    """Let heads of keys and values go though caches of them are inputs and outputs of a model.

    Their heads are opened before a cut: the model that is written takes and gives what it did. After the cut, caches
    are narrowed to the heads that stay, which is what is given and taken from then on.

    Args:
        model: Path of an ``.onnx`` file.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.

    Raises:
        InputError: If the model has no such caches, or the file cannot be read or written.
    """
    path, output = Path(model), settings.output
    check_file(path, "an .onnx model")
    if output is None:
        raise InputError("caches: ⟨output⟩ is needed. Give a file name.")
    claim(settings, path)
    staged(progress)("rewriting")
    read(path)
    module, target = ir.load(path), Path(output)
    changed = work.narrow(module) if settings.narrow else work.open_heads(module)
    save.spare(path, target)
    with atomic.workplace(target) as folder:
        save.publish(save.staged(module, target.name, folder, external=len(save.files(path)) > 1), target, path)
    report = {"narrowed": settings.narrow, "caches": [asdict(one) for one in changed], "output": str(target)}
    return Result(f"caches {path} {target}", report, told, _rows)


def _rows(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    listed: Sequence[Mapping[str, Any]] = report["caches"]
    return listed
