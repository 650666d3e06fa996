"""``python -m loadtest.reliability.soak``: mixed load for a long time, and whether the server stays as it is."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtest.reliability.asks import MIXED
from loadtest.reliability.findings import Finding, Story, as_json, markdown, markdown_findings, table_of
from loadtest.reliability.judgement import Bound, flat
from loadtest.reliability.ledger import Ledger
from loadtest.reliability.process import ChaosError, serving
from loadtest.reliability.traffic import connected
from loadtest.reliability.watch import Watch
from samgate import loop
from samgate.bench.machine import this_machine
from samgate.cli.output import number, whole_number

CACHE_MIB = 64
"""Sixteen embeddings: the cache is full within the first minute, so that what grows after it is a leak."""
_SHARE = 0.7
_MEASURE_S, _CLIENTS = 15.0, 4
_WARM_S = 20.0
_EMPTY_S = 30.0

BOUNDS = {
    "resident": Bound(0.03, 32.0, "SegEvery keeps the terms of two images, 23 MB each, which come and go, and so do "
                      "decoded pictures; a leak of 40 KB a request shows at ten requests a second in 15 minutes"),
    "descriptors": Bound(0.0, 2.0, "a probe's or a scrape's connection may be open at a sample"),
    "threads": Bound(0.0, 2.0, "a scrape's thread may live at a sample"),
    "shared_files": Bound(0.0, 1.0, "a region that is being replaced"),
    "shared": Bound(0.05, 16.0, "pages of what is under way are taken when it first is"),
}  # fmt: skip
"""How far what must stay flat may drift over the second half. Proportional memory is only shown: what other servers on
the machine share of the libraries' pages, and give up as they end, changes it."""

_DESCRIPTION = f"""\
Start a server, send it a mixture of all kinds of requests in an open loop at about {_SHARE:.0%} of what it can do
(clicks on cached images, boxes on new ones, handles, SegmentEverything, anytime calls, cancellations, malformed
requests), and judge: memory, descriptors and threads flat, no request lost, nothing left in the queues, a clean end
on SIGTERM.
Exit status 0 when all held, 1 when not. docs/reliability.md has what "lost" means, and why the bounds are what they
are."""

_EXAMPLES = """\
examples:
  python -m loadtest.reliability.soak                                  half an hour
  python -m loadtest.reliability.soak --minutes 2                      a try
  python -m loadtest.reliability.soak --engine triton --output soak/   with JSON and a plot
  python -m loadtest.reliability.soak --markdown soak/soak.json        its rows for docs/reliability.md"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    if options.markdown:
        run = json.loads(options.markdown.read_text())
        console.print("\n".join([*markdown([run]), "", *markdown_findings(run)]), soft_wrap=True, markup=False)
        return 0
    try:
        story, watch = loop.run(_soak(options, Console(stderr=True)))
    except ChaosError as error:
        Console(stderr=True).print(f"soak: {error}", style="bold red", markup=False)
        return 1
    for table in table_of(story):
        console.print(table)
    if options.output:
        _write(options.output, story, watch)
    return 0 if story.passed else 1


async def _soak(options: argparse.Namespace, console: Console) -> tuple[Story, Watch]:
    ledger = Ledger()
    settings = {"SAMGATE_CACHE_MAX_BYTES": str(CACHE_MIB * 2**20), "SAMGATE_ENGINE_NAME": options.engine}
    with tempfile.TemporaryDirectory(prefix="samgate-soak-") as folder:
        console.print(f"starting samgate serve --engine {options.engine} --variants {options.variants} …", style="dim")
        async with (
            serving(Path(folder), "gateway", settings, options.variants) as gateway,
            connected(gateway.target, MIXED, ledger, seed=options.seed) as traffic,
        ):
            rate = options.rate
            if rate is None:
                await traffic.closed_loop(_WARM_S, _CLIENTS)
                rate = _SHARE * await traffic.closed_loop(_MEASURE_S, _CLIENTS)
            watch = Watch(gateway)
            ledger_before = len(ledger.entries)
            seconds = 60 * options.minutes
            console.print(f"{rate:.1f} requests a second for {options.minutes:g} min", style="dim")
            started, cpu = time.monotonic(), _cpu_s(watch)
            watching = asyncio.create_task(watch.run(max(1.0, seconds / 400)))
            stop = asyncio.Event()
            sending = asyncio.create_task(traffic.send(rate, stop))
            await _wait(seconds, sending, watching, console)
            cpu = (_cpu_s(watch) - cpu) / (time.monotonic() - started)
            stop.set()
            await sending
            watching.cancel()
            findings = [flat(series, BOUNDS[series.name]) for series in watch.series() if series.name in BOUNDS]
            findings.append(await _emptied(watch))
            status = await gateway.stop()
            log = gateway.log.read_text(errors="replace")
    spans = {"warm-up": ledger.tally(until_s=started), "load": ledger.tally(from_s=started)}
    lost = ledger.lost()
    told = "; ".join(f"{entry.kind} {entry.status or 'no end'}: {entry.detail[:80]}" for entry in lost[:3])
    findings = [
        Finding("no request lost", f"{len(lost)} of {len(ledger.entries):,}{told and f' ({told})'}", not lost),
        *findings,
        Finding("SIGTERM ends it with status 0", f"status {status}", status == 0),
        Finding("no unexpected error in its log", f"{log.count('Traceback')} tracebacks", "Traceback" not in log),
    ]
    figures = {
        "minutes": options.minutes,
        "rate": rate,
        "cores_used": cpu,
        "requests_before": ledger_before,
        "engine": options.engine,
        "variants": options.variants,
        "kinds": {kind: sum(entry.kind == kind for entry in ledger.entries) for kind in MIXED},
        "bounds": {name: asdict(bound) for name, bound in BOUNDS.items()},
        "machine": this_machine().sentence(),
        "date": date.today().isoformat(),
        "samples": [asdict(sample) for sample in watch.samples],
    }
    return Story(f"soak, {options.minutes:g} min at {rate:.1f}/s", spans, findings, figures=figures), watch


async def _wait(seconds: float, sending: asyncio.Task[None], watching: asyncio.Task[None], console: Console) -> None:
    """Until the time is over, or one of the tasks has failed, whose error is raised."""
    columns = (TextColumn("soaking"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[last]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=seconds, last="")
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.wait([sending, watching], timeout=min(1.0, left), return_when=asyncio.FIRST_COMPLETED)
            for one in (sending, watching):
                if one.done():
                    one.result()
                    raise ChaosError("the load ended before its time")
            bar.update(task, completed=seconds - left)


async def _emptied(watch: Watch) -> Finding:
    """Whether nothing is under way any more soon after the last request."""
    until = time.monotonic() + _EMPTY_S
    while True:
        await watch.look()
        last = watch.samples[-1]
        left = (last.queued or 0) + (last.in_flight or 0)
        if not left or time.monotonic() > until:
            return Finding("queues empty at the end", f"{left:g} calls and pieces left", not left)
        await asyncio.sleep(0.5)


def _cpu_s(watch: Watch) -> float:
    """Processor seconds that the server has used."""
    return sum(sum(process.cpu_times()[:2]) for process in watch.gateway.family())


def _write(folder: Path, story: Story, watch: Watch) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soak.json").write_text(json.dumps(as_json(story), indent=1))
    try:
        from loadtest.reliability.plot import plot_series
    except ImportError:
        Console(stderr=True).print("no plot: it needs matplotlib (pip install 'samgate[plots]')", style="dim")
        return
    plot_series(watch.series(), story.name, folder / "soak.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.reliability.soak",
        description=_DESCRIPTION.replace("%", "%%"),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", metavar="N", type=number("--minutes", above=0), default=30.0, help="default 30")
    parser.add_argument(
        "--rate", metavar="N", type=number("--rate", above=0), help=f"requests a second (default: {_SHARE:.0%}% of "
        "what four clients get answered that ask without pause)",
    )  # fmt: skip
    parser.add_argument("--engine", default="auto", help="as of samgate serve (default auto)")
    parser.add_argument(
        "--variants", default="mobilesam,mobilesam-512", help="as of samgate serve (default %(default)s)"
    )
    parser.add_argument("--seed", metavar="N", type=whole_number("--seed", least=0), default=0, help="default 0")
    parser.add_argument("--output", metavar="DIR", type=Path, help="write soak.json and soak.png there")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="only print the rows of an earlier run's JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
