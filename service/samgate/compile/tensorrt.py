"""ONNX graphs → TensorRT plans, with ``tensorrt`` or ``tensorrt_rtx``: modules of one API.

TensorRT for RTX compiles for a compute capability that is named to it and needs no GPU; TensorRT compiles on the GPU
that it is for. What a module offers is asked of it, not concluded from its name.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from samgate.errors import CompileError, InvalidArgument
from samgate.variants.graphs import GraphSpec, TensorSpec
from samgate.variants.spec import ShapeProfile
from samgate.weights.home import atomic_write_bytes

_SMI = "nvidia-smi"


@dataclass(frozen=True, slots=True)
class Plan:
    """A built plan: ``size`` in bytes, layers of the network that was compiled, and how long it took."""

    size: int
    layers: int
    seconds: float


def load_module(name: str) -> ModuleType | None:
    """TensorRT's Python module called ``name``; None where it can't be imported."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        return None


def gpu_capability() -> str | None:
    """Compute capability of this machine's first GPU, such as ``8.9``; None without one."""
    if shutil.which(_SMI) is None:
        return None
    asked = subprocess.run(
        [_SMI, "--query-gpu=compute_cap", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    lines = asked.stdout.split()
    return lines[0] if asked.returncode == 0 and lines else None


def sm(capability: str) -> str:
    """``8.9`` → ``sm89``. Raises InvalidArgument."""
    major, _, minor = capability.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise InvalidArgument("compute-capability", f"{capability!r} is not of the form 8.9")
    return f"sm{major}{minor}"


def known_capabilities(module: ModuleType) -> dict[str, Any]:
    """The capabilities that ``module`` compiles for without such a GPU, by :func:`sm`; empty if it can't do that."""
    kinds = getattr(module, "ComputeCapability", None)
    members: dict[str, Any] = getattr(kinds, "__members__", {})
    return {name.lower(): member for name, member in members.items() if name.startswith("SM")}


def build_plan(
    module: ModuleType, graph: GraphSpec, onnx_file: Path, plan_file: Path, capability: str | None, timing_cache: Path
) -> Plan:
    """Compiles a strongly typed ``onnx_file``, with the optimisation profiles of ``graph``, into ``plan_file``.

    Args:
        capability: what to compile for, such as ``8.9``; a module that only compiles for this machine's GPU does that.
        timing_cache: measured kernel times of earlier builds: used, and written anew if the module has such a thing.

    Raises:
        CompileError: with TensorRT's own words, and the node where it names one.
    """
    began = time.monotonic()
    log = _logger(module)
    builder = module.Builder(log)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(module, network, log, onnx_file, graph.name)
    config = builder.create_builder_config()
    # Else what stays in f32 would be multiplied in TF32.
    config.clear_flag(module.BuilderFlag.TF32)
    for number, shapes in enumerate(graph.profiles):
        profile = builder.create_optimization_profile()
        for tensor in graph.inputs:
            profile.set_shape(tensor.name, *(_shape(tensor, shapes, end) for end in ("smallest", "typical", "largest")))
        if config.add_optimization_profile(profile) < 0:
            raise CompileError(f"{graph.name}: TensorRT refuses optimisation profile {number}: {_told(log)}")
    if capability is not None and known_capabilities(module):
        _compile_for(module, config, capability)
    with _timings(config, timing_cache):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CompileError(f"{graph.name}: TensorRT can't build it: {_told(log)}")
    plan_file.write_bytes(memoryview(plan))
    return Plan(plan.nbytes, network.num_layers, time.monotonic() - began)


def _logger(module: ModuleType) -> Any:
    base: Any = module.ILogger

    class Log(base):  # type: ignore[misc]
        """Keeps what went wrong, for the error that is raised of it."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= module.ILogger.ERROR:
                self.errors.append(message)

    return Log()


def _told(log: Any) -> str:
    return "; ".join(log.errors) or "it gives no reason"


def _parse(module: ModuleType, network: Any, log: Any, file: Path, name: str) -> None:
    parser = module.OnnxParser(network, log)
    if parser.parse_from_file(str(file)):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    told = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
    raise CompileError(f"{name}: TensorRT's parser refuses it: {told or _told(log)}")


def _shape(tensor: TensorSpec, shapes: ShapeProfile, end: str) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else getattr(shapes[size], end) for size in tensor.shape)


def _compile_for(module: ModuleType, config: Any, capability: str) -> None:
    known = known_capabilities(module)
    if sm(capability) not in known:
        raise InvalidArgument("compute-capability", f"{module.__name__} compiles for {', '.join(known)}: {capability}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(known[sm(capability)], 0)


@contextmanager
def _timings(config: Any, file: Path) -> Iterator[None]:
    """Gives ``config`` the timing cache in ``file``, and keeps there what it has learned inside the block."""
    with warnings.catch_warnings():
        # TensorRT for RTX measures nothing when it compiles: its caches stay as they are, and it says so.
        warnings.simplefilter("ignore", DeprecationWarning)
        cache = config.create_timing_cache(file.read_bytes() if file.exists() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
        before = bytes(memoryview(cache.serialize()))
        yield
        after = bytes(memoryview(cache.serialize()))
    if after != before:
        atomic_write_bytes(file, after)
