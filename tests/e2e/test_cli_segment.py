"""``samgate segment`` and ``samgate everything`` as processes, with the real model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1 import segmentation_pb2_grpc
from samgate.client import Client, SamAutomaticMaskGenerator, SamPredictor
from samgate.domain import Rle
from samgate.imaging.formats import rle_to_mask

COMMAND = (sys.executable, "-m", "samgate.cli.main")


def samgate(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture(scope="session")
def file(photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "photo.png"
    path.write_bytes(photo)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def true_disc() -> np.ndarray:
    y, x = np.mgrid[0:240, 0:320]
    return np.asarray((x - 100) ** 2 + (y - 120) ** 2 < 60**2)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.usefixtures("installed")
def test_one_click_without_a_server(file: Path, tmp_path: Path) -> None:
    mask, overlay = tmp_path / "mask.png", tmp_path / "seen.png"
    done = samgate("segment", file, "--point", "100,120", "-o", mask, "--overlay", overlay, "--json", "-")
    figures = json.loads(done.stdout)
    assert (figures["size"], figures["variant"], len(figures["masks"])) == ([240, 320], "mobilesam", 1)
    assert "wrote" in done.stderr
    assert iou(pixels(mask) > 0, true_disc()) > 0.95
    seen, original = pixels(overlay), pixels(file)
    assert seen.shape == original.shape
    assert not np.array_equal(seen[true_disc()], original[true_disc()])


def test_several_objects_on_a_server(gateway: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks.npy"
    boxes = ("--box", "38,58,162,182", "--box", "198,58,292,162", "--separate")
    done = samgate("segment", file, *boxes, "--server", gateway, "-o", out)
    masks = np.load(out)
    assert masks.shape == (2, 240, 320)
    assert iou(masks[0], true_disc()) > 0.95
    assert "mobilesam" in done.stdout


def test_everything_on_a_server(gateway: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks.json"
    samgate("everything", file, "--points-per-side", 8, "--server", gateway, "-o", out)
    records = json.loads(out.read_text())
    scores = [record["predicted_iou"] for record in records]
    assert scores == sorted(scores, reverse=True)
    masks = [rle_to_mask(Rle((240, 320), record["segmentation"]["counts"].encode())) > 0 for record in records]
    assert max(iou(mask, true_disc()) for mask in masks) > 0.95


def test_the_drop_ins_on_a_server(gateway: str, file: Path) -> None:
    picture = pixels(file)
    with Client(gateway) as client:
        predictor = SamPredictor(client)
        predictor.set_image(picture)
        point, label = np.array([[100, 120]]), np.array([1])
        masks, ious, low_res = predictor.predict(point, label)
        logits, again, _ = predictor.predict(point, label, return_logits=True)
        assert np.array_equal(ious, again)
        assert np.array_equal(masks, logits > 0)
        best = int(ious.argmax())
        refined, _, _ = predictor.predict(point, label, mask_input=low_res[best : best + 1], multimask_output=False)
        assert iou(np.asarray(refined[0], bool), true_disc()) > 0.95
        records = SamAutomaticMaskGenerator(client, points_per_side=8).generate(picture)
    assert max(iou(record["segmentation"], true_disc()) for record in records) > 0.95


def test_errors_are_one_line(gateway: str, file: Path) -> None:
    for arguments, told in (
        (("segment", file, "--point", "1,2", "--variant", "sam9"), "variant 'sam9' is unknown"),
        (("segment", file, "--point", "1,2", "--server", gateway, "--variant", "sam9"), "variant 'sam9' is unknown"),
        (("everything", "nothing.jpg", "--server", gateway), "image: 'nothing.jpg' can't be read"),
    ):
        errors = samgate(*arguments, status=1).stderr
        assert told in errors
        assert errors.count("\n") == 1


class Endless(segmentation_pb2_grpc.SegmentationServicer):
    """SegEvery that never ends by itself."""

    def __init__(self) -> None:
        self.begun, self.cancelled = threading.Event(), threading.Event()

    def SegmentEverything(
        self, request: pb.SegmentEverythingRequest, context: Any
    ) -> Iterator[pb.SegmentEverythingResponse]:
        context.add_callback(self.cancelled.set)
        yield pb.SegmentEverythingResponse(progress=pb.Progress(prompts_done=1, prompts_total=9))
        self.begun.set()
        self.cancelled.wait(60)

    Segment = Embed = ListVariants = None  # type: ignore[assignment]


# What a shell starts in the background ignores SIGINT, and so do its children. (A preexec_fn would make Python fork
# instead of vfork, and a child that is forked while gRPC's threads run may crash.)
HEEDS_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from samgate.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(("told", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_stops_the_command_cancels_its_call(file: Path, told: signal.Signals, status: int) -> None:
    endless = Endless()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    segmentation_pb2_grpc.add_SegmentationServicer_to_server(endless, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    command = [sys.executable, "-c", HEEDS_CTRL_C, "everything", str(file), "--server", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert endless.begun.wait(60)
        process.send_signal(told)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert endless.cancelled.wait(10)
    server.stop(0).wait()
