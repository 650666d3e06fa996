"""A whole gateway inside this process, behind a Unix socket: one code path for commands with and without a server."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from samgate import loop
from samgate.api.server import detecting, load_detector_of, load_models, load_profile, load_text_model_of, running
from samgate.config import Settings
from samgate.engines.load import own_server

_START_TIMEOUT_S = 300.0


@contextmanager
def local_gateway(settings: Settings, report: Callable[[str], None] = lambda message: None) -> Iterator[str]:
    """A serving gateway inside the block; yields its gRPC target. No HTTP.

    Raises what :func:`samgate.api.server.load_models` raises.
    """
    with own_server(settings, report) as settings, tempfile.TemporaryDirectory(prefix="samgate-") as folder:
        text_model, detector = load_text_model_of(settings, report), load_detector_of(settings, report)
        models = load_models(settings, report)
        target = f"unix:{Path(folder) / 'gateway.sock'}"
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def serve() -> None:
            stop = asyncio.Event()
            profile = await load_profile(settings, models, report)
            async with (
                detecting(detector) as detect,
                running(settings, models, profile, target, detect=detect, text_model=text_model, doors=False),
            ):
                started.set_result((asyncio.get_running_loop(), stop))
                await stop.wait()

        def run() -> None:
            try:
                loop.run(serve())
            except BaseException as error:
                if not started.done():
                    started.set_exception(error)
                else:
                    raise

        thread = threading.Thread(target=run, name="local-gateway", daemon=True)
        thread.start()
        served_by, stop = started.result(_START_TIMEOUT_S)
        try:
            yield target
        finally:
            served_by.call_soon_threadsafe(stop.set)
            thread.join(settings.drain_s + _START_TIMEOUT_S)
