"""The README's examples do what it says, against a running gateway and a real photograph."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, re.DOTALL)
PROGRAMS = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line for language, code in BLOCKS if language == "bash" for line in code.splitlines() if "bin/samgate" in line
]
WRITES = {"-o", "--overlay", "--plot"}


@pytest.fixture
def folder(tmp_path: Path, shared_data: Path) -> Path:
    shutil.copy(shared_data / "media" / "truck.jpg", tmp_path / "photo.jpg")
    (tmp_path / "loadtest").symlink_to(Path(__file__).parents[2] / "loadtest")
    (tmp_path / "photos").mkdir()
    for name in ("cars", "dogs", "groceries"):
        shutil.copy(shared_data / "media" / f"{name}.jpg", tmp_path / "photos")
    return tmp_path


def test_the_readme_has_examples() -> None:
    assert len(PROGRAMS) >= 3
    assert len(COMMANDS) >= 3


ON_ONE_ENGINE = pytest.mark.parametrize("gateway", ["auto"], indirect=True)
"""Others answer alike, as tests of the API see to; these would only take twice as long."""


@ON_ONE_ENGINE
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_runs(program: str, folder: Path, gateway: str) -> None:
    code = program.replace("127.0.0.1:50051", gateway)
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


@ON_ONE_ENGINE
@pytest.mark.parametrize("command", [command for command in COMMANDS if "--server" in command])
def test_a_command_runs_on_a_gateway(command: str, folder: Path, gateway: str) -> None:
    check_command(command.replace("127.0.0.1:50051", gateway), folder)


@pytest.mark.parametrize("command", [command for command in COMMANDS if "--server" not in command])
def test_a_command_runs_by_itself(command: str, folder: Path, installed: None) -> None:
    check_command(command, folder)


def check_command(command: str, folder: Path) -> None:
    """It ends well and writes what it says."""
    _, *arguments = shlex.split(command)
    ended = subprocess.run(
        [sys.executable, "-m", "samgate.cli.main", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for flag, name in pairwise(arguments):
        if flag in WRITES:
            assert (folder / name).stat().st_size > 0
