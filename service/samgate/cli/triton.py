"""``samgate triton``: a real Triton Inference Server on this machine."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING

from samgate.variants import DEFAULT_VARIANT, get_variant
from samgate.variants.spec import VariantSpec

if TYPE_CHECKING:
    from samgate.triton.server import TritonServer

_UP = """\
Fetch what is missing (weights, the server of the nvidia-pytriton wheel, an environment for its Python backend), then
run Triton with the python-cpu models, those of installed detectors among them, and where a variant takes words those of
an installed text model, until SIGTERM or Ctrl-C. What dies is started again."""

_EXAMPLES = """\
examples:
  samgate triton up
  samgate triton up --precision f32 --grpc-port 9001 --http-port 9000 --metrics-port 9002
  samgate triton up --repository /srv/models/python-cpu      models that are there already"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the commands."""
    form = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser("triton", help="run a Triton Inference Server here")
    subcommands = parser.add_subparsers(metavar="COMMAND", required=True)
    install = subcommands.add_parser(
        "install", help="only fetch the server", description="Fetch the server and the environment of its models."
    )
    install.set_defaults(run=run_install)
    up = subcommands.add_parser(
        "up", help="run it, with MobileSAM", description=_UP, epilog=_EXAMPLES, formatter_class=form
    )
    up.add_argument("--variants", default=DEFAULT_VARIANT, help=f"comma-separated (default {DEFAULT_VARIANT})")
    up.add_argument("--precision", default="auto", help="auto or one of the variant's plans (default auto)")
    up.add_argument("--threads", type=int, default=0, help="CPU threads of each model (default 0: all cores)")
    up.add_argument("--repository", type=Path, metavar="DIR", help="serve this repository as it is")
    up.add_argument("--grpc-address", default="127.0.0.1", help="where to listen for gRPC (default 127.0.0.1)")
    up.add_argument("--http-address", default="127.0.0.1", help="and for HTTP and metrics (default 127.0.0.1)")
    for name, port in (("grpc", 8001), ("http", 8000), ("metrics", 8002)):
        up.add_argument(f"--{name}-port", type=int, default=port, help=f"0 for a free one (default {port})")
    up.set_defaults(run=run_up)


def run_install(options: argparse.Namespace) -> int:  # noqa: ARG001
    """Fetch it."""
    from samgate.triton.install import ensure_installed

    print(ensure_installed().server)
    return 0


def run_up(options: argparse.Namespace) -> int:
    """Run it until told to stop."""
    from samgate.triton.errors import TritonError
    from samgate.triton.install import ensure_installed
    from samgate.triton.runs import new_run
    from samgate.triton.server import ServerOptions, TritonServer
    from samgate.triton.staging import Beside, StagingOptions, stage
    from samgate.triton.supervisor import supervise
    from samgate.weights.detector_store import installed_detectors

    specs = [get_variant(name.strip()) for name in options.variants.split(",")] if options.repository is None else []
    _pull(specs)
    installation = ensure_installed()
    with new_run() as run:
        served = str(options.repository)
        if options.repository is None:
            wanted = {spec.name: options.precision for spec in specs}
            beside = Beside([found.spec.name for found in installed_detectors()], text_models_for(specs))
            precisions = stage(wanted, run.models, StagingOptions(options.threads, beside=beside), _report)
            served = ", ".join(
                [*(f"{name} ({precision})" for name, precision in precisions.items()), *beside.detectors]
            )
        settings = ServerOptions(
            grpc_address=options.grpc_address,
            http_address=options.http_address,
            grpc_port=options.grpc_port,
            http_port=options.http_port,
            metrics_port=options.metrics_port,
        )
        server = TritonServer(installation, options.repository or run.models, run, settings)
        stop = _told_to_stop()
        try:
            server.start(_report, stop)
            _announce(server, served)
            supervise(server, stop, _report)
        except TritonError:
            if not stop.is_set():
                raise
        finally:
            server.stop()
    return 0


def _told_to_stop() -> Event:
    stop = Event()

    def told(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, told)
    return stop


def text_models_for(specs: list[VariantSpec]) -> list[str]:
    """Names of text models that are installed, where one of ``specs`` takes words."""
    from samgate.variants.clip import TEXT_MODELS
    from samgate.weights.store import installed

    takes_words = any(spec.prompts.text for spec in specs)
    return [name for name, spec in TEXT_MODELS.items() if takes_words and installed(spec) is not None]


def _pull(specs: list[VariantSpec]) -> None:
    from samgate.weights.pull import pull

    for spec in specs:
        pull(spec)


def _announce(server: TritonServer, served: str) -> None:
    print(
        f"triton ready: {served} on {server.grpc}, http://{server.http}, metrics on http://{server.metrics}/metrics"
        f" – now try: samgate serve --engine triton --triton-endpoints {server.grpc}",
        flush=True,
    )


def _report(message: str) -> None:
    print(f"samgate: {message}", file=sys.stderr, flush=True)
