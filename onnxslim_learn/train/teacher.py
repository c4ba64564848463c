"""The original as a teacher: what it puts out for samples, computed ahead where there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.train import samples as pool
from onnxslim_learn.train.losses import Taught, taught

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, fx

    from onnxslim_learn.train.samples import SampleStore


ROOM = 2 << 30  # bytes for outputs computed ahead
TOGETHER = 256
FEW = 4  # batches that tell whether shapes depend on numbers


class Teacher:
    """A net that is not trained.

    Attributes:
        module: The net.
        make: Makes it again where a copy is sent to another process; without it, the module itself is sent.
        known: For every shelf of a pool the outputs of all its samples, or none.
        compared: Which inner tensors are compared, and where: name -> axis -> positions, all of axes not named.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        device: torch.device | None = None,
        make: Callable[[], fx.GraphModule] | None = None,
    ) -> None:
        self.module = module.to(device).eval().requires_grad_(False)
        self.device, self.make = device or torch.device("cpu"), make
        self.known: list[dict[str, Tensor]] = []
        self.compared: Mapping[str, Mapping[int, Array]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "module" or self.make is None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.make is not None:
            self.module = self.make().to(self.device).eval().requires_grad_(False)

    def comparing(self, compared: Mapping[str, Mapping[int, Array]]) -> Teacher:
        """The same teacher, of which other parts of inner tensors are compared."""
        other = Teacher.__new__(Teacher)
        vars(other).update(vars(self))
        other.compared = compared
        return other

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs for inputs, and the inner tensors that are compared."""
        return self._chosen(self._all(inputs))

    def _all(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            with torch.no_grad():
                outputs: dict[str, Any] = self.module(*(inputs[name] for name in self.module.meta["inputs"]))
        except (IndexError, RuntimeError) as error:
            shapes = ", ".join(f"{name} {[*value.shape]}" for name, value in inputs.items())
            raise InputError(
                f"model: cannot be run on {shapes} ({reason(error)}). Give samples it was made for, or ⟨input⟩."
            ) from error
        return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}  # no sequences

    def _chosen(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        chosen = {name: tensors[name] for name in self.module.meta["outputs"]}
        for name, axes in self.compared.items():
            value = tensors[name]
            for axis, places in axes.items():
                value = value.index_select(axis, torch.from_numpy(places).to(value.device))
            chosen[name] = value
        return chosen

    def outputs(self, shelf: int, rows: Array, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs for samples of a shelf."""
        if not self.known:
            return self(inputs)
        picked = torch.from_numpy(rows)
        return self._chosen({name: value[picked].to(self.device) for name, value in self.known[shelf].items()})

    def kinds(self, samples: SampleStore) -> dict[str, Taught]:
        """What the float outputs are, by the first samples."""
        first, meta = self._first(samples), self.module.meta
        floats = [name for name in meta["outputs"] if first[name].is_floating_point()]
        return {name: taught(first[name], name, meta["hints"].get(name, "")) for name in floats}

    def uneven(self, samples: SampleStore) -> set[str]:
        """Outputs that have another shape for some of the first samples than for others: numbers decide their rows."""
        size, count = samples.declared.batch or 1, samples.shelves[0].count
        some = [samples.take(0, np.arange(k, k + size)) for k in range(0, min(count - size + 1, FEW * size), size)]
        shapes = [{name: x.shape for name, x in self._all(pool.tensors(b, self.device)[0]).items()} for b in some]
        return {name for name in self.module.meta["outputs"] if len({one[name] for one in shapes}) > 1}

    def variances(self, samples: SampleStore) -> dict[str, float]:
        """Variance of every inner tensor, by the first samples."""
        outputs = self.module.meta["outputs"]
        return {name: taught(value).variance for name, value in self._first(samples).items() if name not in outputs}

    def _first(self, samples: SampleStore) -> dict[str, Tensor]:
        batch = next(pool.portions(samples, samples.declared.batch or TOGETHER))
        tensors = self._all(pool.tensors(batch, self.device)[0])
        for name in self.module.meta["outputs"]:
            if tensors[name].is_floating_point() and not bool(torch.isfinite(tensors[name]).all()):
                raise InputError(
                    f"model: output {name} is not finite for the first samples. Correct them, or the model."
                )
        return tensors

    def look_ahead(
        self, samples: SampleStore, seen: int, progress: Callable[[float], None] = lambda share: None
    ) -> None:
        """Compute what the teacher puts out for all samples, if that saves work and there is room.

        Args:
            samples: The samples.
            seen: How many training will look at.
            progress: Called with the share done.
        """
        if samples.declared.batch is not None or seen < samples.count or not self._small(samples):
            return
        known, done = [], 0
        for shelf, held in enumerate(samples.shelves):
            parts = []
            for rows in np.array_split(np.arange(held.count), range(TOGETHER, held.count, TOGETHER)):
                tensors = self._all(pool.tensors(samples.take(shelf, rows), self.device)[0])
                if any(len(value) != len(rows) for value in tensors.values()):
                    return  # by chance the first samples had a row each
                parts.append({name: value.cpu() for name, value in tensors.items()})
                done += len(rows)
                progress(done / samples.count)
            known.append({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        self.known = known

    def _small(self, samples: SampleStore) -> bool:
        """Whether every output has a row for each sample, and all fit."""
        two = min(2, samples.shelves[0].count)
        tensors = self._all(pool.tensors(samples.take(0, np.arange(two)), self.device)[0])
        rows = all(value.ndim and len(value) == two for value in tensors.values())
        return rows and sum(v.nbytes for v in tensors.values()) / two * samples.count <= ROOM
