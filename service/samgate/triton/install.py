"""The server and the environment of its Python backend, fetched once into samgate's home.

The server comes in the wheel of ``nvidia-pytriton``, from whichever package index pip is configured for. Its Python
backend runs models in an interpreter of its own with numpy 1 (with numpy 2 it answers with empty tensors, and says
nothing) and the very OpenVINO that samgate has, so that both compute the same bits.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from samgate.triton.errors import TritonError
from samgate.triton.platforms import Python, find_python
from samgate.weights.home import file_lock, samgate_home

SERVER = "nvidia-pytriton==0.7.0"
STUB_NUMPY = "numpy==1.26.4"
_LOCK_TIMEOUT_S = 1800.0
_PIP_TIMEOUT_S = 1500.0
_GIST_LINES = 5


@dataclass(frozen=True, slots=True)
class Installation:
    """Where things are: ``server`` is the wheel's ``tritonserver`` folder, ``stub`` the backend's environment."""

    server: Path
    stub: Path
    python: Python

    @property
    def binary(self) -> Path:
        """The program."""
        return self.server / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """Of which there is one, Python's."""
        return self.server / "backends"

    @property
    def caches(self) -> Path:
        """Response caches."""
        return self.server / "caches"


def triton_home() -> Path:
    """The folder of everything here. Raises TritonError when it can't be made."""
    path = samgate_home() / "triton"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TritonError(
            f"{path} can't be made ({error.strerror}): set SAMGATE_HOME to a folder that can be written"
        ) from error
    return path


def requirements() -> tuple[str, ...]:
    """What the environment of the Python backend is made of."""
    return (STUB_NUMPY, f"openvino=={importlib.metadata.version('openvino')}")


def find_installation() -> Installation | None:
    """The server, if it is installed for this samgate. Raises TritonError where it can't run."""
    found = _installation(find_python())
    return found if found.binary.exists() else None


def ensure_installed() -> Installation:
    """The server, fetched now if it isn't there. Safe with several processes: one fetches, the others wait.

    Raises:
        TritonError: it can't run here, or pip can't get it; the message ends with pip's own words.
    """
    python = find_python()
    installation = _installation(python)
    folder = _folder(python)
    with file_lock(folder.with_name(folder.name + ".lock"), _LOCK_TIMEOUT_S):
        if not installation.binary.exists():
            _install(python, folder)
    return installation


def _folder(python: Python) -> Path:
    parts = [requirement.replace("==", "-") for requirement in (SERVER, *requirements())]
    return triton_home() / "_".join((*parts, f"python-{python.tag}"))


def _installation(python: Python) -> Installation:
    folder = _folder(python)
    return Installation(folder / "server" / "pytriton" / "tritonserver", folder / "stub", python)


def _install(python: Python, folder: Path) -> None:
    for leftover in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    interpreter = scratch / "stub" / "bin" / "python3"
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--only-binary=:all:"]
    steps = {
        "creating the environment of Triton's models": [str(python.path), "-m", "venv", str(scratch / "stub")],
        f"fetching {' and '.join(requirements())} for it": [*pip, *requirements()],
        f"fetching {SERVER} (55 MB)": [*pip, "--no-deps", "--target", str(scratch / "server"), SERVER],
    }
    console = Console(stderr=True)
    try:
        for number, (title, command) in enumerate(steps.items(), 1):
            with console.status(f"{title} ({number} of {len(steps)}) …"):
                _run(title, command)
        _link_stub(scratch / "server" / "pytriton" / "tritonserver", python)
        os.replace(scratch, folder)
    except OSError as error:
        raise TritonError(f"{folder} can't be written: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    console.print(f"Triton is installed in {folder}", markup=False, soft_wrap=True)


def _link_stub(server: Path, python: Python) -> None:
    name = "triton_python_backend_stub"
    if not (server / "python_backend_stubs" / python.tag / name).is_file():
        raise TritonError(f"{SERVER} has no Python backend for Python {python.tag}")
    (server / "backends" / "python" / name).symlink_to(
        Path("..", "..", "python_backend_stubs", python.tag, name),
    )


def _run(title: str, command: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise TritonError(f"{title} took more than {_PIP_TIMEOUT_S:g} s") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines()
        said = [line for line in lines if "WARNING" not in line]
        raise TritonError(f"{title} failed: {' '.join(said[-_GIST_LINES:])}") from error
