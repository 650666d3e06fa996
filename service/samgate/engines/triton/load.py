"""From settings to an engine that runs on Triton."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace

from samgate.config import Settings
from samgate.engines.base import Capacity
from samgate.engines.load import load_embedded
from samgate.engines.triton.engine import TritonEngine
from samgate.engines.triton.region import remove_abandoned
from samgate.engines.triton.served import ask
from samgate.engines.triton.servers import Patience
from samgate.errors import InvalidArgument
from samgate.variants.spec import VariantSpec


def connect(spec: VariantSpec, settings: Settings, report: Callable[[str], None]) -> TritonEngine:
    """An engine on the servers that ``settings`` name. Blocks until one is ready.

    Raises InvalidArgument for endpoints that can't be read, and what :func:`~samgate.engines.triton.served.ask` and,
    where a fallback is asked for, :func:`~samgate.engines.load.load_embedded` raise.
    """
    triton = settings.triton
    urls = endpoints(triton.endpoints)
    served = ask(spec, urls, triton.connect_timeout_s, report)
    max_images = min(settings.engine.max_encode_batch or served.best_images, served.max_images)
    max_prompts = settings.engine.max_decode_prompts or served.best_prompts
    capacity = Capacity(
        max_images=max_images,
        # On CPUs a further image costs as much as a call of its own, and its embedding would be copied.
        decode_images=1 if max_images == 1 else max_prompts,
        max_prompts=max_prompts,
        parallel_calls=max(1, triton.calls_per_instance * served.instances * len(urls)),
    )
    fallback = None
    if triton.fallback:
        # It gets the batches that were formed for the servers.
        local = replace(settings.engine, name="auto", precision=served.precision, max_encode_batch=capacity.max_images)
        fallback = load_embedded(spec, local, report)
    remove_abandoned()
    return TritonEngine(
        spec,
        served,
        [(url, is_here(url)) for url in urls],
        triton.shared_memory_bytes,
        Patience(triton.call_timeout_s, triton.outage_s),
        capacity,
        fallback,
    )


def endpoints(text: str) -> list[str]:
    """The addresses in ``text``, each once. Raises InvalidArgument when there is none, or one isn't host:port."""
    urls = list(dict.fromkeys(url.strip() for url in text.split(",") if url.strip()))
    for url in urls:
        host, _, port = url.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
            raise InvalidArgument("triton.endpoints", f"{url!r} is not host:port of a gRPC service")
    if not urls:
        raise InvalidArgument("triton.endpoints", "names no server")
    return urls


def is_here(url: str) -> bool:
    """Whether ``url`` is on this machine, by its name: only there can memory be shared."""
    host = url.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
