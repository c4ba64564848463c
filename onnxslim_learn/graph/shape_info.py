"""What is known of the shapes of a graph: sampled at several sizes, fixed and open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.graph import input_sizes as sizes

Shape = sizes.Shape
MATRIX = 2  # axes of what shape arithmetic computes at most: pads are one for each end and axis


@dataclass
class Sample:
    """Everything known at one choice of input sizes.

    Attributes:
        inputs: Graph input -> shape.
        shape: Value name -> shape.
        dtype: Value name -> ONNX element type number.
        value: Value name -> its value, for small integer tensors and what descends from ``Shape``.
        derived: Names of values that descend from a ``Shape`` or ``Size`` operator.
        loose: Names of values whose shape depends on data, and of what is computed from them.
        told: Graph inputs for which a value was given, and what is computed from them: known here, but not constant.
        constant: Names of initializers and of what is computed from them alone.
        traced: Whether shapes that depend on data may be computed with: another sample tells what varies.
    """

    inputs: dict[str, Shape]
    shape: dict[str, Shape] = field(default_factory=dict)
    dtype: dict[str, int] = field(default_factory=dict)
    value: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)
    loose: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    constant: set[str] = field(default_factory=set)
    traced: bool = False

    @property
    def sizes(self) -> str:
        """The input shapes in words."""
        return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in self.inputs.items())


@dataclass(frozen=True)
class Shapes:
    """Samples of a model at its nominal, analysis and third input sizes (one object thrice if nothing is open).

    ``more`` are further samples, at odd sizes, and at other sizes of what depends on data: all that tells what varies.
    """

    nominal: Sample
    analysis: Sample
    third: Sample
    more: tuple[Sample, ...] = ()

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The distinct samples, nominal first."""
        at_sizes = (self.nominal,) if self.nominal is self.analysis else (self.nominal, self.analysis, self.third)
        return *at_sizes, *self.more

    @property
    def dynamic(self) -> bool:
        """Whether any input dimension is open."""
        return self.nominal is not self.analysis

    def known(self, name: str) -> tuple[np.ndarray[Any, Any], ...] | None:
        """Values of a small integer tensor in every sample, or ``None`` where one does not, or only was told."""
        if name in self.nominal.told:
            return None
        values = tuple(sample.value.get(name) for sample in self.samples)
        return None if any(value is None for value in values) else values  # type: ignore[return-value]

    def static(self, name: str) -> np.ndarray[Any, Any] | None:
        """Value of a small tensor that is the same at every size, else ``None``; what depends on data is never."""
        values = None if name in self.nominal.loose else self.known(name)
        if values is None or any(v.shape != values[0].shape or not np.array_equal(v, values[0]) for v in values[1:]):
            return None
        return values[0]

    def is_arithmetic(self, node: ir.Node) -> bool:
        """Whether a node computes known whole numbers, or single ones, from known ones: these carry no labels.

        What has more than two axes, such as a mask for every head, is data, however small it is at the sizes sampled.
        """
        touched = [str(value.name) for value in (*node.inputs, *node.outputs) if value is not None]
        if any(self.known(name) is None for name in touched):
            return False
        results = [self.nominal.value[str(value.name)] for value in node.outputs]
        return all(value.size <= 1 or (value.dtype.kind in "iub" and value.ndim <= MATRIX) for value in results)

    def varying(self, name: str) -> frozenset[int]:
        """The axes whose size differs between the samples."""
        shapes = [sample.shape[name] for sample in self.samples]
        return frozenset(a for a, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1)

    def is_open(self, name: str, axis: int) -> bool:
        """Whether the size of an axis depends on the input sizes, or on data."""
        untold = name in self.nominal.loose and not self.nominal.traced
        return untold or len({sample.shape[name][axis] for sample in self.samples}) > 1
