"""What this machine's processor offers."""

from __future__ import annotations

import math
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


def allowed_cores() -> int:
    """Cores that this process may run on, however much of their time it gets."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def usable_cores() -> int:
    """Cores that this process can keep busy: those that it may run on, or as many as its control groups give it the
    time of (a container's CPU limit). More threads than that would wait for each other, all stopped at once."""
    return max(1, math.floor(min(allowed_cores(), cpu_quota())))


def cpu_quota(root: Path = Path("/")) -> float:
    """Cores' worth of time that the control groups of this process have, ``inf`` without a limit: version 2's
    ``cpu.max``, of all groups that it is in, or version 1's ``cpu.cfs_quota_us``."""
    try:
        entries = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for entry in entries:
        _, controllers, path = entry.split(":", 2)
        if controllers == "":
            base, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            base, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        group = base / path.lstrip("/")
        # In a container the path can be the host's, and its own group is the root of what it sees.
        quotas += [read(folder) for folder in (group, *group.parents) if folder == base or base in folder.parents]
    return min(quotas)


def _quota_v2(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _quota_v1(group: Path) -> float:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        return quota / int((group / "cpu.cfs_period_us").read_text(encoding="ascii")) if quota > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
