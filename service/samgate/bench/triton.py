"""What it costs that the graphs run on Triton instead of in the gateway's process."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np

from samgate import loop
from samgate.bench.context import Context
from samgate.bench.images import unique_jpegs
from samgate.bench.report import Result, Verdict
from samgate.bench.server import serving
from samgate.bench.stats import Latency
from samgate.bench.warm import CONCURRENCIES, closed_loop
from samgate.client import Client
from samgate.config import EngineSettings, Settings, TritonSettings
from samgate.domain import UInt8Array
from samgate.engines.base import Engine, Images, Prompts
from samgate.engines.load import load_embedded
from samgate.engines.triton.load import connect
from samgate.errors import InvalidArgument
from samgate.profiles.measure import as_on_photographs
from samgate.triton.install import ensure_installed
from samgate.triton.local import local_triton
from samgate.triton.runs import new_run
from samgate.triton.server import ServerOptions, TritonServer
from samgate.triton.staging import StagingOptions, stage
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

ENCODE_FLOOR_MS = 7.3
DECODE_FLOOR_MS = 5.1
"""Of calls by shared memory to models that do nothing, measured with tritonclient's own example of it."""
_WARM_UP = 5
_IMAGES = 8
_SEED = 5
_CHUNK = 16
_WAYS = ("embedded", "shared memory", "gRPC")

Calls = dict[str, Callable[[], Awaitable[object]]]


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to run the graphs: its name, the engine and its calls."""

    name: str
    engine: Engine
    calls: Calls


def triton(context: Context) -> Result:
    """Encoder and decoder calls by shared memory and by gRPC, and requests through the gateway, on each engine."""
    spec = get_variant(context.variant)
    if context.engine == "triton":
        raise InvalidArgument("--engine", "this benchmark compares Triton with an embedded engine: name that")
    with _null_triton(context, spec) as server:
        idle = loop.run(_measure(context, _ways(spec, context, server, embedded=False), context.repetitions(300, 10)))
    with local_triton({spec.name: context.precision}, threads=context.all_threads) as server:
        ways = _ways(spec, context, server, embedded=True)
        precision = ways[0].engine.precision
        busy = loop.run(_measure(context, ways, context.repetitions(40, 3)))
        rates = {name: _rates(context, options) for name, options in _gateways(server).items()}
    rows = [
        *((f"{call}, models that do nothing", *_row(latencies)) for call, latencies in idle.items()),
        *((f"{call}, {precision}", *_row(latencies)) for call, latencies in busy.items()),
    ]
    for concurrency in CONCURRENCIES:
        for call in ("warm", "cold"):
            embedded, shared, message = (f"{rates[way][call, concurrency]:.2f}/s" for way in _WAYS)
            rows.append((f"{call} requests, {concurrency} at once", embedded, shared, message))
    encode, decode = (idle[call]["shared memory"].p50 for call in ("encode", "decode"))
    side = spec.input_size
    return Result(
        name="triton",
        title="Triton's overhead over the embedded engine",
        method=(
            f"The engine's own calls, p50 in milliseconds, all ways in turns: an image of {side} × {side} pixels "
            f"({3 * side**2 / 2**20:.2g} MiB in, 4 MiB out), one prompt (4 MiB in, 1 MiB out), a SegEvery chunk of "
            f"{_CHUNK} prompts. Against Triton with models that answer at once, which is the way there and back alone; "
            "then with the real ones, beside the embedded engine. Below, requests through the gateway in closed loops: "
            "warm, one point on an embedded image; cold, an unseen image and one point. Server, gateway and clients "
            "share the machine's cores."
        ),
        columns=("", "embedded", "shared memory", "gRPC"),
        rows=rows,
        verdicts=[
            Verdict(f"{what} by shared memory: less than {floor:g} ms", f"{took:.1f} ms", took < floor)
            for what, took, floor in (("image", encode, ENCODE_FLOOR_MS), ("prompt", decode, DECODE_FLOOR_MS))
        ],
        figures={
            "idle": {call: {way: one.figures("call") for way, one in found.items()} for call, found in idle.items()},
            precision: {call: {way: one.figures("call") for way, one in found.items()} for call, found in busy.items()},
            "requests_per_s": {
                name: {f"{call} {at}": round(rate, 2) for (call, at), rate in found.items()}
                for name, found in rates.items()
            },
        },
    )


@contextmanager
def _null_triton(context: Context, spec: VariantSpec) -> Iterator[TritonServer]:
    """A real server whose models do nothing."""
    source = resources.files("samgate.bench").joinpath("null_model.py").read_text(encoding="utf-8")
    installation = ensure_installed()
    with new_run() as run:
        stage({spec.name: context.precision}, run.models, StagingOptions(context.all_threads), lambda message: None)
        for model in run.models.glob("*/1/model.py"):
            model.write_text(source, encoding="utf-8")
        with TritonServer(installation, run.models, run, ServerOptions()) as server:
            yield server


def _ways(spec: VariantSpec, context: Context, server: TritonServer, embedded: bool) -> list[_Way]:
    chosen = EngineSettings(name=context.engine, precision=context.precision, threads=context.all_threads)
    settings = Settings(engine=chosen, triton=TritonSettings(endpoints=server.grpc))
    by_message = replace(settings, triton=replace(settings.triton, shared_memory_bytes=0))
    ways = [_way("embedded", spec, load_embedded(spec, chosen, lambda message: None))] if embedded else []
    ways.append(_way("shared memory", spec, connect(spec, settings, lambda message: None)))
    ways.append(_way("gRPC", spec, connect(spec, by_message, lambda message: None)))
    return ways


def _way(name: str, spec: VariantSpec, engine: Engine) -> _Way:
    random, side = np.random.default_rng(_SEED), spec.input_size
    pixels: UInt8Array = random.integers(0, 255, (1, side, side, 3), np.uint8)
    images = Images(pixels, np.array([[side, side]], np.int32))
    coords = random.uniform(0, spec.prompt_size, (1, _CHUNK, 2, 2)).astype(np.float32)
    chunk = Prompts(coords, np.tile(np.array([1, -1], np.int32), (1, _CHUNK, 1)))
    choose = as_on_photographs(spec)
    one = Prompts(chunk.coords[:, :1], chunk.labels[:, :1])
    embeddings: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []

    async def encode() -> None:
        embeddings[:] = await engine.encode(images, math.inf)

    async def decode() -> None:
        await engine.decode(embeddings, one, math.inf)

    async def survivors() -> None:
        await engine.survivors(embeddings[0], chunk, choose, math.inf)

    return _Way(name, engine, {"encode": encode, "decode": decode, "SegEvery chunk": survivors})


async def _measure(context: Context, ways: list[_Way], repetitions: int) -> dict[str, dict[str, Latency]]:
    """By call and way, in turns."""
    found: dict[str, dict[str, list[float]]] = {}
    with context.progress("triton: calls of the engine", repetitions) as advance:
        for turn in range(_WARM_UP + repetitions):
            for call in ways[0].calls:
                for place in range(len(ways)):
                    way = ways[(turn + place) % len(ways)]
                    started = time.perf_counter()
                    await way.calls[call]()
                    elapsed = 1000 * (time.perf_counter() - started)
                    if turn >= _WARM_UP:
                        found.setdefault(call, {}).setdefault(way.name, []).append(elapsed)
            if turn >= _WARM_UP:
                advance()
    for way in ways:
        await way.engine.close()
    return {call: {way: Latency.of(times) for way, times in by_way.items()} for call, by_way in found.items()}


def _gateways(server: TritonServer) -> dict[str, dict[str, str]]:
    on_triton = {"SAMGATE_ENGINE_NAME": "triton", "SAMGATE_TRITON_ENDPOINTS": server.grpc}
    return {
        "embedded": {},
        "shared memory": on_triton,
        "gRPC": {**on_triton, "SAMGATE_TRITON_SHARED_MEMORY_BYTES": "0"},
    }


def _rates(context: Context, environment: dict[str, str]) -> dict[tuple[str, int], float]:
    """Requests a second, warm and cold, at each concurrency."""
    warm_calls, cold_calls = context.repetitions(200, 16), context.repetitions(32, 4)
    jpegs = unique_jpegs(context.images, _IMAGES + cold_calls * len(CONCURRENCIES), _SEED)
    engine = environment.get("SAMGATE_ENGINE_NAME", context.engine)
    rates: dict[tuple[str, int], float] = {}
    serve = serving(replace(context, engine=engine), environment)
    with serve as gateway, Client(gateway.target) as client:
        images = [client.embed(jpeg, variant=context.variant) for jpeg in jpegs[:_IMAGES]]
        for place, concurrency in enumerate(CONCURRENCIES):
            unseen = jpegs[_IMAGES + place * cold_calls :][:cold_calls]
            label = f"triton: {engine}, {concurrency} at once"
            warm = closed_loop(context, client, images, concurrency, warm_calls, label)
            cold = closed_loop(context, client, unseen, concurrency, cold_calls, label)
            rates["warm", concurrency], rates["cold", concurrency] = warm.requests_per_s, cold.requests_per_s
    return rates


def _row(latencies: dict[str, Latency]) -> tuple[str, str, str]:
    embedded, shared, message = (f"{latencies[way].p50:.1f}" if way in latencies else "" for way in _WAYS)
    return embedded, shared, message
