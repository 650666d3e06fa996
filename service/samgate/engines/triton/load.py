"""From settings to an engine that runs on Triton."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from samgate.config import Settings
from samgate.engines.base import Capacity
from samgate.engines.load import load_embedded
from samgate.engines.triton.discovery import Directory, endpoints, look_up_first
from samgate.engines.triton.engine import TritonEngine
from samgate.engines.triton.region import remove_abandoned
from samgate.engines.triton.served import ask, ask_again
from samgate.engines.triton.servers import Patience, Servers
from samgate.variants.spec import VariantSpec


def connect(spec: VariantSpec, settings: Settings, report: Callable[[str], None]) -> TritonEngine:
    """An engine on the servers that ``settings`` name. Blocks until one is ready.

    Raises InvalidArgument for endpoints that can't be read, and what :func:`~samgate.engines.triton.served.ask` and,
    where a fallback is asked for, :func:`~samgate.engines.load.load_embedded` raise.
    """
    triton = settings.triton
    names = endpoints(triton.endpoints)
    urls = look_up_first(names, triton.connect_timeout_s, report)
    served = ask(spec, urls, triton.connect_timeout_s, report)
    max_images = min(settings.engine.max_encode_batch or served.best_images, served.max_images)
    max_prompts = settings.engine.max_decode_prompts or served.best_prompts
    capacity = Capacity(
        max_images=max_images,
        # On CPUs a further image costs as much as a call of its own, and its embedding would be copied.
        decode_images=1 if max_images == 1 else max_prompts,
        max_prompts=max_prompts,
        parallel_calls=max(1, triton.calls_per_instance * served.instances),
    )
    fallback = None
    if triton.fallback:
        # It gets the batches that were formed for the servers.
        local = replace(settings.engine, name="auto", precision=served.precision, max_encode_batch=capacity.max_images)
        fallback = load_embedded(spec, local, report)
    remove_abandoned()
    directory = Directory(names, lambda url: ask_again(spec, url, served))
    servers = Servers(urls, directory, triton.shared_memory_bytes, Patience(triton.call_timeout_s, triton.outage_s))
    return TritonEngine(spec, served, servers, capacity, fallback)
