"""Chooses the runtime and the precision for a variant and loads its graphs."""

from __future__ import annotations

import importlib
import platform
from pathlib import Path
from typing import Protocol, cast

from samgate.compile.graphs import GraphFiles
from samgate.config import EngineSettings
from samgate.engines.base import Capacity, Engine
from samgate.engines.cpu import has_native_bf16, usable_cores
from samgate.engines.embedded import EmbeddedEngine, Graph, LoadedGraphs
from samgate.errors import InvalidArgument
from samgate.variants.spec import VariantSpec

ENGINES = ("auto", "openvino", "onnxruntime")


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

    The spec lists only plans whose accuracy is good enough, fastest first. Raises InvalidArgument for an unknown name.
    """
    if settings.precision != "auto":
        if settings.precision not in spec.precisions:
            known = ", ".join(spec.precisions)
            raise InvalidArgument(
                "engine.precision", f"{settings.precision!r} is no plan of {spec.name}; plans: {known}"
            )
        return settings.precision
    bf16_runs = engine == "openvino" and has_native_bf16()
    for name, plan in spec.precisions.items():
        if bf16_runs or "bf16" not in (plan.encoder, plan.decoder):
            return name
    raise InvalidArgument("engine.precision", f"no plan of {spec.name} runs on {engine} here")


def load_engine(spec: VariantSpec, files: GraphFiles, settings: EngineSettings) -> Engine:
    """An embedded engine with ``spec``'s graphs, compiled for this machine. Slow: call it off the event loop.

    Raises :class:`~samgate.errors.CompileError` and InvalidArgument.
    """
    name = choose_engine(settings)
    precision = choose_precision(spec, settings, name)
    plan = spec.precisions[precision]
    threads = settings.threads or usable_cores()
    runtime = cast("_Runtime", importlib.import_module(f"samgate.engines.{name}"))
    batch = 1 if settings.max_encode_batch == 1 else None
    graphs = LoadedGraphs(
        encoder=runtime.load_graph(files["encoder"], plan.encoder, threads, batch),
        decoder=runtime.load_graph(files["decoder"], plan.decoder, threads),
        masked_decoder=runtime.load_graph(files["masked_decoder"], plan.decoder, threads),
        survivors=runtime.load_graph(files["survivors"], plan.decoder, threads),
    )
    capacity = Capacity(max_images=settings.max_encode_batch, max_prompts=settings.max_decode_prompts, parallel_calls=1)
    return EmbeddedEngine(runtime.NAME, precision, graphs, capacity)
