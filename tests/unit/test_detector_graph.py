"""Heads of both kinds inside of the one contract, on numbers whose answers are known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from detector_support import COUNT, SIDE, YOLOV8, YOLOX, means_network, network, run
from samgate.compile.detector_graph import wrapped
from samgate.compile.precision import typed
from samgate.domain import FloatArray
from samgate.errors import CompileError, NotFound
from samgate.variants.detectors import DETECTORS, ISLANDS, DetectorSpec, detector_graph, get_detector
from samgate.weights.detector_file import layout_of


def yolox_output() -> FloatArray:
    """Two classes; candidates 0, 64 and 83 are the first of the first grid, of the second, and the last of all."""
    output = np.zeros((1, COUNT, 7), np.float32)
    output[0, 0] = [0.5, 0.5, np.log(2), np.log(3), 0.5, 0.2, 0.8]
    output[0, 9] = [0, 0, 0, 0, 1, 0.25, 0.125]
    output[0, 64] = [0.25, 1, np.log(1), np.log(2), 0.25, 1, 0]
    output[0, 83] = [0, 0, np.log(0.5), np.log(0.25), 1, 0, 1]
    return output


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_yolox_s_head_is_decoded(opset: int) -> None:
    boxes, scores = run(network(yolox_output(), opset=opset), YOLOX)
    assert boxes.shape == (COUNT, 4)
    # Centre (4, 4), 16 × 24.
    np.testing.assert_allclose(boxes[0], [-4, -8, 12, 16], rtol=1e-6)
    # Second row and column of the first grid.
    np.testing.assert_allclose(boxes[9], [4, 4, 12, 12], rtol=1e-6)
    # Centre (4, 16), 16 × 32.
    np.testing.assert_allclose(boxes[64], [-4, 0, 12, 32], rtol=1e-6)
    # Centre (32, 32), 16 × 8.
    np.testing.assert_allclose(boxes[83], [24, 28, 40, 36], rtol=1e-6)
    np.testing.assert_allclose(scores[[0, 9, 64, 83]], [0.4, 0.25, 0.25, 1], rtol=1e-6)
    assert scores[1] == 0


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("opset", [11, 17, 20])
def test_yolov8_s_head_is_read_and_coefficients_are_no_classes(opset: int, masks: bool) -> None:
    output = np.zeros((1, 7 + 32 * masks, COUNT), np.float32)
    output[0, :7, 5] = [30, 20, 10, 8, 0.1, 0.7, 0.3]
    output[0, :7, 83] = [60.5, 60.5, 9, 9, 0.4, 0.2, 0.1]
    if masks:
        output[0, 7:] = 99
    model = network(output, opset=opset, prototypes=masks)
    layout = layout_of(model, YOLOV8, "small.onnx")
    assert (layout.classes, layout.masks, layout.side) == (3, masks, SIDE)
    boxes, scores = run(model, YOLOV8)
    np.testing.assert_array_equal(boxes[5], [25, 16, 35, 24])
    np.testing.assert_array_equal(boxes[83], [56, 56, 65, 65])
    np.testing.assert_array_equal(scores[[5, 83, 0]], np.array([0.7, 0.4, 0], np.float32))


def test_36_classes_without_prototypes_are_classes() -> None:
    layout = layout_of(network(np.zeros((1, 40, COUNT), np.float32)), YOLOV8, "small.onnx")
    assert (layout.classes, layout.masks) == (36, False)


@pytest.mark.parametrize("spec", [YOLOX, YOLOV8], ids=["yolox", "yolov8"])
def test_pixels_arrive_in_the_network_s_order_and_scale(spec: DetectorSpec) -> None:
    pixels = np.empty((1, SIDE, SIDE, 3), np.uint8)
    pixels[...] = (3, 102, 204)
    boxes, scores = run(means_network(spec), spec, pixels)
    centre, width = (boxes[0, :2] + boxes[0, 2:]) / 2, boxes[0, 2] - boxes[0, 0]
    # YOLOX has blue first, as it is, and in strides of 8.
    expected = [3 / 255, 102 / 255, 204 / 255] if spec is YOLOV8 else [204 * 8, 102 * 8, 8 * np.exp(3)]
    np.testing.assert_allclose([*centre, width], expected, rtol=2e-4)
    assert scores[0] == 1


def test_what_boxes_do_not_need_is_left_out_and_names_are_unique() -> None:
    model = network(np.zeros((1, 4 + 2 + 32, COUNT), np.float32), prototypes=True)
    layout = layout_of(model, YOLOV8, "small.onnx")
    made = wrapped(model, layout, YOLOV8.sized(SIDE))
    assert not any("masks" in name for node in made.graph.node for name in node.input)
    assert {tensor.name for tensor in made.graph.initializer} >= {"network/always", "network/nothing"}
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names)
    assert made.SerializeToString(deterministic=True) == wrapped(model, layout, YOLOV8.sized(SIDE)).SerializeToString(
        deterministic=True
    )


def test_constants_of_any_kind_become_weights() -> None:
    def constants(model: onnx.ModelProto) -> None:
        made = [
            onnx.helper.make_node("Constant", [], ["two"], value_float=2.0),
            onnx.helper.make_node(
                "Constant", [], ["three"], value=onnx.numpy_helper.from_array(np.array(3, np.float32))
            ),
            onnx.helper.make_node("Mul", ["always", "two"], ["twice"]),
            onnx.helper.make_node("Mul", ["twice", "three"], ["six"]),
        ]
        rest = [*made, *model.graph.node]
        rest[-1].input[0] = "six"
        del model.graph.node[:]
        model.graph.node.extend(rest)

    output = np.zeros((1, 5, COUNT), np.float32)
    output[0, :, 0] = [5, 4, 2, 1, 0.125]
    model = network(output, change=constants)
    boxes, scores = run(model, YOLOV8)
    np.testing.assert_array_equal(boxes[0], [24, 21, 36, 27])
    assert scores[0] == 0.75
    layout = layout_of(model, YOLOV8, "small.onnx")
    low, typing = typed(wrapped(model, layout, YOLOV8.sized(SIDE)), "fp16", ISLANDS)
    assert not any(node.op_type == "Constant" for node in low.graph.node)
    assert typing.f32_nodes["boxes"] > 5


def test_the_graph_keeps_its_contract() -> None:
    spec = YOLOX.sized(SIDE)
    model = network(yolox_output())
    made = wrapped(model, layout_of(model, YOLOX, "small.onnx"), spec)
    expected = detector_graph(spec)
    for values, tensors in ((made.graph.input, expected.inputs), (made.graph.output, expected.outputs)):
        told = [(value.name, tuple(one.dim_value for one in value.type.tensor_type.shape.dim)) for value in values]
        assert told == [(tensor.name, tensor.shape) for tensor in tensors]


def test_a_tensor_beyond_all_bounds_is_refused() -> None:
    def bomb(model: onnx.ModelProto) -> None:
        size = onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "size")
        model.graph.initializer.append(size)
        nodes = [
            onnx.helper.make_node("ConstantOfShape", ["size"], ["bomb"]),
            onnx.helper.make_node("ReduceMax", ["bomb"], ["largest"], axes=[0, 1], keepdims=0),
            onnx.helper.make_node("Add", ["always", "largest"], ["more"]),
            *model.graph.node,
        ]
        nodes[-1].input[0] = "more"
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    model = network(np.zeros((1, 5, COUNT), np.float32), change=bomb)
    with pytest.raises(CompileError, match=r"network/bomb has the shape \[1048576, 1048576\], more than 268,435,456"):
        wrapped(model, layout_of(model, YOLOV8, "small.onnx"), YOLOV8.sized(SIDE))


def test_specs_say_what_users_take_on() -> None:
    for name, spec in DETECTORS.items():
        assert get_detector(name) is spec
        assert spec.licence
        assert spec.licence_note
    assert DETECTORS["yolov8"].licence == "AGPL-3.0"
    assert not DETECTORS["yolov8"].sources
    assert [DETECTORS["yolov8"].sized(side).candidates for side in (416, 640, 1024)] == [3549, 8400, 21504]
    with pytest.raises(NotFound, match="known: yolov8, yolox-nano"):
        get_detector("rcnn")
