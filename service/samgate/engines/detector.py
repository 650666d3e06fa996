"""Detectors that run in this process, in turns of their own beside the encoder's and the decoder's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

import numpy as np

from samgate.compile.detector import ensure_detector
from samgate.config import EngineSettings, Settings
from samgate.domain import FloatArray, UInt8Array
from samgate.engines.base import Detector
from samgate.engines.cpu import usable_cores
from samgate.engines.embedded import Graph
from samgate.engines.lane import Turns
from samgate.engines.load import Runtime, choose_runtime, wants_triton
from samgate.errors import CompileError, Unavailable
from samgate.variants.detectors import DetectorSpec, detector_graph

Boxes = tuple[FloatArray, FloatArray]


class EmbeddedDetector:
    """Runs a detector's graph, one image at a time.

    Args:
        name: of the runtime.
        spec: with the input size of the graph.
        graph: loaded.
    """

    def __init__(self, name: str, spec: DetectorSpec, graph: Graph) -> None:
        self.name = name
        self.spec = spec
        self._graph = graph
        self._turns = Turns(spec.name)

    async def detect(self, pixels: UInt8Array, deadline: float) -> Boxes:
        """See :meth:`samgate.engines.base.Detector.detect`."""
        return await self._turns.run(lambda: self._detect(pixels), deadline)

    async def healthy(self) -> bool:
        """Runs in this process: as healthy as the process, until closed."""
        return not self._turns.closed

    async def close(self) -> None:
        """See :meth:`samgate.engines.base.Detector.close`."""
        await self._turns.close()

    def _detect(self, pixels: UInt8Array) -> Boxes:
        try:
            boxes, scores = self._graph({"image": pixels[None]})
        except Exception as error:  # ONNX Runtime's have no common base
            raise Unavailable(f"{self.name} could not run {self.spec.name}: {error}") from error
        return boxes[0], scores[0]


def load_detector(
    spec: DetectorSpec, settings: Settings, report: Callable[[str], None] = lambda message: None
) -> Detector:
    """The detector that ``settings`` ask for, in this process or on Triton. Slow: call it off the event loop.

    ``report`` gets a line for what takes long. Raises NotInstalled, CompileError, InvalidArgument, and Unavailable when
    no Triton answers.
    """
    if wants_triton(settings.engine):
        from samgate.engines.triton.detector import connect_detector

        return connect_detector(spec, settings, report)
    return load_embedded_detector(spec, settings.engine, report)


def load_embedded_detector(
    spec: DetectorSpec, settings: EngineSettings, report: Callable[[str], None]
) -> EmbeddedDetector:
    """A detector in this process, its graph compiled for this machine and tried. Raises NotInstalled, CompileError and
    InvalidArgument."""
    name = choose_runtime(settings)
    graph = ensure_detector(spec, report)
    report(f"loading {spec.name}")
    runtime = cast("Runtime", importlib.import_module(f"samgate.engines.{name}"))
    # In f32, whatever the engine's precision: bf16 moves boxes by up to a pixel, and saves little of a request's time.
    run = runtime.load_graph(graph.file, "f32", settings.threads or usable_cores())
    _try_out(run, graph.spec, name)
    return EmbeddedDetector(runtime.NAME, graph.spec, run)


def _try_out(run: Graph, spec: DetectorSpec, runtime: str) -> None:
    """The first call is the slowest, and shows whether the file keeps what it promised. Raises CompileError."""
    expected = detector_graph(spec)
    pixels = np.full((1, spec.input_size, spec.input_size, 3), spec.letterbox.grey, dtype=np.uint8)
    try:
        found = [array.shape for array in run({"image": pixels})]
    except Exception as error:
        raise CompileError(f"{runtime} can't run {spec.name}: {error}") from error
    if found != [tensor.shape for tensor in expected.outputs]:
        raise CompileError(f"{spec.name} is not what it says: its outputs have the shapes {found}")
