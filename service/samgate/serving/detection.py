"""Boxes for prompts: an image through the detector."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from samgate.domain import FloatArray, UInt8Array
from samgate.engines.base import Detector
from samgate.imaging.letterbox import detector_input
from samgate.segevery.detections import DetectorParameters, detections
from samgate.serving.everything import Detect


def detect_with(detector: Detector, executor: Executor | None = None) -> Detect:
    """Finds objects with ``detector``; what comes before and after its graph runs on ``executor``'s threads, by default
    those of the event loop."""

    async def detect(pixels: UInt8Array, parameters: DetectorParameters, deadline: float) -> FloatArray:
        loop = asyncio.get_running_loop()
        square, place = await loop.run_in_executor(executor, detector_input, pixels, detector.spec)
        boxes, scores = await detector.detect(square, deadline)
        found = await loop.run_in_executor(executor, detections, boxes, scores, place, parameters)
        return found.boxes

    return detect
