"""``samgate serve`` as a process: the ready line, the probes, the metrics, and the drain under load."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request

import grpc
import pytest

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1.segmentation_pb2_grpc import SegmentationStub
from support import SERVE, serving


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


@pytest.mark.usefixtures("installed")
def test_probes_metrics_and_logs_tell_what_happened(photo: bytes) -> None:
    with serving("--log-format", "json") as server:
        with grpc.insecure_channel(server.target) as channel:
            request = pb.SegmentRequest(
                image=pb.Image(encoded=photo), prompts=[pb.Prompt(points=[pb.Point(x=100, y=120)])]
            )
            SegmentationStub(channel).Segment(request, timeout=60)
            with pytest.raises(grpc.RpcError):
                SegmentationStub(channel).Segment(pb.SegmentRequest(), timeout=60)
        assert get(f"{server.http}/healthz")[0] == get(f"{server.http}/readyz")[0] == 200
        assert get(f"{server.http}/nothing")[0] == 404
        metrics = get(f"{server.http}/metrics")[1]
        assert 'samgate_requests_total{code="OK",rpc="Segment"} 1.0' in metrics
        assert 'samgate_requests_total{code="INVALID_ARGUMENT",rpc="Segment"} 1.0' in metrics
        assert 'samgate_stage_seconds_count{stage="encode",variant="mobilesam"} 1.0' in metrics
        assert "samgate_embedding_cache_entries 1.0" in metrics
        errors = server.end()
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    good, bad = (line for line in lines if line["event"] == "Segment")
    assert (good["code"], good["variant"], good["size"], good["cached"]) == ("OK", "mobilesam", "320x240", False)
    assert (bad["code"], bad["error"]) == ("INVALID_ARGUMENT", "image: is empty: set encoded, raw or handle")


@pytest.mark.usefixtures("installed")
def test_sigterm_under_load_loses_no_accepted_request(photo: bytes) -> None:
    """Every call either succeeds or is refused with UNAVAILABLE, which clients retry elsewhere."""
    outcomes: list[str] = []
    stop = threading.Event()

    def keep_asking(number: int) -> None:
        # Another image each time, so that every request has to be encoded.
        with grpc.insecure_channel(server.target) as channel:
            stub = SegmentationStub(channel)
            for turn in range(1000):
                pixels = bytes([number, turn % 256, turn // 256]) * (32 * 32)
                image = pb.Image(raw=pb.RawImage(width=32, height=32, rgb=pixels))
                try:
                    stub.Segment(
                        pb.SegmentRequest(image=image, prompts=[pb.Prompt(points=[pb.Point(x=9, y=9)])]), timeout=60
                    )
                    outcomes.append("OK")
                except grpc.RpcError as error:
                    outcomes.append(error.code().name)
                    if stop.is_set():
                        return

    with serving() as server:
        clients = [threading.Thread(target=keep_asking, args=(number,)) for number in range(6)]
        for client in clients:
            client.start()
        time.sleep(3)
        answered_before = len(outcomes)
        stop.set()
        server.end()
        for client in clients:
            client.join(timeout=60)
    assert answered_before > 0
    assert set(outcomes) == {"OK", "UNAVAILABLE"}
    # Those that were under way when the signal came were answered.
    assert outcomes.count("OK") >= answered_before + 1
    assert outcomes.count("UNAVAILABLE") == 6


def test_a_missing_variant_and_a_bad_flag_say_what_to_do() -> None:
    for flags, told in (
        (["--variants", "sam9000"], "variant 'sam9000' is unknown; known: mobilesam"),
        (["--engine", "abacus"], "'abacus' is none of auto, openvino, onnxruntime"),
        (["--precision", "f8"], "'f8' is no plan of mobilesam; plans: bf16, bf16-encoder, f32"),
    ):
        command = [*SERVE, "--pull", *flags]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (ended.returncode, told in ended.stderr) == (1, True), ended.stderr
