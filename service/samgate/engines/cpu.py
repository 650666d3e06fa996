"""What this machine's processor offers."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

ENCODE_BATCH = 1
DECODE_PROMPTS = 16
"""Images and prompts that a call had best hold on a CPU: see :class:`~samgate.config.EngineSettings`."""

_BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


@cache
def cpu_info() -> dict[str, str]:
    """The first processor's entry of ``/proc/cpuinfo``; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_name() -> str:
    """The processor's model name, as exact as the system tells it."""
    return cpu_info().get("model name") or platform.processor() or platform.machine()


def has_native_bf16() -> bool:
    """Whether bf16 products run in hardware. Without that OpenVINO emulates them, slower than f32."""
    return bool(_BF16_FLAGS & set(cpu_info().get("flags", "").split()))


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
