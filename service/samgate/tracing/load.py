"""From settings to a tracer."""

from __future__ import annotations

from collections.abc import Callable

from samgate.config import Tracing
from samgate.errors import NotInstalled
from samgate.tracing import NoTracer, Tracer


def load_tracer(settings: Tracing, count: Callable[[int, bool], None]) -> Tracer:
    """What ``settings`` ask for; ``count`` is told of spans that were sent (True) and dropped (False).

    Raises NotInstalled when the packages are missing.
    """
    if not settings.endpoint:
        return NoTracer()
    try:
        from samgate.tracing.otel import OtelTracer
    except ImportError as error:
        raise NotInstalled(
            f"tracing needs {error.name}, which isn't installed: pip install 'samgate[tracing]', or unset "
            "SAMGATE_TRACING_ENDPOINT"
        ) from error
    return OtelTracer(settings.endpoint, settings.sample, count)
