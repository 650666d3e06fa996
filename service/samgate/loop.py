"""The event loop: uvloop where it exists."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_SWITCH_S = 0.0005


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end on a new event loop."""
    # Whenever the loop has let go of Python's lock, to read or write a socket, it waits for it behind threads that make
    # masks: the default of 5 ms, several times a request.
    sys.setswitchinterval(_SWITCH_S)
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(main)
