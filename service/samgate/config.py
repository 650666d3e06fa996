"""Every setting of the gateway in one frozen tree.

Each field can be set by an environment variable (``SAMGATE_`` + its path in capitals, such as
``SAMGATE_LIMITS_MAX_PIXELS``) and, where ``samgate serve`` has one, by a flag, which wins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints
from urllib.parse import urlsplit

from samgate.errors import InvalidArgument
from samgate.scheduling.policy import POLICIES
from samgate.variants import DEFAULT_VARIANT

T = TypeVar("T")

_MAX_WEIGHT = 1000.0
_REFLECTION = ("auto", "on", "off")
_AT_LEAST_ONE = (
    "max_pixels",
    "max_prompts",
    "max_message_bytes",
    "max_total_bytes",
    "max_queued",
    "max_connections",
    "max_streams",
)
_ABOVE_ZERO = ("max_deadline_s", "receive_s", "send_s")
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one client may ask of the server."""

    max_message_bytes: int = 64 * 2**20
    """Of one request or answer on the wire."""
    max_total_bytes: int = 512 * 2**20
    """Of all requests under way together; more are refused with RESOURCE_EXHAUSTED."""
    max_pixels: int = 50_000_000
    """Of one image; checked from its header, before anything is decoded."""
    max_prompts: int = 256
    """Of one Segment call."""
    max_points: int = 128
    """Of one prompt."""
    max_everything_prompts: int = 32_768
    """Of one SegmentEverything call, over all of its crops."""
    max_concurrent_calls: int = 256
    """In flight at once; more are refused with RESOURCE_EXHAUSTED. Fewer while answers are late."""
    max_queued: int = 1024
    """Pieces of work (an image to encode, a group of prompts to decode) that may wait for an engine."""
    max_deadline_s: float = 3600.0
    """Deadlines of calls that ask for more are this."""
    receive_s: float = 30.0
    """A request has to arrive within so many seconds of its call."""
    send_s: float = 30.0
    """A client has to take each message of an answer within so many seconds."""
    max_connections: int = 1024
    """Open at once; further ones are closed."""
    max_streams: int = 512
    """Calls under way on one connection; clients keep further ones back. More than ``max_concurrent_calls``, so that
    these are refused rather than kept waiting."""
    connection_age_s: float = 1800.0
    """Then a connection takes no further calls and the client opens another: so clients find servers that are new, and
    revoked certificates lose theirs. 0 is never."""
    connection_idle_s: float = 600.0
    """A connection without calls is closed after so many seconds. 0 is never."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Which engine runs the graphs and how."""

    name: str = "auto"
    """``auto`` (OpenVINO on x86-64, else ONNX Runtime), ``openvino``, ``onnxruntime``, ``torch`` or ``triton``."""
    precision: str = "auto"
    """``auto``: the fastest plan of the variant that this CPU runs natively; or a plan's name."""
    threads: int = 0
    """CPU threads of the engine; 0 is all cores this process may use."""
    compile: str = "auto"
    """Whether the engine ``torch`` compiles encoders, which takes a minute at the first call: ``auto`` (on a GPU),
    ``on`` or ``off``."""
    max_encode_batch: int = 0
    """Images in one encoder call; 0 is what suits the engine. On CPUs that is 1: a batch takes as long as its images
    one by one."""
    max_decode_prompts: int = 0
    """Prompts in one decoder call; 0 is what suits the engine. On CPUs that is 16: their activations should stay within
    the cache."""


@dataclass(frozen=True, slots=True)
class TritonSettings:
    """Where Triton is and how it is used, by the engine ``triton``."""

    endpoints: str = ""
    """Comma-separated host:port of gRPC services. Empty: a server of our own on this machine, started with us."""
    shared_memory_bytes: int = 1024 * 2**20
    """Of the memory through which tensors go to servers on this machine; 0: by gRPC. Embeddings that are cached lie in
    it as well. Only what was needed once is taken from the system."""
    call_timeout_s: float = 30.0
    """After so many seconds in vain a server is taken for hung: left alone, its model loaded anew."""
    outage_s: float = 30.0
    """How long calls wait for a server to come back when none is left: longer than one takes to start."""
    calls_per_instance: int = 2
    """Calls under way at once: one runs while the next is on its way."""
    fallback: bool = False
    """Whether this process loads the graphs, too, and runs them when no server does."""
    connect_timeout_s: float = 120.0
    """How long to wait for the first server when the gateway starts."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The embedding cache. One MobileSAM embedding is 4 MiB."""

    max_bytes: int = 512 * 2**20
    ttl_s: float = 600.0
    """Seconds without use after which an embedding is dropped."""


@dataclass(frozen=True, slots=True)
class Scheduling:
    """Who answers what when."""

    policy: str = "samgate"
    """How operating points are chosen; the others, of samgate.scheduling.policy, are there to be compared with."""
    profile: str = ""
    """File of `samgate profile` to go by; empty takes the one that is installed, or measures quickly."""
    yield_s: float = 0.04
    """How long a chunk of SegmentEverything may keep an interactive request waiting."""
    client_header: str = ""
    """Name of the metadata in which a trusted proxy says who asks, for fair shares. Empty: who connects."""
    client_weights: str = ""
    """Shares of clients other than 1, such as "batch=0.5,studio=3"."""

    @property
    def weight_of(self) -> dict[str, float]:
        """``client_weights``, parsed. Raises InvalidArgument."""
        weights: dict[str, float] = {}
        for entry in filter(None, (part.strip() for part in self.client_weights.split(","))):
            name, _, text = entry.rpartition("=")
            try:
                weight = float(text)
            except ValueError:
                weight = 0.0
            if not name or not 0 < weight <= _MAX_WEIGHT:
                raise InvalidArgument(
                    "scheduling.client_weights", f"{entry!r} is not CLIENT=WEIGHT with a weight above 0, at most 1000"
                )
            weights[name] = weight
        return weights


@dataclass(frozen=True, slots=True)
class Tls:
    """Encryption of the gRPC port. The files may be replaced at any time: new connections get what is there by then."""

    certificate: str = ""
    """PEM file of the server's certificate and those between it and its root. Empty: no encryption."""
    key: str = ""
    """PEM file of its private key."""
    client_ca: str = ""
    """PEM file of roots: clients must present a certificate of one of these (mutual TLS)."""


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may call. docs/security.md."""

    clients: str = ""
    """YAML file of clients, their hashed tokens and their rights; read again when it changes."""
    jwt_keys: str = ""
    """File of a JSON Web Key Set, or of a public key in PEM, whose tokens are accepted; read again when it changes."""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    anonymous: bool = False
    """Whether the server may listen beyond loopback without asking who calls."""


@dataclass(frozen=True, slots=True)
class Admin:
    """A second gRPC port, neither encrypted nor guarded: health, for probes that know no TLS, and reflection."""

    host: str = "127.0.0.1"
    port: int = 50052
    reflection: str = "auto"
    """``on``, ``off``, or ``auto``: where ``host`` is loopback."""


@dataclass(frozen=True, slots=True)
class MetricsDoor:
    """Who may read /metrics beyond loopback; without either it is refused there."""

    token: str = ""
    """File with a bearer token that has to be presented."""
    open: bool = False
    """Whether anybody may."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where traces go."""

    endpoint: str = ""
    """A collector's OTLP over gRPC, such as http://collector:4317 (https:// for TLS). Empty: nothing is traced."""
    sample: float = 0.01
    """The share of calls, 0 to 1, that are traced; those whose ``traceparent`` is sampled are in any case."""

    def check(self) -> None:
        """Raises InvalidArgument."""
        if not self.sample <= 1:
            raise InvalidArgument("tracing.sample", f"must be from 0 to 1, is {self.sample:g}")
        try:
            where = urlsplit(self.endpoint)
            good = where.scheme in ("http", "https") and bool(where.hostname) and (where.port or 0) > 0
        except ValueError:
            good = False
        if self.endpoint and not good:
            raise InvalidArgument("tracing.endpoint", f"{self.endpoint!r} is not http://HOST:PORT or https://HOST:PORT")


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole tree."""

    host: str = "127.0.0.1"
    port: int = 50051
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    variants: str = DEFAULT_VARIANT
    """Comma-separated variants, or operating points such as ``mobilesam:int8``; requests that name none get the most
    accurate that meets their deadline."""
    detector: str = ""
    """Name of the detector whose boxes prompt the decoder for object-aware segmentation; empty for none."""
    text_model: str = ""
    """Name of the model that prompts in words are understood with, of variants that take them; empty for none."""
    drain_s: float = 30.0
    """After SIGTERM, calls in flight have this long to finish."""
    default_deadline_s: float = 30.0
    """Of Segment and Embed calls that come without one."""
    default_everything_deadline_s: float = 300.0
    """Of SegmentEverything calls that come without one."""
    log_level: str = "INFO"
    log_format: str = "text"
    """``text`` for people, ``json`` for machines."""
    limits: Limits = field(default_factory=Limits)
    engine: EngineSettings = field(default_factory=EngineSettings)
    triton: TritonSettings = field(default_factory=TritonSettings)
    cache: Cache = field(default_factory=Cache)
    scheduling: Scheduling = field(default_factory=Scheduling)
    tls: Tls = field(default_factory=Tls)
    auth: Auth = field(default_factory=Auth)
    admin: Admin = field(default_factory=Admin)
    metrics: MetricsDoor = field(default_factory=MetricsDoor)
    tracing: Tracing = field(default_factory=Tracing)

    def __post_init__(self) -> None:
        for path, value in _leaves(self):
            if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
                raise InvalidArgument(path, f"must not be negative, is {value}")
        for name in _AT_LEAST_ONE:
            if getattr(self.limits, name) < 1:
                raise InvalidArgument(f"limits.{name}", f"must be at least 1, is {getattr(self.limits, name)}")
        for name in _ABOVE_ZERO:
            if getattr(self.limits, name) <= 0:
                raise InvalidArgument(f"limits.{name}", f"must be above 0, is {getattr(self.limits, name)}")
        if self.scheduling.policy not in POLICIES:
            raise InvalidArgument("scheduling.policy", f"{self.scheduling.policy!r} is none of {', '.join(POLICIES)}")
        _ = self.scheduling.weight_of
        if self.admin.reflection not in _REFLECTION:
            raise InvalidArgument("admin.reflection", f"{self.admin.reflection!r} is none of {', '.join(_REFLECTION)}")
        if bool(self.tls.certificate) != bool(self.tls.key):
            missing = "tls.key" if self.tls.certificate else "tls.certificate"
            raise InvalidArgument(missing, "is needed as well: a certificate and its key go together")
        if self.tls.client_ca and not self.tls.certificate:
            raise InvalidArgument("tls.client_ca", "needs tls.certificate and tls.key as well")
        if self.auth.jwt_keys and not (self.auth.jwt_issuer and self.auth.jwt_audience):
            raise InvalidArgument("auth.jwt_issuer", "and auth.jwt_audience are needed with auth.jwt_keys")
        self.tracing.check()


def _leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for item in fields(tree):
        value = getattr(tree, item.name)
        if is_dataclass(value):
            found += _leaves(value, f"{prefix}{item.name}.")
        else:
            found.append((prefix + item.name, value))
    return found


def settings_from(
    environment: Mapping[str, str] = os.environ, overrides: Mapping[str, object] | None = None
) -> Settings:
    """Defaults, then ``environment``, then ``overrides`` (dotted path → value; None means not given).

    Raises :class:`InvalidArgument` that names the variable or path whose value is of the wrong type or out of range.
    """
    given = {path: value for path, value in (overrides or {}).items() if value is not None}
    unknown = given.keys() - {path for path, _ in _leaves(Settings())}
    if unknown:
        raise InvalidArgument(sorted(unknown)[0], "no such setting")
    return _build(Settings, "", environment, given)


def _build(cls: type[T], prefix: str, environment: Mapping[str, str], given: Mapping[str, object]) -> T:
    hints = get_type_hints(cls)
    values: dict[str, object] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        path, kind = prefix + item.name, hints[item.name]
        variable = "SAMGATE_" + path.replace(".", "_").upper()
        if is_dataclass(kind):
            values[item.name] = _build(kind, path + ".", environment, given)  # type: ignore[arg-type]
        elif path in given:
            values[item.name] = given[path]
        elif variable in environment:
            try:
                values[item.name] = _parsed(kind, environment[variable])
            except ValueError:
                raise InvalidArgument(variable, f"{environment[variable]!r} is not of type {kind.__name__}") from None
    return cls(**values)


def _parsed(kind: Any, text: str) -> Any:
    """Raises ValueError."""
    if kind is not bool:
        return kind(text)
    if text.lower() not in _BOOLS:
        raise ValueError(text)
    return _BOOLS[text.lower()]
