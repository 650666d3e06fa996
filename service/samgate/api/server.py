"""The gRPC server: starts what the settings say, drains when told to stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from samgate.api.admin import AdminServer
from samgate.api.calls import Calls
from samgate.api.gate import Gate
from samgate.api.health import Health
from samgate.api.http import HttpServer, Probes
from samgate.api.metrics import Metrics
from samgate.api.servicer import Segmentation
from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1 import segmentation_pb2_grpc
from samgate.config import Limits, Settings
from samgate.engines.base import Detector, Remote, TextModel
from samgate.engines.detector import load_detector
from samgate.engines.load import load_engine
from samgate.engines.text import load_text_model
from samgate.errors import InvalidArgument, Unavailable
from samgate.logs import log
from samgate.profiles.device import device_profile
from samgate.scheduling.profile import DeviceProfile
from samgate.security.exposure import check_exposure
from samgate.security.identity import Identities
from samgate.security.tls import ServerTls
from samgate.serving.detection import detect_with
from samgate.serving.everything import Detect
from samgate.serving.gateway import Gateway
from samgate.serving.models import Model
from samgate.tracing import Tracer
from samgate.tracing.load import load_tracer
from samgate.variants import VARIANTS, get_variant
from samgate.variants.clip import get_text_model
from samgate.variants.detectors import get_detector

logger = logging.getLogger("samgate.server")

SERVICE = pb.DESCRIPTOR.services_by_name["Segmentation"].full_name
_BEAT_S = 1.0
_LAG_BEATS = 15
"""A scrape's interval or so: what the loop was late in between is seen."""
_REFUSALS_S = 5.0
"""On a busy machine even refusals take their time."""
_LAST_S = 0.5
_MAX_METADATA_BYTES = 16 * 1024
_HANDSHAKE_S = 20


def load_models(settings: Settings, report: Callable[[str], None]) -> list[Model]:
    """Every operating point that ``settings`` name, with its engine. Slow; not for an event loop's thread. What was
    loaded is closed where something else can't be.

    Raises NotFound, NotInstalled, CompileError, InvalidArgument and Unavailable.
    """
    names = [name.strip() for name in settings.variants.split(",") if name.strip()]
    if not names:
        raise InvalidArgument("variants", "names no variant")
    models: dict[str, Model] = {}
    try:
        for name in dict.fromkeys(names):
            model = _load_model(name, settings, report)
            if model.name in models:  # a point that has two names among them
                asyncio.run(_close([model]))
            models.setdefault(model.name, model)
    except BaseException:
        asyncio.run(_close(models.values()))
        raise
    return list(models.values())


def _load_model(name: str, settings: Settings, report: Callable[[str], None]) -> Model:
    variant, _, precision = name.partition(":")
    spec = get_variant(variant)
    engine = replace(settings.engine, precision=precision or settings.engine.precision)
    model = Model(spec, load_engine(spec, replace(settings, engine=engine), report))
    if precision and model.engine.precision != precision:
        asyncio.run(_close([model]))
        # A server of others has the precision that it has.
        theirs = f"the servers have {variant} at {model.engine.precision!r}"
        raise InvalidArgument("variants", f"names {name!r}, but {theirs}")
    return model


async def _close(models: Iterable[Model]) -> None:
    for model in models:
        await model.engine.close()


def load_detector_of(settings: Settings, report: Callable[[str], None]) -> Detector | None:
    """The detector that ``settings`` name, if they do. Slow; raises as :func:`load_models` does."""
    return load_detector(get_detector(settings.detector), settings, report) if settings.detector else None


def load_text_model_of(settings: Settings, report: Callable[[str], None]) -> TextModel | None:
    """The text model that ``settings`` name, if they do. Slow; raises as :func:`load_models` does, and InvalidArgument
    where no variant takes words."""
    if not settings.text_model:
        return None
    spec = get_text_model(settings.text_model)
    served = [name.strip().partition(":")[0] for name in settings.variants.split(",")]
    if not any(get_variant(name).prompts.text for name in served if name):
        able = ", ".join(name for name, variant in VARIANTS.items() if variant.prompts.text)
        raise InvalidArgument("text_model", f"is {spec.name}, but no variant is served that takes words, as do {able}")
    return load_text_model(spec, settings, report)


@asynccontextmanager
async def detecting(detector: Detector | None) -> AsyncIterator[Detect | None]:
    """What a gateway asks for boxes inside the block, at whose end ``detector`` is closed; None without one."""
    if detector is None:
        yield None
        return
    try:
        yield detect_with(detector)
    finally:
        await detector.close()


async def load_profile(settings: Settings, models: list[Model], report: Callable[[str], None]) -> DeviceProfile:
    """How fast and how accurate ``models`` are: as given, as installed, or measured now.

    Raises ProfileError for a file that can't be used, and what the engines raise while they are measured.
    """
    given = Path(settings.scheduling.profile) if settings.scheduling.profile else None
    profile = await device_profile([(model.spec, model.engine) for model in models], settings, given, report)
    # As many calls at once as the engine takes: the next is on its way while one runs.
    return replace(profile, instances=min(model.engine.capacity.parallel_calls for model in models))


def channel_options(limits: Limits) -> tuple[tuple[str, int], ...]:
    """What gRPC itself sees to: sizes, pings, connections."""
    ages = {
        "grpc.max_connection_age_ms": limits.connection_age_s,
        "grpc.max_connection_idle_ms": limits.connection_idle_s,
    }
    return (
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", limits.max_message_bytes + 1024 * 1024),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        # Between the two gRPC refuses at random; here it doesn't.
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        # Images are compressed as they are, and a small message could unfold to any size.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_concurrent_streams", limits.max_streams),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_S * 1000),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_connection_age_grace_ms", round(limits.max_deadline_s * 1000)),
        *((name, round(seconds * 1000)) for name, seconds in ages.items() if seconds),
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves, the port of its metrics and the target of its administration, if it has these."""

    server: Server
    http_port: int | None
    admin_target: str | None


class Server:
    """A gateway on a listening gRPC server. Make with :func:`running`."""

    def __init__(
        self,
        settings: Settings,
        gateway: Gateway,
        metrics: Metrics,
        identities: Identities,
        target: str,
        tracer: Tracer | None = None,
    ) -> None:
        self.gateway = gateway
        self.target = target
        self.health = Health(SERVICE)
        self.tls = ServerTls(settings.tls) if settings.tls.certificate else None
        self.detector: Detector | None = None
        """Whose servers' health is told beside the engines'."""
        self._settings = settings
        self._metrics = metrics
        self._draining = False
        self._calls = Calls(settings, metrics, identities, tracer)
        gate = Gate(SERVICE, self._calls, settings.limits)
        self._server = grpc.aio.server(interceptors=(gate,), options=channel_options(settings.limits))
        segmentation_pb2_grpc.add_SegmentationServicer_to_server(Segmentation(gateway), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)

    async def start(self) -> None:
        """Listen. Raises Unavailable when the address is taken."""
        try:
            if self.tls is not None:
                port = self._server.add_secure_port(self.target, self.tls.credentials)
            else:
                port = self._server.add_insecure_port(self.target)
        except RuntimeError as error:
            raise Unavailable(f"gRPC can't listen on {self.target}: {error}; choose another --port") from error
        if not self.target.startswith("unix:"):
            self.target = f"{self.target.rpartition(':')[0]}:{port}"
        await self._server.start()
        await self.check_health()

    async def check_health(self) -> bool:
        """Ask the engines whether they are healthy, and let gRPC's health service say so; it stays NOT_SERVING once
        the server drains."""
        health = await self.gateway.look_after_engines()
        runners: list[object] = [
            *(model.engine for model in self.gateway.models.values()),
            self.detector,
            self.gateway.text_model,
        ]
        self._metrics.sample(self.gateway, health, [one for one in runners if isinstance(one, Remote)])
        if self.tls is not None:
            self._metrics.tls_expiry.set(self.tls.expires.timestamp())
        healthy = all(health.values())
        self.health.serving = healthy and not self._draining
        return healthy

    async def drain(self) -> None:
        """Health NOT_SERVING, no new connections, new calls UNAVAILABLE; those under way finish or run into the drain's
        deadline.

        Clients are told at once to go elsewhere (GOAWAY). On a connection that stayed, whoever tries again would be
        refused by this server until it has ended, and those who try again would keep it from ending.
        """
        self._draining, self.health.serving = True, False
        leaving = asyncio.create_task(self._server.stop(grace=self._settings.drain_s + _REFUSALS_S))
        finished = await self._calls.drain(self._settings.drain_s)
        if not finished:
            log(logger, logging.WARNING, "drain timed out", calls_cancelled=self._calls.in_flight)
        # Nothing is under way any more but refusals, and whoever watches the health of what has none any more.
        await self._server.stop(grace=_LAST_S)
        await leaving
        await self.gateway.close()


@asynccontextmanager
async def running(
    settings: Settings,
    models: list[Model],
    profile: DeviceProfile,
    target: str,
    *,
    detect: Detect | None = None,
    detector: Detector | None = None,
    text_model: TextModel | None = None,
    doors: bool = True,
) -> AsyncIterator[Running]:
    """A serving server inside the block, drained at its end. ``detect`` finds objects, where a detector is served; of
    ``detector`` metrics tell the servers' health. ``text_model`` knows what words mean; it is closed at the end, as the
    models are. ``doors``: also the ports for metrics, probes and administration.

    Raises InvalidArgument for a server that would be open to everybody, and for files of its that can't be used.
    """
    # Masks are one thread's work each: OpenCV's own threads would fight with the engine's and with each other.
    cv2.setNumThreads(1)
    identities = _identities(settings)
    if not target.startswith("unix:") and (warning := check_exposure(settings)):
        log(logger, logging.WARNING, warning)
    metrics, probes = Metrics(), Probes()
    tracer = load_tracer(settings.tracing, metrics.count_spans)
    gateway = Gateway(settings, models, profile, metrics, detect, identities.weight, text_model)
    metrics.watch(gateway)
    server = Server(settings, gateway, metrics, identities, target, tracer)
    server.detector = detector
    http = HttpServer(settings, metrics, probes) if doors else None
    admin = AdminServer(settings, server.health, (SERVICE,)) if doors else None
    try:
        if admin:
            await admin.start()
        await server.start()
        heart = asyncio.create_task(_beat(probes, server, metrics))
        probes.serving = True
        try:
            yield Running(server, http.port if http else None, admin.target if admin else None)
        finally:
            probes.serving = False
            await server.drain()
            heart.cancel()
    finally:
        await tracer.close()
        if admin:
            await admin.stop()
        if http:
            await asyncio.to_thread(http.close)


def _identities(settings: Settings) -> Identities:
    try:
        return Identities(settings)
    except OSError as error:
        raise InvalidArgument("auth", f"can't read {error.filename}: {error.strerror}") from error


async def serve_until(
    settings: Settings,
    models: list[Model],
    stop: asyncio.Event,
    on_ready: Callable[[Running], None],
    report: Callable[[str], None],
    detector: Detector | None = None,
    text_model: TextModel | None = None,
) -> None:
    """Serve until ``stop`` is set, then drain."""
    profile = await load_profile(settings, models, report)
    target = f"{settings.host}:{settings.port}"
    async with (
        detecting(detector) as detect,
        running(settings, models, profile, target, detect=detect, detector=detector, text_model=text_model) as ready,
    ):
        on_ready(ready)
        await stop.wait()


async def _beat(probes: Probes, server: Server, metrics: Metrics) -> None:
    lags: deque[float] = deque(maxlen=_LAG_BEATS)
    while True:
        probes.healthy = await server.check_health()
        probes.beat()
        due = time.monotonic() + _BEAT_S
        await asyncio.sleep(_BEAT_S)
        lags.append(max(0.0, time.monotonic() - due))
        metrics.lag.set(max(lags))
