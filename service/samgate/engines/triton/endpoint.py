"""One Triton server: calls to its models, and what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from samgate import tracing
from samgate.engines.triton.breaker import Breaker, State
from samgate.engines.triton.failures import Failure, classify
from samgate.engines.triton.region import Region, Regions
from samgate.engines.triton.transfer import Call, Found, as_input, as_output, lend, requested
from samgate.logs import log

logger = logging.getLogger("samgate.triton")

_ADMIN_TIMEOUT_S = 10.0
_LOAD_TIMEOUT_S = 120.0
_CHANNEL = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that came back is to be found again within moments.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)


class Endpoint:
    """A server at ``url`` (host:port).

    Args:
        url: of its gRPC service.
        regions: yields the region that is in use now, for a server on this machine; None for another.
        hang_s: seconds that calls may wait in vain before the server is taken for hung.

    Its methods are for one event loop.
    """

    def __init__(self, url: str, regions: Regions | None, hang_s: float) -> None:
        self.url = url
        self.in_flight = 0
        self._regions = regions
        self._hang_s = hang_s
        self._client = InferenceServerClient(url, channel_args=list(_CHANNEL))
        self._breakers: dict[str, Breaker] = {}
        self._menders: dict[str, asyncio.Task[None]] = {}
        self._registering = asyncio.Lock()
        self._registered: str | None = None
        self._stale: list[str] = []
        self._shares = regions is not None

    def breaker(self, model: str) -> Breaker:
        """Of ``model`` on this server."""
        return self._breakers.setdefault(model, Breaker(self._hang_s))

    async def call(self, call: Call, deadline: float) -> Found:
        """The outputs of ``call``. Raises InferenceServerException, having drawn its conclusions about the server."""
        breaker = self.breaker(call.model)
        breaker.begin()
        self.in_flight += 1
        started = time.monotonic()
        try:
            region = await self._region()
            try:
                found = await self._infer(call, region, deadline)
            except InferenceServerException as error:
                if region is None or classify(error) is not Failure.FORGOTTEN:
                    raise
                # It was restarted: the region is where it was, but not known there any more.
                self._registered = None
                found = await self._infer(call, await self._region(), deadline)
        except InferenceServerException as error:
            self._conclude(call.model, classify(error), time.monotonic() - started, error)
            raise
        except asyncio.CancelledError:
            self._conclude(call.model, Failure.LATE, time.monotonic() - started, None)
            raise
        finally:
            self.in_flight -= 1
        breaker.succeed()
        if self._stale and not self.in_flight and all(one.state is State.CLOSED for one in self._breakers.values()):
            await self._forget_stale()
        return found

    @property
    def believed(self) -> dict[str, bool]:
        """Whether each model that was called here is believed to run."""
        return {model: breaker.state is not State.OPEN for model, breaker in self._breakers.items()}

    async def close(self) -> None:
        """Stop mending, take the region's name back, close the channel."""
        for task in self._menders.values():
            task.cancel()
        await asyncio.gather(*self._menders.values(), return_exceptions=True)
        if self._registered is not None:
            await _ignoring(self._client.unregister_system_shared_memory(self._registered, client_timeout=1.0))
        await self._client.close()

    def _conclude(self, model: str, failure: Failure, seconds: float, error: InferenceServerException | None) -> None:
        breaker = self.breaker(model)
        if failure in (Failure.GONE, Failure.DEAD):
            opened, why = breaker.fail(), str(error.message()) if error else ""
        elif failure is Failure.LATE:
            opened, why = breaker.waste(seconds), f"calls waited {self._hang_s:g} s in vain"
            if opened and self._regions is not None:
                # Whatever hangs may still write, at any time, to what we lent to it.
                self._regions.retire()
        else:
            breaker.succeed()
            return
        if opened:
            log(logger, logging.WARNING, "triton model out", server=self.url, model=model, error=why)
        if breaker.state is State.OPEN and (model not in self._menders or self._menders[model].done()):
            self._menders[model] = asyncio.create_task(self._mend(model, reload=failure is not Failure.GONE))

    async def _mend(self, model: str, reload: bool) -> None:
        """Bring ``model`` back: wait for it to be ready, load it anew if need be, and let one call decide."""
        breaker = self.breaker(model)
        while breaker.state is State.OPEN:
            await asyncio.sleep(breaker.pause_s)
            try:
                if reload:
                    await self._reload(model)
                if await self._client.is_model_ready(model, client_timeout=_ADMIN_TIMEOUT_S):
                    breaker.try_again()
                    log(logger, logging.INFO, "triton model back", server=self.url, model=model)
                else:
                    breaker.still_bad()
            except InferenceServerException as error:
                breaker.still_bad()
                log(logger, logging.INFO, "triton model still out", server=self.url, model=model, error=error.message())

    async def _reload(self, model: str) -> None:
        # A model whose process died calls itself ready: only loading it again helps, where the server lets us. And
        # loading a model whose files haven't changed does nothing, unless it was unloaded.
        try:
            await self._client.unload_model(model, client_timeout=_ADMIN_TIMEOUT_S)
            await self._client.load_model(model, client_timeout=_LOAD_TIMEOUT_S)
        except InferenceServerException as error:
            if "explicit model load" not in (error.message() or ""):
                raise

    async def _region(self) -> Region | None:
        """The region in use, registered with the server; None where it doesn't share memory with us."""
        if self._regions is None or not self._shares:
            return None
        region = self._regions.current()
        if region is None or region.name == self._registered:
            return region
        async with self._registering:
            if region.name != self._registered:
                try:
                    await self._client.register_system_shared_memory(
                        region.name, f"/{region.name}", region.size, client_timeout=_ADMIN_TIMEOUT_S
                    )
                except InferenceServerException as error:
                    if classify(error) in (Failure.GONE, Failure.LATE):
                        raise
                    if "already in manager" not in (error.message() or ""):
                        self._shares = False
                        told = {"server": self.url, "error": error.message()}
                        log(logger, logging.WARNING, "triton shares no memory with us: tensors go by gRPC", **told)
                        return None
                if self._registered is not None:
                    self._stale.append(self._registered)
                self._registered = region.name
        return region

    async def _forget_stale(self) -> None:
        """Have the server unmap regions that are retired. Only while nothing can be writing to them."""
        stale, self._stale = self._stale, []
        for name in stale:
            await _ignoring(self._client.unregister_system_shared_memory(name, client_timeout=_ADMIN_TIMEOUT_S))

    async def _infer(self, call: Call, region: Region | None, deadline: float) -> Found:
        placed = [as_input(name, array, region) for name, array in call.inputs.items()]
        lent = {name: lend(output, region) for name, output in call.outputs.items()}
        remaining_s = max(0.001, min(deadline - time.monotonic(), self._hang_s))
        try:
            with tracing.stage("triton", **{"server.address": self.url, "samgate.model": call.model}):
                result = await self._client.infer(
                    call.model,
                    [item for item, _ in placed],
                    outputs=[requested(name, arrays, region) for name, arrays in lent.items()],
                    client_timeout=remaining_s,
                    timeout=int(remaining_s * 1e6),
                    headers=tracing.current.get().headers(),
                )
        except BaseException as error:
            if region is not None and not _was_answered(error):
                # The server may still be reading and writing there.
                kept = [array for _, array in placed if array is not None]
                kept += [array for arrays in lent.values() for array in arrays or ()]
                region.rest(kept, self._hang_s)
            raise
        return {name: as_output(result, name, call.outputs[name], arrays) for name, arrays in lent.items()}


def _was_answered(error: BaseException) -> bool:
    if not isinstance(error, InferenceServerException):
        return False
    return classify(error) in (Failure.FULL, Failure.FORGOTTEN, Failure.REFUSED)


async def _ignoring(call: Any) -> None:
    with contextlib.suppress(InferenceServerException):
        await call
