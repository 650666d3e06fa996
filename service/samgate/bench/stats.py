"""Latencies in figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of ``n`` latencies in milliseconds, linearly interpolated."""

    p50: float
    p95: float
    p99: float
    n: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Latency:
        """Of at least one latency. Raises ``ValueError`` for none."""
        if not milliseconds:
            raise ValueError("there is no latency to take percentiles of")
        p50, p95, p99 = (float(value) for value in np.percentile(milliseconds, [50, 95, 99]))
        return cls(p50, p95, p99, len(milliseconds))

    def figures(self, prefix: str) -> dict[str, float]:
        """For JSON: ``{prefix}_p50_ms`` and so on, to 10 µs."""
        return {f"{prefix}_{name}_ms": round(getattr(self, name), 2) for name in ("p50", "p95", "p99")}
