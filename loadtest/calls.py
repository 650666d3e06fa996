"""Requests to the server by gRPC's blocking stubs, which gevent turns into switches: a greenlet a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import grpc

from loadtest.plan import Plan
from loadtest.targets import Files, check_target, check_token, is_local, read_files
from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1.segmentation_pb2_grpc import SegmentationStub
from samgate.client.failures import from_rpc_error
from samgate.errors import DeadlineExceeded, InvalidArgument, SamgateError
from samgate.load.requests import Photo, Requests
from samgate.load.wire import CHANNEL_OPTIONS, CLIENT_HEADER, Failure, answered, failed, timeout_s
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import Outcome
from samgate.simulation.pictures import Catalogue

_REACH_TIMEOUT_S = 10.0
_EMBED_TIMEOUT_S = 60.0
_MOST_PRIMED = 128
"""Embeddings of 4 MiB that a server's cache holds unless it is told otherwise."""


def open_channel(target: str, allowed: str, token: str, files: Files) -> grpc.Channel:
    """A channel to ``target``, which isn't connected yet. Raises InvalidArgument for a target that is neither this
    machine nor ``allowed``, SamgateError where the token would go in plain text or a file can't be read."""
    check_target(target, allowed)
    check_token(target, token, files)
    # A proxy of the environment could lead anywhere.
    options = (*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0)) if is_local(target) else CHANNEL_OPTIONS
    if not files.ca:
        return grpc.insecure_channel(target, options)
    authorities, certificate, key = read_files(files)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(authorities, key, certificate), options)


class Caller:
    """Sends the requests of one source of a plan, over several connections that it owns; :meth:`close` ends them."""

    def __init__(
        self, plan: Plan, source: int, photos: list[Photo], connect: Callable[[], grpc.Channel], token: str
    ) -> None:
        self.plan, self._source, self._photos = plan, source, photos
        self._salt = f"{plan.salt} {source} ".encode()
        self._channels = [connect() for _ in range(plan.connections)]
        self._stubs = [SegmentationStub(channel) for channel in self._channels]
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def close(self) -> None:
        """Cancel what is under way, and disconnect."""
        for channel in self._channels:
            channel.close()

    def reach(self) -> tuple[str, ...]:
        """Ask the server for the names of its operating points, over each connection, so that none has to be opened
        during the run. Raises SamgateError with what the server answers, or that it doesn't."""
        for stub in self._stubs:
            try:
                found = stub.ListVariants(
                    pb.ListVariantsRequest(), timeout=_REACH_TIMEOUT_S, metadata=self._metadata, wait_for_ready=True
                )
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                late = isinstance(failure, DeadlineExceeded)
                why = (
                    f"it hasn't answered within {_REACH_TIMEOUT_S:g} s; does it run, with TLS if --ca is given?"
                    if late
                    else str(failure)
                )
                raise SamgateError(f"the server can't be used: {why}") from error
        return tuple(point.name for one in found.variants if one.served for point in one.operating_points)

    def prime(self, points: Sequence[str]) -> None:
        """Have all images of the workload's catalogue embedded by each of ``points``. Raises InvalidArgument where
        there is no catalogue, or more than a cache would hold; SamgateError when the server refuses."""
        pictures = self.plan.files[self._source].pictures
        images = pictures.size if isinstance(pictures, Catalogue) else 0
        if not 0 < images * len(points) <= _MOST_PRIMED:
            raise InvalidArgument(
                "images",
                f"are {images or 'no catalogue'}, and {len(points)} operating points are served; embedding them all "
                f"takes a catalogue (zipf) of at most {_MOST_PRIMED} embeddings",
            )
        for image in range(images):
            segment = self._requests(0).segment(Arrival(0.0, image, 0.0, "point", 1, 1.0))
            for point in points:
                request = pb.EmbedRequest(image=segment.image, variant=point)
                try:
                    self._stubs[0].Embed(request, timeout=_EMBED_TIMEOUT_S, metadata=self._metadata)
                except grpc.RpcError as error:
                    raise from_rpc_error(error) from error

    def ask(self, number: int, arrival: Arrival, clock: Callable[[], float]) -> Outcome:
        """Send one request and wait for its end; ``clock`` tells the seconds since the run began."""
        stub = self._stubs[number % len(self._stubs)]
        made = self._requests(number)
        metadata = ((CLIENT_HEADER, arrival.client), *self._metadata)
        try:
            if arrival.everything:
                request = made.everything(arrival)
                call = stub.SegmentEverything(request, timeout=timeout_s(arrival, clock()), metadata=metadata)
                info = _summary(call)
            else:
                segment = made.segment(arrival)
                info = stub.Segment(segment, timeout=timeout_s(arrival, clock()), metadata=metadata).info
        except grpc.RpcError as error:
            return failed(arrival, cast(Failure, error), clock())
        return answered(arrival, info, clock())

    def _requests(self, number: int) -> Requests:
        # One for each request: what it asks must not depend on which process sends how many before it.
        return Requests(self._photos, self.plan.seed * 2**20 + number, self._salt)


def _summary(call: Any) -> pb.AnswerInfo:
    info = pb.AnswerInfo()
    for answer in call:
        if answer.WhichOneof("event") == "summary":
            info = answer.summary.info
    return info
