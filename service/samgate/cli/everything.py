"""``samgate everything``: all masks of an image."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from samgate.cli import files, output
from samgate.client import Everything, EverythingOptions, Progress, Strategy
from samgate.client.generator import record

_DESCRIPTION = """\
Find all masks of an image, as segment_anything's SamAutomaticMaskGenerator does: a grid of points is segmented, and
what is badly predicted, unstable or a duplicate is dropped. Masks come best first. Other strategies need fewer prompts:
hierarchical leaves out points that masks cover already, object_aware takes the boxes of a detector, and auto decodes
what there is time for."""

_EXAMPLES = """\
examples:
  samgate everything dog.jpg -o masks.json --overlay seen.png
  samgate everything dog.jpg -o masks.json --points-per-side 16 --server gpu-box:50051
  samgate everything dog.jpg --overlay seen.png --strategy hierarchical
  samgate everything dog.jpg --overlay seen.png --strategy auto --timeout 2
  samgate everything street.jpg -o masks.json --crop-n-layers 1 --crop-n-points-downscale-factor 2"""

_count = partial(output.whole_number, least=0)
_share = partial(output.number, least=0)

_GRID: tuple[tuple[str, Callable[[str], Callable[[str], float]], str], ...] = (
    ("points_per_side", partial(output.whole_number, least=1), "points along one side of the grid (default 32)"),
    ("pred_iou_thresh", _share, "masks must be predicted better than this; 0 is off (default 0.88)"),
    ("stability_score_thresh", _share, "masks must be at least this stable; 0 is off (default 0.95)"),
    ("stability_score_offset", _share, "shift of the cutoff when stability is calculated (default 1.0)"),
    ("box_nms_thresh", _share, "of two masks whose boxes have a higher IoU, the worse is dropped (default 0.7)"),
    ("crop_n_layers", _count, "layers of crops to run besides the whole image; layer n has 4^n (default 0)"),
    ("crop_nms_thresh", _share, "as --box-nms-thresh, between crops; the smaller crop wins (default 0.7)"),
    ("crop_overlap_ratio", _share, "overlap of first-layer crops, of the shorter side (default 512/1500)"),
    (
        "crop_n_points_downscale_factor",
        partial(output.whole_number, least=1),
        "layer n has points-per-side / factor^n points a side (default 1)",
    ),
    ("min_mask_region_area", _count, "remove holes and islands of fewer pixels (default 0: none)"),
    ("max_masks", _count, "keep only this many, the best (default 0: all)"),
)
_OTHERS: tuple[tuple[str, Callable[[str], Callable[[str], float]], str], ...] = (
    ("high_score_thresh", output.number, "hierarchical: logits above which masks cover points (default 8.5)"),
    ("coarse_factor", partial(output.whole_number, least=1), "hierarchical: spacing of its first grid (default 4)"),
    (
        "covering_stages",
        partial(output.whole_number, least=1),
        "hierarchical: 1 if only masks of its first grid cover points (default 2)",
    ),
    (
        "neighbours_per_point",
        _count,
        "hierarchical: most points after its first grid, for each of it (default 2; 0: all)",
    ),
    ("conf", _share, "object_aware, auto: least confidence of an object (default 0.4)"),
    ("iou", _share, "object_aware, auto: box IoU above which the less confident of two is dropped (default 0.9)"),
    ("max_detections", partial(output.whole_number, least=1), "object_aware, auto: most objects (default 300)"),
    ("smoothing_sigma", _share, "aop: smoothing of its map (default 2)"),
    ("confidence_thresh", _share, "aop: least value of its map at a prompt (default 0.2)"),
    ("spacing", partial(output.whole_number, least=1), "aop: least distance between prompts (default 6)"),
    ("elimination_factor", _share, "aop: how similar to masks prompts must be to be left out (default 1.3)"),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command; its ``run`` raises :class:`~samgate.errors.SamgateError` or returns an exit status."""
    parser = subparsers.add_parser(
        "everything",
        help="find all masks of an image",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=output.output_file(".json"),
        help="masks as upstream's list of records, with COCO RLE",
    )
    output.add_common(parser, timeout_s=600)
    parser.add_argument(
        "--strategy",
        choices=[strategy.value for strategy in Strategy],
        default=Strategy.GRID.value,
        help="which prompts find the masks (default %(default)s)",
    )
    parser.add_argument(
        "--anytime",
        action="store_true",
        help="take the masks that were found by the end of --timeout instead of giving up; auto always does",
    )
    grid = parser.add_argument_group(
        "grid and filters", "names and defaults are upstream's; max-masks isn't upstream's"
    )
    others = parser.add_argument_group("other strategies", "names and defaults are their papers'")
    for group, parameters in ((grid, _GRID), (others, _OTHERS)):
        for name, kind, explanation in parameters:
            flag = "--" + name.replace("_", "-")
            group.add_argument(flag, metavar="N", type=kind(flag), help=explanation)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    given = {name: getattr(args, name) for name, _, _ in _GRID + _OTHERS if getattr(args, name) is not None}
    options = cast(EverythingOptions, given)
    with output.connected(args) as client, _progress_bar() as show:
        answer = client.everything(
            args.image,
            strategy=args.strategy,
            anytime=args.anytime,
            on_progress=show,
            variant=args.variant,
            min_accuracy=args.min_accuracy,
            **options,
        )
    if args.output is not None:
        files.write_json(args.output, [record(found, "coco_rle") for found in answer.masks])
    if args.overlay is not None:
        output.write_overlay(args.overlay, args.image, [found.mask.to_numpy() for found in answer.masks])
    if args.json is not None:
        figures = output.info_figures(args.image, answer.size, answer.info)
        masks = [output.mask_figures(found.mask) for found in answer.masks]
        how = {"strategy": answer.strategy, "complete": answer.complete, "prompts": answer.prompts_done}
        files.write_json(args.json, {**figures, **how, "mask_count": len(masks), "masks": masks})
    console = output.human_console(args)
    output.print_info(console, args.image, answer.size, answer.info)
    console.print(_count_of(answer))
    for path in filter(None, (args.output, args.overlay)):
        console.print(f"wrote {path}", soft_wrap=True)
    return 0


def _count_of(answer: Everything) -> str:
    masks = f"{len(answer.masks)} mask{'' if len(answer.masks) == 1 else 's'}"
    return masks if answer.complete else f"{masks}, of the {answer.prompts_done} prompts that there was time for"


@contextmanager
def _progress_bar() -> Iterator[Callable[[Progress], None]]:
    console = Console(stderr=True)
    columns = (
        TextColumn("segmenting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("prompts  {task.fields[candidates]} candidates"),
        TimeElapsedColumn(),
    )
    with ProgressBar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("everything", total=None, candidates=0)

        def show(done: Progress) -> None:
            bar.update(task, completed=done.prompts_done, total=done.prompts_total, candidates=done.candidates)

        yield show
