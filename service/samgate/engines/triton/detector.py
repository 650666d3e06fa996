"""A detector on one or several Triton servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from samgate.config import Settings
from samgate.domain import FloatArray, UInt8Array
from samgate.engines.base import Detector, ServerHealth
from samgate.engines.detector import load_embedded_detector
from samgate.engines.triton.discovery import Directory, endpoints, look_up_first
from samgate.engines.triton.region import remove_abandoned
from samgate.engines.triton.served import ask_detector
from samgate.engines.triton.servers import Patience, Servers
from samgate.engines.triton.transfer import Call, Output
from samgate.errors import CompileError
from samgate.repository.models import model_name
from samgate.variants.detectors import DetectorSpec, detector_graph

_PATIENCE_S = 5.0
SHARED_BYTES = 64 * 2**20
"""Of the memory through which images and boxes go to servers on this machine: several images of the largest size."""


class TritonDetector:
    """The detector ``spec``, its input size known, on ``servers``. ``fallback`` runs when none of them can."""

    name = "triton"

    def __init__(
        self,
        spec: DetectorSpec,
        servers: Servers,
        fallback: Detector | None = None,
    ) -> None:
        self.spec = spec
        self._fallback = fallback
        self._servers = servers
        self._model = model_name(spec.name, "detector")
        self._outputs = {
            tensor.name: Output(np.dtype(tensor.dtype), tuple(int(size) for size in tensor.shape))
            for tensor in detector_graph(spec).outputs
        }

    async def detect(self, pixels: UInt8Array, deadline: float) -> tuple[FloatArray, FloatArray]:
        """See :meth:`samgate.engines.base.Detector.detect`."""
        call = Call(self._model, {"image": pixels[None]}, self._outputs)
        fallback = self._fallback
        return await self._servers.run(
            call,
            deadline,
            lambda found: (found["boxes"][0][0], found["scores"][0][0]),
            None if fallback is None else lambda: fallback.detect(pixels, deadline),
        )

    async def healthy(self) -> bool:
        """Whether some server is believed to run it, or there is a fallback."""
        if self._servers.closed:
            return False
        return self._fallback is not None or self._servers.believed_to_run([self._model])

    def servers(self) -> list[ServerHealth]:
        """See :class:`samgate.engines.base.Remote`."""
        return self._servers.believed()

    async def close(self) -> None:
        """See :meth:`samgate.engines.base.Detector.close`."""
        await self._servers.close()
        if self._fallback is not None:
            await self._fallback.close()


def connect_detector(spec: DetectorSpec, settings: Settings, report: Callable[[str], None]) -> TritonDetector:
    """A detector on the servers that ``settings`` name, with the input size that they have. Blocks until one is ready.

    Raises InvalidArgument for endpoints that can't be read, and what
    :func:`~samgate.engines.triton.served.ask_detector` and, where a fallback is asked for,
    :func:`~samgate.engines.detector.load_embedded_detector` raise; CompileError, too, where what is installed here has
    another input size.
    """
    triton = settings.triton
    names = endpoints(triton.endpoints)
    urls = look_up_first(names, triton.connect_timeout_s, report)
    side = ask_detector(spec, urls, triton.connect_timeout_s, report)
    fallback = None
    if triton.fallback:
        fallback = load_embedded_detector(spec, replace(settings.engine, name="auto"), report)
        if fallback.spec.input_size != side:
            raise CompileError(
                f"{spec.name} takes {side} pixels on Triton, and {fallback.spec.input_size} as it is installed here"
            )
    remove_abandoned()

    def check(url: str) -> None:
        theirs = ask_detector(spec, [url], _PATIENCE_S, lambda message: None)
        if theirs != side:
            raise CompileError(f"its {spec.name} takes {theirs} pixels, the others' {side}")

    shared_bytes = min(SHARED_BYTES, triton.shared_memory_bytes)
    patience = Patience(triton.call_timeout_s, triton.outage_s)
    return TritonDetector(spec.sized(side), Servers(urls, Directory(names, check), shared_bytes, patience), fallback)
