"""The flags that Locust gets from us, and the plan that follows from them. Pure."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

from loadtest.plan import Plan, Source
from loadtest.shapes import AS_WORKLOAD, SHAPES
from loadtest.targets import ALLOW_VARIABLE, Files
from samgate.errors import InvalidArgument

REPORT = "build/loadtest/report"


class Parser(Protocol):
    """Locust's parser, and argparse's."""

    def add_argument(self, *names: str, **options: Any) -> Any: ...


class Options(Protocol):
    """What was parsed. Locust's UI turns what is None by default into text, so numbers may come as such."""

    workload: str | None
    shape: str
    rate: float | str | None
    duration: float | str | None
    warmup: float | str | None
    slo_scale: float | str | None
    seed: int | str
    salt: str | None
    images: str | None
    in_flight: int | str
    connections: int | str
    target_share: float | str
    max_lag: float | str
    allow_target: str
    ca: str
    cert: str
    key: str
    report: str


def add_options(parser: Parser) -> None:
    """Our flags, which Locust's UI shows as fields."""
    shapes = "; ".join(f"{name}: {shape.says}" for name, shape in SHAPES.items())
    add = parser.add_argument
    add("--workload", metavar="FILE", help="what clients ask, for the user class's own file")
    add(
        "--shape",
        choices=[AS_WORKLOAD, *SHAPES],
        default=AS_WORKLOAD,
        help=f"how the rate moves; {AS_WORKLOAD}: as the file says; {shapes} (default %(default)s)",
    )
    add("--rate", metavar="N", help="requests a second in the mean, of all user classes together (default: the files')")
    add("--duration", metavar="S", help="for how many seconds requests come (default: the file's; soak: an hour)")
    add("--warmup", metavar="S", help="seconds at the beginning that don't count (default: the file's)")
    add("--slo-scale", metavar="X", help="deadlines are X times what the workload says, for its own scale")
    add("--seed", metavar="N", default="0", help="the same requests for the same number (default 0)")
    add("--salt", metavar="TEXT", help="the same images for the same text (default: new ones with every run)")
    add("--images", metavar="FOLDER", help="photographs to send (default: drawn ones)")
    add("--in-flight", metavar="N", default="512", help="most requests of a user under way; further ones are skipped")
    add("--connections", metavar="N", default="4", help="of each user (default 4)")
    add("--target-share", metavar="P", default="0.99", help="what share must be answered on time (default 0.99)")
    add("--max-lag", metavar="S", default="0.1", help="how late the generator may be in a valid run (default 0.1)")
    add_target_options(parser)
    add("--report", metavar="PATH", default=REPORT, help="write PATH.json and PATH.html (default %(default)s)")


def add_target_options(parser: Parser, environment: Mapping[str, str] = os.environ) -> None:
    """How to reach a server that isn't this machine."""
    add = parser.add_argument
    add(
        "--allow-target",
        metavar="HOST:PORT",
        default=environment.get(ALLOW_VARIABLE, ""),
        help=f"the target again, when it isn't this machine; or {ALLOW_VARIABLE} in the environment",
    )
    add("--ca", metavar="FILE", default="", help="authorities of the server's certificate, PEM; without, no TLS")
    add("--cert", metavar="FILE", default="", help="a certificate of ours, PEM")
    add("--key", metavar="FILE", default="", help="its key, PEM")


def plan_from(options: Options, sources: Sequence[Source]) -> Plan:
    """The run that ``options`` describe, of these user classes. Raises InvalidArgument, SamgateError."""
    chosen = tuple(sources)
    if options.workload:
        if len(chosen) != 1:
            raise InvalidArgument(
                "workload", f"replaces the file of one user class; {len(chosen)} are to run: name one"
            )
        chosen = (Source(chosen[0].user, options.workload, chosen[0].prime),)
    return Plan(
        sources=chosen,
        shape=options.shape,
        rate=_number("rate", options.rate),
        duration_s=_number("duration", options.duration),
        warmup_s=_number("warmup", options.warmup),
        slo_scale=_number("slo-scale", options.slo_scale),
        seed=_whole("seed", options.seed),
        salt=options.salt or uuid4().hex[:12],
        images=options.images or "",
        in_flight=_whole("in-flight", options.in_flight),
        connections=_whole("connections", options.connections),
        target_share=_number("target-share", options.target_share) or 0.0,
        max_lag_s=_number("max-lag", options.max_lag) or 0.0,
    )


def files_from(options: Options) -> Files:
    """The PEM files that ``options`` name."""
    return Files(options.ca or "", options.cert or "", options.key or "")


def _number(name: str, given: float | str | None) -> float | None:
    if given is None or given == "":
        return None
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidArgument(name, f"is {given!r}; it must be a number")
    return value


def _whole(name: str, given: int | str) -> int:
    try:
        return int(given)
    except ValueError:
        raise InvalidArgument(name, f"is {given!r}; it must be a whole number") from None
