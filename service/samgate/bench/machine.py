"""What a benchmark ran on: without it, a latency says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass

from samgate import __version__
from samgate.engines.cpu import cpu_info, cpu_name, usable_cores

_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")
_PACKAGES = ("openvino", "onnxruntime", "grpcio", "numpy", "opencv-python-headless")


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU model, cores this process may use, the CPU ``features`` that decide which kernels run, memory in GiB, and
    ``versions`` by package. ``load`` is the operating system's one-minute load average before the run."""

    cpu: str
    cores: int
    features: tuple[str, ...]
    memory_gib: float
    system: str
    versions: dict[str, str]
    load: float

    def sentence(self) -> str:
        """All of it, for people."""
        features = ", ".join(self.features) or "none of note"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{self.cpu}, {self.cores} cores ({features}), {self.memory_gib:.0f} GiB, {self.system}; {versions}; "
            f"load average before the run {self.load:.1f}"
        )


def this_machine() -> Machine:
    """The machine and environment of this process."""
    info = cpu_info()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    versions = {"samgate": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Machine(
        cpu=cpu_name(),
        cores=usable_cores(),
        features=tuple(flag for flag in _TELLING_FLAGS if flag in flags),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        system=f"{platform.system()} {platform.release()}",
        versions=versions,
        load=os.getloadavg()[0],
    )
