"""``samgate eval``: accuracy on a labelled data set."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samgate.cli import servers
from samgate.cli.files import write_json
from samgate.cli.output import number, whole_number
from samgate.config import settings_from
from samgate.errors import InvalidArgument

_MIN_AREA = 1024.0
_OF_EVERYTHING = ("pictures", "min_side", "deadline", "markdown")

_DESCRIPTION = """\
Measure mIoU on a data set in COCO's instances format: one mask for each object's labelled box, and the best of three
for the point that is deepest inside of it. Or, with --segevery, the average recall of SegmentEverything's masks, by
strategy and size of the object, as COCO calculates it without classes. Intervals are 95% bootstrap intervals over
images. Without --server the gateway runs inside this command."""

_EXAMPLES = """\
examples:
  samgate eval instances.json
  samgate eval instances.json --precision f32 --limit 20 --json -
  samgate eval instances.json --server 127.0.0.1:50051
  samgate eval instances.json --segevery grid grid-16 --min-side 640 --pictures seen --markdown recall.md"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "eval",
        help="measure accuracy on a labelled data set",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="COCO JSON; images are next to it or in images/")
    parser.add_argument("--server", metavar="HOST:PORT", help="a running server to evaluate")
    parser.add_argument("--variant", default="", help="variant to evaluate (default: the server's)")
    parser.add_argument("--precision", help="without --server: auto or a plan such as f32 or bf16 (default auto)")
    parser.add_argument("--engine", help="without --server: auto, openvino, onnxruntime or torch (default auto)")
    parser.add_argument("--threads", type=int, help="without --server: CPU threads of the engine (default all)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images that have objects")
    parser.add_argument(
        "--min-area", type=float, metavar="PIXELS", help="skip smaller objects (default 1024; with --segevery 0)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON to FILE; only that with '-'")
    servers.add_flags(parser)
    everything = parser.add_argument_group("SegmentEverything")
    everything.add_argument(
        "--segevery",
        metavar="STRATEGY",
        nargs="*",
        help="evaluate these strategies, without names all that there are, on objects of any size",
    )
    everything.add_argument(
        "--pictures", metavar="DIR", type=Path, help="draw what is found in the first images, and all side by side"
    )
    everything.add_argument(
        "--min-side",
        metavar="PIXELS",
        type=whole_number("--min-side", least=1),
        help="only images whose longer side has so many",
    )
    everything.add_argument(
        "--deadline",
        metavar="SECONDS",
        type=number("--deadline", above=0),
        help="of each call; an answer that misses it counts as one without masks",
    )
    everything.add_argument("--markdown", metavar="FILE", type=Path, help="also write the table as Markdown")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate and print; the exit status is 0. Raises :class:`SamgateError`."""
    if options.segevery is not None:
        return _run_everything(options)
    stray = next((name for name in _OF_EVERYTHING if getattr(options, name) is not None), None)
    if stray is not None:
        raise InvalidArgument(stray, "is for --segevery alone")
    from rich.console import Console

    from samgate.evaluation.dataset import load_dataset
    from samgate.evaluation.summary import as_table, summarise

    images = load_dataset(options.dataset, _MIN_AREA if options.min_area is None else options.min_area, options.limit)
    with _target(options) as target:
        summary = summarise(_evaluate(options, target, images))
    if options.json:
        write_json(options.json, summary)
    if options.json != "-":
        Console().print(as_table(summary))
    return 0


def _run_everything(options: argparse.Namespace) -> int:
    from samgate.cli.evaluate_everything import evaluate_and_show
    from samgate.evaluation.dataset import load_dataset
    from samgate.evaluation.everything import chosen_strategies

    strategies = chosen_strategies(options.segevery, options.deadline)
    images = load_dataset(options.dataset, options.min_area or 0.0, options.limit, options.min_side or 0)
    with _target(options) as target:
        evaluate_and_show(options, target, images, strategies)
    return 0


def _evaluate(options: argparse.Namespace, target: str, images: list[Any]) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from samgate.evaluation.runner import evaluate

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        servers.access(options).client(target) as client,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("images", total=len(images))
        return evaluate(client, images, options.variant, lambda: progress.advance(task))


@contextmanager
def _target(options: argparse.Namespace) -> Iterator[str]:
    """The server to ask: the one given, or one inside this process for as long as the block runs."""
    local = {"engine.precision": options.precision, "engine.name": options.engine, "engine.threads": options.threads}
    if options.server:
        given = [path for path, value in local.items() if value is not None]
        if given:
            raise InvalidArgument(given[0], "is the server's own setting: leave it out with --server")
        yield options.server
        return
    from samgate.api.local import local_gateway

    with local_gateway(settings_from(overrides={**local, "variants": options.variant or None})) as target:
        yield target
