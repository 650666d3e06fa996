"""Detectors with real weights: on both runtimes, against YOLOv8's own runtime, compiled for GPUs, on a real Triton."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from samgate.cli.main import main
from samgate.config import EngineSettings, Settings, TritonSettings
from samgate.domain import FloatArray, UInt8Array
from samgate.engines.base import Detector
from samgate.engines.detector import load_detector
from samgate.errors import NotInstalled, WeightsError
from samgate.imaging.letterbox import detector_input
from samgate.segevery.detections import DetectorParameters, detections
from samgate.variants.detectors import DETECTORS, DetectorSpec
from samgate.weights.pull_detector import pull_detector
from yolov8_support import dequantised, export, interpreter, outputs, run_tflite

RUNTIMES = ("openvino", "onnxruntime")
YOLOX, YOLOV8 = DETECTORS["yolox-nano"], DETECTORS["yolov8"]
PHOTOGRAPHS = ("cars.jpg", "truck.jpg", "groceries.jpg", "dogs.jpg")


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> list[UInt8Array]:
    return [read(shared_data / "media" / name) for name in PHOTOGRAPHS]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A SAMGATE_HOME for detectors alone."""
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMGATE_HOME", str(path))
        yield path


@pytest.fixture(scope="module")
def yolox(home: Path, shared_data: Path) -> DetectorSpec:
    """YOLOX-Nano, installed."""
    made = pull_detector(YOLOX, from_file=shared_data / "weights" / "yolox_nano.onnx")
    # The very file that the first source names.
    assert made.origin.source == YOLOX.sources[0].url
    return made.spec


def detect(detector: Detector, picture: UInt8Array) -> tuple[FloatArray, FloatArray]:
    async def once() -> tuple[FloatArray, FloatArray]:
        return await detector.detect(detector_input(picture, detector.spec)[0], time.monotonic() + 60)

    return asyncio.run(once())


def load(spec: DetectorSpec, runtime: str) -> Detector:
    return load_detector(spec, Settings(engine=EngineSettings(name=runtime)))


def read(path: Path) -> UInt8Array:
    """RGB."""
    picture = cv2.imread(str(path))
    assert picture is not None
    return np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)


def corners(boxes: FloatArray) -> FloatArray:
    """Centres and sizes ``[N, 4]`` → (x0, y0, x1, y1)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.hstack([centre - half, centre + half])


def ious(boxes: FloatArray, others: FloatArray) -> FloatArray:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(-1)
    areas = [(one[:, 2:] - one[:, :2]).prod(-1) for one in (boxes, others)]
    return np.asarray(inner / (areas[0][:, None] + areas[1][None] - inner), dtype=np.float32)


def test_both_runtimes_find_the_same(yolox: DetectorSpec, photographs: list[UInt8Array]) -> None:
    first, second = (load(yolox, runtime) for runtime in RUNTIMES)
    for picture in photographs:
        (boxes, scores), (others, other_scores) = detect(first, picture), detect(second, picture)
        assert boxes.shape == (3549, 4)
        # The last digits of sums, a box's side up to thousands of pixels where nothing is.
        likely = scores > 0.1
        assert likely.any()
        np.testing.assert_allclose(boxes[likely], others[likely], atol=0.02)
        np.testing.assert_allclose(scores, other_scores, atol=1e-4)
    asyncio.run(first.close())
    asyncio.run(second.close())


def test_it_finds_what_people_have_drawn(yolox: DetectorSpec, shared_data: Path) -> None:
    """Channels in the wrong order, or boxes a few pixels off, would halve this."""
    labels = json.loads((shared_data / "eval" / "instances.json").read_text())
    images = [one for one in labels["images"] if one["source"] == "coco_val2017"]
    detector = load(yolox, "openvino")
    hit = total = 0
    for image in images:
        boxes = [
            one["bbox"]
            for one in labels["annotations"]
            if one["image_id"] == image["id"] and not one["iscrowd"] and one["area"] > 96**2
        ]
        if not boxes:
            continue
        drawn = np.array(boxes, np.float32)
        drawn[:, 2:] += drawn[:, :2]
        picture = read(shared_data / "eval" / image["file_name"])
        place = detector_input(picture, yolox)[1]
        found = detections(*detect(detector, picture), place, DetectorParameters(conf=0.25))
        total += len(drawn)
        if len(found):
            hit += int((ious(drawn, found.boxes).max(axis=1) > 0.5).sum())
    asyncio.run(detector.close())
    assert total > 30
    assert hit / total > 0.6, f"{hit} of {total}"


@pytest.mark.parametrize(("name", "prototypes"), [("yolov8n", 0), ("yolov8n-seg", 32)])
def test_our_yolov8_finds_what_the_int8_file_does(name: str, prototypes: int, shared_data: Path) -> None:
    """Weights are the same; the file's own runtime rounds activations to 8 bits on top: logits to 0.15, sides of boxes
    to a third of a stride and then to its output's step, 2.5 px in the detector and 11.7 px in -seg. So boxes of the
    same place overlap by 0.64 to 0.92 in the median, least where objects are small, and scores differ by 0.04 to 0.2.
    With the filters of a single layer in another order a grid comes to at most 0.55, or to 0.5 in its scores.
    """
    model = interpreter(shared_data / "weights" / f"{name}_int8.tflite")
    ours = dequantised(model, prototypes)
    overlaps, differences, places, likeness = [], [], [], []
    for path in sorted((shared_data / "eval" / "images" / "coco_val2017").iterdir())[:16]:
        pixels = detector_input(read(path), YOLOV8.sized(640))[0]
        image = np.asarray(pixels.transpose(2, 0, 1)[None] / np.float32(255), dtype=np.float32)
        theirs, mine = run_tflite(model, image), outputs(ours, image)
        assert [one.shape for one in theirs] == [one.shape for one in mine]
        their_scores, my_scores = theirs[0][0, 4:84].max(axis=0), mine[0][0, 4:84].max(axis=0)
        likely = np.flatnonzero(their_scores > 0.4)
        places.append(likely)
        differences.append(np.abs(their_scores - my_scores)[likely])
        boxes, others = (corners(one[0, :4, likely]) for one in (theirs[0], mine[0]))
        overlaps.append(ious(boxes, others).diagonal())
        if prototypes:
            pairs = [(theirs[0][0, 84:, likely], mine[0][0, 84:, likely]), (theirs[1], mine[1])]
            likeness += [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs if one.size]
    overlap, difference, place = (np.concatenate(parts) for parts in (overlaps, differences, places))
    for first, end, least in ((0, 6400, 0.6), (6400, 8000, 0.75), (8000, 8400, 0.85)):
        grid = (place >= first) & (place < end)
        assert grid.sum() > 25
        assert np.median(overlap[grid]) > least
        assert np.median(difference[grid]) < 0.3
    # Coefficients and prototypes of masks.
    assert not likeness or min(likeness) > 0.8


@pytest.mark.parametrize(("name", "prototypes", "opset"), [("yolov8n", 0, 12), ("yolov8n-seg", 32, 17)])
def test_a_yolov8_export_is_installed_and_gives_the_network_s_own_boxes(
    name: str,
    prototypes: int,
    opset: int,
    home: Path,
    shared_data: Path,
    photographs: list[UInt8Array],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = dequantised(interpreter(shared_data / "weights" / f"{name}_int8.tflite"), prototypes)
    export(network, tmp_path / "best.onnx", opset=opset)
    assert main(["pull", "yolov8", "--from", str(tmp_path / "best.onnx"), "--force"]) == 0
    told = capsys.readouterr().out
    assert f"640 × 640 pixels, classes: 80{', with masks' if prototypes else ''}" in told
    assert "AGPL-3.0" in told
    for runtime in RUNTIMES:
        detector = load(YOLOV8, runtime)
        assert detector.spec.input_size == 640
        for picture in photographs[:2]:
            pixels = detector_input(picture, detector.spec)[0]
            image = np.asarray(pixels.transpose(2, 0, 1)[None] / np.float32(255), dtype=np.float32)
            expected = outputs(network, image)[0][0].T
            boxes, found = detect(detector, picture)
            np.testing.assert_allclose(boxes, corners(expected[:, :4]), atol=0.02)
            np.testing.assert_allclose(found, expected[:, 4:84].max(axis=1), atol=1e-4)
        asyncio.run(detector.close())
    with pytest.raises(WeightsError, match="side of the input is 640; that of yolox-nano is 416"):
        pull_detector(YOLOX, from_file=tmp_path / "best.onnx", force=True)


def test_it_is_compiled_for_gpus_and_for_cpus(
    yolox: DetectorSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from samgate.compile.detector_pipeline import installed_detector_plan

    gpu = ["--target", "tensorrt-rtx", "--compute-capability", "8.9", "--output", str(tmp_path)]
    assert main(["compile", "yolox-nano", *gpu]) == 0
    assert main(["compile", "yolox-nano", *gpu, "--precision", "f32"]) == 0
    for target in ("onnx", "openvino"):
        assert main(["compile", "yolox-nano", "--target", target, "--output", str(tmp_path)]) == 0
    low = installed_detector_plan(YOLOX, "tensorrt-rtx", "fp16", "8.9", tmp_path)
    full = installed_detector_plan(YOLOX, "tensorrt-rtx", "f32", "8.9", tmp_path)
    assert low.read_bytes()[:4] == full.read_bytes()[:4] == b"vtrt"
    assert low.stat().st_size < full.stat().st_size
    manifest = json.loads((low.parent / "manifest.json").read_text())
    assert manifest["graphs"]["detector"]["f32_nodes"] == {"boxes": 15, "resize": 2}
    graph = installed_detector_plan(YOLOX, "onnx", "f32", None, tmp_path)
    assert [value.name for value in onnx.load(graph).graph.output] == ["boxes", "scores"]
    capsys.readouterr()
    low.write_bytes(b"vtrt")
    with pytest.raises(
        NotInstalled, match=r"samgate compile yolox-nano --target tensorrt-rtx --precision fp16 --compute-"
    ):
        installed_detector_plan(YOLOX, "tensorrt-rtx", "fp16", "8.9", tmp_path)
    assert main(["compile", "yolox-nano", "--target", "openvino", "--precision", "fp16"]) == 1
    assert "precision: 'fp16' is not what openvino runs detectors in: f32" in capsys.readouterr().err
    assert main(["compile", "yolox-nano", *gpu, "--calibrate", str(tmp_path)]) == 1
    assert "calibrate: is for variants" in capsys.readouterr().err


def test_it_is_in_repositories(yolox: DetectorSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["repository", "build", "--variants", "yolox-nano", "--models", "--output", str(tmp_path)]
    for profile in ("openvino", "onnxruntime", "python-cpu"):
        assert main([*command, "--profile", profile]) == 0
        graph = onnx.load(tmp_path / profile / "yolox-nano_detector" / "1" / "model.onnx").graph
        assert [value.name for value in graph.output] == ["boxes", "scores"]
    assert main([*command, "--profile", "tensorrt", "--precision", "int8", "--compute-capability", "8.9"]) == 1
    assert "compile yolox-nano --target tensorrt --precision fp16 --compute-capability 8.9" in capsys.readouterr().err


def test_variants_lists_it_with_its_licence(yolox: DetectorSpec, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["variants", "--json", "-"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out) if one["kind"] == "detector"}
    assert listed.keys() == DETECTORS.keys()
    assert (listed["yolox-nano"]["installed"], listed["yolox-nano"]["input_size"]) == (True, 416)
    assert listed["yolov8"]["licence"] == "AGPL-3.0"
    assert main(["variants"]) == 0
    told = capsys.readouterr().out
    assert "Apache-2.0" in told
    assert "AGPL-3.0" in told


def test_triton_has_the_embedded_detector_s_bits(shared_data: Path, photographs: list[UInt8Array]) -> None:
    from samgate.engines.triton.detector import TritonDetector
    from samgate.triton.local import local_triton
    from samgate.triton.staging import Beside

    # In the home that has the server.
    pull_detector(YOLOX, from_file=shared_data / "weights" / "yolox_nano.onnx")
    embedded = load(YOLOX, "openvino")

    async def compare(address: str) -> None:
        settings = Settings(engine=EngineSettings(name="triton"), triton=TritonSettings(endpoints=address))
        detector = await asyncio.to_thread(load_detector, YOLOX, settings)
        assert isinstance(detector, TritonDetector)
        assert detector.spec == embedded.spec
        for picture in photographs:
            pixels = detector_input(picture, detector.spec)[0]
            found = await detector.detect(pixels, time.monotonic() + 60)
            expected = await embedded.detect(pixels, time.monotonic() + 60)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)
        assert await detector.healthy()
        await detector.close()
        assert not await detector.healthy()

    with local_triton({}, beside=Beside(["yolox-nano"])) as server:
        asyncio.run(compare(server.grpc))
    asyncio.run(embedded.close())
