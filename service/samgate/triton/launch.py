"""What the server is started with: its options, command line and environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from samgate.triton.install import Installation

LOOPBACK = "127.0.0.1"
ANY = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to run it. A port of 0 is a free one, chosen once: it stays over restarts. Metrics are HTTP, too.

    ``shm_bytes`` is what each model's shared memory begins with, and ``shm_growth_bytes`` what it grows by; tensors
    pass between the server and its Python backend there. ``drain_s``: what calls under way have to finish.
    """

    grpc_address: str = LOOPBACK
    http_address: str = LOOPBACK
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    shm_bytes: int = 32 * 2**20
    shm_growth_bytes: int = 32 * 2**20
    ready_timeout_s: float = 300.0
    drain_s: float = 5.0


def choose_addresses(options: ServerOptions) -> tuple[str, str, str]:
    """Where gRPC, HTTP and metrics are served, as ``host:port``: free ports for those that are 0.

    Raises OSError when an address is none of this machine's.
    """
    wanted = (
        (options.grpc_address, options.grpc_port),
        (options.http_address, options.http_port),
        (options.http_address, options.metrics_port),
    )
    with ExitStack() as stack:
        # All are held until the last is found, so that no two are the same.
        grpc, http, metrics = (f"{host}:{port or _free_port(host, stack)}" for host, port in wanted)
    return grpc, http, metrics


def _free_port(host: str, stack: ExitStack) -> int:
    holder = stack.enter_context(socket.socket())
    holder.bind((host, 0))
    port: int = holder.getsockname()[1]
    return port


def command(
    installation: Installation, repository: Path, token: str, addresses: Mapping[str, str], options: ServerOptions
) -> list[str]:
    """The command line; ``token`` names the server and its shared memory, ``addresses`` are by protocol."""
    flags = {
        "id": token,
        "model-repository": repository,
        "model-control-mode": "explicit",
        "load-model": "*",
        "backend-directory": installation.backends,
        "cache-directory": installation.caches,
        "allow-gpu-metrics": "false",
        "exit-timeout-secs": f"{options.drain_s:.0f}",
    }
    for name, address in addresses.items():
        host, _, port = address.rpartition(":")
        flags |= {f"{name}-address": host, f"{name}-port": port}
    python = {
        "shm-region-prefix-name": f"/{token}-",
        "shm-default-byte-size": options.shm_bytes,
        "shm-growth-byte-size": options.shm_growth_bytes,
    }
    return [
        str(installation.binary),
        # What the configurations leave out is left out.
        "--disable-auto-complete-config",
        *(f"--{name}={value}" for name, value in flags.items()),
        *(f"--backend-config=python,{name}={value}" for name, value in python.items()),
    ]


def environment(installation: Installation) -> dict[str, str]:
    """The backend takes its packages from the first ``python3`` on ``PATH``, and loads that Python's library."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {key: value for key, value in os.environ.items() if key not in unwanted}
    paths = {"PATH": installation.stub / "bin", "LD_LIBRARY_PATH": installation.python.library}
    for name, path in paths.items():
        variables[name] = os.pathsep.join(filter(None, (str(path), variables.get(name))))
    return variables
