"""Answers calls: image → embedding → prompts → masks. No proto, no sockets: the API and tests stand on it alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from samgate.config import Settings
from samgate.domain import FloatArray
from samgate.engines.cpu import usable_cores
from samgate.errors import InvalidArgument, NotInstalled
from samgate.serving.answers import AnswerSize, answer_prompt, check_prompts_inside
from samgate.serving.everything import EverythingCall, EverythingEvent, run_everything
from samgate.serving.images import Images
from samgate.serving.models import DecodeWork, Model
from samgate.serving.prompting import PromptGroup, group_prompts
from samgate.serving.requests import AnsweredMask, Handle, Image, SegmentCall, Trace
from samgate.sessions import Embedding, EmbeddingCache
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec


class Gateway:
    """Serves ``models`` (by variant name, the first is the default). For one event loop; :meth:`close` ends it."""

    def __init__(self, settings: Settings, models: Mapping[str, Model]) -> None:
        self.settings = settings
        self.models = dict(models)
        self.default = next(iter(self.models))
        self.cache = EmbeddingCache(settings.cache.max_bytes, settings.cache.ttl_s)
        # One more than the cores: the threads also wait for memory, and a call must not wait for a slow neighbour.
        self._executor = ThreadPoolExecutor(usable_cores() + 1, thread_name_prefix="imaging")
        self.images = Images(settings, self.cache, self._executor)

    async def segment(self, call: SegmentCall) -> tuple[list[list[AnsweredMask]], Trace]:
        """Masks for each prompt of ``call``, in the order of its prompts.

        Raises InvalidArgument, NotFound, NotInstalled, Overloaded, DeadlineExceeded and Unavailable.
        """
        model = self.model(call.variant, call.image)
        trace = self._trace(model)
        trace.prompts = len(call.prompts)
        embedding = await self.images.embed(
            call.image, model, call.deadline, trace, check=lambda size: check_prompts_inside(call.prompts, size)
        )
        answer = AnswerSize(self.settings.limits.max_message_bytes)
        groups = group_prompts(call.prompts, embedding.frame, model.spec, model.engine.capacity.max_prompts)
        results: list[list[AnsweredMask]] = [[] for _ in call.prompts]
        try:
            async with asyncio.TaskGroup() as tasks:
                # Masks of one group are finished while the next is decoded.
                for group in groups:
                    await self._decode_group(model, embedding, group, call, results, tasks, trace, answer)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        trace.masks = sum(map(len, results))
        return results, trace

    async def embed(self, image: Image, variant: str, deadline: float) -> Trace:
        """Encode ``image`` unless its embedding is held; the trace has its handle. Raises as :meth:`segment` does."""
        if isinstance(image, Handle):
            raise InvalidArgument("image.handle", "names an image that is embedded already; send encoded or raw")
        model = self.model(variant, image)
        trace = self._trace(model)
        await self.images.embed(image, model, deadline, trace)
        return trace

    def everything(self, call: EverythingCall) -> AsyncGenerator[EverythingEvent, None]:
        """All masks of an image; see :func:`samgate.serving.everything.run_everything`."""
        model = self.model(call.variant, call.image)
        return run_everything(call, model, self.images, self._executor, self._trace(model))

    def model(self, variant: str, image: Image) -> Model:
        """The model that a request gets: the one it names, the one its handle was made by, or the default.

        Raises NotFound for an unknown variant, NotInstalled for one that isn't served here.
        """
        name = variant or self.default
        if isinstance(image, Handle):
            made_by = image.value.partition(".")[0]
            if made_by in self.models:
                if variant and variant != made_by:
                    raise InvalidArgument("variant", f"is {variant!r}, but image.handle was made by {made_by!r}")
                name = made_by
        if name not in self.models:
            raise NotInstalled(not_served(get_variant(name)))
        return self.models[name]

    async def close(self) -> None:
        """Fail what waits, finish what runs, free engines and threads."""
        async with AsyncExitStack() as stack:
            for model in self.models.values():
                stack.push_async_callback(model.close)
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        self.cache.clear()

    def _trace(self, model: Model) -> Trace:
        return Trace(model.spec.name, model.engine.precision, model.engine.name)

    async def _decode_group(
        self,
        model: Model,
        embedding: Embedding,
        group: PromptGroup,
        call: SegmentCall,
        results: list[list[AnsweredMask]],
        tasks: asyncio.TaskGroup,
        trace: Trace,
        answer: AnswerSize,
    ) -> None:
        done = await model.decode(DecodeWork(embedding.values, group.prompts), group.key, call.deadline)
        trace.add("queue", done.queue_s)
        trace.add("decode", done.run_s)

        async def finish_prompt(index: int, low_res: FloatArray, ious: FloatArray) -> None:
            started = time.perf_counter()
            results[index] = await asyncio.get_running_loop().run_in_executor(
                self._executor, answer_prompt, low_res, ious, embedding.frame, call, model.spec, answer
            )
            trace.add("masks", time.perf_counter() - started)

        for place, index in enumerate(group.indices):
            tasks.create_task(
                finish_prompt(index, done.result.low_res_masks[0, place], done.result.iou_predictions[0, place])
            )


def not_served(spec: VariantSpec) -> str:
    """Says that ``spec`` isn't served, and what to do about it."""
    return (
        f"variant {spec.name!r} is not served here; install it with `samgate pull {spec.name}` "
        f"and start the server with `samgate serve --variants {spec.name}`"
    )
