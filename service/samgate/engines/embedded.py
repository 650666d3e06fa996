"""Engines that run in this process: the same two lanes of threads around whichever runtime executes the graphs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from samgate.domain import Choose, FloatArray, Survivors
from samgate.engines.base import Capacity, Decoded, Images, Prompts
from samgate.engines.blocks import sketch
from samgate.engines.terms import LatestTerms, Terms
from samgate.errors import Unavailable
from samgate.segevery.coarse import coarse_of
from samgate.variants.graphs import EVERYTHING_PROMPTS, TERMS

T = TypeVar("T")

Graph = Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]
"""A loaded graph: input arrays by name → output arrays in the graph's order. Called by one thread at a time."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder's graph: ``whole`` has all of the engine's threads, each of ``parts`` has one, beside the others.

    The operations of one prompt are so short that threads which share them wait for each other a good part of the time:
    several prompts are done sooner when each thread has its own.
    """

    whole: Graph
    parts: tuple[Graph, ...] = ()

    def run(self, calls: Sequence[Mapping[str, NDArray[Any]]], executor: Executor) -> list[list[NDArray[Any]]]:
        """The results of ``calls``: of one on all threads, of as many as there are parts at once."""
        if len(calls) < 2:
            return [self.whole(call) for call in calls]
        others = [executor.submit(part, call) for part, call in zip(self.parts[1:], calls[1:], strict=False)]
        try:
            first = self.parts[0](calls[0])
        finally:
            # Whatever becomes of it: a part that still runs can't be called.
            wait(others)
        return [first, *(other.result() for other in others)]


@dataclass(frozen=True, slots=True)
class Lane:
    """What decodes SegEvery's prompts on one thread, EVERYTHING_PROMPTS at a time: ``attend``, which lends what it
    finds, and ``upscale``."""

    attend: Graph
    upscale: Graph


@dataclass(frozen=True, slots=True)
class WholeLane:
    """The same for decoders that have no such halves: ``decoder`` makes all masks, of which the wanted ones stay."""

    decoder: Graph


@dataclass(frozen=True, slots=True)
class LoadedGraphs:
    """The graphs of one variant, ready to run. ``lanes`` run beside each other, none waiting for another.

    ``masked_decoder`` is None where no prompt may have a mask, ``terms`` where ``lanes`` are :class:`WholeLane`.
    """

    encoder: Graph
    decoder: Decoder
    masked_decoder: Decoder | None
    terms: Graph | None
    lanes: tuple[Lane, ...] | tuple[WholeLane, ...]


class EmbeddedEngine:
    """Runs graphs on threads by stage, so that a prompt on a cached embedding doesn't wait for the image that is being
    encoded."""

    def __init__(self, name: str, precision: str, graphs: LoadedGraphs, capacity: Capacity) -> None:
        self.name = name
        self.precision = precision
        self.capacity = capacity
        self._loaded: LoadedGraphs | None = graphs
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-encode")
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-decode")
        self._beside = ThreadPoolExecutor(
            max(1, len(graphs.decoder.parts) - 1), thread_name_prefix=f"{name}-decode-beside"
        )
        self._everything = ThreadPoolExecutor(len(graphs.lanes), thread_name_prefix=f"{name}-everything")
        self._lanes: SimpleQueue[Lane | WholeLane] = SimpleQueue()
        """Those that are free: as many as threads are."""
        for lane in graphs.lanes:
            self._lanes.put(lane)
        self._latest = LatestTerms()
        self._terms_lock = Lock()
        self._closed = False

    @property
    def _graphs(self) -> LoadedGraphs:
        """Raises Unavailable once the engine is closed."""
        if self._loaded is None:
            raise Unavailable("the engine is closed")
        return self._loaded

    async def encode(self, images: Images, deadline: float) -> list[FloatArray]:  # noqa: ARG002
        """See :meth:`samgate.engines.base.Engine.encode`."""
        inputs: dict[str, NDArray[Any]] = {"image": images.pixels, "valid": images.valid}
        ((embeddings, *_),) = await self._run(self._encoding, lambda: self._graphs.encoder(inputs))
        # One array each: a slice would keep the whole batch in memory for as long as one of its images is cached.
        return [one.copy() for one in embeddings] if len(embeddings) > 1 else [embeddings[0]]

    async def decode(
        self,
        embeddings: Sequence[FloatArray],
        prompts: Prompts,
        deadline: float,  # noqa: ARG002
    ) -> Decoded:
        """See :meth:`samgate.engines.base.Engine.decode`."""
        graph = self._graphs.decoder if prompts.masks is None else self._graphs.masked_decoder
        if graph is None:
            raise ValueError("a prompt with a mask, and no graph for it")
        axis = 0 if len(embeddings) > 1 else 1
        calls = [_inputs(*part) for part in divide(embeddings, prompts, len(graph.parts))]
        (results,) = await self._run(self._decoding, lambda: graph.run(calls, self._beside))
        masks, ious = (_joined([result[index] for result in results], axis) for index in range(2))
        return Decoded(masks, ious)

    async def survivors(
        self,
        embedding: FloatArray,
        prompts: Prompts,
        choose: Choose,
        deadline: float,  # noqa: ARG002
    ) -> Survivors:
        """See :meth:`samgate.engines.base.Engine.survivors`."""
        size = self.capacity.together
        groups = [_slice(prompts, 1, start, start + size) for start in range(0, prompts.coords.shape[1], size)]
        found = await self._run(
            self._everything, *(partial(self._survivors, embedding, group, choose) for group in groups)
        )
        kept = [part.kept + np.array([index * size, 0], np.int32) for index, part in enumerate(found)]
        masks, ious = (_joined([getattr(part, name) for part in found], 0) for name in ("masks", "ious"))
        return Survivors(masks, _joined(kept, 0), ious)

    def _survivors(self, embedding: FloatArray, prompts: Prompts, choose: Choose) -> Survivors:
        """Of at most ``capacity.together`` prompts, on a thread of their own."""
        terms = self._graphs.terms
        known = self._terms(terms, embedding) if terms is not None else {}
        lane = self._lanes.get()
        try:
            if isinstance(lane, WholeLane):
                return _decoded_survivors(lane, embedding, prompts, choose)
            return _survivors(lane, known, prompts, choose)
        finally:
            self._lanes.put(lane)

    def _terms(self, graph: Graph, embedding: FloatArray) -> Terms:
        with self._terms_lock:
            found = self._latest.of(embedding)
            if found is None:
                made = graph({"image_embedding": embedding[None]})
                self._latest.keep(embedding, found := dict(zip(TERMS, made, strict=True)))
            return found

    async def healthy(self) -> bool:
        """Runs in this process: as healthy as the process, until closed."""
        return not self._closed

    async def close(self) -> None:
        """See :meth:`samgate.engines.base.Engine.close`."""
        self._closed = True
        for executor in (self._encoding, self._decoding, self._beside, self._everything):
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)
        # A gigabyte, which is not to wait until the last of those who know the engine is gone.
        self._loaded, self._lanes, self._latest = None, SimpleQueue(), LatestTerms()

    async def _run(self, executor: ThreadPoolExecutor, *runs: Callable[[], T]) -> list[T]:
        if self._closed:
            raise Unavailable("the engine is closed")
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, run) for run in runs]
        try:
            await asyncio.wait(calls)
        except asyncio.CancelledError:
            # A graph that runs can't be stopped: the engine is not free before it has ended.
            await asyncio.wait(calls)
            _errors(calls)  # nobody else asks for them, of which asyncio would complain
            raise
        errors = _errors(calls)
        if errors and isinstance(errors[0], RuntimeError):
            raise Unavailable(f"{self.name} could not run the graph: {errors[0]}") from errors[0]
        if errors:
            raise errors[0]
        return [call.result() for call in calls]


def _errors(calls: Sequence[asyncio.Future[T]]) -> list[BaseException]:
    return [error for call in calls if not call.cancelled() and (error := call.exception()) is not None]


def _survivors(lane: Lane, terms: Terms, prompts: Prompts, choose: Choose) -> Survivors:
    count = prompts.coords.shape[1]
    lent = lane.attend({name: terms[name] for name in _ATTENDING} | _prompts(_padded(prompts)))
    ious, coarse = lent[0][0, :count].copy(), lent[1][0, :count]
    chosen, size = choose(ious, coarse), 4 * coarse.shape[-1]
    masks = np.empty((len(chosen.kept), size, size), np.float32)
    for prompt in np.unique(chosen.kept[:, 0]).tolist():
        at = np.flatnonzero(chosen.kept[:, 0] == prompt)
        drawn = sketch(terms, lent, prompt, chosen.kept[at, 1], chosen.blocks[at])
        drawn.finish([lane.upscale(part.inputs)[0] for part in drawn.parts], masks[at[0] : at[-1] + 1])
    return Survivors(masks, chosen.kept, ious)


def _decoded_survivors(lane: WholeLane, embedding: FloatArray, prompts: Prompts, choose: Choose) -> Survivors:
    masks, ious = (output[0] for output in lane.decoder(_inputs([embedding], prompts)))
    kept = choose(ious, coarse_of(masks)).kept
    return Survivors(masks[kept[:, 0], kept[:, 1]], kept, ious)


def divide(
    embeddings: Sequence[FloatArray], prompts: Prompts, parts: int
) -> list[tuple[Sequence[FloatArray], Prompts]]:
    """A decoder call as one, or as up to ``parts`` of equal size, in order, for as many threads.

    Several images are divided by image, so that their embeddings needn't be copied into one array; prompts on one image
    where there is at least one for each thread.
    """
    images, count = len(embeddings), prompts.coords.shape[1]
    if images > 1 and parts > 1:
        ends = _ends(images, min(images, parts))
        return [(embeddings[start:end], _slice(prompts, 0, start, end)) for start, end in ends]
    if images == 1 and count >= parts > 1:
        return [(embeddings, _slice(prompts, 1, start, end)) for start, end in _ends(count, parts)]
    return [(embeddings, prompts)]


def _ends(count: int, parts: int) -> list[tuple[int, int]]:
    ends = [count * part // parts for part in range(parts + 1)]
    return list(pairwise(ends))


def _slice(prompts: Prompts, axis: int, start: int, end: int) -> Prompts:
    place = (slice(None),) * axis + (slice(start, end),)
    return Prompts(
        np.ascontiguousarray(prompts.coords[place]),
        np.ascontiguousarray(prompts.labels[place]),
        None if prompts.masks is None else np.ascontiguousarray(prompts.masks[place]),
        None if prompts.has_mask is None else np.ascontiguousarray(prompts.has_mask[place]),
    )


def _inputs(embeddings: Sequence[FloatArray], prompts: Prompts) -> dict[str, NDArray[Any]]:
    stacked = np.stack(embeddings) if len(embeddings) > 1 else embeddings[0][None]
    inputs = {"image_embedding": stacked} | _prompts(prompts)
    if prompts.masks is not None and prompts.has_mask is not None:
        inputs |= {"mask_input": prompts.masks, "has_mask": prompts.has_mask}
    return inputs


def _prompts(prompts: Prompts) -> dict[str, NDArray[Any]]:
    return {"point_coords": prompts.coords, "point_labels": prompts.labels}


_ATTENDING = TERMS[:-1]


def _padded(prompts: Prompts) -> Prompts:
    """With the last one again and again, until there are EVERYTHING_PROMPTS."""
    missing = EVERYTHING_PROMPTS - prompts.coords.shape[1]
    if not missing:
        return prompts
    return Prompts(
        *(np.concatenate([x, np.repeat(x[:, -1:], missing, axis=1)], axis=1) for x in (prompts.coords, prompts.labels))
    )


def _joined(arrays: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
