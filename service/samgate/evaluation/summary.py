"""An evaluation in figures: by prompt type and source, as JSON or as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from samgate.evaluation.metrics import MeanIou, mean_iou
from samgate.evaluation.runner import Evaluation, ImageScores


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """``box`` and ``point`` (``miou``, ``ci95``, ``n``; ``point`` also ``oracle_miou``), the same ``by_source``, and
    ``variant``, ``precision`` and ``engine`` of what answered. mIoUs are 0 to 1."""
    sources = dict.fromkeys(image.source for image in evaluation.images)
    return {
        **_both(evaluation.images),
        "by_source": {
            source: _both([image for image in evaluation.images if image.source == source]) for source in sources
        },
        "images": len(evaluation.images),
        "variant": evaluation.variant,
        "precision": evaluation.precision,
        "engine": evaluation.engine,
    }


def as_table(summary: dict[str, Any]) -> Table:
    """``summary`` of :func:`summarise` for a terminal."""
    table = Table(title=f"{summary['variant']}, {summary['precision']}, {summary['engine']}")
    table.add_column("prompt")
    table.add_column("source")
    for column in ("mIoU", "95% interval", "masks", "best of three"):
        table.add_column(column, justify="right")
    for prompt in ("box", "point"):
        rows = [("all", summary)] if len(summary["by_source"]) > 1 else []
        for source, figures in [*summary["by_source"].items(), *rows]:
            row = figures[prompt]
            low, high = row["ci95"]
            oracle = f"{row['oracle_miou']:.4f}" if "oracle_miou" in row else ""
            style = "bold" if source == "all" else None
            cells = (f"{row['miou']:.4f}", f"{low:.3f} – {high:.3f}", str(row["n"]), oracle)
            table.add_row(prompt, source, *cells, style=style)
        table.add_section()
    return table


def _both(images: Sequence[ImageScores]) -> dict[str, dict[str, Any]]:
    oracle = mean_iou([image.oracle for image in images])
    return {
        "box": _figures(mean_iou([image.box for image in images])),
        "point": {**_figures(mean_iou([image.point for image in images])), "oracle_miou": round(oracle.miou, 6)},
    }


def _figures(mean: MeanIou) -> dict[str, Any]:
    return {"miou": round(mean.miou, 6), "ci95": [round(bound, 6) for bound in mean.ci95], "n": mean.n}
