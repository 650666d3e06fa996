"""``samgate compile`` as it is called: what it makes, and what it answers to what can't be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from samgate.cli.main import main
from samgate.compile.tensorrt import gpu_capability, load_module


def test_a_plan_is_compiled_installed_and_described(
    installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "compiled"
    arguments = ["compile", "mobilesam-512", "--target", "tensorrt-rtx", "--compute-capability", "8.6"]
    assert main([*arguments, "--output", str(root), "--report", str(tmp_path / "page.md")]) == 0
    told = capsys.readouterr()
    folder = root / "mobilesam-512-tensorrt-rtx-fp16-sm86"
    assert f"installed in {folder}" in told.out
    assert "not run: no GPU" in told.out
    assert "compiling encoder for compute capability 8.6" in told.err
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["graphs"].items():
        assert (folder / f"{name}.plan").stat().st_size == entry["size"]
        assert f"{name} " in told.out
    assert "`masked_decoder`" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--target", "openvino"], "give --eval instances.json (in COCO's format), or --images DIR"),
        (["--target", "onnx", "--precision", "f32"], "hasn't passed the accuracy gate"),
        (["--target", "openvino", "--precision", "fp16"], "OpenVINO's CPU plugin has no fp16 arithmetic"),
        (
            ["--target", "tensorrt-rtx", "--precision", "int8", "--compute-capability", "8.9"],
            "calibrate: int8 is calibrated on images",
        ),
        (["--target", "tensorrt-rtx", "--precision", "int4"], "'int4' is no plan of mobilesam; plans: bf16"),
        (["--target", "tensorrt-rtx", "--compute-capability", "9.0"], "9.0 is none of 7.5, 8.0, 8.6, 8.9, 12.0"),
        (["--target", "onnx", "--compute-capability", "8.9"], "onnx has none"),
        (["--target", "onnx", "--report", "page.md"], "report: describes plans for GPUs"),
    ],
)
def test_what_cannot_be_is_answered_at_once(
    arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "mobilesam", *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("samgate: ")
    assert answer in told


@pytest.mark.skipif(gpu_capability() is not None, reason="there is a GPU to go by")
def test_without_a_gpu_the_capability_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "mobilesam", "--target", "tensorrt-rtx"]) == 1
    assert "there is no GPU here to go by: name one of 7.5, 8.0" in capsys.readouterr().err


@pytest.mark.skipif(bool(load_module("tensorrt") and gpu_capability()), reason="TensorRT can compile here")
def test_for_triton_the_way_through_its_container_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "mobilesam", "--target", "tensorrt"]) == 1
    told = capsys.readouterr().err
    assert "docker run --rm --gpus all" in told
    assert "samgate-triton-compile compile mobilesam --target tensorrt --precision fp16" in told
    assert "deploy/helm/samgate" in told


def test_a_folder_without_photographs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--target", "tensorrt-rtx", "--precision", "int8", "--calibrate", str(tmp_path)]
    assert main(["compile", "mobilesam", *arguments]) == 1
    assert f"{tmp_path} holds no .jpeg, .jpg, .png, .webp file" in capsys.readouterr().err
