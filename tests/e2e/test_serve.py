"""``samgate serve`` as a process: the ready line, the probes, the metrics, and the drain under load."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1.segmentation_pb2_grpc import SegmentationStub
from support import SERVE, Process, serving


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


def prompts_decoded(server: Process) -> float:
    lines = get(f"{server.http}/metrics")[1].splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith('samgate_batch_size_sum{stage="decode"}'))


@pytest.mark.usefixtures("installed")
def test_cancelling_everything_stops_its_work_at_once(photo: bytes) -> None:
    grid = pb.GridParameters(points_per_side=48)
    with serving() as server, grpc.insecure_channel(server.target) as channel:
        request = pb.SegmentEverythingRequest(image=pb.Image(encoded=photo), grid=grid)
        stream = SegmentationStub(channel).SegmentEverything(request, timeout=600)
        for _ in range(3):
            next(stream)
        stream.cancel()
        # The chunk that the engine is at is finished; whether the work goes on is asked after that.
        time.sleep(2)
        decoded = prompts_decoded(server)
        assert 0 < decoded < 48 * 48
        time.sleep(2)
        assert prompts_decoded(server) == decoded


@pytest.mark.usefixtures("installed")
def test_clients_that_go_away_at_any_moment_do_no_harm(photo: bytes) -> None:
    everything = pb.SegmentEverythingRequest(image=pb.Image(encoded=photo))
    with serving() as server, grpc.insecure_channel(server.target) as channel:
        stub = SegmentationStub(channel)
        for _ in range(12):
            stream = stub.SegmentEverything(everything, timeout=600)
            next(stream)
            stream.cancel()
            calls = [stub.ListVariants.future(pb.ListVariantsRequest(), timeout=5) for _ in range(100)]
            calls += [stub.ListVariants.future(pb.ListVariantsRequest(), timeout=0.002) for _ in range(20)]
            for call in calls[::2]:
                call.cancel()
            for call in calls:
                with suppress(grpc.RpcError, grpc.FutureCancelledError):
                    call.result()
        time.sleep(1)
        assert stub.ListVariants(pb.ListVariantsRequest(), timeout=5).variants
        log = server.end()
    assert "Traceback" not in log
    assert "code=CANCELLED" in log


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
        (["--variants", "sam9000"], "variant 'sam9000' is unknown; known: edgesam, edgesam-3x"),
        (["--engine", "abacus"], "'abacus' is none of auto, openvino, onnxruntime"),
        (["--precision", "f8"], "'f8' is no plan of mobilesam; plans that run: bf16"),
    ):
        command = [*SERVE, "--pull", *flags]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (ended.returncode, told in ended.stderr) == (1, True), ended.stderr


@pytest.mark.usefixtures("installed")
def test_a_triton_of_its_own_is_started_again_and_goes_with_the_gateway(photo: bytes) -> None:
    request = pb.SegmentRequest(image=pb.Image(encoded=photo), prompts=[pb.Prompt(points=[pb.Point(x=100, y=120)])])
    with serving("--engine", "triton") as server, grpc.insecure_channel(server.target) as channel:
        before = SegmentationStub(channel).Segment(request, timeout=60)
        assert before.info.engine == "triton"
        family = psutil.Process(server.running.pid).children(recursive=True)
        (triton,) = [process for process in family if process.name() == "tritonserver"]
        triton.kill()
        until = time.monotonic() + 90
        # Other points on the cached image: the decoder has to run, on an embedding from before.
        while (outcome := segment_again(channel, request)) != "OK":
            assert outcome == "UNAVAILABLE"
            assert time.monotonic() < until
            time.sleep(0.5)
        family += psutil.Process(server.running.pid).children(recursive=True)
        assert "starting it again" in server.end()
    assert not [process for process in family if process.is_running()]
    assert not list(Path("/dev/shm").glob(f"samgate-gateway-{server.running.pid}-*"))


def segment_again(channel: grpc.Channel, request: pb.SegmentRequest) -> str:
    """How ``request``, a pixel further, ends."""
    request.prompts[0].points[0].x += 1
    try:
        answer = SegmentationStub(channel).Segment(request, timeout=60)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK" if answer.info.embedding_cached else "encoded anew"
