"""How much each client may ask: calls a second and calls under way. Pure: time comes as an argument."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from samgate.errors import Overloaded
from samgate.security.clients import Client

_MAX_KNOWN = 16_384
_BUSY_RETRY_S = 1.0


@dataclass(slots=True)
class _Use:
    tokens: float
    then: float
    under_way: int = 0


class Quotas:
    """Counts the calls of each client, by a token bucket (RFC 2697's in one colour). For one event loop."""

    def __init__(self) -> None:
        self._uses: OrderedDict[str, _Use] = OrderedDict()

    def enter(self, client: Client, now: float) -> None:
        """Count a call of ``client`` in; :meth:`leave` has to follow. Raises Overloaded when it has had its quota."""
        use = self._uses.get(client.name)
        if use is None:
            use = self._uses[client.name] = _Use(client.burst, now)
            self._forget()
        self._uses.move_to_end(client.name)
        if client.concurrent and use.under_way >= client.concurrent:
            raise Overloaded(
                f"client {client.name!r} has {use.under_way} calls under way; its limit is {client.concurrent}",
                retry_after_s=_BUSY_RETRY_S,
                reason="quota",
            )
        if client.calls_per_s:
            use.tokens = min(client.burst, use.tokens + client.calls_per_s * (now - use.then))
            use.then = now
            if use.tokens < 1:
                wait = (1 - use.tokens) / client.calls_per_s
                raise Overloaded(
                    f"client {client.name!r} may make {client.calls_per_s:g} calls a second; retry in "
                    f"{math.ceil(wait * 1e3)} ms",
                    retry_after_s=wait,
                    reason="quota",
                )
            use.tokens -= 1
        use.under_way += 1

    def leave(self, client: Client) -> None:
        """The call is over."""
        self._uses[client.name].under_way -= 1

    def _forget(self) -> None:
        # JSON Web Tokens can bring any number of names. Who has calls under way isn't forgotten; these are bounded.
        while len(self._uses) > _MAX_KNOWN:
            name, use = next(iter(self._uses.items()))
            if use.under_way:
                break
            del self._uses[name]
