"""Engines that run in this process: the same two lanes of threads around whichever runtime executes the graphs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from samgate.domain import FloatArray, Survivors
from samgate.engines.base import Capacity, Decoded, Images, Prompts
from samgate.errors import Unavailable

T = TypeVar("T")

Graph = Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]
"""A loaded graph: input arrays by name → output arrays in the graph's order. Called by one thread at a time."""


@dataclass(frozen=True, slots=True)
class LoadedGraphs:
    """The graphs of one variant, ready to run."""

    encoder: Graph
    decoder: Graph
    masked_decoder: Graph
    survivors: Graph


class EmbeddedEngine:
    """Runs graphs on two threads: one for the encoder, one for the decoder, so that a prompt on a cached embedding
    doesn't wait for the image that is being encoded."""

    def __init__(self, name: str, precision: str, graphs: LoadedGraphs, capacity: Capacity) -> None:
        self.name = name
        self.precision = precision
        self.capacity = capacity
        self._graphs = graphs
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-encode")
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-decode")
        self._closed = False

    async def encode(self, images: Images, deadline: float) -> list[FloatArray]:  # noqa: ARG002
        """See :meth:`samgate.engines.base.Engine.encode`."""
        inputs: dict[str, NDArray[Any]] = {"image": images.pixels, "valid": images.valid}
        embeddings = (await self._run(self._encoding, self._graphs.encoder, inputs))[0]
        # One array each: a slice would keep the whole batch in memory for as long as one of its images is cached.
        return [one.copy() for one in embeddings] if len(embeddings) > 1 else [embeddings[0]]

    async def decode(
        self,
        embeddings: Sequence[FloatArray],
        prompts: Prompts,
        deadline: float,  # noqa: ARG002
    ) -> Decoded:
        """See :meth:`samgate.engines.base.Engine.decode`."""
        inputs = _inputs(np.stack(embeddings) if len(embeddings) > 1 else embeddings[0][None], prompts)
        graph = self._graphs.decoder
        if prompts.masks is not None and prompts.has_mask is not None:
            inputs |= {"mask_input": prompts.masks, "has_mask": prompts.has_mask}
            graph = self._graphs.masked_decoder
        masks, ious = await self._run(self._decoding, graph, inputs)
        return Decoded(masks, ious)

    async def survivors(
        self,
        embedding: FloatArray,
        prompts: Prompts,
        min_iou: float,
        deadline: float,  # noqa: ARG002
    ) -> Survivors:
        """See :meth:`samgate.engines.base.Engine.survivors`."""
        inputs = _inputs(embedding[None], prompts) | {"min_iou": np.array([min_iou], np.float32)}
        masks, kept, ious = await self._run(self._decoding, self._graphs.survivors, inputs)
        return Survivors(masks, kept, ious[0])

    async def healthy(self) -> bool:
        """Runs in this process: as healthy as the process, until closed."""
        return not self._closed

    async def close(self) -> None:
        """See :meth:`samgate.engines.base.Engine.close`."""
        self._closed = True
        for executor in (self._encoding, self._decoding):
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)

    async def _run(
        self, executor: ThreadPoolExecutor, graph: Graph, inputs: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        if self._closed:
            raise Unavailable("the engine is closed")
        call = asyncio.get_running_loop().run_in_executor(executor, graph, inputs)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            # A graph that runs can't be stopped: the engine is not free before it has ended.
            await asyncio.wait([call])
            raise
        except RuntimeError as error:
            raise Unavailable(f"{self.name} could not run the graph: {error}") from error


def _inputs(embeddings: FloatArray, prompts: Prompts) -> dict[str, NDArray[Any]]:
    return {"image_embedding": embeddings, "point_coords": prompts.coords, "point_labels": prompts.labels}
