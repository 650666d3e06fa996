"""Compiling for Triton elsewhere: that what is told, what is in deploy/ and the command line agree."""

from __future__ import annotations

import pytest

from dockerfile_support import read
from helm_support import ROOT, containers, of_kind, rendered
from samgate.cli.main import build_parser
from samgate.compile.container import CHART, DOCKERFILE, IMAGE, TRITON_IMAGE, commands
from samgate.compile.targets import TARGETS
from samgate.compile.tensorrt import gpu_capability, load_module
from samgate.compile.toolchain import find_toolchain
from samgate.errors import CompileError
from samgate.variants.mobilesam import SPEC


@pytest.mark.skipif(bool(load_module("tensorrt") and gpu_capability()), reason="TensorRT can compile here")
def test_without_tensorrt_or_gpu_the_commands_for_the_container_are_told() -> None:
    with pytest.raises(CompileError) as raised:
        find_toolchain(SPEC, TARGETS["tensorrt"], "int8", [])
    assert commands(SPEC, "int8") in str(raised.value)
    assert CHART in str(raised.value)
    assert (ROOT / CHART / "Chart.yaml").is_file()


def test_the_container_is_built_from_the_servers_image() -> None:
    build, *_ = commands(SPEC, "fp16").splitlines()
    assert build == f"docker build --file {DOCKERFILE} --target compile --tag {IMAGE} ."
    assert read(ROOT / DOCKERFILE)[1]["compile"].base == TRITON_IMAGE


def test_the_command_line_takes_what_is_told() -> None:
    parser = build_parser()
    lines = [line.split(f" {IMAGE} ")[1].split() for line in commands(SPEC, "int8").splitlines()[1:]]
    for arguments in lines:
        parser.parse_args(arguments)
    assert [line[0] for line in lines] == ["pull", "compile"]


def test_the_job_compiles_on_a_gpu_in_that_image() -> None:
    pod = of_kind(rendered(example="gpu"), "Job")["spec"]["template"]["spec"]
    steps = {one["name"]: one for one in containers(pod)}
    assert list(steps) == ["export", "compile", "publish"]
    assert steps["compile"]["image"].partition(":")[0] == IMAGE
    gpus = {name: step["resources"]["limits"].get("nvidia.com/gpu") for name, step in steps.items()}
    assert gpus == {"export": None, "compile": 1, "publish": None}
