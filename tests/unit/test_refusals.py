"""How a call ends with an error, whatever becomes of its client."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from samgate.api.calls import refuse
from samgate.errors import DeadlineExceeded


class Context:
    """Of a call whose last message the client hasn't taken."""

    async def abort(self, *_: Any) -> None:
        raise grpc.aio.InternalError("too many operations")


async def test_a_call_that_can_be_told_nothing_any_more_is_dropped() -> None:
    context: Any = Context()
    with pytest.raises(asyncio.CancelledError):
        await refuse(context, DeadlineExceeded("the deadline has passed"))
