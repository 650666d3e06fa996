"""Two things measured in turns, so that whatever drifts on a machine drifts for both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_turns(
    a: Callable[[int], A], b: Callable[[int], B], count: int, pause_s: float, skip: int = 0
) -> Iterator[tuple[A, B] | None]:
    """Calls ``a(i)`` and ``b(i)`` for i below ``count``; which comes first changes each time.

    Yields both results, or None for the first ``skip`` pairs, which only warm up. After each call ``pause_s`` seconds
    pass, so that the threads of one no longer spin when the other starts.
    """
    for index in range(count):
        if index % 2 == 0:
            of_a = a(index)
            time.sleep(pause_s)
            of_b = b(index)
        else:
            of_b = b(index)
            time.sleep(pause_s)
            of_a = a(index)
        time.sleep(pause_s)
        yield None if index < skip else (of_a, of_b)


def milliseconds(call: Callable[[], object]) -> float:
    """How long ``call`` takes."""
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)
