"""Chooses the runtime and the precision for a variant and loads its graphs."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Protocol, cast

from samgate.config import EngineSettings, Settings
from samgate.engines.base import Capacity, Engine
from samgate.engines.cpu import DECODE_PROMPTS, ENCODE_BATCH, usable_cores
from samgate.engines.embedded import Decoder, EmbeddedEngine, Graph, Lane, LoadedGraphs, WholeLane
from samgate.engines.graphs import RUNTIMES, RuntimeName, runtime_graphs
from samgate.errors import CompileError, InvalidArgument
from samgate.variants.graphs import EVERYTHING_PROMPTS, GraphName
from samgate.variants.spec import VariantSpec

ENGINES = ("auto", "openvino", "onnxruntime", "torch", "triton")


class Runtime(Protocol):
    """What the modules of the runtimes have; see there."""

    NAME: str

    def load_graph(
        self, path: Path, precision: str, threads: int, size: int | None = None, lend: bool = False
    ) -> Graph: ...

    def load_side_by_side(
        self, path: Path, precision: str, count: int, size: int | None = None, lend: bool = False
    ) -> tuple[Graph, ...]: ...


def wants_triton(settings: EngineSettings) -> bool:
    """Whether ``settings`` ask for Triton. Raises InvalidArgument for an engine that doesn't exist."""
    if settings.name not in ENGINES:
        raise InvalidArgument("engine.name", f"{settings.name!r} is none of {', '.join(ENGINES)}")
    return settings.name == "triton"


def choose_runtime(settings: EngineSettings) -> RuntimeName:
    """What runs ONNX files: ``openvino`` on x86-64, else ``onnxruntime``, unless ``settings`` name one of them."""
    for name in RUNTIMES:
        if settings.name == name:
            return name
    return "openvino" if platform.machine().lower() in ("x86_64", "amd64") else "onnxruntime"


def load_engine(spec: VariantSpec, settings: Settings, report: Callable[[str], None] = lambda message: None) -> Engine:
    """The engine that ``settings`` ask for, with ``spec``'s graphs. Slow: call it off the event loop.

    ``report`` gets a line for what takes long. Raises NotInstalled, CompileError, InvalidArgument, and Unavailable when
    no Triton answers.
    """
    triton = wants_triton(settings.engine)
    if spec.engines and settings.engine.name not in spec.engines:
        raise InvalidArgument(
            "engine.name",
            f"{spec.name} runs on {' or '.join(spec.engines)} alone, not on {settings.engine.name!r}: "
            f"give --engine {spec.engines[0]}",
        )
    if triton:
        from samgate.engines.triton.load import connect

        return connect(spec, settings, report)
    if settings.engine.name == "torch":
        if importlib.util.find_spec("torch") is None:
            raise CompileError("the engine torch needs torch: pip install 'samgate[compile]'")
        from samgate.engines.torch_engine import load_torch

        return load_torch(spec, settings.engine, report)
    return load_embedded(spec, settings.engine, report)


def load_embedded(spec: VariantSpec, settings: EngineSettings, report: Callable[[str], None]) -> Engine:
    """An engine in this process, its graphs compiled for this machine. Raises NotInstalled, CompileError and
    InvalidArgument."""
    name = choose_runtime(settings)
    graphs = runtime_graphs(spec, settings.precision, name, report)
    report(f"loading {spec.name}")
    threads = settings.threads or usable_cores()
    capacity = Capacity(
        max_images=settings.max_encode_batch or ENCODE_BATCH,
        # As many as are decoded at once: further ones would only wait for them.
        decode_images=threads,
        max_prompts=settings.max_decode_prompts or DECODE_PROMPTS,
        parallel_calls=1,
        together=EVERYTHING_PROMPTS,
        lanes=threads,
    )
    runtime = cast("Runtime", importlib.import_module(f"samgate.engines.{name}"))

    def decoder(graph: GraphName) -> Decoder:
        file, hint = graphs.files[graph], graphs.hints[graph]
        whole = runtime.load_graph(file, hint, threads)
        return Decoder(whole, runtime.load_side_by_side(file, hint, threads) if threads > 1 else ())

    def on_one_thread(graph: GraphName, size: int | None = None, lend: bool = False) -> tuple[Graph, ...]:
        return runtime.load_side_by_side(graphs.files[graph], graphs.hints[graph], threads, size, lend)

    batch = 1 if capacity.max_images == 1 else None
    terms: Graph | None = None
    lanes: tuple[Lane, ...] | tuple[WholeLane, ...]
    if "attend" not in graphs.files:
        lanes = tuple(map(WholeLane, on_one_thread("decoder")))
    else:
        terms = runtime.load_graph(graphs.files["terms"], graphs.hints["terms"], threads)
        attends = on_one_thread("attend", EVERYTHING_PROMPTS, lend=True)
        lanes = tuple(map(Lane, attends, on_one_thread("upscale")))
    loaded = LoadedGraphs(
        encoder=runtime.load_graph(graphs.files["encoder"], graphs.hints["encoder"], threads, batch),
        decoder=decoder("decoder"),
        masked_decoder=decoder("masked_decoder") if "masked_decoder" in graphs.files else None,
        terms=terms,
        lanes=lanes,
    )
    return EmbeddedEngine(runtime.NAME, graphs.plan, loaded, capacity)


@contextmanager
def own_server(settings: Settings, report: Callable[[str], None]) -> Iterator[Settings]:
    """``settings`` that name a Triton of our own, where they ask for Triton and name none; else as they are. It runs
    inside the block, started again should it die. Raises InvalidArgument for a variant at two precisions, and what
    :func:`samgate.triton.local.local_triton` raises."""
    if not wants_triton(settings.engine) or settings.triton.endpoints:
        yield settings
        return
    from samgate.triton.local import local_triton
    from samgate.triton.staging import Beside
    from samgate.triton.supervisor import supervise

    precisions: dict[str, str] = {}
    for name in filter(None, (name.strip() for name in settings.variants.split(","))):
        variant, _, plan = name.partition(":")
        plan = plan or settings.engine.precision
        if precisions.setdefault(variant, plan) != plan:
            # A repository's models are named after variants.
            both = f"{variant} at {precisions[variant]!r} and at {plan!r}"
            raise InvalidArgument("variants", f"names {both}, but a Triton server has a variant at one precision")
    detectors = (settings.detector,) if settings.detector else ()
    beside = Beside(detectors, (settings.text_model,) if settings.text_model else ())
    with local_triton(precisions, threads=settings.engine.threads, beside=beside, report=report) as server:
        stop = Event()
        watcher = Thread(target=supervise, args=(server, stop, report), name="triton-supervisor", daemon=True)
        watcher.start()
        try:
            yield replace(settings, triton=replace(settings.triton, endpoints=server.grpc))
        finally:
            stop.set()
            watcher.join()
