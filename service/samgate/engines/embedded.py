"""Engines that run in this process: the same two lanes of threads around whichever runtime executes the graphs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from samgate.domain import Choose, FloatArray, IntArray, Survivors
from samgate.engines.base import Capacity, Decoded, Images, Prompts
from samgate.engines.terms import LatestTerms, Terms
from samgate.errors import Unavailable
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
        """The results of ``calls``: of one on all threads, of several, no more than there are parts, at once."""
        if len(calls) == 1:
            return [self.whole(calls[0])]
        others = [executor.submit(part, call) for part, call in zip(self.parts[1 : len(calls)], calls[1:], strict=True)]
        try:
            first = self.parts[0](calls[0])
        finally:
            # Whatever becomes of it: a part that still runs can't be called.
            wait(others)
        return [first, *(other.result() for other in others)]


@dataclass(frozen=True, slots=True)
class LoadedGraphs:
    """The graphs of one variant, ready to run. ``attend`` takes EVERYTHING_PROMPTS prompts, and its ``whole`` is the
    first of its parts; ``upscale`` takes one prompt. Both lend what they find."""

    encoder: Graph
    decoder: Decoder
    masked_decoder: Decoder
    terms: Graph
    attend: Decoder
    upscale: Decoder


@dataclass(frozen=True, slots=True)
class _Attended:
    """Prompts after ``attend``: int32 ``chosen`` ``[S, 2]`` of their masks, predicted ``ious`` ``[P, M]``, and what
    ``upscale`` needs of each prompt of which a mask is chosen."""

    chosen: IntArray
    ious: FloatArray
    states: list[dict[str, NDArray[Any]]]


class EmbeddedEngine:
    """Runs graphs on two lanes, one a stage, so that a prompt on a cached embedding doesn't wait for the image that is
    being encoded."""

    def __init__(self, name: str, precision: str, graphs: LoadedGraphs, capacity: Capacity) -> None:
        self.name = name
        self.precision = precision
        self.capacity = capacity
        self._graphs = graphs
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-encode")
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-decode")
        self._beside = ThreadPoolExecutor(
            max(1, len(graphs.decoder.parts) - 1), thread_name_prefix=f"{name}-decode-beside"
        )
        self._latest = LatestTerms()
        self._closed = False

    async def encode(self, images: Images, deadline: float) -> list[FloatArray]:  # noqa: ARG002
        """See :meth:`samgate.engines.base.Engine.encode`."""
        inputs: dict[str, NDArray[Any]] = {"image": images.pixels, "valid": images.valid}
        embeddings = (await self._run(self._encoding, lambda: self._graphs.encoder(inputs)))[0]
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
        axis = 0 if len(embeddings) > 1 else 1
        calls = [_inputs(*part) for part in divide(embeddings, prompts, len(graph.parts))]
        results = await self._run(self._decoding, lambda: graph.run(calls, self._beside))
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
        count, step = prompts.coords.shape[1], EVERYTHING_PROMPTS * max(1, len(self._graphs.attend.parts))

        def run() -> Survivors:
            terms = self._terms(embedding)
            parts = [
                self._attend(terms, _slice(prompts, 1, start, min(start + step, count)), choose)
                for start in range(0, count, step)
            ]
            chosen = np.concatenate([part.chosen + np.array([start * step, 0]) for start, part in enumerate(parts)])
            chosen = chosen.astype(np.int32, copy=False)
            states = [state for part in parts for state in part.states]
            return Survivors(self._masks(terms, states, chosen), chosen, _joined([part.ious for part in parts], 0))

        return await self._run(self._decoding, run)

    def _attend(self, terms: Terms, prompts: Prompts, choose: Choose) -> _Attended:
        """No more ``prompts`` than there is room for at once, on the decoder's thread."""
        attend = self._graphs.attend
        parts = [part for _, part in divide([terms["image_pixels"]], prompts, len(attend.parts))]
        counts = [part.coords.shape[1] for part in parts]
        shared = {name: terms[name] for name in _ATTENDING}
        lent = attend.run([shared | _prompts(_padded(part)) for part in parts], self._beside)
        ious, coarse = (
            _joined([one[index][:, :count] for one, count in zip(lent, counts, strict=True)], 1)[0]
            for index in range(2)
        )
        chosen = choose(ious, coarse)
        whose = [(one[2:], prompt) for one, count in zip(lent, counts, strict=True) for prompt in range(count)]
        states = [_state(*whose[prompt]) for prompt in np.unique(chosen[:, 0])]
        return _Attended(chosen, ious.copy(), states)

    def _masks(self, terms: Terms, states: Sequence[dict[str, NDArray[Any]]], chosen: IntArray) -> FloatArray:
        """Those that are ``chosen``, int32 ``[S, 2]``, of prompts whose ``states`` these are: ``[S, 4H, 4H]``."""
        upscale, shared = self._graphs.upscale, {name: terms[name] for name in _UPSCALING}
        size = 4 * math.isqrt(terms["image_pixels"].shape[1])
        masks, made = np.empty((len(chosen), size, size), np.float32), 0
        tokens = [chosen[chosen[:, 0] == prompt, 1] for prompt in np.unique(chosen[:, 0])]
        at_once = max(1, len(upscale.parts))
        for start in range(0, len(states), at_once):
            lent = upscale.run([shared | state for state in states[start : start + at_once]], self._beside)
            for one, wanted in zip(lent, tokens[start : start + at_once], strict=True):
                masks[made : made + len(wanted)] = one[0][0, wanted]
                made += len(wanted)
        return masks

    def _terms(self, embedding: FloatArray) -> Terms:
        """On the decoder's thread."""
        found = self._latest.of(embedding)
        if found is None:
            made = self._graphs.terms({"image_embedding": embedding[None]})
            self._latest.keep(embedding, found := dict(zip(TERMS, made, strict=True)))
        return found

    async def healthy(self) -> bool:
        """Runs in this process: as healthy as the process, until closed."""
        return not self._closed

    async def close(self) -> None:
        """See :meth:`samgate.engines.base.Engine.close`."""
        self._closed = True
        for executor in (self._encoding, self._decoding, self._beside):
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)

    async def _run(self, executor: ThreadPoolExecutor, run: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("the engine is closed")
        call = asyncio.get_running_loop().run_in_executor(executor, run)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            # A graph that runs can't be stopped: the engine is not free before it has ended.
            await asyncio.wait([call])
            raise
        except RuntimeError as error:
            raise Unavailable(f"{self.name} could not run the graph: {error}") from error


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


_ATTENDING, _UPSCALING = TERMS[:-1], TERMS[-2:]
_ATTENDED = ("mask_tokens", "token_scale", "token_weights", "token_vectors")
_PROMPT_AXES = (0, 1, 1, 0)


def _state(attended: Sequence[NDArray[Any]], prompt: int) -> dict[str, NDArray[Any]]:
    """What ``upscale`` needs of one ``prompt``, copied."""
    arrays = zip(_ATTENDED, attended, _PROMPT_AXES, strict=True)
    return {name: array.take([prompt], axis) for name, array, axis in arrays}


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
