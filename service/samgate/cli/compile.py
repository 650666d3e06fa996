"""``samgate compile``: graphs for an engine, in a precision."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from samgate.cli.files import write_bytes
from samgate.compile.targets import TARGETS, Target, default_plan, get_target
from samgate.errors import InvalidArgument
from samgate.variants import VARIANTS, get_variant
from samgate.variants.clip import TEXT_MODELS
from samgate.variants.detectors import DETECTORS, DetectorSpec
from samgate.variants.spec import NetworkSpec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from samgate.compile.artifacts import Artifact
    from samgate.compile.detector_pipeline import DetectorArtifact
    from samgate.compile.gate import GateData
    from samgate.compile.manifest import Manifest
    from samgate.variants.graphs import AnyGraph

_DESCRIPTION = """\
Compile a variant's graphs for a target, in one of its precision plans, and install the result.

Whatever can run on this machine has to pass an accuracy gate first, against f32 on real images; what fails is not
installed. TensorRT-RTX compiles for any GPU on any machine, TensorRT on a GPU of the kind that serves: without one
this command says how to compile inside NVIDIA's container. Detectors and text models are compiled in f32, or for GPUs
in fp16, and go through no gate."""

_EXAMPLES = """\
examples:
  samgate compile mobilesam --target openvino --precision int8 --calibrate photos/ --eval instances.json
  samgate compile mobilesam --target tensorrt-rtx --compute-capability 8.0 8.6 8.9 12.0
  samgate compile yolox-nano --target tensorrt-rtx --compute-capability 8.9
  samgate compile mobilesam --target onnx --precision fp16 --images photos/ --output compiled/"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "compile",
        help="compile a variant for an engine, in a precision",
        description=_DESCRIPTION + "\n\n" + "\n".join(f"  {one.name:<13} {one.summary}" for one in TARGETS.values()),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join([*sorted(VARIANTS), *DETECTORS, *TEXT_MODELS])
    parser.add_argument("variant", metavar="VARIANT", help=f"one of: {known}")
    parser.add_argument("--target", required=True, choices=tuple(TARGETS), help="what to compile for")
    parser.add_argument("--precision", help="one of the variant's plans (default: f32, bf16 or fp16, by target)")
    parser.add_argument(
        "--compute-capability", nargs="+", metavar="X.Y", default=[], help="GPUs to compile for (default: the one here)"
    )
    parser.add_argument("--calibrate", metavar="DIR", type=Path, help="photographs to calibrate int8 with")
    gate = parser.add_mutually_exclusive_group()
    gate.add_argument("--eval", metavar="FILE", type=Path, help="gate on labelled images in COCO's instances format")
    gate.add_argument("--images", metavar="DIR", type=Path, help="gate on photographs, against f32's masks alone")
    parser.add_argument("--output", metavar="DIR", type=Path, help="install here (default: samgate's home)")
    parser.add_argument("--report", metavar="FILE", type=Path, help="describe all plans installed for the target here")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compile, install and print what came of it; the exit status is 0. Raises :class:`SamgateError`."""
    from rich.console import Console

    from samgate.compile.photographs import photographs
    from samgate.compile.pipeline import Request, compile_variant

    target = get_target(options.target)
    if options.variant in DETECTORS:
        return _run_detector(options, DETECTORS[options.variant], target)
    spec = TEXT_MODELS.get(options.variant) or get_variant(options.variant)
    if options.report and target.module is None:
        raise InvalidArgument("report", f"describes plans for GPUs; {target.name} has none")
    request = Request(
        spec=spec,
        target=target,
        precision=options.precision or default_plan(spec, target),
        capabilities=options.compute_capability,
        calibration=photographs(options.calibrate, "calibrate") if options.calibrate else (),
        data=_gate_data(options),
        root=options.output,
    )
    with _progress() as report:
        artifacts = compile_variant(request, report)
    console = Console(highlight=False)
    _print(console, artifacts)
    if options.report:
        _write_report(options.report, spec, target.name, artifacts)
        console.print(f"wrote {options.report}", markup=False)
    return 0


def _run_detector(options: argparse.Namespace, spec: DetectorSpec, target: Target) -> int:
    from rich.console import Console

    from samgate.compile.detector_pipeline import compile_detector

    for name in ("calibrate", "eval", "images", "report"):
        if getattr(options, name) is not None:
            raise InvalidArgument(name, f"is for variants; {spec.name} is a detector, in f32 or fp16")
    with _progress() as report:
        artifacts = compile_detector(
            spec, target, options.precision, options.compute_capability, options.output, report
        )
    _print(Console(highlight=False), artifacts)
    return 0


def _print(console: Console, artifacts: Sequence[Artifact] | Sequence[DetectorArtifact]) -> None:
    console.print(_table([artifact.manifest for artifact in artifacts]))
    for artifact in artifacts:
        console.print(f"installed in {artifact.folder}", markup=False, soft_wrap=True)


def _gate_data(options: argparse.Namespace) -> GateData | None:
    if options.eval is None and options.images is None:
        return None
    from samgate.compile.gate import GateData

    return GateData.from_paths(options.eval, options.images)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows the step that runs, and how long it has been running; keeps a line for each that ended on a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    bar = Progress(*columns, console=console)

    def end_step() -> None:
        for task in bar.tasks:
            bar.update(task.id, total=1, completed=1)

    def report(message: str) -> None:
        bar.start()
        end_step()
        bar.add_task(message, total=None)

    try:
        yield report
        end_step()
    finally:
        if bar.tasks:
            bar.stop()


def _table(manifests: Sequence[Manifest]) -> Table:
    from rich.table import Table

    manifest = manifests[0]
    title = f"{manifest.variant}, {manifest.precision}, {manifest.library} {manifest.version}"
    table = Table(title=title, caption=f"accuracy gate: {manifest.checked}", caption_justify="left")
    for column in ("GPU", "graph"):
        table.add_column(column)
    for column in ("size", "built in", "nodes in f32", "a call (in f32)"):
        table.add_column(column, justify="right")
    for one in manifests:
        for name, file in one.graphs.items():
            in_f32 = "runtime's choice" if file.f32_nodes is None else f"{sum(file.f32_nodes.values())} of {file.nodes}"
            size, built = f"{file.size / 2**20:.1f} MiB", f"{file.seconds:.1f} s"
            table.add_row(one.compute_capability or "-", name, size, built, in_f32, _speed(one, name))
        table.add_section()
    return table


def _speed(manifest: Manifest, graph: AnyGraph) -> str:
    """As measured by the gate, where what it ran is what was compiled."""
    measured = manifest.gate["milliseconds"].get(graph) if manifest.gate and not manifest.compute_capability else None
    return f"{measured[1]:.0f} ms ({measured[0]:.0f} ms)" if measured else "-"


def _write_report(path: Path, spec: NetworkSpec, target: str, artifacts: Sequence[Artifact]) -> None:
    from samgate.bench.machine import this_machine
    from samgate.compile.artifacts import installed_artifacts
    from samgate.compile.report import tensorrt_page

    command = shlex.join(["samgate", *sys.argv[1:]])
    machine = this_machine()
    everything = installed_artifacts(spec, target) or artifacts
    page = tensorrt_page(
        spec, everything, command, f"{datetime.now(UTC):%Y-%m-%d}", f"{machine.cpu}, {machine.cores} cores"
    )
    write_bytes(path, page.encode())
