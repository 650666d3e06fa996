"""How many cores there are: a container's limit counts, wherever its control groups say so."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from samgate.engines import cpu


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu.cpu_quota(tmp_path) == math.inf
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    assert cpu.cpu_quota(tmp_path) == math.inf


@pytest.mark.parametrize(("text", "quota"), [("250000 100000", 2.5), ("max 100000", math.inf), ("nonsense", math.inf)])
def test_version_2(tmp_path: Path, text: str, quota: float) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", text)
    assert cpu.cpu_quota(tmp_path) == quota


def test_the_tightest_of_all_groups_counts(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/pods/one\n")
    write(tmp_path, "sys/fs/cgroup/pods/one/cpu.max", "400000 100000")
    write(tmp_path, "sys/fs/cgroup/pods/cpu.max", "150000 100000")
    assert cpu.cpu_quota(tmp_path) == 1.5


def test_the_host_s_path_in_a_container_that_sees_its_own_group_alone(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/kubepods/burstable/pod1/abc\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "300000 100000")
    assert cpu.cpu_quota(tmp_path) == 3.0


@pytest.mark.parametrize(("quota", "cores"), [("150000", 1.5), ("-1", math.inf)])
def test_version_1(tmp_path: Path, quota: str, cores: float) -> None:
    write(tmp_path, "proc/self/cgroup", "12:pids:/x\n4:cpu,cpuacct:/docker/a\n")
    write(tmp_path, "sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us", quota)
    write(tmp_path, "sys/fs/cgroup/cpu/docker/a/cpu.cfs_period_us", "100000")
    assert cpu.cpu_quota(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 8), (2.9, 2), (0.5, 1), (64.0, 8)])
def test_threads_are_whole_and_at_least_one(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(cpu, "cpu_quota", lambda: quota)
    assert cpu.usable_cores.__wrapped__() == cores
