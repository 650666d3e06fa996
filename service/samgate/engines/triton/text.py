"""A text model on one or several Triton servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np

from samgate.config import Settings
from samgate.domain import FloatArray, IntArray, UInt8Array
from samgate.engines.base import ServerHealth, TextModel
from samgate.engines.text import load_embedded_text_model
from samgate.engines.triton.discovery import Directory, endpoints, look_up_first
from samgate.engines.triton.region import remove_abandoned
from samgate.engines.triton.served import ask_text_model
from samgate.engines.triton.servers import Patience, Servers
from samgate.engines.triton.transfer import Call, Output
from samgate.repository.models import model_name
from samgate.variants.clip import ClipSpec
from samgate.variants.graphs import GraphName

_PATIENCE_S = 5.0
SHARED_BYTES = 32 * 2**20
"""Of the memory through which crops go to servers on this machine: several calls with as many as one may have."""


class TritonTextModel:
    """The text model ``spec`` on ``servers``. ``fallback`` runs when none of them can."""

    name = "triton"

    def __init__(self, spec: ClipSpec, servers: Servers, fallback: TextModel | None = None) -> None:
        self.spec = spec
        self._fallback = fallback
        self._servers = servers

    async def image_features(self, crops: UInt8Array, deadline: float) -> FloatArray:
        """See :meth:`samgate.engines.base.TextModel.image_features`."""
        return await self._run(
            "image_features", "image", crops, deadline, lambda fallback: fallback.image_features(crops, deadline)
        )

    async def text_features(self, tokens: IntArray, deadline: float) -> FloatArray:
        """See :meth:`samgate.engines.base.TextModel.text_features`."""
        return await self._run(
            "text_features", "tokens", tokens, deadline, lambda fallback: fallback.text_features(tokens, deadline)
        )

    async def healthy(self) -> bool:
        """Whether some server is believed to run it, or there is a fallback."""
        if self._servers.closed:
            return False
        return self._fallback is not None or self._servers.believed_to_run(
            model_name(self.spec.name, graph) for graph in self.spec.graphs
        )

    def servers(self) -> list[ServerHealth]:
        """See :class:`samgate.engines.base.Remote`."""
        return self._servers.believed()

    async def close(self) -> None:
        """See :meth:`samgate.engines.base.TextModel.close`."""
        await self._servers.close()
        if self._fallback is not None:
            await self._fallback.close()

    async def _run(
        self,
        graph: GraphName,
        name: str,
        array: UInt8Array | IntArray,
        deadline: float,
        instead: Callable[[TextModel], Awaitable[FloatArray]],
    ) -> FloatArray:
        fallback, features = self._fallback, Output(np.dtype(np.float32), (len(array), self.spec.width))
        return await self._servers.run(
            Call(model_name(self.spec.name, graph), {name: array}, {"features": features}),
            deadline,
            lambda found: found["features"][0],
            None if fallback is None else lambda: instead(fallback),
        )


def connect_text_model(spec: ClipSpec, settings: Settings, report: Callable[[str], None]) -> TritonTextModel:
    """A text model on the servers that ``settings`` name. Blocks until one is ready.

    Raises InvalidArgument for endpoints that can't be read, and what
    :func:`~samgate.engines.triton.served.ask_text_model` and, where a fallback is asked for,
    :func:`~samgate.engines.text.load_embedded_text_model` raise.
    """
    triton = settings.triton
    names = endpoints(triton.endpoints)
    urls = look_up_first(names, triton.connect_timeout_s, report)
    ask_text_model(spec, urls, triton.connect_timeout_s, report)
    fallback = None
    if triton.fallback:
        fallback = load_embedded_text_model(spec, replace(settings.engine, name="auto"), report)
    remove_abandoned()

    def check(url: str) -> None:
        ask_text_model(spec, [url], _PATIENCE_S, lambda message: None)

    shared_bytes = min(SHARED_BYTES, triton.shared_memory_bytes)
    patience = Patience(triton.call_timeout_s, triton.outage_s)
    return TritonTextModel(spec, Servers(urls, Directory(names, check), shared_bytes, patience), fallback)
