"""``samgate bench``: measure the service on this machine."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgate.cli.files import write_json
from samgate.cli.output import whole_number
from samgate.errors import InvalidArgument
from samgate.variants import DEFAULT_VARIANT, get_variant

if TYPE_CHECKING:
    from samgate.bench.report import Result

REPORT = Path("docs/benchmarks.md")
NAMES = (
    *("cold", "overhead", "warm", "memory", "engines", "triton", "decisions", "tracing"),
    *("yielding", "segevery", "slo", "overload"),
)

_DESCRIPTION = """\
Measure the service against upstream's code and against its own engine, and write a report. Every benchmark starts a
server of its own with the installed weights. What is compared runs in turns, so let nothing else run meanwhile.
The exit status is 1 when a floor is missed, unless --quick.

  cold      an unseen image and one point, against upstream's predictor (made in .venv-upstream with pip)
  overhead  the gateway against the bare engine
  warm      requests with a cached embedding at concurrency 1, 4 and 16
  memory    resident memory over 500 requests
  engines   an image and a point on OpenVINO, ONNX Runtime and torch
  triton    calls and requests on a Triton of its own, by shared memory and gRPC, next to the embedded engine
  decisions what the scheduler's decisions cost, by how much is queued
  tracing   what traces cost a call: off, of a hundredth of the calls, of all
  yielding  a click beside a running SegmentEverything
  segevery  SegmentEverything against upstream's mask generator: recall (with --dataset) and speed (an hour)
  slo       deadlines under load: all policies, measured and simulated (half an hour)
  overload  five minutes each at 1.5, 2 and 3 times the capacity (half an hour)"""

_EXAMPLES = """\
examples:
  samgate bench
  samgate bench warm memory --quick --output /tmp/benchmarks.md
  samgate bench segevery --dataset instances.json --segevery-images 24 --upstream-images 6 --reuse-upstream
  samgate bench cold --upstream-python ../upstream/bin/python --upstream-code ../MobileSAM"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "bench",
        help="measure speed, overhead and memory",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="BENCHMARK", nargs="*", help=f"which to run (default all): {', '.join(NAMES)}")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="the report (default docs/benchmarks.md; with --quick none)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON to FILE; to stdout with '-'")
    parser.add_argument("--quick", action="store_true", help="a few repetitions, to see that everything works")
    parser.add_argument("--images", metavar="FOLDER", type=Path, help="photographs to use (default: drawn images)")
    parser.add_argument("--variant", default=DEFAULT_VARIANT, help=f"variant to measure (default {DEFAULT_VARIANT})")
    parser.add_argument("--precision", default="auto", help="auto or one of the variant's plans (default auto)")
    parser.add_argument("--engine", default="auto", help="auto, openvino or onnxruntime (default auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of all that is measured (default 0: all)")
    parser.add_argument("--upstream-python", metavar="PATH", type=Path, help="Python with torch, numpy and Pillow")
    parser.add_argument("--upstream-code", metavar="FOLDER", type=Path, help="folder that holds upstream's mobile_sam")
    everything = parser.add_argument_group("segevery")
    count = partial(whole_number, least=1)
    everything.add_argument("--dataset", metavar="FILE", type=Path, help="COCO instances, to measure recall on")
    everything.add_argument("--media", metavar="FOLDER", type=Path, help="further images, for speed alone")
    everything.add_argument(
        "--segevery-images",
        metavar="N",
        type=count("--segevery-images"),
        help="images of the data set, of at least 640 pixels on a side (default 16)",
    )
    everything.add_argument(
        "--upstream-images", metavar="N", type=count("--upstream-images"), help="of them upstream is timed on (all)"
    )
    everything.add_argument(
        "--reuse-upstream", action="store_true", help="keep upstream's masks, and take those kept for recall"
    )
    everything.add_argument("--strategies", metavar="A,B,…", default="", help="strategies to measure (default all)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run benchmarks one after the other; each one's section is written as soon as it is done."""
    from rich.console import Console
    from rich.markdown import Markdown

    from samgate.bench.context import Context, SegEvery, Upstream
    from samgate.bench.machine import this_machine
    from samgate.bench.registry import BENCHMARKS
    from samgate.bench.report import section, update
    from samgate.weights.store import installed

    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        raise InvalidArgument("BENCHMARK", f"{unknown[0]!r} is none of {', '.join(NAMES)}")
    machine = this_machine()
    command = shlex.join(["samgate", *sys.argv[1:]])
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    provenance = [f"Command: `{command}`, {day}", f"Machine: {machine.sentence()}"]
    weights = installed(get_variant(options.variant))
    if weights is not None:
        provenance.append(f"Weights: {weights.origin.source}")
    if options.quick:
        provenance.append("A quick run: it shows that the benchmark works, its figures are not to be relied on")
    output: Path | None = options.output or (None if options.quick else REPORT)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="samgate-bench-") as scratch:
        context = Context(
            scratch=Path(scratch),
            variant=options.variant,
            precision=options.precision,
            engine=options.engine,
            threads=options.threads,
            quick=options.quick,
            images=options.images,
            upstream=Upstream(options.upstream_python, options.upstream_code),
            segevery=SegEvery(
                dataset=options.dataset,
                media=options.media,
                images=options.segevery_images,
                upstream_images=options.upstream_images,
                reuse_upstream=options.reuse_upstream,
                strategies=tuple(filter(None, options.strategies.split(","))),
            ),
        )
        for name in options.names or NAMES:
            result = BENCHMARKS[name](context)
            results.append(result)
            text = section(result, provenance)
            if output is not None:
                update(output, {name: text}, list(BENCHMARKS))
            Console(stderr=options.json == "-").print(Markdown(text))
    if options.json:
        content = {"command": command, "date": day, "quick": options.quick, "machine": asdict(machine)}
        write_json(options.json, {**content, "benchmarks": {result.name: _figures(result) for result in results}})
    return 0 if options.quick or all(result.met() for result in results) else 1


def _figures(result: Result) -> dict[str, Any]:
    return {**result.figures, "verdicts": [asdict(verdict) for verdict in result.verdicts]}
