"""OpenVINO's threads."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from samgate.engines.cpu import usable_cores
from samgate.engines.openvino import load_graph

SIDE = 1024


@pytest.fixture
def products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph that takes a while: powers of a matrix."""
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "home"))
    names = ["x", *(f"x{power}" for power in range(2, 16)), "y"]
    nodes = [helper.make_node("MatMul", [one, "x"], [next_one]) for one, next_one in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:])
    path = tmp_path / "products.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores to tell one from all")
def test_engines_with_some_of_the_cores_each_are_not_all_on_the_first(products: Path) -> None:
    graph = load_graph(products, "f32", threads=1)
    everywhere, x = os.sched_getaffinity(0), np.zeros((SIDE, SIDE), np.float32)
    call = threading.Thread(target=lambda: [graph({"x": x}) for _ in range(5)])
    call.start()
    seen = 0
    while call.is_alive():
        assert call.native_id is not None
        try:
            assert os.sched_getaffinity(call.native_id) == everywhere
        except ProcessLookupError:  # it has just ended
            break
        seen += 1
        call.join(0.002)
    assert seen > 10
