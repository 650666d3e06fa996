"""Build step: gRPC stubs from ``protos/`` into ``samgate/api/v1``, with their type stubs.

Run by setuptools before it collects the package (``tool.setuptools.cmdclass``), for wheels and editable installs
alike. The output is never checked in and never edited.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parents[2]
PROTO_FOLDER = ROOT / "protos" / "samgate" / "v1"
SERVICE = ROOT / "service"


def generate() -> None:
    """Write the stubs. protoc's path mapping puts ``samgate/v1`` under ``samgate/api/v1`` for Python's imports."""
    from grpc_tools import protoc

    well_known = files("grpc_tools") / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-Isamgate/api/v1={PROTO_FOLDER}",
            f"-I{well_known}",
            f"--python_out={SERVICE}",
            f"--grpc_python_out={SERVICE}",
            f"--mypy_out=quiet:{SERVICE}",
            f"--mypy_grpc_out=quiet:{SERVICE}",
            *(f"samgate/api/v1/{proto.name}" for proto in sorted(PROTO_FOLDER.glob("*.proto"))),
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")


class BuildPy(build_py):  # type: ignore[misc]
    """setuptools' ``build_py`` with the stubs generated first."""

    def run(self) -> None:
        generate()
        super().run()
