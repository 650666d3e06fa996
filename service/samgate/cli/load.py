"""``samgate load``: a workload, sent to a real server."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgate.cli import servers
from samgate.cli.files import write_json
from samgate.cli.output import SLO_SCALE, number, whole_number
from samgate.errors import SamgateError

if TYPE_CHECKING:
    from samgate.load.generator import Measured
    from samgate.load.requests import Photo

_DESCRIPTION = """\
Send a workload to a running server, in an open loop: every request goes at its time, whether or not those before it
were answered, and its latency counts from that time. The same files as for `samgate simulate`, the same figures."""

_EXAMPLES = """\
examples:
  samgate load --workload loadtest/workloads/annotate.yaml --server 127.0.0.1:50051
  samgate load --workload loadtest/workloads/cold.yaml --rate 5 --duration 60 --images photos/ --json run.json"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "load",
        help="send a workload to a server",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workload", metavar="FILE", type=Path, required=True, help="what clients ask, as YAML")
    parser.add_argument("--server", metavar="HOST:PORT", default="127.0.0.1:50051", help="default %(default)s")
    parser.add_argument("--images", metavar="FOLDER", type=Path, help="photographs to send (default: drawn ones)")
    parser.add_argument(
        "--rate", metavar="N", type=number("--rate", above=0), help="requests a second, for the workload's own"
    )
    parser.add_argument(
        "--duration", metavar="S", type=number("--duration", above=0), help="seconds, for the workload's own"
    )
    parser.add_argument("--slo-scale", metavar="X", type=number("--slo-scale", above=0), help=SLO_SCALE)
    parser.add_argument("--seed", metavar="N", type=whole_number("--seed", least=0), default=0, help="default 0")
    parser.add_argument("--salt", default="", help="any text: another makes all images new to the server")
    parser.add_argument("--label", default="load", help="what to call this run in the table")
    servers.add_flags(parser)
    parser.add_argument("--json", metavar="FILE", help="write every request's outcome to FILE; '-' is standard output")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Send, wait for the last answer, report."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from samgate import loop
    from samgate.load.generator import send
    from samgate.simulation.report import tables
    from samgate.simulation.summary import summarise
    from samgate.simulation.workload import read_workload

    workload = read_workload(options.workload)
    if options.slo_scale is not None:
        workload = replace(workload, slo_scale=options.slo_scale)
    photos, access = _photos(options.images, options.seed), servers.access(options)
    console = Console(stderr=True)
    columns = (TextColumn("sending"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    found: list[Measured] = []

    async def drive() -> None:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=1.0)
            found.append(
                await send(
                    options.server,
                    workload,
                    photos,
                    seed=options.seed,
                    rate=options.rate,
                    duration_s=options.duration,
                    salt=options.salt.encode(),
                    policy=options.label,
                    credentials=access.credentials,
                    token=access.token,
                    progress=lambda share: bar.update(task, completed=share),
                )
            )

    loop.run(drive())
    (measured,) = found
    summary = summarise(measured.run, measured.run.rate / workload.rate)
    if options.json:
        write_json(options.json, _figures(measured, asdict(summary)))
    if options.json != "-":
        for table in tables([summary]):
            Console().print(table)
    return 0


def _photos(folder: Path | None, seed: int) -> list[Photo]:
    from samgate.bench.images import size, unique_jpegs
    from samgate.load.requests import Photo

    if folder is not None and not folder.is_dir():
        raise SamgateError(f"{folder} is no folder of photographs")
    jpegs = unique_jpegs(folder, 32, seed)
    return [Photo(data, (width, height)) for data in jpegs for height, width in [size(data)]]


def _figures(measured: Measured, summary: dict[str, Any]) -> dict[str, Any]:
    run = measured.run
    return {
        "summary": summary,
        "run": {"policy": run.policy, "rate": run.rate, "warmup_s": run.warmup_s, "duration_s": run.duration_s},
        "refusals_s": measured.refusals_s,
        "probes_s": measured.probes_s,
        "lag_s": measured.lag_s,
        "outcomes": [{**asdict(outcome), "end": outcome.end.value} for outcome in run.outcomes],
    }
