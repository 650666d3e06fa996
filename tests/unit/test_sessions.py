"""The embedding cache: bounded in bytes and time, one encode for all who ask at once."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from samgate.domain import Frame
from samgate.sessions import Embedding, EmbeddingCache

FRAME = Frame((10, 10), (1024, 1024), 1024)
BYTES = 4 * 4


def embedding(value: float = 0.0) -> Embedding:
    return Embedding(np.full(4, value, np.float32), FRAME, {})


class Encoder:
    """Counts how often it is asked, and answers when ``gate`` opens."""

    def __init__(self) -> None:
        self.calls = 0
        self.ended = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> Embedding:
        self.calls += 1
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        return embedding()


async def test_one_encode_serves_everyone_who_asks_meanwhile_and_later() -> None:
    cache, encoder = EmbeddingCache(1000, 60), Encoder()
    waiting = [asyncio.create_task(cache.get_or_make("k", encoder)) for _ in range(5)]
    await asyncio.sleep(0)
    encoder.gate.set()
    answers = await asyncio.gather(*waiting)
    assert encoder.calls == 1
    assert [joined for _, joined in answers] == [False, True, True, True, True]
    assert (await cache.get_or_make("k", encoder))[1]
    assert encoder.calls == 1


async def test_the_encode_survives_the_caller_that_began_it() -> None:
    cache, encoder = EmbeddingCache(1000, 60), Encoder()
    first, second = (asyncio.create_task(cache.get_or_make("k", encoder)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    encoder.gate.set()
    assert (await second)[1]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_encode_ends_with_the_last_caller_and_a_newcomer_begins_anew() -> None:
    cache, encoder = EmbeddingCache(1000, 60), Encoder()
    only = asyncio.create_task(cache.get_or_make("k", encoder))
    await asyncio.sleep(0.01)
    only.cancel()
    newcomer = asyncio.create_task(cache.get_or_make("k", encoder))
    await asyncio.sleep(0.01)
    assert (encoder.calls, encoder.ended) == (2, 1)
    encoder.gate.set()
    assert not (await newcomer)[1]


async def test_errors_reach_all_who_wait_and_are_not_kept() -> None:
    cache = EmbeddingCache(1000, 60)

    async def fail() -> Embedding:
        await asyncio.sleep(0)
        raise ValueError("broken")

    answers = await asyncio.gather(*(cache.get_or_make("k", fail) for _ in range(2)), return_exceptions=True)
    assert all(isinstance(answer, ValueError) for answer in answers)
    encoder = Encoder()
    encoder.gate.set()
    assert not (await cache.get_or_make("k", encoder))[1]


async def test_bytes_are_bounded_and_the_least_recently_used_goes_first() -> None:
    cache = EmbeddingCache(3 * BYTES, 60)
    encoder = Encoder()
    encoder.gate.set()
    for key in "abc":
        await cache.get_or_make(key, encoder)
    assert cache.get("a")
    await cache.get_or_make("d", encoder)
    assert cache.bytes == 3 * BYTES
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]


async def test_what_does_not_fit_is_answered_but_not_kept() -> None:
    cache, encoder = EmbeddingCache(BYTES - 1, 60), Encoder()
    encoder.gate.set()
    await cache.get_or_make("a", encoder)
    assert cache.get("a") is None
    assert (cache.bytes, len(cache)) == (0, 0)


async def test_an_embedding_expires_after_its_time_without_use() -> None:
    now = 0.0
    cache = EmbeddingCache(1000, 10, clock=lambda: now)
    encoder = Encoder()
    encoder.gate.set()
    await cache.get_or_make("a", encoder)
    now = 9.0
    assert cache.get("a")
    now = 18.0
    assert cache.get("a")
    now = 29.0
    assert cache.get("a") is None
    assert cache.bytes == 0
