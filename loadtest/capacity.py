"""``python -m loadtest.capacity``: the highest rate that a server answers on time, by bisection over Locust runs."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest import capacity_report
from loadtest.options import add_target_options
from loadtest.search import Found, Rules, search
from loadtest.targets import TARGET_VARIABLE, check_target
from samgate.bench.context import Context
from samgate.bench.machine import this_machine
from samgate.bench.server import serving
from samgate.cli.output import number, whole_number
from samgate.errors import SamgateError
from samgate.variants import get_variant
from samgate.weights.pull import pull

FOUND, NOT_FOUND, FAILED = 0, 1, 2
"""Exit statuses: a confirmed rate; none; something else went wrong."""

_LOCUSTFILE = Path(__file__).parent / "locustfile.py"
_WORKLOAD = Path(__file__).parent / "workloads" / "annotate-coco.yaml"
_RAN = (0, 1, 3)
"""Exit statuses of runs that wrote a report: see loadtest.conductor."""
_SPARE_S = 420.0
_TERMINATED = 143

_DESCRIPTION = """\
Find the highest rate of requests whose runs pass: the target's share on time, sent by a load generator that kept up.
Doubles or halves the rate until one passes and one fails, bisects, and repeats what it found. Without --host it starts
a server of its own on this machine for it."""

_EXAMPLES = """\
examples:
  python -m loadtest.capacity
  python -m loadtest.capacity SegAnyWarm --duration 20 --warmup 4 --host 127.0.0.1:50051
  python -m loadtest.capacity --workload loadtest/workloads/cold.yaml --start 2 --processes 2"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m loadtest.capacity",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    rules = Rules()
    add("users", metavar="USER", nargs="*", help="Locust user classes (default: Mixed, sending --workload)")
    add("--workload", metavar="FILE", help=f"what clients ask (default {_WORKLOAD.name} where no USER is named)")
    add("--host", metavar="HOST:PORT", default=os.environ.get(TARGET_VARIABLE), help="a running server")
    add_target_options(made)
    add("--variants", default="mobilesam,mobilesam-768,mobilesam-512", help="of the own server (default %(default)s)")
    add("--start", metavar="N", type=number("--start", above=0), default=8.0, help="first rate (default %(default)g)")
    add(
        "--duration",
        metavar="S",
        type=number("--duration", above=0),
        default=40.0,
        help="of a run (default %(default)g)",
    )
    add("--warmup", metavar="S", type=number("--warmup", least=0), default=8.0, help="of that (default %(default)g)")
    add("--target-share", metavar="P", type=number("--target-share", above=0), default=rules.target)
    add("--precision", metavar="X", type=number("--precision", above=0), default=rules.precision)
    add(
        "--most",
        metavar="N",
        type=whole_number("--most", least=1),
        default=rules.most,
        help="runs (default %(default)d)",
    )
    add("--slo-scale", metavar="X", help="deadlines are X times what the workload says")
    add(
        "--processes",
        metavar="N",
        type=whole_number("--processes", least=1),
        default=1,
        help="that generate (default 1)",
    )
    add("--max-lag", metavar="S", type=number("--max-lag", above=0), help="how late the generator may be")
    add("--images", metavar="FOLDER", help="photographs to send (default: drawn ones)")
    add("--seed", metavar="N", type=whole_number("--seed", least=0), default=0, help="default 0")
    add("--report", metavar="PATH", default="build/loadtest/capacity", help="default %(default)s: .json and .html")
    return made


@dataclass
class Prober:
    """Runs Locust at a rate; ``runs`` are the reports so far."""

    options: argparse.Namespace
    target: str
    scratch: Path
    console: Console
    runs: list[dict[str, Any]]

    def __call__(self, rate: float, place: int) -> float | None:
        """The share on time; None when the generator was to blame. Raises SamgateError when there was no run."""
        output = self.scratch / f"run-{place}"
        with self._progress(rate, place):
            self._run(self._command(rate, place, output), output)
        found: dict[str, Any] = json.loads(output.with_name(f"{output.name}.json").read_text(encoding="utf-8"))
        self.runs.append(found)
        share: float = found["overall"]["attainment"]
        words = "passed" if found["met"] else "failed"
        if not found["valid"]:
            words = "doesn't count: " + "; ".join(found["generator"]["problems"])
        self.console.print(
            f"{place + 1:2}. {rate:7.2f} requests/s  {share:6.1%} on time  {words}", highlight=False, soft_wrap=True
        )
        return share if found["valid"] else None

    def _command(self, rate: float, place: int, output: Path) -> list[str]:
        asked = self.options
        command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"]
        command += ["--loglevel", "WARNING", "--host", self.target, "--shape", "steady", "--rate", repr(rate)]
        # Another seed each time: a rate that is repeated is to be confirmed by other arrivals.
        command += ["--seed", str(asked.seed + place), "--duration", str(asked.duration), "--warmup", str(asked.warmup)]
        command += ["--target-share", str(asked.target_share), "--report", str(output)]
        if asked.processes > 1:
            port = str(_free_port())
            command += ["--processes", str(asked.processes), "--master-bind-port", port, "--master-port", port]
        for name in ("workload", "allow_target", "ca", "cert", "key", "slo_scale", "max_lag", "images"):
            if value := getattr(asked, name):
                command += [f"--{name.replace('_', '-')}", str(value)]
        return [*command, *asked.users]

    def _run(self, command: Sequence[str], output: Path) -> None:
        log = output.with_name(f"{output.name}.log")
        limit_s = self.options.duration + _SPARE_S
        with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
            try:
                status = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                process.terminate()
        if status not in _RAN:
            last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
            how = f"hasn't ended after {limit_s:g} s" if status is None else f"has ended with status {status}"
            raise SamgateError(f"`{shlex.join(command)}` {how}:\n{last}")

    @contextmanager
    def _progress(self, rate: float, place: int) -> Iterator[None]:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            bar.add_task(f"run {place + 1} of at most {self.options.most}: {rate:.2f} requests/s", total=None)
            yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Search and report; the exit status says whether a rate was found."""
    options = parser().parse_args(arguments)
    if not options.users:
        options.users, options.workload = ["Mixed"], options.workload or str(_WORKLOAD)
    console = Console(stderr=True)
    # Locust and the server are to end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        with tempfile.TemporaryDirectory(prefix="samgate-capacity-") as folder:
            return _find(options, Path(folder), console)
    except SamgateError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130


def _find(options: argparse.Namespace, scratch: Path, console: Console) -> int:
    if options.host:
        check_target(options.host, options.allow_target)
    machine, began = this_machine(), time.monotonic()
    rules = Rules(target=options.target_share, precision=options.precision, most=options.most)
    runs: list[dict[str, Any]] = []
    with _target(options, scratch, console) as target:
        probe = Prober(options, target, scratch, console, runs)
        found = search(probe, options.start, rules)
    content = {
        "schema": 1,
        "command": shlex.join(["python", "-m", "loadtest.capacity", *sys.argv[1:]]),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine.sentence(),
        "target": options.host or f"a server of its own: {options.variants}",
        "took_s": time.monotonic() - began,
        "rules": asdict(rules),
        **_plain(found),
        "runs": runs,
    }
    paths = capacity_report.write(Path(options.report), content)
    text, good = capacity_report.verdict(content)
    console.print(text, style="green" if good else "red", highlight=False, soft_wrap=True)
    console.print(f"report: {', '.join(map(str, paths))}", highlight=False, soft_wrap=True)
    return FOUND if good else NOT_FOUND


@contextmanager
def _target(options: argparse.Namespace, scratch: Path, console: Console) -> Iterator[str]:
    if options.host:
        yield options.host
        return
    for name in options.variants.split(","):
        pull(get_variant(name.strip().partition(":")[0]), console=console)
    quiet = {"SAMGATE_LOG_LEVEL": "WARNING", "SAMGATE_ADMIN_PORT": "0"}
    with console.status("starting a server"):
        context = Context(scratch=scratch, variant=options.variants, console=console)
        server = serving(context, quiet)
        running = server.__enter__()
    try:
        yield running.target
    finally:
        server.__exit__(None, None, None)


def _plain(found: Found) -> dict[str, Any]:
    failed = None if found.failed == float("inf") else found.failed
    return {**asdict(found), "failed": failed, "trials": [asdict(one) for one in found.trials]}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
