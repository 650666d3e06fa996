"""Where the server's wheel runs, checked before anything is fetched."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from samgate.triton.errors import TritonError

PYTHONS = ((3, 11), (3, 12))
"""That the wheel has a Python backend for and numpy 1 has wheels for."""
_GLIBC = (2, 35)
_PROBE = """\
import json, os, sys, sysconfig
names = sysconfig.get_config_vars("LIBDIR", "INSTSONAME")
print(json.dumps([list(sys.version_info[:2]), *[name or "" for name in names]]))"""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter for the Python backend: its version, and the folder of its shared library."""

    path: Path
    version: tuple[int, int]
    library: Path

    @property
    def tag(self) -> str:
        """As in ``3.11``."""
        return ".".join(map(str, self.version))


def check_platform(system: str, machine: str, libc: tuple[str, str]) -> None:
    """Raises TritonError unless the wheel is for ``system`` and ``machine`` with this ``libc`` (name, version)."""
    where = "the Triton server in the nvidia-pytriton wheel runs on"
    instead = "run Triton elsewhere and name it with: samgate serve --engine triton --triton-endpoints HOST:PORT"
    if (system, machine.lower()) not in (("Linux", "x86_64"), ("Linux", "amd64")):
        raise TritonError(f"{where} Linux on x86-64, not on {system} on {machine}; {instead}")
    name, version = libc
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if name != "glibc" or numbers < _GLIBC:
        wanted = ".".join(map(str, _GLIBC))
        raise TritonError(f"{where} glibc {wanted} or newer, this is {name or 'another libc'} {version}; {instead}")


def find_python() -> Python:
    """The first suitable interpreter: the one that runs this, else one of :data:`PYTHONS` on ``PATH``.

    Raises TritonError that says what each of them lacks.
    """
    check_platform(platform.system(), platform.machine(), platform.libc_ver())
    problems = []
    for path in _candidates():
        found = probe(path)
        if isinstance(found, Python):
            return found
        problems.append(found)
    wanted = " or ".join(f"Python {major}.{minor}" for major, minor in PYTHONS)
    raise TritonError(f"Triton's Python backend needs {wanted} with its shared library: {'; '.join(problems)}")


def probe(path: Path) -> Python | str:
    """What is at ``path``, or what is wrong with it."""
    try:
        answer = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path} can't be run ({error})"
    (major, minor), folder, name = json.loads(answer.stdout)
    if (major, minor) not in PYTHONS:
        return f"{path} is Python {major}.{minor}"
    library = Path(folder, name)
    if ".so." not in name or not library.is_file():
        return f"{path} has no shared library (try: apt-get install libpython{major}.{minor})"
    return Python(path, (major, minor), library.parent)


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    for major, minor in PYTHONS:
        found = shutil.which(f"python{major}.{minor}")
        if found is not None:
            yield Path(found)
