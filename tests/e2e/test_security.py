"""A guarded server, as its users meet it: tokens made, files checked, photographs segmented by TLS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from certificates_support import Authority
from samgate.client import Client
from samgate.errors import InvalidArgument, PermissionDenied, Unauthenticated
from support import serving

ROOT = Authority()


def samgate(*arguments: object, token: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SAMGATE_TOKEN": token}
    command = [sys.executable, "-m", "samgate.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


@pytest.mark.usefixtures("installed")
def test_a_guarded_server_from_tokens_to_masks(tmp_path: Path, photo: bytes) -> None:
    certificate, key = ROOT.issue("server").write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    image, clients = tmp_path / "photo.png", tmp_path / "clients.yaml"
    image.write_bytes(photo)
    created = samgate("token", "create", "--name", "studio", "--clients", clients)
    assert created.returncode == 0, created.stderr
    token = created.stdout.strip()
    second = samgate("token", "create", "--name", "reader", "--clients", clients).stdout.strip()
    clients.write_text(clients.read_text() + "    rpcs: [ListVariants]\n")
    checked = samgate("token", "check", clients)
    assert "studio" in checked.stdout
    assert "reader" in checked.stdout
    assert token not in clients.read_text()
    flags = ("--tls-certificate", certificate, "--tls-key", key, "--auth-clients", clients, "--log-format", "json")
    with serving(*map(str, flags)) as server:
        found = tmp_path / "mask.json"
        ask = ("segment", image, "--point", "100,120", "--server", server.target, "-o", found)
        reach = ("--ca", tmp_path / "ca.pem")
        segmented = samgate(*ask, *reach, token=token)
        assert segmented.returncode == 0, segmented.stderr
        (mask,) = json.loads(found.read_text())["masks"]
        assert mask["area"] == pytest.approx(3.14159 * 60**2, rel=0.05)
        for refused, said in (
            (samgate(*ask, *reach), "this server wants to know who calls"),
            (samgate(*ask, *reach, token=token[:-2] + "xx"), "the token is none of this server's"),
            (samgate(*ask, *reach, token=second), "client 'reader' may not call Segment; it may call ListVariants"),
        ):
            assert refused.returncode == 1
            assert said in refused.stderr
        # The administrators' port knows neither TLS nor tokens, and is on loopback here.
        with grpc.insecure_channel(server.admin) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            for service in ("", "live", "samgate.v1.Segmentation"):
                answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="samgate.v1.Segmentation")
            described = next(reflection.ServerReflectionInfo(iter([asked]), timeout=10))
            assert described.file_descriptor_response.file_descriptor_proto
        credentials = grpc.ssl_channel_credentials(ROOT.pem)
        with Client(server.target, credentials=credentials, token=second) as client:
            assert client.variants()
            with pytest.raises(PermissionDenied):
                client.embed(photo)
        with Client(server.target, credentials=credentials) as client, pytest.raises(Unauthenticated):
            client.variants()
        log = server.end()
    calls = [json.loads(line) for line in log.splitlines() if '"event": "Segment"' in line]
    assert [(call["code"], call.get("client")) for call in calls][:1] == [("OK", "studio")]
    assert token not in log
    assert second not in log


def test_a_server_for_everybody_does_not_start_by_mistake() -> None:
    ended = samgate("serve", "--host", "0.0.0.0", "--port", "0")
    assert ended.returncode == 1
    assert "host: 0.0.0.0 can be reached from other machines, and nobody is asked who they are" in ended.stderr


@pytest.mark.parametrize("target", ["samgate.example:50051", "dns:///10.0.0.1:443", "10.0.0.1:50051"])
def test_a_token_is_not_sent_in_the_clear(target: str) -> None:
    with pytest.raises(InvalidArgument, match=r"token: is only sent to .* by TLS"):
        Client(target, token="samgate_x")
    Client(target, token="samgate_x", credentials=grpc.ssl_channel_credentials()).close()
    Client("127.0.0.1:50051", token="samgate_x").close()
