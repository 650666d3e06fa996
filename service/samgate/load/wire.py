"""One request of a workload on its way: how it is sent and what its end means, the same for all generators. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import grpc

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome

CLIENT_HEADER = "samgate-client"
"""Metadata that says which of the workload's clients asks; for servers whose ``scheduling.client_header`` it is."""

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 64 * 2**20),
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.use_local_subchannel_pool", 1),
)

_LEAST_TIMEOUT_S = 1e-3
_STATUS = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: End.REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: End.REFUSED,
    grpc.StatusCode.DEADLINE_EXCEEDED: End.DROPPED,
}


class Failure(Protocol):
    """What errors of gRPC's sync and async calls have in common."""

    def code(self) -> grpc.StatusCode: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def timeout_s(arrival: Arrival, now_s: float) -> float:
    """What is left for a request that is sent at ``now_s`` of the workload's time: its deadline counts from when it was
    scheduled."""
    return max(arrival.at_s + arrival.deadline_s - now_s, _LEAST_TIMEOUT_S)


def answered(arrival: Arrival, info: pb.AnswerInfo, now_s: float) -> Outcome:
    """The outcome of a request whose answer came at ``now_s``."""
    return Outcome(
        arrival,
        End.ON_TIME if now_s <= arrival.at_s + arrival.deadline_s else End.LATE,
        now_s,
        point=f"{info.variant}:{info.precision}",
        accuracy=info.decision.accuracy,
        cached=info.embedding_cached,
        decode_s=info.timings.decode_ms / 1e3,
    )


def failed(arrival: Arrival, error: Failure, now_s: float) -> Outcome:
    """The outcome of a request that failed at ``now_s``; its reason is the scheduler's word, else the status code."""
    reason = next((str(value) for key, value in error.trailing_metadata() or () if key == "refusal"), "")
    return Outcome(arrival, _STATUS.get(error.code(), End.LOST), now_s, reason=reason or error.code().name)
