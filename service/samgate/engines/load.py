"""Chooses the runtime and the precision for a variant and loads its graphs."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from samgate.compile.graphs import ensure_graphs
from samgate.config import EngineSettings, Settings
from samgate.engines.base import Capacity, Engine
from samgate.engines.cpu import has_native_bf16, usable_cores
from samgate.engines.embedded import EmbeddedEngine, Graph, LoadedGraphs
from samgate.errors import InvalidArgument
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

ENGINES = ("auto", "openvino", "onnxruntime", "triton")
ENCODE_BATCH = 1
DECODE_PROMPTS = 16
"""What suits CPUs: see :class:`~samgate.config.EngineSettings`."""
_BY_HINT = frozenset({"f32", "bf16"})
"""Arithmetics that a runtime takes f32 graphs to by itself."""


class _Runtime(Protocol):
    NAME: str

    def load_graph(self, path: Path, precision: str, threads: int, batch: int | None = None) -> Graph: ...


def choose_engine(settings: EngineSettings) -> str:
    """``openvino`` on x86-64, else ``onnxruntime``, unless ``settings`` force one. Raises InvalidArgument."""
    if settings.name not in ENGINES:
        raise InvalidArgument("engine.name", f"{settings.name!r} is none of {', '.join(ENGINES)}")
    if settings.name != "auto":
        return settings.name
    return "openvino" if platform.machine().lower() in ("x86_64", "amd64") else "onnxruntime"


def choose_precision(spec: VariantSpec, settings: EngineSettings, engine: str) -> str:
    """The name of the plan to run: the one asked for, or the spec's first that this CPU and engine run natively.

    The spec lists only plans whose accuracy is good enough, fastest first. Raises InvalidArgument for an unknown name
    and for a plan whose graphs have to be compiled.
    """
    if settings.precision != "auto":
        if settings.precision not in spec.precisions:
            known = ", ".join(spec.precisions)
            raise InvalidArgument(
                "engine.precision", f"{settings.precision!r} is no plan of {spec.name}; plans: {known}"
            )
        if not spec.precisions[settings.precision].arithmetics <= _BY_HINT:
            usable = ", ".join(name for name, plan in spec.precisions.items() if plan.arithmetics <= _BY_HINT)
            raise InvalidArgument(
                "engine.precision",
                f"{settings.precision!r} is written into graphs by `samgate compile`, and {engine} is given those that "
                f"are in f32; it runs: {usable}",
            )
        return settings.precision
    native = _BY_HINT if engine == "openvino" and has_native_bf16() else frozenset({"f32"})
    for name, plan in spec.precisions.items():
        if plan.arithmetics <= native:
            return name
    raise InvalidArgument("engine.precision", f"no plan of {spec.name} runs on {engine} here")


def load_engine(spec: VariantSpec, settings: Settings, report: Callable[[str], None] = lambda message: None) -> Engine:
    """The engine that ``settings`` ask for, with ``spec``'s graphs. Slow: call it off the event loop.

    ``report`` gets a line for what takes long. Raises NotInstalled, CompileError, InvalidArgument, and Unavailable when
    no Triton answers.
    """
    if choose_engine(settings.engine) == "triton":
        from samgate.engines.triton.load import connect

        return connect(spec, settings, report)
    return load_embedded(spec, settings.engine, report)


def load_embedded(spec: VariantSpec, settings: EngineSettings, report: Callable[[str], None]) -> Engine:
    """An engine in this process, its graphs compiled for this machine. Raises NotInstalled, CompileError and
    InvalidArgument."""
    files = ensure_graphs(spec, report)
    report(f"loading {spec.name}")
    name = choose_engine(settings)
    precision = choose_precision(spec, settings, name)
    plan = spec.precisions[precision]
    threads = settings.threads or usable_cores()
    capacity = Capacity(
        max_images=settings.max_encode_batch or ENCODE_BATCH,
        max_prompts=settings.max_decode_prompts or DECODE_PROMPTS,
        parallel_calls=1,
    )
    runtime = cast("_Runtime", importlib.import_module(f"samgate.engines.{name}"))
    graphs = LoadedGraphs(
        encoder=runtime.load_graph(files["encoder"], plan.encoder, threads, 1 if capacity.max_images == 1 else None),
        decoder=runtime.load_graph(files["decoder"], plan.decoder, threads),
        masked_decoder=runtime.load_graph(files["masked_decoder"], plan.decoder, threads),
        survivors=runtime.load_graph(files["survivors"], plan.decoder, threads),
    )
    return EmbeddedEngine(runtime.NAME, precision, graphs, capacity)


@contextmanager
def own_server(settings: Settings, report: Callable[[str], None]) -> Iterator[Settings]:
    """``settings`` that name a Triton of our own, which runs inside the block, where they ask for Triton and name none;
    else as they are. Raises what :func:`samgate.triton.local.local_triton` raises."""
    if choose_engine(settings.engine) != "triton" or settings.triton.endpoints:
        yield settings
        return
    from samgate.triton.local import local_triton

    specs = [get_variant(name.strip()) for name in settings.variants.split(",") if name.strip()]
    with local_triton(
        specs, precision=settings.engine.precision, threads=settings.engine.threads, report=report
    ) as server:
        yield replace(settings, triton=replace(settings.triton, endpoints=server.grpc))
