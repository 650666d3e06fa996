"""What the commands that segment an image share: reaching a server, and writing what it answered."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from samgate.cli import servers
from samgate.cli.files import write_bytes
from samgate.client import AnswerInfo, Client, Mask, Prompt
from samgate.config import settings_from
from samgate.domain import BoolArray, UInt8Array
from samgate.errors import SamgateError

SLO_SCALE = "deadlines are X times what the workload says, for its own scale"
"""Help for ``--slo-scale``."""


def add_common(parser: argparse.ArgumentParser, timeout_s: float) -> None:
    """The image, how to reach a server, and where figures go."""
    parser.add_argument("image", metavar="IMAGE", type=Path, help="a JPEG, PNG or WebP file")
    parser.add_argument(
        "--server", metavar="HOST:PORT", help="a running samgate server; without, the model runs in this process"
    )
    parser.add_argument(
        "--variant",
        metavar="NAME[:PRECISION]",
        default="",
        help="which variant to use (default: the most accurate that the server has and that meets the deadline)",
    )
    parser.add_argument(
        "--min-accuracy", metavar="MIOU", type=float, default=0.0, help="the least mIoU, 0 to 1, of what may answer"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=number("--timeout", above=0),
        default=timeout_s,
        help="give up when there is no answer after this long (default %(default)g)",
    )
    parser.add_argument(
        "--overlay", metavar="FILE", type=output_file(".png", ".jpg"), help="the image with the masks drawn in"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="figures (boxes, predicted IoUs, timings …) as JSON; '-' is standard output"
    )
    servers.add_flags(parser)


def number(name: str, *, above: float | None = None, least: float | None = None) -> Callable[[str], float]:
    """An argparse type: a finite number within bounds."""
    bound = f" above {above:g}" if above is not None else f" of at least {least:g}" if least is not None else ""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        good = math.isfinite(value) and (above is None or value > above) and (least is None or value >= least)
        if not good:
            raise argparse.ArgumentTypeError(f"{name} takes a number{bound}, got {text!r}")
        return value

    return parse


def whole_number(name: str, *, least: int) -> Callable[[str], int]:
    """An argparse type: an integer of at least ``least``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{name} takes a whole number of at least {least}, got {text!r}")
        return value

    return parse


def output_file(*suffixes: str) -> Callable[[str], Path]:
    """An argparse type: a file to be written, of one of ``suffixes``, in a folder that exists."""

    def parse(text: str) -> Path:
        path = Path(text)
        if path.suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f"expected a file name ending in {' or '.join(suffixes)}, got {text!r}")
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"folder {str(path.parent)!r} doesn't exist")
        return path

    return parse


def human_console(args: argparse.Namespace) -> Console:
    """Where text for people goes: standard output, unless JSON goes there."""
    return Console(stderr=args.json == "-", highlight=False, markup=False)


@contextmanager
def connected(
    args: argparse.Namespace, text_model: str | None = None, usual: Mapping[str, str] | None = None
) -> Iterator[Client]:
    """A client of the server that ``args`` name, or of a gateway inside this process: with ``text_model``, and in the
    environment ``usual`` where the real one says nothing."""
    if args.server:
        with servers.access(args).client(args.server, args.timeout) as client:
            yield client
        return
    # Imported here so that calls to a server don't load an engine.
    from samgate.api.local import local_gateway

    console = Console(stderr=True, highlight=False, markup=False)

    def report(message: str) -> None:
        console.print(message, style="dim")

    given = {"variants": args.variant or None, "text_model": text_model}
    settings = settings_from({**(usual or {}), **os.environ}, given)
    with local_gateway(settings, report) as target, Client(target, timeout_s=args.timeout) as client:
        yield client


def write_image(path: Path, pixels: UInt8Array) -> None:
    """uint8 ``[H, W, 3]`` RGB or ``[H, W]`` as the file its suffix says. Raises SamgateError if it can't be written."""
    encoded = BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG" if path.suffix.lower() == ".jpg" else "PNG")
    write_bytes(path, encoded.getvalue())


def write_overlay(path: Path, image: Path, masks: Sequence[BoolArray], prompts: Sequence[Prompt] = ()) -> None:
    """``image`` with ``masks`` and ``prompts`` drawn in. Raises SamgateError if a file can't be read or written."""
    from samgate.imaging import overlay
    from samgate.imaging.decode import decode

    try:
        data = image.read_bytes()
    except OSError as error:
        raise SamgateError(f"{image} can't be read: {error.strerror}") from error
    pixels = decode(data, settings_from().limits.max_pixels, "image")
    boxes = [one.box for one in prompts if one.box is not None]
    drawn = overlay.draw(
        pixels,
        masks,
        boxes=np.stack(boxes) if boxes else None,
        points=np.concatenate([one.points for one in prompts]) if prompts else None,
        labels=np.concatenate([one.labels for one in prompts]) if prompts else None,
    )
    write_image(path, drawn)


def mask_figures(mask: Mask) -> dict[str, Any]:
    """A mask without its pixels."""
    return {
        "box": None if mask.box is None else list(mask.box),
        "area": mask.area,
        "predicted_iou": mask.predicted_iou,
        "stability_score": mask.stability_score,
    }


def info_figures(image: Path, size: tuple[int, int], info: AnswerInfo) -> dict[str, Any]:
    """How an answer was made. ``size`` is (height, width)."""
    spent = info.timings
    return {
        "image": str(image),
        "size": list(size),
        "variant": info.variant,
        "precision": info.precision,
        "engine": info.engine,
        "embedding_cached": info.embedding_cached,
        "decision": {
            "reason": info.decision.reason,
            "accuracy": info.decision.accuracy,
            "predicted_ms": info.decision.predicted_ms,
        },
        "timings_ms": {
            "imaging": spent.imaging_ms,
            "queue": spent.queue_ms,
            "encode": spent.encode_ms,
            "decode": spent.decode_ms,
            "masks": spent.masks_ms,
            **{name: ms for name, ms in (("detect", spent.detect_ms), ("text", spent.text_ms)) if ms},
            "total": spent.total_ms,
        },
    }


def print_info(console: Console, image: Path, size: tuple[int, int], info: AnswerInfo) -> None:
    """Two lines: what was segmented by what, and how long it took."""
    height, width = size
    console.print(f"{image}  {width} × {height}  {info.variant} ({info.precision}, {info.engine})", soft_wrap=True)
    stages = info_figures(image, size, info)["timings_ms"]
    console.print("  ".join(f"{name} {spent:.0f}" for name, spent in stages.items()) + "  ms", style="dim")
