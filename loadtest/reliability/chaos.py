"""``python -m loadtest.reliability.chaos``: faults under load, one after the other, each with a verdict."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtest.reliability.findings import Finding, Story, as_json, markdown, table_of
from loadtest.reliability.process import ChaosError
from loadtest.reliability.scenarios import SCENARIOS
from loadtest.reliability.stage import Scenario, Stage
from samgate import loop
from samgate.bench.machine import this_machine
from samgate.cli.output import number, whole_number

TOOLS = Path(__file__).resolve().parents[2] / ".tools"
"""In the checkout, and not part of it."""

_DESCRIPTION = """\
Break things while servers are under load, one scenario after the other, and judge each: how many requests were sent,
answered, refused (by which status) and lost, and how soon all was well again. What can't be run here has failed.
Exit status 0 when all held, 1 when not. docs/reliability.md has what is promised and what "lost" means."""

_EXAMPLES = """\
examples:
  python -m loadtest.reliability.chaos                                   all of them
  python -m loadtest.reliability.chaos --list
  python -m loadtest.reliability.chaos --only triton-killed,slow-clients --seconds 5
  python -m loadtest.reliability.chaos --output chaos/
  python -m loadtest.reliability.chaos --markdown chaos/chaos.json       its rows for docs/reliability.md"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        Console().print(_listed())
        return 0
    if options.markdown:
        run = json.loads(options.markdown.read_text())
        Console().print("\n".join(markdown(run["scenarios"])), soft_wrap=True, markup=False)
        return 0
    stories = []
    for scenario in options.only:
        stories.append(_play(scenario, options))
        for table in table_of(stories[-1]):
            Console().print(table)
        if options.output:
            _write(options.output, stories)
    failed = [story.name for story in stories if not story.passed]
    verdict = f"failed: {', '.join(failed)}" if failed else "all held"
    Console().print(f"{len(stories)} scenarios, {verdict}", style="bold red" if failed else "bold green")
    return 1 if failed else 0


def _play(scenario: Scenario, options: argparse.Namespace) -> Story:
    console = Console(stderr=True)
    console.print(f"{scenario.name}: {scenario.breaks}", style="bold", markup=False)
    started = time.monotonic()

    def report(message: str) -> None:
        console.print(f"  {time.monotonic() - started:5.1f} s  {message}", style="dim", markup=False, highlight=False)

    with tempfile.TemporaryDirectory(prefix="samgate-chaos-") as folder:
        stage = Stage(Path(folder), TOOLS, options.seconds, options.seed, report)
        try:
            return loop.run(scenario.run(stage))
        except ChaosError as error:
            return Story(scenario.name, {}, [Finding("can be run here", str(error), held=False)])


def _write(folder: Path, stories: Sequence[Story]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    run: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": this_machine().sentence(),
        "scenarios": [as_json(story) for story in stories],
    }
    (folder / "chaos.json").write_text(json.dumps(run, indent=1))


def _listed() -> Table:
    table = Table(box=SIMPLE_HEAD)
    for column in ("scenario", "what breaks", "what must hold"):
        table.add_column(column)
    for scenario in SCENARIOS.values():
        table.add_row(scenario.name, scenario.breaks, scenario.holds)
    return table


def _chosen(text: str) -> list[Scenario]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of scenarios; there are {', '.join(SCENARIOS)}")
    return [SCENARIOS[name] for name in names]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.reliability.chaos",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="only say which scenarios there are")
    parser.add_argument(
        "--only", metavar="NAME,…", type=_chosen, default=list(SCENARIOS.values()), help="these scenarios (default all)"
    )
    parser.add_argument(
        "--seconds", metavar="S", type=number("--seconds", above=0), default=10.0,
        help="of load before and after each fault (default 10)",
    )  # fmt: skip
    parser.add_argument("--seed", metavar="N", type=whole_number("--seed", least=0), default=0, help="default 0")
    parser.add_argument("--output", metavar="DIR", type=Path, help="write chaos.json there")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="only print the rows of an earlier run's JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
