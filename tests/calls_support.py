"""Calls without gRPC around them."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
import grpc.aio


class StubContext:
    """What a call asks of gRPC; ``metadata`` is what its client sent along."""

    def __init__(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.code: grpc.StatusCode | None = None
        self._metadata = metadata

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5"

    def time_remaining(self) -> float:
        return 60.0

    def auth_context(self) -> dict[str, Any]:
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def abort(self, code: grpc.StatusCode, details: str, trailers: object = ()) -> NoReturn:
        self.code = code
        raise grpc.aio.AbortError(details)
