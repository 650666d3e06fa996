"""The Dockerfiles: linted, pinned, not run as root, and in agreement with chart, clients and command line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

from dockerfile_support import DOCKER, DOCKERFILES, Stage, read
from helm_support import ROOT, default_values
from samgate.cli.main import build_parser
from samgate.compile.container import TRITON_IMAGE

SHIPPED = [("gateway", "gateway"), ("gateway", "compile"), ("triton", "serve"), ("triton", "compile")]
_PINNED = re.compile(r"\S+/\S+:\d+\.\d+-\S+|python:\d+\.\d+\.\d+-\S+")


def stage_of(file: str, name: str) -> Stage:
    return read(DOCKER / f"{file}.Dockerfile")[1][name]


def ancestors(file: str, name: str) -> list[Stage]:
    """The stage and what it is made from, nearest first."""
    stages = read(DOCKER / f"{file}.Dockerfile")[1]
    found = [stages[name]]
    while found[-1].base in stages:
        found.append(stages[found[-1].base])
    return found


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    binary = Path(sys.executable).with_name("hadolint")
    return subprocess.run([binary, "-"], input=text, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    done = hadolint(path.read_text())
    assert done.returncode == 0, done.stdout


def test_hadolint_notices_what_is_wrong() -> None:
    done = hadolint("FROM debian\nRUN cd /tmp && sudo true\n")
    assert done.returncode == 1
    assert {"DL3006", "DL3004"} <= set(re.findall(r"DL\d+", done.stdout))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_from_elsewhere_is_pinned(path: Path) -> None:
    _, stages = read(path)
    for stage in stages.values():
        if stage.base not in stages and stage.base != "scratch":
            assert _PINNED.fullmatch(stage.base), stage.base
        assert not stage.of("ADD")
        for copy in stage.of("COPY"):
            assert copy.flag("from") in (None, *stages)
        for run in stage.of("RUN"):
            for package in re.findall(r"pip[^&;]* install ([^&;]+)", run.text):
                constrained = "PIP_CONSTRAINT" in environment(path.stem, stage.name) or "--constraint" in package
                assert constrained, package


def environment(file: str, name: str) -> dict[str, str]:
    merged: dict[str, str] = {}
    for stage in reversed(ancestors(file.removesuffix(".Dockerfile"), name)):
        merged |= stage.environment
    return merged


@pytest.mark.parametrize(("file", "name"), SHIPPED)
def test_images_run_as_the_user_of_the_pods(file: str, name: str) -> None:
    assert stage_of(file, name).user == "1000:1000"
    assert stage_of(file, name).of("ENTRYPOINT")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_only_what_is_needed_is_sent_to_the_builder(path: Path) -> None:
    ignored = path.with_name(f"{path.name}.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    admitted = {line[1:] for line in ignored if line.startswith("!")}
    assert {"service", "protos", "pyproject.toml", "README.md", "LICENSE", "deploy/constraints.txt"} == admitted
    assert all((ROOT / path).exists() for path in admitted)


def test_the_gateway_has_no_torch_and_no_builder() -> None:
    made_from = {stage.name for stage in ancestors("gateway", "gateway")}
    assert made_from == {"gateway", "base"}
    copied = {copy.text.split()[0] for copy in stage_of("gateway", "gateway").of("COPY")}
    assert copied == {"/opt/samgate", "/build/sbom.cdx.json", "/var/lib/samgate"}
    venv = " ".join(run.text for run in stage_of("gateway", "venv").of("RUN"))
    assert "torch" not in venv
    assert "compile" not in venv


def test_torch_is_the_one_that_exports_were_checked_with() -> None:
    (run,) = stage_of("gateway", "exporter").of("RUN")
    (pinned,) = re.findall(r"^torch==\S+$", (ROOT / "deploy" / "constraints.txt").read_text(), re.MULTILINE)
    assert f"install {pinned} " in run.text


def test_one_triton_serves_and_compiles() -> None:
    assert {stage.base for stage in read(DOCKER / "triton.Dockerfile")[1].values()} == {TRITON_IMAGE}
    image = default_values()["images"]["triton"]
    assert f"{image['repository']}:{image['tag']}" == TRITON_IMAGE


def test_images_bake_what_the_chart_serves_by_default() -> None:
    (models,) = stage_of("gateway", "models").of("ARG")
    assert models.text == f"MODELS={','.join(default_values()['variants'])}"


@pytest.mark.parametrize(("file", "name"), [("gateway", "models"), ("gateway", "gateway"), ("triton", "compile")])
def test_the_command_line_takes_what_images_give_it(file: str, name: str) -> None:
    parser = build_parser()
    stage = stage_of(file, name)
    for run in stage.of("RUN"):
        for call in re.findall(r"samgate (pull|repository)([^;]*);", run.text):
            parser.parse_args([call[0], *call[1].replace('"', "").split()])
    for command in stage.of("CMD"):
        parser.parse_args(json.loads(command.text))


def test_a_bill_of_materials_has_what_is_installed(tmp_path: Path) -> None:
    """On an environment with the records of two packages: of all that tests need it takes half a minute."""
    venv.create(tmp_path / "venv")
    (packages,) = tmp_path.glob("venv/lib/python*/site-packages")
    versions = {name: metadata.version(name) for name in ("rich", "grpcio")}
    for name, version in versions.items():
        record = Path(str(metadata.distribution(name).locate_file(f"{name}-{version}.dist-info")))
        shutil.copytree(record, packages / record.name)
    (run,) = stage_of("gateway", "sbom").of("RUN")
    command = run.text.rpartition("&& ")[2].split()
    assert command[0] == "/opt/sbom/bin/cyclonedx-py"
    written = tmp_path / "sbom.json"
    command[0] = str(Path(sys.executable).with_name("cyclonedx-py"))
    command[command.index("/build/sbom.cdx.json")] = str(written)
    command[command.index("/opt/samgate")] = str(tmp_path / "venv")
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    bill = json.loads(written.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert {one["name"]: one["version"] for one in bill["components"]} == versions
