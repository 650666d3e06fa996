"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
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

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Client:
    """Calls a samgate server; safe to share between threads. Connects with its first call.

    Calls raise the :class:`~samgate.errors.SamgateError` that the server raised. A server that is unavailable, or
    that is full and says for how long, is tried again, within the call's deadline.

    Args:
        target: gRPC address, such as ``host:50051`` or ``unix:/run/samgate.sock``.
        timeout_s: deadline of a call, over all of its tries, where the call names none (default: 60 s, for
            :meth:`everything` 300 s).
        retries: most tries after the first; 0 switches retrying off.
        credentials: for TLS; without, the connection is not encrypted.
        token: bearer token for a server that asks who calls. Without TLS it is sent to this machine only.
    """

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
        self._lock = threading.Lock()
        self._opened: grpc.Channel | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel calls under way and disconnect, for good."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def segment(
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
        """SegAny: masks for ``prompts``, or for the one prompt that ``points``, ``labels``, ``box`` and
        ``mask_logits`` describe together, or ``text`` alone (see :func:`samgate.client.prompt`).

        For a text, ``single`` and ``best`` are the detection that it fits best, ``multi`` the three that it fits best,
        and ``Mask.predicted_iou`` is the probability that it means this one. With what :meth:`embed` returned it is
        answered after a text on the image itself, while the server remembers that: NotFound asks for the image.

        Args:
            image: a path, a file's bytes, uint8 RGB ``[H, W, 3]`` or grey ``[H, W]``, or what :meth:`embed` returned.
            selection: ``single`` (best for boxes and several points), ``multi`` (whole, part and subpart) or
                ``best`` of those three (best for one click).
            format: ``rle``, ``png``, ``polygons``, ``packed_bits`` or ``low_res_logits``.
            return_logits: also fill ``Mask.low_res_logits``, to refine the mask with a further prompt.
            variant: which one to use (``mobilesam``, or with its precision, ``mobilesam:int8``); empty lets the server
                choose the most accurate that meets the deadline.
            min_accuracy: the least mIoU, 0 to 1, that what answers has for such prompts; Infeasible if none has it.
            priority: ``interactive``, or ``bulk`` for what lets interactive calls go first.
            timeout_s: deadline of this call, which the server plans with: Overloaded if it is too busy to meet it,
                Infeasible, with the smallest that would do, if it could not even when idle.
        """
        several = prompting.one_or_many(prompts, points, labels, box, mask_logits, text)
        choice = requests.Choice(variant, min_accuracy, priority)
        request = requests.segment_request(image, several, selection, format, return_logits, choice)
        return readers.read_segmentation(self._call(self._stub().Segment, request, timeout_s), Format(format))

    def embed(
        self,
        image: ImageLike,
        *,
        variant: str = "",
        min_accuracy: float = 0.0,
        priority: requests.Priority | str = requests.Priority.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> EmbeddedImage:
        """Encode ``image`` now; give the result to :meth:`segment` in its place."""
        request = requests.embed_request(image, requests.Choice(variant, min_accuracy, priority))
        return readers.read_embedded(self._call(self._stub().Embed, request, timeout_s))

    def everything(
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
        """SegEvery: all masks of ``image``, in any format but ``low_res_logits``.

        Args:
            strategy: ``grid``, ``hierarchical``, ``object_aware``, ``aop`` or ``auto``.
            anytime: let masks come while they are found, and take those that there are at the deadline, where others
                raise DeadlineExceeded; ``auto`` always does. The result says whether it is ``complete``.
            on_progress: told how far the call is.
            on_masks: told, whenever there are new masks, all that there are by then, best predicted first.
            options: the parameters of the strategy, by their names in :class:`EverythingOptions`.
        """
        collector = readers.EverythingCollector(on_progress, on_masks)
        choice = requests.Choice(variant, min_accuracy)
        request = requests.everything_request(image, options, format, choice, strategy, anytime)
        with closing(self._messages(request, Format(format), timeout_s)) as answers:
            for events in answers:
                collector.add_message(events)
        return collector.everything()

    def everything_events(
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
    ) -> Generator[EverythingEvent, None, None]:
        """:meth:`everything` as it happens: progress, then masks, then the summary; of an anytime call, masks and
        retractions while it goes on. Closing the generator (or leaving it to the garbage collector) cancels the call,
        and the server stops working on it."""
        choice = requests.Choice(variant, min_accuracy)
        request = requests.everything_request(image, options, format, choice, strategy, anytime)
        return self._events(request, Format(format), timeout_s)

    def variants(self, *, timeout_s: float | None = None) -> list[VariantInfo]:
        """The variants the server knows."""
        request = pb.ListVariantsRequest()
        return readers.read_variants(self._call(self._stub().ListVariants, request, timeout_s))

    def healthy(self, *, timeout_s: float = channel.HEALTH_TIMEOUT_S) -> bool:
        """Whether a server answers and says that it serves. Never raises for a server that doesn't."""
        check = self._channel().unary_unary(
            channel.HEALTH_METHOD,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _channel(self) -> grpc.Channel:
        with self._lock:
            if self._closed:
                raise SamgateError("the client is closed")
            if self._opened is None and self._credentials is not None:
                self._opened = grpc.secure_channel(self.target, self._credentials, channel.OPTIONS)
            elif self._opened is None:
                self._opened = grpc.insecure_channel(self.target, channel.OPTIONS)
            return self._opened

    def _stub(self) -> SegmentationStub:
        return SegmentationStub(self._channel())

    def _attempts(self, timeout_s: float | None, usual_s: float = channel.DEFAULT_TIMEOUT_S) -> Attempts:
        asked_s = self._timeout_s if timeout_s is None else timeout_s
        return Attempts(self._policy, usual_s if asked_s is None else asked_s)

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Answer], request: Request, timeout_s: float | None
    ) -> Answer:
        attempts = self._attempts(timeout_s)
        while True:
            call = method.future(request, timeout=attempts.remaining_s(), metadata=self._metadata)
            try:
                return call.result()
            except grpc.RpcError as error:
                self._pause_or_raise(attempts, error)
            except grpc.FutureCancelledError as error:
                raise SamgateError("the client was closed during the call") from error
            finally:
                call.cancel()  # on KeyboardInterrupt; a finished call ignores it

    def _events(
        self, request: pb.SegmentEverythingRequest, asked: Format, timeout_s: float | None
    ) -> Generator[EverythingEvent, None, None]:
        with closing(self._messages(request, asked, timeout_s)) as answers:
            for events in answers:
                yield from events

    def _messages(
        self, request: pb.SegmentEverythingRequest, asked: Format, timeout_s: float | None
    ) -> Generator[list[EverythingEvent], None, None]:
        attempts = self._attempts(timeout_s, channel.DEFAULT_EVERYTHING_TIMEOUT_S)
        while True:
            call = self._stub().SegmentEverything(request, timeout=attempts.remaining_s(), metadata=self._metadata)
            begun = False
            try:
                for answer in call:
                    begun = True
                    yield readers.read_everything(answer, asked)
                return
            except grpc.RpcError as error:
                # What was delivered can't be taken back, so that only calls without an answer yet are tried again.
                if begun:
                    raise from_rpc_error(error) from error
                self._pause_or_raise(attempts, error)
            finally:
                call.cancel()

    def _pause_or_raise(self, attempts: Attempts, error: grpc.RpcError) -> None:
        if self._closed:
            raise SamgateError("the client was closed during the call") from error
        failure = from_rpc_error(error)
        pause = attempts.pause_after(failure)
        if pause is None:
            raise attempts.last_word(failure) from error
        time.sleep(pause)
        # Which tells if the client was closed meanwhile.
        self._channel()
