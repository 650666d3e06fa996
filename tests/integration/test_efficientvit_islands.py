"""Queries that see nothing make 0 / 0 of EfficientViT's attention in fp16, and 0 with its island.

Overflow isn't shown here: ONNX Runtime has few fp16 kernels on CPUs, and calculates the other nodes in f32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from parity.cases import image, valid
from parity.recording import golden_path, read, shapes_in
from parity.weights import draw_state
from samgate.compile.export import export_graph, load_network
from samgate.compile.precision import typed
from samgate.domain import FloatArray
from samgate.variants import get_variant

SPEC = get_variant("efficientvit-sam-l0").reduced()
QKV = "image_encoder.backbone.stages.4.op_list.1.context_module.main.qkv.conv.weight"
HEAD = 32


def run(model: onnx.ModelProto) -> FloatArray:
    session = ort.InferenceSession(model.SerializeToString())
    inputs = {"image": image(SPEC), "valid": np.array([valid(SPEC)], np.int32)}
    (embedding,) = session.run(None, inputs)
    return np.asarray(embedding, dtype=np.float32)


def test_linear_attention_needs_its_island(tmp_path: Path) -> None:
    state = draw_state(shapes_in(read(golden_path(SPEC, small=True))))
    state[QKV].reshape(-1, 3, HEAD, *state[QKV].shape[1:])[:, 0] = 0
    path = tmp_path / "encoder.onnx"
    export_graph(SPEC, load_network(SPEC, state), "encoder", path)
    model = onnx.load(path)
    expected = run(model)
    assert np.isfinite(expected).all()
    kept, typing = typed(model, "fp16", SPEC.islands)
    # Two ReLUs, three products, a sum, the eps and a division.
    assert typing.f32_nodes["linear attention"] == 8 * SPEC.architecture["depths"][-1]
    # fp16's rounding comes to 7e-4.
    assert np.linalg.norm(run(kept) - expected) <= 5e-3 * np.linalg.norm(expected)
    low, _ = typed(model, "fp16", [island for island in SPEC.islands if island.name != "linear attention"])
    assert np.isnan(run(low)).all()
