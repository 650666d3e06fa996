"""``samgate simulate``: what a fleet would do with a workload, in virtual time."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from samgate.cli.files import write_json
from samgate.cli.output import SLO_SCALE, number, output_file, whole_number
from samgate.errors import InvalidArgument

if TYPE_CHECKING:
    from rich.console import Console

    from samgate.simulation.capacity import Capacity
    from samgate.simulation.runs import Progress, Study

_DESCRIPTION = """\
Run the gateway's own scheduler in virtual time, on devices that take as long as their profiles say: how many requests
are answered on time, by which variant, at which load, on one CPU or on thousands of GPUs. No weights are needed.
docs/simulator.md says what is modelled and what is not, and what the files may hold."""

_WIDTH = 160
"""Of tables that go to a file, where nothing says how wide it is."""

_EXAMPLES = """\
examples:
  samgate simulate --workload loadtest/workloads/annotate.yaml --fleet loadtest/fleets/one-cpu.yaml
  samgate simulate --workload loadtest/workloads/cold.yaml --fleet loadtest/fleets/one-cpu.yaml \\
      --policy all --load 0.5 1 1.5 2 3 -o report.json --plot policies.png
  samgate simulate --workload loadtest/workloads/cold.yaml --fleet loadtest/fleets/one-cpu.yaml \\
      --capacity --policy samgate static-fast
  samgate simulate --workload loadtest/workloads/cold.yaml --fleet loadtest/fleets/a100-500x4.yaml \\
      --rate 50000 --duration 10 --warmup 2 --jobs 2"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "simulate",
        help="what a fleet would do with a workload",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workload", metavar="FILE", type=Path, required=True, help="what clients ask, as YAML")
    parser.add_argument("--fleet", metavar="FILE", type=Path, required=True, help="gateways and devices, as YAML")
    parser.add_argument(
        "--policy",
        metavar="NAME",
        nargs="+",
        default=["samgate"],
        help="how requests get their variant: samgate (default), one of the others, or all of them",
    )
    positive = number("--load", above=0)
    parser.add_argument(
        "--load",
        metavar="FACTOR",
        nargs="+",
        type=positive,
        default=[1.0],
        help="times the workload's rate (default 1)",
    )
    parser.add_argument(
        "--rate",
        metavar="N",
        type=number("--rate", above=0),
        help="requests a second at load 1, for the workload's own",
    )
    parser.add_argument(
        "--duration",
        metavar="S",
        type=number("--duration", above=0),
        help="seconds to simulate, for the workload's own",
    )
    parser.add_argument(
        "--warmup",
        metavar="S",
        type=number("--warmup", least=0),
        help="seconds that don't count, for the workload's own",
    )
    parser.add_argument("--slo-scale", metavar="X", type=number("--slo-scale", above=0), help=SLO_SCALE)
    parser.add_argument("--seed", metavar="N", type=whole_number("--seed", least=0), default=0, help="default 0")
    parser.add_argument(
        "--capacity", action="store_true", help="find each policy's highest rate with 99%% on time, from --load 1 on"
    )
    parser.add_argument(
        "--jobs", metavar="N", type=whole_number("--jobs", least=1), default=1, help="processes to use (default 1)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write everything as JSON; '-' is standard output")
    parser.add_argument("--plot", metavar="FILE", type=output_file(".png"), help="draw policies over load")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read both files, simulate, report."""
    from rich.console import Console

    from samgate.simulation.plots import plot_policies, require_matplotlib
    from samgate.simulation.report import as_json, capacity_table, tables
    from samgate.simulation.runs import run_study

    if options.plot and options.capacity:
        raise InvalidArgument("--plot", "draws policies over load, which --capacity doesn't give")
    if options.plot:
        require_matplotlib()
    study = _study(options)
    console = Console(stderr=options.output == "-", highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDTH, highlight=False, markup=False)
    fleet, workload = study.fleet, study.workload
    console.print(
        f"{workload.name} on {fleet.name}: {fleet.gateways} gateways, {fleet.all_devices} devices", style="bold"
    )
    console.print(f"profiles: {fleet.origin}", style="dim", soft_wrap=True)
    capacities: dict[str, Capacity] = {}
    with _progress() as progress:
        if options.capacity:
            capacities = _capacities(study, progress)
        summaries = [] if options.capacity else run_study(study, progress)
    for shown in (capacity_table(capacities),) if options.capacity else tables(summaries):
        console.print(shown)
    if options.output:
        write_json(options.output, as_json(study, summaries, capacities))
    if options.plot:
        plot_policies(summaries, f"{workload.name} on {fleet.name}", options.plot)
    return 0


def _study(options: argparse.Namespace) -> Study:
    from dataclasses import replace

    from samgate.scheduling.policy import POLICIES
    from samgate.simulation.fleet import read_fleet
    from samgate.simulation.runs import Study
    from samgate.simulation.workload import read_workload

    policies = list(POLICIES) if "all" in options.policy else list(dict.fromkeys(options.policy))
    unknown = next((name for name in policies if name not in POLICIES), None)
    if unknown is not None:
        raise InvalidArgument("--policy", f"{unknown!r} is none of all, {', '.join(POLICIES)}")
    workload = read_workload(options.workload)
    if options.warmup is not None:
        workload = replace(workload, warmup_s=options.warmup)
    if options.slo_scale is not None:
        workload = replace(workload, slo_scale=options.slo_scale)
    end_s = workload.duration_s if options.duration is None else options.duration
    if workload.warmup_s >= end_s:
        problem = f"leaves nothing after the warm-up of {workload.warmup_s:g} s; set --warmup, too"
        raise InvalidArgument("--duration", f"is {end_s:g}, which {problem}")
    return Study(
        workload,
        read_fleet(options.fleet),
        tuple(policies),
        tuple(dict.fromkeys(options.load)),
        options.seed,
        options.rate,
        options.duration,
        options.jobs,
    )


def _capacities(study: Study, progress: Progress) -> dict[str, Capacity]:
    from samgate.simulation.capacity import capacity
    from samgate.simulation.summary import summarise

    found = {}
    for place, policy in enumerate(study.policies):

        def attainment(rate: float, policy: str = policy) -> float:
            load = rate / study.base_rate
            return summarise(study.run(policy, load), load).attainment

        found[policy] = capacity(attainment, study.base_rate)
        progress((place + 1) / len(study.policies))
    return found


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error, gone when done; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("simulating"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console: Console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share: bar.update(task, completed=share)
