"""``samgate segment``: the mask of what points and boxes mark on an image, or what words mean."""

from __future__ import annotations

import argparse
import base64
import math
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from samgate.cli import files, output
from samgate.client import Format, Mask, Prompt, Segmentation, Selection, prompt
from samgate.domain import Rle

_DESCRIPTION = """\
Segment what points and a box mark on an image, or what words mean.

All --point and the --box together describe one object: foreground points are on it, background points aren't, the
box is around it. A --text describes one alone. With --separate, each --point, each --box and each --text is an object
of its own. Coordinates are pixels from the top left corner of the image as it is shown (EXIF orientation applied).

Variants that find everything at once take words (FastSAM's), beside a text model: the mask is what fits them best of
what was found, and its predicted IoU the probability that they mean it."""

_EXAMPLES = """\
examples:
  samgate segment dog.jpg --point 500,375 -o mask.png --overlay seen.png
  samgate segment dog.jpg --box 65,250,630,940 --point 210,760:background -o mask.png
  samgate segment dog.jpg --box 65,250,630,940 --box 700,80,900,300 --separate -o masks.json
  samgate segment dog.jpg --point 500,375 --server gpu-box:50051 --json -
  samgate segment dog.jpg --text "a black dog" -o mask.png --variant fastsam-s"""

_LABELS = {"": 1, "foreground": 1, "1": 1, "background": 0, "0": 0}
_FORMATS = [form.value for form in Format if form is not Format.LOW_RES_LOGITS]
_AUTO = "auto"
_WITH_TEXT = {"SAMGATE_VARIANTS": "fastsam-s", "SAMGATE_TEXT_MODEL": "clip-vit-b-32"}
"""What runs in this process for words, unless something else is asked for."""

LabelledPoint = tuple[float, float, int]
Corners = tuple[float, float, float, float]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command; its ``run`` raises :class:`~samgate.errors.SamgateError` or returns an exit status."""
    parser = subparsers.add_parser(
        "segment",
        help="segment what points and a box mark on an image, or what words mean",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--point",
        metavar="X,Y[:background]",
        type=_point,
        action="append",
        default=[],
        help="a point on the object or, with :background, beside it; may be repeated",
    )
    parser.add_argument(
        "--box",
        metavar="X0,Y0,X1,Y1",
        type=_box,
        action="append",
        default=[],
        help="a box around the object; may be repeated with --separate",
    )
    parser.add_argument(
        "--text",
        metavar="WORDS",
        type=_words,
        action="append",
        default=[],
        help="words for the object, such as 'a black dog'; may be repeated with --separate",
    )
    parser.add_argument(
        "--separate", action="store_true", help="every --point, every --box and every --text is its own object"
    )
    parser.add_argument(
        "--selection",
        choices=[_AUTO, *Selection],
        default=_AUTO,
        help="single: one mask; multi: whole, part and subpart, or the three that words fit best; best: the best "
        "predicted of these three; auto (default): best for one click, else single",
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default=Format.RLE.value,
        help="how masks are sent and how a .json output holds them (default %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=output.output_file(".png", ".json", ".npy"),
        action="append",
        default=[],
        help="masks as .png (0 and 255; several masks become FILE-1.png, FILE-2.png …), .json, or "
        ".npy (bool [masks, height, width]); may be repeated",
    )
    output.add_common(parser, timeout_s=60)
    parser.add_argument(
        "--text-model",
        metavar="NAME",
        help="what compares words with the image, without --server (default clip-vit-b-32 with --text, else none; "
        "the variant is fastsam-s then, unless another is named)",
    )
    parser.set_defaults(run=partial(_run, parser))


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    prompts = _prompts(parser, args)
    selection = _selection(prompts) if args.selection == _AUTO else Selection(args.selection)
    if args.server and args.text_model:
        parser.error("--text-model is for what runs in this process: a --server has its own")
    with output.connected(args, args.text_model, _WITH_TEXT if args.text else None) as client:
        answer = client.segment(
            args.image,
            prompts=prompts,
            selection=selection,
            format=args.format,
            variant=args.variant,
            min_accuracy=args.min_accuracy,
        )
    masks = [mask for result in answer.results for mask in result]
    written: list[Path] = []
    for path in args.output:
        written += _write(path, answer, masks)
    if args.overlay is not None:
        output.write_overlay(args.overlay, args.image, [mask.to_numpy() for mask in masks], prompts)
        written.append(args.overlay)
    if args.json is not None:
        figures = output.info_figures(args.image, answer.size, answer.info)
        files.write_json(args.json, {**figures, "selection": selection.value, "masks": _records(answer)})
    console = output.human_console(args)
    output.print_info(console, args.image, answer.size, answer.info)
    _print_masks(console, answer)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    return 0


def _prompts(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[Prompt]:
    points: list[LabelledPoint] = args.point
    boxes: list[Corners] = args.box
    texts: list[str] = args.text
    if not points and not boxes and not texts:
        parser.error("nothing to segment: give at least one --point X,Y or --box X0,Y0,X1,Y1, or a --text WORDS")
    if args.separate:
        if any(label == 0 for _, _, label in points):
            parser.error("a background point is no object of its own: leave out --separate")
        marked = [prompt(points=[(x, y)]) for x, y, _ in points] + [prompt(box=box) for box in boxes]
        return marked + [prompt(text=text) for text in texts]
    for flag, count in (("--box", len(boxes)), ("--text", len(texts))):
        if count > 1:
            parser.error(f"one object has one {flag}, got {count}: with --separate, each is an object of its own")
    if texts and (points or boxes):
        parser.error("a --text stands alone: with --separate, each --point, --box and --text is an object of its own")
    return [
        prompt(
            points=[(x, y) for x, y, _ in points] if points else None,
            labels=[label for _, _, label in points] if points else None,
            box=boxes[0] if boxes else None,
            text=texts[0] if texts else None,
        )
    ]


def _selection(prompts: Sequence[Prompt]) -> Selection:
    clicks = all(len(one.points) == 1 and one.box is None for one in prompts)
    return Selection.BEST if clicks else Selection.SINGLE


def _point(text: str) -> LabelledPoint:
    coordinates, _, label = text.partition(":")
    numbers = _numbers(coordinates, 2)
    if numbers is None or label not in _LABELS:
        raise argparse.ArgumentTypeError(f"expected X,Y or X,Y:background in pixels, such as 120,80, got {text!r}")
    return (numbers[0], numbers[1], _LABELS[label])


def _box(text: str) -> Corners:
    numbers = _numbers(text, 4)
    if numbers is None or numbers[0] >= numbers[2] or numbers[1] >= numbers[3]:
        raise argparse.ArgumentTypeError(
            f"expected X0,Y0,X1,Y1 in pixels with X0 < X1 and Y0 < Y1, such as 10,20,300,400, got {text!r}"
        )
    return (numbers[0], numbers[1], numbers[2], numbers[3])


def _words(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected words, such as 'a black dog', got {text!r}")
    return text


def _numbers(text: str, count: int) -> list[float] | None:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(math.isfinite(value) for value in numbers) else None


def _write(path: Path, answer: Segmentation, masks: Sequence[Mask]) -> list[Path]:
    if path.suffix.lower() == ".json":
        files.write_json(path, {"size": list(answer.size), "masks": _records(answer, segmentation=True)})
        return [path]
    pixels = np.stack([mask.to_numpy() for mask in masks])
    if path.suffix.lower() == ".npy":
        buffer = BytesIO()
        np.save(buffer, pixels)
        files.write_bytes(path, buffer.getvalue())
        return [path]
    several = len(masks) > 1
    paths = [path.with_stem(f"{path.stem}-{n}") if several else path for n in range(1, len(masks) + 1)]
    for one, mask in zip(paths, pixels, strict=True):
        output.write_image(one, mask.astype(np.uint8) * np.uint8(255))
    return paths


def _records(answer: Segmentation, segmentation: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "prompt": index,
            **output.mask_figures(mask),
            **({"segmentation": _segmentation(mask)} if segmentation else {}),
        }
        for index, result in enumerate(answer.results)
        for mask in result
    ]


def _segmentation(mask: Mask) -> dict[str, Any] | list[dict[str, Any]] | None:
    match mask.encoded:
        case Rle(size=size, counts=counts):
            return {"size": list(size), "counts": counts.decode("ascii")}
        case bytes() as data:
            return {mask.format.value: base64.b64encode(data).decode("ascii")}
        case tuple() as polygons:
            return [{"points": polygon.points.tolist(), "hole": polygon.hole} for polygon in polygons]
        case None:
            return None


def _print_masks(console: Console, answer: Segmentation) -> None:
    table = Table()
    for heading in ("prompt", "box", "area", "predicted IoU", "stability"):
        table.add_column(heading, justify="right")
    for index, result in enumerate(answer.results):
        for mask in result:
            box = "empty" if mask.box is None else ",".join(map(str, mask.box))
            share = mask.area / (answer.size[0] * answer.size[1])
            row = (f"{mask.area} ({share:.1%})", f"{mask.predicted_iou:.3f}", f"{mask.stability_score:.3f}")
            table.add_row(str(index + 1), box, *row)
    console.print(table)
