"""Compiling for Triton elsewhere: that what is told, what is in deploy/ and the command line agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from samgate.cli.main import build_parser
from samgate.compile.container import IMAGE, JOB, TRITON_IMAGE, commands
from samgate.compile.targets import TARGETS
from samgate.compile.tensorrt import gpu_capability, load_module
from samgate.compile.toolchain import find_toolchain
from samgate.errors import CompileError
from samgate.variants.mobilesam import SPEC

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(bool(load_module("tensorrt") and gpu_capability()), reason="TensorRT can compile here")
def test_without_tensorrt_or_gpu_the_commands_for_the_container_are_told() -> None:
    with pytest.raises(CompileError) as raised:
        find_toolchain(SPEC, TARGETS["tensorrt"], "int8", [])
    assert commands(SPEC, "int8") in str(raised.value)
    assert JOB in str(raised.value)


def job() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / JOB).read_text())
    return content


def containers() -> list[dict[str, Any]]:
    pod = job()["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def test_the_container_is_built_from_the_servers_image() -> None:
    dockerfile = (ROOT / "deploy" / "tensorrt" / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)$", dockerfile, re.MULTILINE) == [TRITON_IMAGE]
    assert {container["image"] for container in containers()} == {f"{IMAGE}:latest"}


def test_the_command_line_takes_what_container_and_job_give_it() -> None:
    parser = build_parser()
    lines = [line.split(f" {IMAGE} ")[1].split() for line in commands(SPEC, "int8").splitlines()[1:]]
    for arguments in (*lines, *(container["args"] for container in containers())):
        parser.parse_args(arguments)
    assert [line[0] for line in lines] == ["pull", "compile"]
    assert [container["args"][0] for container in containers()] == ["pull", "compile", "repository"]


def test_the_job_is_restricted_and_compiles_on_a_gpu() -> None:
    pod = job()["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    gpus = {one["name"]: one["resources"]["limits"].get("nvidia.com/gpu") for one in containers()}
    assert gpus == {"pull": None, "compile": 1, "place": None}
    claimed = {volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
    assert claimed == {"home", "models"}
