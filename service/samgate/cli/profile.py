"""``samgate profile``: measure what operating points cost here, and keep it for the scheduler."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from samgate.cli.files import write_json
from samgate.cli.output import output_file, whole_number
from samgate.config import Settings, settings_from
from samgate.errors import InvalidArgument, ProfileError

if TYPE_CHECKING:
    from rich.console import Console

    from samgate.profiles.stored import StoredProfile
    from samgate.profiles.survey import Stage

_PIPED_WIDTH = 140
"""Columns of the table where it doesn't go to a terminal, which would say how many it has."""

_DESCRIPTION = """\
Measure how long each operating point (a variant at a precision) takes on this machine, by images and by prompts, and
how accurate it is; the server decides by these figures which one answers. They are kept in samgate's home for this
processor and engine, and replace quick ones that a server measured when it started. About a minute a point on two
cores; let nothing else run meanwhile. With --eval a data set says how accurate each point is, else samgate's own
figures do."""

_EXAMPLES = """\
examples:
  samgate profile --points mobilesam,mobilesam:int8
  samgate profile --points mobilesam --eval instances.json --plot front.png -o here.json
  samgate profile --show
  samgate profile --show a100"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "profile",
        help="measure what variants and precisions cost here",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--points",
        metavar="VARIANT[:PRECISION],…",
        help="what to measure (default: the variants that are served); without precision the one that auto chooses",
    )
    parser.add_argument("--precision", help="of points that name none: auto or a plan such as f32 (default auto)")
    parser.add_argument("--engine", help="auto, openvino, onnxruntime, torch or triton (default auto)")
    parser.add_argument("--threads", type=whole_number("--threads", least=0), help="CPU threads of the engine (all)")
    parser.add_argument("--eval", metavar="DATASET", type=Path, help="COCO JSON to measure accuracy on")
    parser.add_argument("--limit", type=whole_number("--limit", least=1), metavar="N", help="only its first N images")
    parser.add_argument("--quick", action="store_true", help="a few seconds a point, as the server does at its start")
    parser.add_argument("-o", "--output", metavar="FILE", type=output_file(".json"), help="also write the points here")
    parser.add_argument("--plot", metavar="FILE", type=output_file(".png"), help="draw accuracy over latency")
    parser.add_argument("--json", metavar="FILE", help="as -o; '-' is standard output, and only that")
    parser.add_argument(
        "--show",
        metavar="FILE",
        nargs="?",
        const="",
        help="measure nothing: show a file, a published profile, or without FILE what is installed",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure (or read), write what is asked for, and print; the exit status is 0. Raises :class:`SamgateError`."""
    from rich.console import Console

    from samgate.profiles.files import write_profile
    from samgate.profiles.format import profile_json
    from samgate.profiles.plot import plot_profile, require_matplotlib
    from samgate.profiles.table import as_table

    if options.plot:
        require_matplotlib()
    console = Console(stderr=True, highlight=False)
    profile = _measured(options, console) if options.show is None else _shown(options)
    if options.output:
        write_profile(profile, options.output)
    if options.plot:
        plot_profile(profile, options.plot)
    if options.json:
        write_json(options.json, profile_json(profile))
    if options.json != "-":
        terminal = Console()
        (terminal if terminal.is_terminal else Console(width=_PIPED_WIDTH)).print(as_table(profile))
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    overrides = {"engine.name": options.engine, "engine.threads": options.threads}
    return settings_from(overrides={**overrides, "engine.precision": options.precision})


def _shown(options: argparse.Namespace) -> StoredProfile:
    from samgate.profiles.files import installed_profile, published_names, published_profile, read_profile
    from samgate.profiles.fingerprint import this_fingerprint

    if options.show:
        published = options.show in published_names() and not Path(options.show).exists()
        return published_profile(options.show) if published else read_profile(Path(options.show))
    here = this_fingerprint(_settings(options))
    found = installed_profile(here)
    if found is None:
        raise ProfileError(f"there is no profile of {here.sentence()}: run `samgate profile`")
    return found


def _measured(options: argparse.Namespace, console: Console) -> StoredProfile:
    from samgate.evaluation.dataset import load_dataset
    from samgate.profiles.measure import FULL, QUICK
    from samgate.profiles.survey import LabelledSet, parse_points, survey

    if options.limit is not None and options.eval is None:
        raise InvalidArgument("--limit", "is of --eval's images, which isn't given")
    settings = _settings(options)
    points = parse_points(options.points or settings.variants, settings.engine.precision)
    labelled = (
        None if options.eval is None else LabelledSet(options.eval, load_dataset(options.eval, limit=options.limit))
    )
    effort = QUICK if options.quick else FULL
    with _progress(console) as (stage, report):
        profile = survey(points, settings, effort, labelled, stage, report)
    if any(record.origin != effort.origin for record in profile.records):
        console.print("full measurements are kept: a quick one doesn't replace them", style="dim")
    return profile


@contextmanager
def _progress(console: Console) -> Iterator[tuple[Stage, Callable[[str], None]]]:
    """A bar a stage on ``console``, gone at the end, and what prints a line above."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:

        @contextmanager
        def stage(name: str) -> Iterator[Callable[[float], None]]:
            task = bars.add_task(name, total=1.0)
            yield lambda share: bars.update(task, completed=share)
            bars.update(task, completed=1.0)

        yield stage, lambda message: console.print(message, style="dim")
