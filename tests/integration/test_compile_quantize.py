"""MobileSAM's encoder in int8: what the graph looks like, and that runtimes take it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from samgate.compile.graphs import ensure_graphs
from samgate.compile.photographs import read_photograph
from samgate.compile.quantize import QuantizationReport, quantize_encoder
from samgate.engines import onnxruntime, openvino
from samgate.errors import InvalidArgument
from samgate.variants.mobilesam import SPEC

THREADS = 2


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, photo: bytes) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    path.write_bytes(photo)
    return path


@pytest.fixture(scope="module")
def quantized(
    tmp_path_factory: pytest.TempPathFactory, picture: Path, installed: None
) -> tuple[Path, QuantizationReport]:
    path = tmp_path_factory.mktemp("int8") / "encoder.onnx"
    return path, quantize_encoder(SPEC, ensure_graphs(SPEC)["encoder"], path, [picture])


@pytest.fixture(scope="module")
def feeds(picture: Path) -> dict[str, NDArray[Any]]:
    images, _ = read_photograph(picture, SPEC)
    return {"image": images.pixels, "valid": images.valid}


def _error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _values(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_products_are_in_int8_but_for_the_spec_s_exceptions(quantized: tuple[Path, QuantizationReport]) -> None:
    path, report = quantized
    model = onnx.load(path)
    made_by = {name: node for node in model.graph.node for name in node.output}
    values = _values(model)
    in_int8: list[onnx.NodeProto] = []
    in_float: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            sources = [made_by[name].op_type for name in node.input[:2] if name in made_by]
            (in_int8 if sources == ["DequantizeLinear"] * 2 else in_float).append(node)
            assert sources.count("DequantizeLinear") in (0, 2), node.name
    weighted = [node for node in in_float if node.input[1] in values]
    assert len(in_int8) == report.int8_products == 74
    assert report.float_products == {"depthwise": len(weighted)} == {"depthwise": 15}
    assert all(node.op_type == "Conv" and values[node.input[1]].shape[1] == 1 for node in weighted)
    attention = [node for node in in_float if node not in weighted]
    assert len(attention) == 20
    assert all("/attn/" in node.name for node in attention)


def test_int8_is_symmetric_and_weights_have_a_scale_a_channel(quantized: tuple[Path, QuantizationReport]) -> None:
    model = onnx.load(quantized[0])
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 20)]
    values, weights = _values(model), 0
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero_point, scale = values[node.input[2]], values[node.input[1]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        if node.input[0] in values:
            weight = values[node.input[0]]
            axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
            assert weight.dtype == np.int8
            assert abs(weight.astype(int)).max() == 127
            assert axis == (0 if weight.ndim == 4 else 1)
            assert scale.shape == (weight.shape[axis],)
            weights += 1
        else:
            assert scale.shape == ()
            assert scale > 0
    assert weights == 74


def test_weights_are_rounded_to_their_channel_s_scale(quantized: tuple[Path, QuantizationReport]) -> None:
    before, after = _values(onnx.load(ensure_graphs(SPEC)["encoder"])), onnx.load(quantized[0])
    values = _values(after)
    for node in after.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in values:
            continue
        weight, scale = before[node.input[0].removesuffix("_quantized")], values[node.input[1]]
        scale = scale[:, None, None, None] if weight.ndim == 4 else scale
        off = np.abs(values[node.input[0]] * scale - weight)
        assert (off <= 0.5001 * scale + 1e-7).all(), node.name


def test_the_same_images_make_the_same_file(
    quantized: tuple[Path, QuantizationReport], picture: Path, tmp_path: Path
) -> None:
    again = tmp_path / "encoder.onnx"
    quantize_encoder(SPEC, ensure_graphs(SPEC)["encoder"], again, [picture])
    assert again.read_bytes() == quantized[0].read_bytes()


def test_file_is_a_fraction_of_f32_s(quantized: tuple[Path, QuantizationReport]) -> None:
    path, report = quantized
    assert path.stat().st_size == report.int8_size
    assert report.int8_size < 0.45 * report.f32_size


def test_onnx_runtime_and_openvino_find_nearly_f32_s_embedding(
    quantized: tuple[Path, QuantizationReport], feeds: Mapping[str, NDArray[Any]]
) -> None:
    (expected,) = openvino.load_graph(ensure_graphs(SPEC)["encoder"], "f32", THREADS, 1)(feeds)
    for graph in (
        openvino.load_graph(quantized[0], "f32", THREADS, 1),
        openvino.load_graph(quantized[0], "bf16", THREADS, 1),
        onnxruntime.load_graph(quantized[0], "f32", THREADS),
    ):
        (found,) = graph(feeds)
        assert 0.001 < _error(found, expected) < 0.1


def test_openvino_runs_int8_kernels(quantized: tuple[Path, QuantizationReport]) -> None:
    core = ov.Core()
    model = core.compile_model(core.read_model(quantized[0]), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    precisions: dict[str, list[str]] = {}
    for node in model.get_runtime_model().get_ops():
        known = node.get_rt_info()
        if "layerType" in known:
            precisions.setdefault(known["layerType"].astype(str), []).append(known["runtimePrecision"].astype(str))
    products = [
        precision
        for layer, found in precisions.items()
        if layer.startswith(("FullyConnected", "Convolution"))
        for precision in found
    ]
    assert sum(precision in ("i8", "u8") for precision in products) == 74
    assert len(products) == 74 + 15


def test_without_images_nothing_is_calibrated(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="calibrate"):
        quantize_encoder(SPEC, tmp_path / "encoder.onnx", tmp_path / "out.onnx", [])


def test_file_that_is_no_image_is_named(installed: None, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.png"
    wrong.write_bytes(b"not a picture")
    with pytest.raises(InvalidArgument, match=r"notes\.png"):
        quantize_encoder(SPEC, ensure_graphs(SPEC)["encoder"], tmp_path / "out.onnx", [wrong])
    assert not (tmp_path / "out.onnx").exists()
