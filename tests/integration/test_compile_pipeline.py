"""The pipeline and its accuracy gate: what passes is installed with its figures, what fails leaves nothing. Mostly with
the smallest input, which takes a fraction of the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from samgate.compile.artifacts import Artifact, installed_artifact
from samgate.compile.gate import GateData
from samgate.compile.graphs import ensure_graphs
from samgate.compile.pipeline import Request, compile_variant
from samgate.compile.targets import TARGETS, TargetName
from samgate.engines.openvino import load_graph
from samgate.errors import CompileError, NotInstalled
from samgate.variants.mobilesam import SPEC as LARGE
from samgate.variants.mobilesam_smaller import SPEC_512 as SPEC
from samgate.variants.spec import Gate, VariantSpec
from samgate.weights.home import sha256_file

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def data(tmp_path: Path, photo: bytes) -> GateData:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "photo.png").write_bytes(photo)
    return GateData.from_paths(None, folder)


def compiled(
    spec: VariantSpec, target: TargetName, precision: str, data: GateData, root: Path, **more: Any
) -> Artifact:
    request = Request(spec, TARGETS[target], precision, data=data, root=root, **more)
    (artifact,) = compile_variant(request, lambda message: None)
    return artifact


def figures(gate: Mapping[str, Any] | None) -> dict[tuple[str, str], float]:
    assert gate is not None
    return {(one["graph"], one["prompt"]): one["mask_iou"] for one in gate["agreements"]}


def test_openvino_gets_f32_graphs_and_runs_them_in_bf16(installed: None, data: GateData, tmp_path: Path) -> None:
    artifact = compiled(LARGE, "openvino", "bf16", data, tmp_path)
    reference = ensure_graphs(LARGE)
    assert list(artifact.files) == list(SPEC.graphs)
    for name, path in artifact.files.items():
        assert sha256_file(path) == sha256_file(reference[name])
        assert artifact.manifest.graphs[name].f32_nodes is None
    judged = figures(artifact.manifest.gate)
    assert set(judged) == {(name, "point") for name in ("decoder", "masked_decoder", "upscale", "scores")}
    assert all(0.9 < iou < 1 for iou in judged.values())
    assert "passed on 1 images" in artifact.manifest.checked
    assert installed_artifact(LARGE, "openvino", "bf16", root=tmp_path).manifest == artifact.manifest


def test_what_fails_the_gate_is_not_installed(installed: None, data: GateData, tmp_path: Path) -> None:
    plan = replace(SPEC.precisions["bf16"], gate=Gate(1.0, 0.0, "nothing that rounds can pass"))
    strict = replace(SPEC, precisions={**SPEC.precisions, "bf16": plan})
    with pytest.raises(CompileError, match=r"bf16 isn't accurate enough for openvino; .*failed on 1 images"):
        compiled(strict, "openvino", "bf16", data, tmp_path / "compiled")
    assert list((tmp_path / "compiled").iterdir()) == []
    with pytest.raises(NotInstalled):
        installed_artifact(SPEC, "openvino", "bf16", root=tmp_path / "compiled")


def test_what_failed_leaves_what_was_there(installed: None, data: GateData, tmp_path: Path) -> None:
    root = tmp_path / "compiled"
    before = compiled(SPEC, "openvino", "f32", data, root)
    plan = replace(SPEC.precisions["f32"], gate=Gate(1.1, 0.0, "nothing can pass"))
    with pytest.raises(CompileError):
        compiled(replace(SPEC, precisions={"f32": plan}), "openvino", "f32", data, root)
    assert installed_artifact(SPEC, "openvino", "f32", root=root).manifest == before.manifest
    again = compiled(SPEC, "openvino", "f32", data, root)
    assert [path.name for path in root.iterdir() if path.is_dir()] == [again.folder.name]


def test_typed_onnx_passes_on_onnx_runtime(installed: None, data: GateData, tmp_path: Path) -> None:
    artifact = compiled(SPEC, "onnx", "fp16", data, tmp_path)
    assert all(0.97 < iou <= 1 for iou in figures(artifact.manifest.gate).values())
    assert artifact.manifest.library == "onnxruntime"
    weights = {tensor.data_type for tensor in onnx.load(artifact.files["decoder"]).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in weights


def test_typed_bf16_cannot_run_here_and_says_so(installed: None, data: GateData, tmp_path: Path) -> None:
    artifact = compiled(SPEC, "onnx", "bf16", data, tmp_path)
    assert artifact.manifest.gate is None
    assert artifact.manifest.checked == "not run: ONNX Runtime has no bf16 kernels for CPUs"


def test_int8_is_gated_for_openvino_and_compiled_for_tensorrt(
    installed: None, shared_data: Path, tmp_path: Path
) -> None:
    images = sorted((shared_data / "eval" / "images" / "coco_train2017").glob("*.jpg"))[:2]
    several = GateData(GateData.from_paths(shared_data / "eval" / "instances.json", None).images[:2])
    artifact = compiled(SPEC, "openvino", "int8", several, tmp_path, calibration=images)
    encoder = artifact.manifest.graphs["encoder"]
    assert encoder.int8_products > 50
    assert encoder.size < 0.6 * ensure_graphs(SPEC)["encoder"].stat().st_size
    run = load_graph(artifact.files["encoder"], "bf16", 2)
    size = SPEC.input_size
    (embedding,) = run({"image": np.zeros((1, size, size, 3), np.uint8), "valid": np.array([[size, size]], np.int32)})
    assert np.isfinite(embedding).all()

    request = Request(SPEC, TARGETS["tensorrt-rtx"], "int8", capabilities=["8.9"], calibration=images, root=tmp_path)
    (plan,) = compile_variant(request, lambda message: None)
    assert plan.manifest.graphs["encoder"].int8_products == encoder.int8_products
    assert plan.manifest.graphs["decoder"].int8_products == 0
    assert plan.files["encoder"].read_bytes()[:4] == b"vtrt"
