"""Typing MobileSAM's own graphs: that they stay what they are in fp16, and what of them stays in f32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from samgate.compile.graphs import GraphFiles, ensure_graphs
from samgate.compile.precision import LowType, Typing, typed
from samgate.imaging.decode import decode
from samgate.imaging.preprocess import encoder_input
from samgate.variants.graphs import GraphName, graph_specs
from samgate.variants.mobilesam import SPEC
from samgate.variants.spec import MASK_GRAPHS

CALCULATED_IN_F32 = {"LayerNormalization", "Softmax", "Exp", "TopK", "Sin", "Cos"}
ATTENTIVE = {"encoder", "decoder", "masked_decoder", "attend", "scores"}
"""Graphs with a transformer of their own."""
EMBEDDING_ERROR = 0.003
"""Of the embedding in fp16, root mean square relative to the embedding's: 0.0014 and 0.0015 were measured."""
MASK_IOU = 0.98
"""Mean over masks; 0.997 to 0.999 were measured."""

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def graphs(installed: None) -> GraphFiles:
    return ensure_graphs(SPEC)


@pytest.fixture(scope="module")
def in_fp16(graphs: GraphFiles, tmp_path_factory: pytest.TempPathFactory) -> dict[GraphName, Path]:
    folder = tmp_path_factory.mktemp("fp16")
    for name in ("encoder", "decoder"):
        onnx.save(typed(onnx.load(graphs[name]), "fp16", SPEC.islands)[0], folder / f"{name}.onnx")
    return {"encoder": folder / "encoder.onnx", "decoder": folder / "decoder.onnx"}


def run(path: Path, inputs: Arrays) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers: list[NDArray[np.float32]] = session.run(None, inputs)
    return answers


def prompts(embedding: NDArray[np.float32], height: int, width: int) -> Arrays:
    """A grid of 4 × 4 points on an image of that size, in encoder-input pixels."""
    y, x = np.mgrid[0.1:0.9:4j, 0.1:0.9:4j]
    points = np.stack([x.ravel() * width, y.ravel() * height], -1).astype(np.float32)[None, :, None]
    labels = np.tile(np.array([1, -1], np.int32), (1, 16, 1))
    coords = np.concatenate([points, np.zeros_like(points)], axis=2)
    return {"image_embedding": embedding, "point_coords": coords, "point_labels": labels}


def test_fp16_finds_the_masks_of_f32(graphs: GraphFiles, in_fp16: dict[GraphName, Path], photo: bytes) -> None:
    pixels, frame = encoder_input(decode(photo, 10**7, "photo"), SPEC)
    image: Arrays = {"image": pixels[None], "valid": np.array([frame.resized], np.int32)}
    expected, embedding = (run(files["encoder"], image)[0] for files in (graphs, in_fp16))
    error = np.sqrt(((embedding - expected) ** 2).mean() / (expected**2).mean())
    assert 0 < error < EMBEDDING_ERROR

    masks, ious = run(graphs["decoder"], prompts(expected, *frame.resized))
    low_masks, low_ious = run(in_fp16["decoder"], prompts(embedding, *frame.resized))
    both = np.logical_and(masks > 0, low_masks > 0).sum((-1, -2))
    either = np.logical_or(masks > 0, low_masks > 0).sum((-1, -2))
    assert (both / np.maximum(either, 1))[either > 0].mean() > MASK_IOU
    np.testing.assert_allclose(low_ious, ious, atol=0.02)


@pytest.mark.parametrize("low", ["fp16", "bf16"])
@pytest.mark.parametrize("name", MASK_GRAPHS)
def test_what_overflows_or_rounds_is_in_f32_and_the_rest_is_not(
    graphs: GraphFiles, name: GraphName, low: LowType
) -> None:
    model = onnx.load(graphs[name])
    result, typing = typed(model, low, SPEC.islands)
    graph = onnx.shape_inference.infer_shapes(result, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    operators = {node.op_type for node in graph.node}
    for node in graph.node:
        floats = {kinds[tensor] for tensor in (*node.input, *node.output) if tensor} - {TensorProto.INT64}
        if node.op_type in CALCULATED_IN_F32:
            assert floats <= {TensorProto.FLOAT}, node.name
        if node.op_type in ("MatMul", "Conv", "Gelu", "Relu"):
            assert floats == {TensorProto.FLOAT16 if low == "fp16" else TensorProto.BFLOAT16}, node.name
    assert operators >= {"MatMul", *({"LayerNormalization", "Softmax"} if name in ATTENTIVE else ())}
    assert counted(typing, "normalisation") == sum(node.op_type == "LayerNormalization" for node in model.graph.node)
    assert counted(typing, "softmax") == sum(node.op_type in ("Softmax", "Exp") for node in model.graph.node)
    assert (counted(typing, "pixels") >= 4) == (name == "encoder")
    assert (counted(typing, "positions") >= 4) == (name in ATTENTIVE and name != "encoder")
    assert (counted(typing, "variance") >= 3) == (name in ("terms", "attend"))
    assert typing.f32_total < 0.15 * typing.nodes
    spec = graph_specs(SPEC)[name]
    assert [value.name for value in graph.output] == [tensor.name for tensor in spec.outputs]
    assert [kinds[tensor.name] for tensor in spec.outputs] == [
        getattr(TensorProto, {"float32": "FLOAT", "int32": "INT32"}[tensor.dtype]) for tensor in spec.outputs
    ]


def counted(typing: Typing, island: str) -> int:
    return typing.f32_nodes.get(island, 0)
