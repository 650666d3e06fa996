"""Answers calls: image → embedding → prompts → masks. No proto, no sockets: the API and tests stand on it alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from samgate import tracing
from samgate.config import Settings
from samgate.domain import IntArray
from samgate.engines.base import Decoded, TextModel
from samgate.engines.cpu import usable_cores
from samgate.errors import InvalidArgument, NotInstalled
from samgate.scheduling.core import Options, Scheduler
from samgate.scheduling.device import Batch
from samgate.scheduling.policy import POLICIES
from samgate.scheduling.profile import DeviceProfile
from samgate.segevery.strategies import Boxes, inapplicable
from samgate.serving.admission import Admitted, Demand, Door, bulk, prompt_kind
from samgate.serving.answers import AnswerSize, answer_prompt, check_prompts_inside
from samgate.serving.dispatch import Dispatcher, Watch
from samgate.serving.everything import NO_DETECTOR, Detect, EverythingCall, EverythingEvent, demand_of, run_everything
from samgate.serving.images import Images
from samgate.serving.models import Model
from samgate.serving.prompting import group_prompts, unsupported
from samgate.serving.requests import AnsweredMask, Handle, Image, SegmentCall, Trace, Wish
from samgate.serving.words import NO_TEXT_MODEL, Meaning, Words
from samgate.sessions import Embedding, EmbeddingCache

_DEVICE = "engine"


class Gateway:
    """Serves ``models``, of which ``profile`` tells speed and accuracy; ``detect`` finds objects, where a detector is
    served; ``text_model`` knows what words mean, where one is; ``weight`` is a client's fair share. For one event loop;
    :meth:`close` ends it."""

    def __init__(
        self,
        settings: Settings,
        models: Sequence[Model],
        profile: DeviceProfile,
        watch: Watch | None = None,
        detect: Detect | None = None,
        weight: Callable[[str], float] = lambda client: 1.0,
        text_model: TextModel | None = None,
    ) -> None:
        self._detect = detect
        self.text_model = text_model
        self.settings = settings
        self.profile = profile
        self.models = {model.name: model for model in models}
        self.cache = EmbeddingCache(settings.cache.max_bytes, settings.cache.ttl_s)
        self.scheduler = Scheduler({_DEVICE: profile}, time.monotonic(), _options(settings, weight))
        # One more than the cores: the threads also wait for memory, and a call must not wait for a slow neighbour.
        self._executor = ThreadPoolExecutor(usable_cores() + 1, thread_name_prefix="imaging")
        self._words = None if text_model is None else Words(text_model, self._executor, settings.cache.ttl_s)
        self._dispatcher = Dispatcher(self.scheduler, self._run, watch)
        self.images = Images(settings, self.cache, self._executor, self._dispatcher)
        self._door = Door(self.models, self.images, self._dispatcher)

    async def segment(self, call: SegmentCall) -> tuple[list[list[AnsweredMask]], Trace]:
        """Masks for each prompt of ``call``, in the order of its prompts.

        Raises InvalidArgument, NotFound, NotInstalled, Infeasible, Overloaded, DeadlineExceeded and Unavailable.
        """
        self._door.points(call.wish.variant)
        words = [index for index, prompt in enumerate(call.prompts) if prompt.text]
        tokens = await self._tokens(call) if words else None
        source = await self.images.look_at(call.image, self.models.values())
        check_prompts_inside(call.prompts, source.size)
        demand = Demand(prompt_kind(call.prompts), len(call.prompts) - len(words))
        async with self._door.admitted(source, call.wish, demand, partial(unsupported, call.prompts)) as admitted:
            embedding = await admitted.embed()
            size = AnswerSize(self.settings.limits.max_message_bytes)
            finisher = _Finisher(call, admitted, embedding, self._executor, size)
            groups = group_prompts(call.prompts, embedding.frame, admitted.model.spec, admitted.chunk)
            try:
                async with asyncio.TaskGroup() as tasks:
                    # Masks of one group are finished while the next is decoded.
                    for group in groups:
                        decoded = await admitted.decode(embedding, group)
                        for place, index in enumerate(group.indices):
                            tasks.create_task(finisher.finish(index, _answer(decoded, place)))
                    if self._words is not None and tokens is not None:
                        meanings = await self._words.meanings(admitted, embedding, tokens, call.wish.deadline)
                        for index, meaning in zip(words, meanings, strict=True):
                            tasks.create_task(finisher.finish(index, meaning))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
            admitted.trace.prompts = len(call.prompts)
            admitted.trace.masks = sum(map(len, finisher.results))
        return finisher.results, admitted.trace

    async def embed(self, image: Image, wish: Wish) -> Trace:
        """Encode ``image`` unless its embedding is held; the trace has its handle. Raises as :meth:`segment` does."""
        if isinstance(image, Handle):
            raise InvalidArgument("image.handle", "names an image that is embedded already; send encoded or raw")
        self._door.points(wish.variant)
        source = await self.images.look_at(image, self.models.values())
        async with self._door.admitted(source, wish, Demand("box", 0)) as admitted:
            await admitted.embed()
        return admitted.trace

    async def everything(self, call: EverythingCall) -> AsyncGenerator[EverythingEvent, None]:
        """All masks of an image; see :func:`samgate.serving.everything.run_everything`. Raises as :meth:`segment`.

        Of a call that takes what it can get in time, the scheduler is asked for the encodes and a few prompts alone.
        """
        strategy = call.spec
        if strategy.boxes is Boxes.NEEDED:
            if self._detect is None:
                raise NotInstalled(NO_DETECTOR)
            if isinstance(call.image, Handle):
                raise InvalidArgument("image.handle", "has no pixels to find objects in; send the image")
        self._door.points(call.wish.variant)
        source = await self.images.look_at(call.image, self.models.values())
        demand, refuse = demand_of(call, source.size), partial(inapplicable, call.strategy)
        async with self._door.admitted(source, bulk(call.wish), demand, refuse) as admitted:
            async for event in run_everything(call, admitted, self._executor, self._detect):
                yield event

    async def look_after_engines(self) -> dict[str, bool]:
        """Whether the engine of each operating point is healthy; lets the scheduler know how much they can do now."""
        engines = {name: model.engine for name, model in self.models.items()}
        self.scheduler.resize(_DEVICE, min(engine.capacity.parallel_calls for engine in engines.values()))
        return {name: await engine.healthy() for name, engine in engines.items()}

    async def close(self) -> None:
        """Fail what waits, finish what runs, free engines and threads."""
        async with AsyncExitStack() as stack:
            if self._words is not None:
                stack.push_async_callback(self._words.close)
            for model in self.models.values():
                stack.push_async_callback(model.engine.close)
            stack.push_async_callback(self._dispatcher.close)
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        self.cache.clear()

    async def _run(self, batch: Batch, loads: list[Any], deadline: float) -> list[Any]:
        return await self.models[batch.point].run(batch, loads, deadline)

    async def _tokens(self, call: SegmentCall) -> IntArray:
        """Of its prompts in words. Raises NotInstalled without a text model, and InvalidArgument."""
        if self._words is None:
            raise NotInstalled(NO_TEXT_MODEL)
        return await self._words.tokens(call.prompts)


class _Finisher:
    """Makes the masks of a call's answer: ``results``, by prompt."""

    def __init__(
        self, call: SegmentCall, admitted: Admitted, embedding: Embedding, executor: Executor, size: AnswerSize
    ) -> None:
        self.results: list[list[AnsweredMask]] = [[] for _ in call.prompts]
        self._call = call
        self._admitted = admitted
        self._embedding = embedding
        self._executor = executor
        self._size = size

    async def finish(self, index: int, found: Meaning) -> None:
        """Those of the prompt ``index``, of what ``found`` makes."""
        started = time.perf_counter()
        spec, frame = self._admitted.model.spec, self._embedding.frame

        def work() -> list[AnsweredMask]:
            return answer_prompt(*found(), frame, self._call, spec, self._size)

        with tracing.stage("masks"):
            self.results[index] = await asyncio.get_running_loop().run_in_executor(self._executor, work)
        self._admitted.trace.add("masks", time.perf_counter() - started)


def _answer(decoded: Decoded, place: int) -> Meaning:
    """That to one of a group's prompts."""
    return lambda: (decoded.low_res_masks[0, place], decoded.iou_predictions[0, place])


def _options(settings: Settings, weight: Callable[[str], float]) -> Options:
    scheduling = settings.scheduling
    return Options(
        policy=POLICIES[scheduling.policy],
        max_requests=settings.limits.max_concurrent_calls,
        max_waiting=settings.limits.max_queued,
        yield_s=scheduling.yield_s,
        weight=weight,
    )
