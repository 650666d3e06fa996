"""``samgate serve``: the gateway, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from samgate.config import Settings, settings_from

if TYPE_CHECKING:
    from samgate.api.server import Running
    from samgate.engines.base import Detector, TextModel
    from samgate.serving.models import Model

_DESCRIPTION = """\
Serve Segment Anything over gRPC. Settings come from flags, else from environment variables (SAMGATE_PORT,
SAMGATE_ENGINE_PRECISION, SAMGATE_LIMITS_MAX_PIXELS, …: every field of samgate.config), else from defaults.
SIGTERM drains: calls under way finish, new ones get UNAVAILABLE."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "serve",
        help="serve over gRPC",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="gRPC address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="gRPC port, 0 for a free one (default 50051)")
    parser.add_argument("--http-host", help="address for /metrics, /healthz and /readyz (default 127.0.0.1)")
    parser.add_argument("--http-port", type=int, help="their port, 0 for a free one (default 8080)")
    parser.add_argument("--admin-host", help="address for health without TLS and for reflection (default 127.0.0.1)")
    parser.add_argument("--admin-port", type=int, help="their port, 0 for a free one (default 50052)")
    parser.add_argument("--tls-certificate", metavar="FILE", help="PEM certificates; read again when they change")
    parser.add_argument("--tls-key", metavar="FILE", help="their key, PEM")
    parser.add_argument("--tls-client-ca", metavar="FILE", help="clients need a certificate of one of these roots")
    parser.add_argument("--auth-clients", metavar="FILE", help="who may call: YAML, see `samgate token create --help`")
    parser.add_argument(
        "--anonymous", action="store_const", const=True, help="listen beyond loopback though nobody is asked who calls"
    )
    parser.add_argument(
        "--variants",
        metavar="NAME[:PRECISION],…",
        help="what to serve (default mobilesam); who names none gets the most accurate that meets the deadline",
    )
    parser.add_argument(
        "--detector", metavar="NAME", help="detector for object-aware segmentation, such as yolox-nano (default none)"
    )
    parser.add_argument(
        "--text-model", metavar="NAME", help="model for prompts in words, such as clip-vit-b-32 (default none)"
    )
    parser.add_argument("--engine", help="auto, openvino, onnxruntime, torch or triton (default auto)")
    parser.add_argument(
        "--triton-endpoints",
        metavar="HOST:PORT,…",
        help="gRPC services of Triton servers; without them --engine triton starts one of its own on this machine",
    )
    parser.add_argument("--precision", help="auto or one of the variant's plans, such as f32 or bf16 (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads of the engine (default 0: all cores)")
    parser.add_argument(
        "--profile", metavar="FILE", help="go by this file of `samgate profile` (default: the installed)"
    )
    parser.add_argument("--policy", help="how to choose what answers (default samgate; others are for comparison)")
    parser.add_argument("--log-format", help="text or json (default text)")
    parser.add_argument("--log-level", help="DEBUG, INFO, WARNING or ERROR (default INFO)")
    parser.add_argument(
        "--drain", type=float, metavar="SECONDS", help="time for calls under way to finish (default 30)"
    )
    parser.add_argument(
        "--pull",
        action="store_true",
        help="first install what isn't installed of the variants, the detector and the text model",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from samgate import logs, loop
    from samgate.api.server import load_detector_of, load_models, load_text_model_of, serve_until
    from samgate.engines.load import own_server
    from samgate.security.exposure import check_exposure

    settings = settings_from(
        overrides={
            "host": options.host,
            "port": options.port,
            "http_host": options.http_host,
            "http_port": options.http_port,
            "admin.host": options.admin_host,
            "admin.port": options.admin_port,
            "tls.certificate": options.tls_certificate,
            "tls.key": options.tls_key,
            "tls.client_ca": options.tls_client_ca,
            "auth.clients": options.auth_clients,
            "auth.anonymous": options.anonymous,
            "variants": options.variants,
            "detector": options.detector,
            "text_model": options.text_model,
            "engine.name": options.engine,
            "triton.endpoints": options.triton_endpoints,
            "engine.precision": options.precision,
            "engine.threads": options.threads,
            "scheduling.profile": options.profile,
            "scheduling.policy": options.policy,
            "log_format": options.log_format,
            "log_level": options.log_level,
            "drain_s": options.drain,
        }
    )
    logs.configure(settings.log_level, settings.log_format)
    check_exposure(settings)  # before anything that takes long
    if options.pull:
        _pull(settings)

    async def serve(
        settings: Settings, models: list[Model], detector: Detector | None, text_model: TextModel | None
    ) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve_until(settings, models, stop, _announce, _report, detector, text_model)

    with own_server(settings, _report) as settings:
        text_model, detector = load_text_model_of(settings, _report), load_detector_of(settings, _report)
        loop.run(serve(settings, load_models(settings, _report), detector, text_model))
    return 0


def _pull(settings: Settings) -> None:
    from samgate.variants import get_variant
    from samgate.variants.clip import get_text_model
    from samgate.variants.detectors import get_detector
    from samgate.weights.pull import pull
    from samgate.weights.pull_detector import pull_detector

    for name in settings.variants.split(","):
        pull(get_variant(name.strip().partition(":")[0]))
    if settings.detector:
        pull_detector(get_detector(settings.detector))
    if settings.text_model:
        pull(get_text_model(settings.text_model))


def _report(message: str) -> None:
    print(f"samgate: {message} …", file=sys.stderr, flush=True)


def _announce(ready: Running) -> None:
    server = ready.server
    settings, models = server.gateway.settings, server.gateway.models.values()
    served = ", ".join(f"{model.spec.name} ({model.engine.precision}, {model.engine.name})" for model in models)
    command = os.path.relpath(sys.argv[0]) if os.sep in sys.argv[0] else "samgate"
    known = " --ca CA.pem" if settings.tls.certificate else ""
    print(
        f"samgate ready: {served} on {server.target}, metrics on http://{settings.http_host}:{ready.http_port}/metrics,"
        f" health on {ready.admin_target}"
        f" – now try: {command} segment PHOTO.jpg --point 500,375 -o mask.png --server {server.target}{known}",
        flush=True,
    )
