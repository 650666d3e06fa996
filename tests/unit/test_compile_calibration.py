"""Ranges for int8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from samgate.compile.calibration import LEVELS, Histogram, activation_ranges
from samgate.errors import CompileError


def _range(*batches: NDArray[np.float32]) -> float:
    histogram = Histogram()
    for values in batches:
        histogram.add(values)
    return histogram.best_range()


def _error(values: NDArray[np.float32], bound: float) -> float:
    """Mean square of what symmetric int8 of range ``bound`` does to ``values``."""
    step = bound / LEVELS
    return float(np.mean((np.clip(np.round(values / step), -LEVELS, LEVELS) * step - values) ** 2))


def _doubling() -> onnx.ModelProto:
    """y = 2x, z = y + y."""
    helper = onnx.helper
    nodes = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Add", ["y", "y"], ["z"])]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N"]) for name in ("x", "z")]
    graph = helper.make_graph(nodes, "doubling", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_range_covers_values_that_are_equally_frequent() -> None:
    values = np.linspace(-3, 3, 100_000, dtype=np.float32)
    assert _range(values) == pytest.approx(3.0, rel=0.03)


def test_range_leaves_out_a_thin_tail() -> None:
    values = np.random.default_rng(0).laplace(size=1_000_000).astype(np.float32)
    assert 6 < _range(values) < 0.85 * float(np.abs(values).max())


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.7])
def test_no_other_range_is_clearly_better(sigma: float) -> None:
    values = np.random.default_rng(1).lognormal(sigma=sigma, size=50_000).astype(np.float32)
    best = min(_error(values, share * float(values.max())) for share in np.linspace(0.1, 1, 181))
    assert _error(values, _range(values)) <= 1.02 * best


def test_histogram_is_the_same_in_whatever_order_values_come() -> None:
    small, large = np.full(1000, 0.01, np.float32), np.linspace(0, 90, 1000, dtype=np.float32)
    one, other = Histogram(), Histogram()
    for first, second in ((one, (small, large)), (other, (large, small))):
        for values in second:
            first.add(values)
    assert (one.top, one.largest) == (other.top, other.largest) == (128.0, 90.0)
    assert one.counts.sum() == other.counts.sum() == 2000
    np.testing.assert_array_equal(one.counts, other.counts)


def test_values_that_are_all_zero_have_a_usable_range() -> None:
    assert _range(np.zeros((4, 4), np.float32)) == 1.0
    assert _range(np.zeros(0, np.float32)) == 1.0


def test_ranges_of_inner_tensors_over_all_calls() -> None:
    feeds = [{"x": np.linspace(-top, top, 70_000, dtype=np.float32)} for top in (1.0, 5.0)]
    ranges = activation_ranges(_doubling(), ["y", "x"], feeds)
    assert ranges == {"y": pytest.approx(10.0, rel=0.2), "x": pytest.approx(5.0, rel=0.2)}
    assert ranges["y"] == pytest.approx(2 * ranges["x"], rel=0.02)


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(CompileError, match="y holds values that aren't finite"):
        activation_ranges(_doubling(), ["y"], [{"x": np.array([np.inf], np.float32)}])


def test_graph_that_does_not_run_is_refused() -> None:
    with pytest.raises(CompileError, match="can't run the graph"):
        activation_ranges(_doubling(), ["nowhere"], [])
