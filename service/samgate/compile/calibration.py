"""How large the activations of a graph are on real images, and which ranges 8 bits cover best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from samgate.errors import CompileError

LEVELS = 127
"""Of symmetric int8 on either side of zero."""

_BINS = 4096
_STRIDE = 7
"""Every seventh value is looked at: prime to the sizes of all axes, so that no channel and no column is left out."""
_SHARES = np.linspace(0.1, 1.0, 91)
"""Of the largest value seen: the ranges that are tried."""


@dataclass(slots=True)
class Histogram:
    """How often absolute values occur, from 0 to ``top``, which is a power of two so that it can grow by merging."""

    top: float = 0.0
    largest: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Counts ``values``, of any shape and finite."""
        values = np.abs(values)
        largest = float(values.max(initial=0.0))
        if largest == 0.0:
            return
        self.largest = max(self.largest, largest)
        self._grow(2.0 ** math.ceil(math.log2(largest)))
        bins = np.minimum((values * (_BINS / self.top)).astype(np.int32), _BINS - 1)
        self.counts += np.bincount(bins.ravel(), minlength=_BINS)

    def _grow(self, top: float) -> None:
        if self.top == 0.0:
            self.top = top
        while self.top < top:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self.top *= 2

    def best_range(self) -> float:
        """The range that, cut into :data:`LEVELS` steps, changes the values least: the mean square of the error of
        rounding what lies inside and of clipping what lies outside. 1 where no value differed from zero."""
        if self.largest == 0.0:
            return 1.0
        values = (np.arange(_BINS) + 0.5) * (self.top / _BINS)
        ranges = _SHARES * self.largest
        steps = ranges[:, None] / LEVELS
        errors = np.minimum(np.round(values / steps), LEVELS) * steps - values
        return float(ranges[np.argmin((errors**2) @ self.counts)])


def activation_ranges(
    model: onnx.ModelProto, tensors: Sequence[str], inputs: Iterable[Mapping[str, NDArray[Any]]]
) -> dict[str, float]:
    """For each of ``tensors``, names of activations of ``model``, the largest absolute value that int8 should hold.

    One call of ``inputs`` at a time is in memory, with all of ``tensors``. Raises CompileError when a value is no
    finite number or the graph can't be run.
    """
    histograms = {name: Histogram() for name in tensors}
    run = _observed(model, tensors)
    for feeds in inputs:
        for name, values in zip(tensors, run(feeds), strict=True):
            sample = values.ravel()[::_STRIDE]
            if not np.isfinite(sample).all():
                raise CompileError(f"can't calibrate: {name} holds values that aren't finite numbers")
            histograms[name].add(sample)
    return {name: histogram.best_range() for name, histogram in histograms.items()}


def _observed(
    model: onnx.ModelProto, tensors: Sequence[str]
) -> Callable[[Mapping[str, NDArray[Any]]], Sequence[NDArray[Any]]]:
    """``model`` as a function from its inputs to ``tensors``."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors
    )
    try:
        session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CompileError(f"ONNX Runtime can't run the graph to calibrate it: {error}") from error
    return lambda feeds: session.run(list(tensors), dict(feeds))
