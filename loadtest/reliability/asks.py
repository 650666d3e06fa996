"""The kinds of requests: how each is made, and whether its answer is right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc.aio

from loadtest.reliability.pictures import Picture
from samgate.client import AsyncClient, EmbeddedImage
from samgate.errors import SamgateError

_SEGMENT = "/samgate.v1.Segmentation/Segment"
_EVERYTHING = "/samgate.v1.Segmentation/SegmentEverything"
_ANYTIME_S = 3.0


class CancelledByUs(Exception):
    """The request was cancelled by its own client before it had an answer."""


@dataclass(slots=True)
class Asker:
    """Who asks: a client with retries, a plain channel for what no client would send, pictures, and the random numbers
    that decide."""

    client: AsyncClient
    channel: grpc.aio.Channel
    pictures: list[Picture]
    random: Random
    salt: str = ""
    handles: dict[int, EmbeddedImage] = field(default_factory=dict)
    _unseen: int = 0

    def unseen(self) -> tuple[Picture, bytes]:
        """A picture and bytes of it that no server has seen."""
        self._unseen += 1
        picture = self.random.choice(self.pictures)
        return picture, picture.unseen(f"{self.salt} {self._unseen}".encode())


@dataclass(frozen=True, slots=True)
class Kind:
    """``ask`` sends one and returns whether its answer is right; it raises what the client raises.

    ``deadline_s`` is the request's, ``wanted`` and ``allowed`` as in :class:`loadtest.reliability.ledger.Entry`.
    """

    ask: Callable[[Asker, float], Awaitable[bool]]
    deadline_s: float
    wanted: frozenset[str] = frozenset({"OK"})
    allowed: frozenset[str] = frozenset()


async def _click(asker: Asker, timeout_s: float) -> bool:
    """One of few pictures, whose embeddings are cached soon."""
    picture = asker.random.choice(asker.pictures)
    answer = await asker.client.segment(picture.jpeg, points=[picture.centre], timeout_s=timeout_s)
    return picture.shows(answer.masks[0])


async def _box(asker: Asker, timeout_s: float) -> bool:
    """An image that has to be encoded."""
    picture, jpeg = asker.unseen()
    answer = await asker.client.segment(jpeg, box=picture.box, timeout_s=timeout_s)
    return picture.shows(answer.masks[0])


async def _handle(asker: Asker, timeout_s: float) -> bool:
    """An embedding by its name, embedded again once the server has dropped it."""
    which = asker.random.randrange(len(asker.pictures))
    picture = asker.pictures[which]
    image = asker.handles.pop(which, None)
    if image is None:
        image = await asker.client.embed(picture.jpeg, timeout_s=timeout_s)
    answer = await asker.client.segment(image, points=[picture.centre], selection="multi", timeout_s=timeout_s)
    asker.handles[which] = image
    return picture.shown_in(answer.masks)


async def _everything(asker: Asker, timeout_s: float) -> bool:
    picture = asker.random.choice(asker.pictures)
    answer = await asker.client.everything(picture.jpeg, points_per_side=8, variant="mobilesam", timeout_s=timeout_s)
    return answer.complete and picture.shown_in(found.mask for found in answer.masks)


async def _anytime(asker: Asker, timeout_s: float) -> bool:
    """Ends in time with what there is, which may be little."""
    picture = asker.random.choice(asker.pictures)
    answer = await asker.client.everything(picture.jpeg, strategy="auto", anytime=True, timeout_s=timeout_s)
    return bool(answer.masks) or not answer.complete


async def _cancelled(asker: Asker, timeout_s: float) -> bool:
    """A request whose client goes away before it is answered, mostly."""
    picture, jpeg = asker.unseen()
    if asker.random.random() < 0.5:
        call = asyncio.ensure_future(_shown(asker, picture, jpeg, timeout_s))
    else:
        call = asyncio.ensure_future(_everything(asker, timeout_s))
    await asyncio.wait([call], timeout=asker.random.uniform(0.0, 0.5))
    if call.done():
        return call.result()
    call.cancel()
    await asyncio.wait([call])
    if call.cancelled():
        raise CancelledByUs
    return call.result()


async def _shown(asker: Asker, picture: Picture, jpeg: bytes, timeout_s: float) -> bool:
    answer = await asker.client.segment(jpeg, points=[picture.centre], timeout_s=timeout_s)
    return picture.shows(answer.masks[0])


async def _malformed(asker: Asker, timeout_s: float) -> bool:
    """Bytes that are no message, an image that ends in the middle, a point far outside of one."""
    picture = asker.random.choice(asker.pictures)
    noise = b"\xff" + asker.random.randbytes(200)
    match asker.random.randrange(4):
        case 0:
            half = picture.jpeg[: len(picture.jpeg) // 2]
            await asker.client.segment(half, points=[picture.centre], timeout_s=timeout_s)
        case 1:
            await asker.client.segment(picture.jpeg, points=[(1e9, -5.0)], timeout_s=timeout_s)
        case 2:
            segment: Any = asker.channel.unary_unary(_SEGMENT)
            await segment(noise, timeout=timeout_s)
        case _:
            everything: Any = asker.channel.unary_stream(_EVERYTHING)
            async for _ in everything(noise, timeout=timeout_s):
                pass
    return True


KINDS: Mapping[str, Kind] = {
    "click": Kind(_click, 20.0),
    "box": Kind(_box, 20.0),
    "handle": Kind(_handle, 20.0, allowed=frozenset({"NOT_FOUND"})),
    "everything": Kind(_everything, 60.0),
    "anytime": Kind(_anytime, _ANYTIME_S),
    "cancelled": Kind(_cancelled, 20.0),
    "malformed": Kind(_malformed, 20.0, wanted=frozenset({"INVALID_ARGUMENT"})),
}

MIXED: Mapping[str, float] = {
    "click": 50, "box": 20, "handle": 12, "everything": 4, "anytime": 3, "cancelled": 7, "malformed": 4,
}  # fmt: skip
"""Weights of a day's mixture."""
PROMPTS: Mapping[str, float] = {"click": 70, "box": 25, "handle": 5}
"""Short requests alone."""


def status_of(error: Exception) -> str:
    """gRPC's name of how a call ended."""
    cause = error.__cause__ if isinstance(error, SamgateError) else error
    if isinstance(cause, grpc.RpcError) and hasattr(cause, "code"):
        return str(cause.code().name)
    return error.status if isinstance(error, SamgateError) else type(error).__name__
