"""Detectors as small as can be: networks whose candidates are what a test wants them to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from samgate.compile.detector_graph import wrapped
from samgate.domain import FloatArray, UInt8Array
from samgate.variants.detectors import DETECTORS, DetectorSpec
from samgate.weights.detector_file import layout_of

SIDE = 64
COUNT = 64 + 16 + 4
"""Places of the three grids of an input of 64 pixels."""

YOLOX = DETECTORS["yolox-nano"].sized(0)
YOLOV8 = DETECTORS["yolov8"]


def network(
    output: FloatArray,
    *,
    side: int = SIDE,
    opset: int = 17,
    prototypes: bool = False,
    change: Callable[[onnx.ModelProto], object] = lambda model: None,
) -> onnx.ModelProto:
    """A network of one input ``[1, 3, side, side]`` that always puts out ``output`` and, if asked, prototypes; after
    ``change`` has had its way with it."""
    nodes = [
        # The output has to be calculated from the input, or runtimes would have no use for that.
        helper.make_node("Flatten", ["images"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "nothing"], ["zero"]),
        helper.make_node("Add", ["always", "zero"], ["output0"]),
    ]
    weights = {"nothing": np.zeros((3 * side * side, 1), np.float32), "always": output.astype(np.float32)}
    outputs = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, output.shape)]
    if prototypes:
        nodes.append(helper.make_node("Add", ["masks", "zero"], ["output1"]))
        weights["masks"] = np.zeros((1, 32, side // 4, side // 4), np.float32)
        outputs.append(helper.make_tensor_value_info("output1", TensorProto.FLOAT, weights["masks"].shape))
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, side, side))]
    graph = helper.make_graph(
        nodes, "small", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    change(model)
    return model


def means_network(spec: DetectorSpec) -> onnx.ModelProto:
    """A network that puts the means of its input's three channels where the first candidate's centre and width are;
    all other numbers are 0, but for a probability of 1. One class."""
    channels = 5 + spec.head.objectness
    rest = np.zeros((1, channels - 3, COUNT), np.float32)
    rest[:, 1:] = 1
    perm = [0, 1, 2] if spec.head.channels_first else [0, 2, 1]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Reshape", ["means", "column"], ["first"]),
        helper.make_node("Expand", ["first", "places"], ["spread"]),
        helper.make_node("Concat", ["spread", "rest"], ["all"], axis=1),
        helper.make_node("Transpose", ["all"], ["output0"], perm=perm),
    ]
    weights = {"column": np.array([1, 3, 1]), "places": np.array([1, 3, COUNT]), "rest": rest}
    shape = [(1, channels, COUNT)[axis] for axis in perm]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(model: onnx.ModelProto, path: Path) -> Path:
    """``model`` as a file."""
    path.write_bytes(model.SerializeToString())
    return path


def run(model: onnx.ModelProto, spec: DetectorSpec, pixels: UInt8Array | None = None) -> tuple[FloatArray, FloatArray]:
    """Boxes ``[N, 4]`` and scores ``[N]`` of the wrapped ``model`` on ONNX Runtime."""
    layout = layout_of(model, spec, "small.onnx")
    made = wrapped(model, layout, spec.sized(layout.side))
    session = onnxruntime.InferenceSession(made.SerializeToString())
    image = np.zeros((1, layout.side, layout.side, 3), np.uint8) if pixels is None else pixels
    found: list[NDArray[Any]] = session.run(None, {"image": image})
    return found[0][0], found[1][0]
