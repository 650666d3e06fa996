"""``samgate repository build``, and whether the backends can take the exported graphs as the configurations say."""

from __future__ import annotations

from pathlib import Path

import onnx
import openvino
import pytest

from samgate.cli.main import main
from samgate.compile.graphs import ensure_graphs
from samgate.repository.config import ModelConfig, Tensor
from samgate.repository.models import model_configs, served_graphs
from samgate.repository.profiles import PROFILES
from samgate.variants.mobilesam import SPEC

CHECKED_IN = Path(__file__).resolve().parents[2] / "model_repository"


def build(*arguments: object) -> int:
    return main(["repository", "build", *map(str, arguments)])


def test_what_is_checked_in_is_what_the_specs_say() -> None:
    assert build("--check", "--output", CHECKED_IN) == 0, "run: samgate repository build"


def test_check_lists_what_differs_is_missing_and_superfluous(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("--output", tmp_path) == 0
    assert build("--output", tmp_path, "--check") == 0
    (tmp_path / "tensorrt/mobilesam_encoder/config.pbtxt").write_text("max_batch_size: 1\n")
    (tmp_path / "python-cpu/mobilesam_decoder/1/model.py").unlink()
    (tmp_path / "openvino/mobilesam_old").mkdir()
    (tmp_path / "openvino/mobilesam_old/config.pbtxt").write_text("")
    (tmp_path / "openvino/mobilesam_encoder/1").mkdir()
    (tmp_path / "openvino/mobilesam_encoder/1/model.onnx").write_bytes(b"weights are nobody's difference")
    capsys.readouterr()
    assert build("--output", tmp_path, "--check") == 1
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"differs: {tmp_path}/tensorrt/mobilesam_encoder/config.pbtxt",
        f"missing: {tmp_path}/python-cpu/mobilesam_decoder/1/model.py",
        f"superfluous: {tmp_path}/openvino/mobilesam_old/config.pbtxt",
        "bring it up to date with: samgate repository build",
    ]
    assert build("--output", tmp_path, "--check", "--profile", "onnxruntime") == 0


def test_models_need_a_folder_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--models") == 1
    assert "--output" in capsys.readouterr().err


def test_tensorrt_plans_need_a_precision_and_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--models", "--profile", "tensorrt", "--output", tmp_path) == 1
    assert "--compute-capability" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_repository_with_models_is_complete(installed: None, tmp_path: Path) -> None:
    assert build("--models", "--profile", "openvino", "--output", tmp_path) == 0
    files = ensure_graphs(SPEC)
    for name in served_graphs(SPEC, PROFILES["openvino"]):
        placed = tmp_path / "openvino" / f"mobilesam_{name}" / "1" / "model.onnx"
        assert placed.read_bytes() == files[name].read_bytes()
        assert not placed.is_symlink()


def tensors(config: ModelConfig) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in (*config.input, *config.output)}


def test_openvino_s_backend_finds_the_dims_it_expects(installed: None) -> None:
    """By its own rule (CompareDimsSupported): a fixed size has to be told as it is, a dynamic one is −1."""
    files = ensure_graphs(SPEC)
    for name, config in model_configs(SPEC, PROFILES["openvino"]).items():
        model = openvino.Core().read_model(files[name])
        told = tensors(config)
        assert {port.any_name for port in (*model.inputs, *model.outputs)} == told.keys()
        for port in (*model.inputs, *model.outputs):
            dims = told[port.any_name].dims
            shape = list(port.partial_shape)
            assert len(shape) == len(dims)
            for size, dim in zip(shape, dims, strict=True):
                fits = size.get_length() == dim if size.is_static else dim == -1 and size.get_max_length() == -1
                assert fits, f"{name}: {port.any_name} is {port.partial_shape}, told {dims}"


def test_onnx_runtime_s_backend_finds_the_dims_it_expects(installed: None) -> None:
    files = ensure_graphs(SPEC)
    for name, config in model_configs(SPEC, PROFILES["onnxruntime"]).items():
        graph = onnx.load(files[name]).graph
        told = tensors(config)
        for value in (*graph.input, *graph.output):
            dims = [dimension.dim_value or -1 for dimension in value.type.tensor_type.shape.dim]
            if config.max_batch_size:
                assert dims.pop(0) == -1, f"{name}: the batch axis of {value.name} is fixed"
            assert tuple(dims) == told[value.name].dims, f"{name}: {value.name}"
