"""The client for asyncio: :class:`samgate.client.Client`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from numpy.typing import ArrayLike

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1.segmentation_pb2_grpc import SegmentationStub
from samgate.client import channel, readers, requests
from samgate.client import prompts as prompting
from samgate.client.failures import Attempts, RetryPolicy, from_rpc_error
from samgate.client.images import ImageLike
from samgate.client.results import (
    EmbeddedImage,
    Everything,
    EverythingEvent,
    Segmentation,
    VariantInfo,
)
from samgate.domain import Format, Prompt, Selection
from samgate.errors import SamgateError

if TYPE_CHECKING:
    from samgate.api.v1.segmentation_pb2_grpc import SegmentationAsyncStub

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class AsyncClient:
    """Calls a samgate server from one event loop: that of its first call. Arguments and errors are those of
    :class:`samgate.client.Client`; cancelling a task cancels its call, and the server stops working on it."""

    def __init__(
        self,
        target: str = channel.DEFAULT_TARGET,
        *,
        timeout_s: float | None = None,
        retries: int = 4,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
    ) -> None:
        self.target = target
        self._metadata = channel.metadata_of(target, token, credentials)
        self._timeout_s, self._policy, self._credentials = timeout_s, RetryPolicy(retries), credentials
        self._opened: grpc.aio.Channel | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel calls under way and disconnect, for good."""
        self._closed = True
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def segment(
        self,
        image: ImageLike,
        *,
        prompts: Sequence[Prompt] | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_logits: ArrayLike | None = None,
        text: str | None = None,
        selection: Selection | str = Selection.SINGLE,
        format: Format | str = Format.RLE,  # noqa: A002 - the contract's name
        return_logits: bool = False,
        variant: str = "",
        min_accuracy: float = 0.0,
        priority: requests.Priority | str = requests.Priority.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Segmentation:
        """As :meth:`samgate.client.Client.segment`."""
        attempts = self._attempts(timeout_s)
        several = prompting.one_or_many(prompts, points, labels, box, mask_logits, text)
        choice = requests.Choice(variant, min_accuracy, priority)
        request = await asyncio.to_thread(
            requests.segment_request, image, several, selection, format, return_logits, choice
        )
        return readers.read_segmentation(await self._call(self._stub().Segment, request, attempts), Format(format))

    async def embed(
        self,
        image: ImageLike,
        *,
        variant: str = "",
        min_accuracy: float = 0.0,
        priority: requests.Priority | str = requests.Priority.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> EmbeddedImage:
        """As :meth:`samgate.client.Client.embed`."""
        attempts = self._attempts(timeout_s)
        choice = requests.Choice(variant, min_accuracy, priority)
        request = await asyncio.to_thread(requests.embed_request, image, choice)
        return readers.read_embedded(await self._call(self._stub().Embed, request, attempts))

    async def everything(
        self,
        image: ImageLike,
        *,
        strategy: requests.Strategy | str = requests.Strategy.GRID,
        anytime: bool = False,
        on_progress: readers.OnProgress | None = None,
        on_masks: readers.OnMasks | None = None,
        format: Format | str = Format.RLE,  # noqa: A002 - the contract's name
        variant: str = "",
        min_accuracy: float = 0.0,
        timeout_s: float | None = None,
        **options: Unpack[requests.EverythingOptions],
    ) -> Everything:
        """As :meth:`samgate.client.Client.everything`."""
        collector = readers.EverythingCollector(on_progress, on_masks)
        choice = requests.Choice(variant, min_accuracy)
        ask = partial(requests.everything_request, image, options, format, choice, strategy, anytime)
        async with aclosing(self._messages(ask, Format(format), timeout_s)) as answers:
            async for events in answers:
                collector.add_message(events)
        return collector.everything()

    async def everything_events(
        self,
        image: ImageLike,
        *,
        strategy: requests.Strategy | str = requests.Strategy.GRID,
        anytime: bool = False,
        format: Format | str = Format.RLE,  # noqa: A002 - the contract's name
        variant: str = "",
        min_accuracy: float = 0.0,
        timeout_s: float | None = None,
        **options: Unpack[requests.EverythingOptions],
    ) -> AsyncGenerator[EverythingEvent, None]:
        """As :meth:`samgate.client.Client.everything_events`. Leaving ``async for`` early cancels the call only when
        the generator is closed: use :func:`contextlib.aclosing`."""
        choice = requests.Choice(variant, min_accuracy)
        ask = partial(requests.everything_request, image, options, format, choice, strategy, anytime)
        async with aclosing(self._messages(ask, Format(format), timeout_s)) as answers:
            async for events in answers:
                for event in events:
                    yield event

    async def variants(self, *, timeout_s: float | None = None) -> list[VariantInfo]:
        """As :meth:`samgate.client.Client.variants`."""
        attempts, request = self._attempts(timeout_s), pb.ListVariantsRequest()
        return readers.read_variants(await self._call(self._stub().ListVariants, request, attempts))

    async def healthy(self, *, timeout_s: float = channel.HEALTH_TIMEOUT_S) -> bool:
        """As :meth:`samgate.client.Client.healthy`."""
        check = self._channel().unary_unary(
            channel.HEALTH_METHOD,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise SamgateError("the client is closed")
        if self._opened is None and self._credentials is not None:
            self._opened = grpc.aio.secure_channel(self.target, self._credentials, channel.OPTIONS)
        elif self._opened is None:
            self._opened = grpc.aio.insecure_channel(self.target, channel.OPTIONS)
        return self._opened

    def _stub(self) -> SegmentationAsyncStub:
        return SegmentationStub(self._channel())

    def _attempts(self, timeout_s: float | None, usual_s: float = channel.DEFAULT_TIMEOUT_S) -> Attempts:
        asked_s = self._timeout_s if timeout_s is None else timeout_s
        return Attempts(self._policy, usual_s if asked_s is None else asked_s)

    async def _messages(
        self, ask: Callable[[], pb.SegmentEverythingRequest], asked: Format, timeout_s: float | None
    ) -> AsyncGenerator[list[EverythingEvent], None]:
        attempts = self._attempts(timeout_s, channel.DEFAULT_EVERYTHING_TIMEOUT_S)
        request = await asyncio.to_thread(ask)
        while True:
            call = self._stub().SegmentEverything(request, timeout=attempts.remaining_s(), metadata=self._metadata)
            begun = False
            try:
                async for answer in call:
                    begun = True
                    yield readers.read_everything(answer, asked)
                return
            except grpc.aio.AioRpcError as error:
                # What was delivered can't be taken back, so that only calls without an answer yet are tried again.
                if begun:
                    raise from_rpc_error(error) from error
                await self._pause_or_raise(attempts, error)
            finally:
                call.cancel()

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer], request: Request, attempts: Attempts
    ) -> Answer:
        while True:
            try:
                return await method(request, timeout=attempts.remaining_s(), metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                await self._pause_or_raise(attempts, error)

    async def _pause_or_raise(self, attempts: Attempts, error: grpc.aio.AioRpcError) -> None:
        if self._closed:
            raise SamgateError("the client was closed during the call") from error
        failure = from_rpc_error(error)
        pause = attempts.pause_after(failure)
        if pause is None:
            raise attempts.last_word(failure) from error
        await asyncio.sleep(pause)
        # Which tells if the client was closed meanwhile.
        self._channel()
