"""Average recall by strategy in figures: as JSON, for a terminal, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from samgate.evaluation.everything import Answer, Scored
from samgate.evaluation.recall import MEASURES, Found, difference, recall

_INTERVAL_OF = "AR@1000"
_COLUMNS = ("strategy", *MEASURES, "95% of AR@1000", "less {first}", "s an image", "masks an image", "late")


def summarise(scored: Sequence[Scored]) -> dict[str, Any]:
    """Figures of a run, at least one answer of each strategy.

    ``strategies`` has, by name: ``recall`` (by the names of :data:`samgate.evaluation.recall.MEASURES`: ``ar``,
    ``ci95``, ``n``), ``difference`` (the same less the first strategy, paired: ``ar``, ``ci95``), ``median_s``,
    ``median_first_s`` (until the first masks; None if there were none), ``masks`` (in the mean) and ``late`` (answers
    that missed the deadline). Recalls are 0 to 1. ``variant``, ``precision`` and ``engine`` are of the last answer,
    None if all were late.
    """
    by_name: dict[str, list[Scored]] = {}
    for one in scored:
        by_name.setdefault(one.strategy.name, []).append(one)
    first = [one.found for one in next(iter(by_name.values()))]
    info = next((one.answer.info for one in reversed(scored) if one.answer.info is not None), None)
    return {
        "strategies": {name: {**_figures(found), **_against(found, first)} for name, found in by_name.items()},
        "images": len(first),
        "objects": recall(first, _INTERVAL_OF).n,
        "variant": info.variant if info else None,
        "precision": info.precision if info else None,
        "engine": info.engine if info else None,
    }


def recall_figures(images: Sequence[Found]) -> dict[str, dict[str, Any]]:
    """Each measure over ``images``."""
    return {
        name: {"ar": round(found.ar, 6), "ci95": [round(bound, 6) for bound in found.ci95], "n": found.n}
        for name, found in ((name, recall(images, name)) for name in MEASURES)
    }


def difference_figures(images: Sequence[Found], others: Sequence[Found]) -> dict[str, dict[str, Any]]:
    """Each measure of ``images`` less that of ``others``, which are the same images."""
    return {
        name: {"ar": round(more.ar, 6), "ci95": [round(bound, 6) for bound in more.ci95]}
        for name, more in ((name, difference(images, others, name)) for name in MEASURES)
    }


def speed_figures(answers: Sequence[Answer]) -> dict[str, Any]:
    """How long answers took and what they held."""
    first = [answer.first_s for answer in answers if answer.first_s is not None]
    return {
        "median_s": round(float(np.median([answer.seconds for answer in answers])), 4),
        "median_first_s": round(float(np.median(first)), 4) if first else None,
        "masks": round(float(np.mean([len(answer.proposals.rles) for answer in answers])), 1),
        "late": sum(answer.late for answer in answers),
    }


def as_table(summary: dict[str, Any]) -> Table:
    """``summary`` of :func:`summarise` for a terminal."""
    table = Table(title=_title(summary))
    for index, column in enumerate(_columns(summary)):
        table.add_column(column, justify="right" if index else "left")
    for row in _rows(summary):
        table.add_row(*row)
    return table


def as_markdown(summary: dict[str, Any]) -> str:
    """The same as a Markdown table under a line that says what was measured."""
    columns = _columns(summary)
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *_rows(summary)]
    return "\n".join([f"{_title(summary)}:", "", *(f"| {' | '.join(cells)} |" for cells in lines), ""])


def _figures(scored: Sequence[Scored]) -> dict[str, Any]:
    return {
        "recall": recall_figures([one.found for one in scored]),
        **speed_figures([one.answer for one in scored]),
    }


def _against(scored: Sequence[Scored], first: Sequence[Found]) -> dict[str, Any]:
    return {"difference": difference_figures([one.found for one in scored], first)}


def _title(summary: dict[str, Any]) -> str:
    by = ", ".join(filter(None, (summary["variant"], summary["precision"], summary["engine"]))) or "nothing in time"
    return f"{by}, {summary['objects']} objects in {summary['images']} images"


def _columns(summary: dict[str, Any]) -> tuple[str, ...]:
    return tuple(column.format(first=next(iter(summary["strategies"]))) for column in _COLUMNS)


def _rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for index, (name, figures) in enumerate(summary["strategies"].items()):
        low, high = figures["recall"][_INTERVAL_OF]["ci95"]
        recalls = (f"{found['ar']:.3f}" if found["n"] else "–" for found in figures["recall"].values())
        more = figures["difference"][_INTERVAL_OF]
        rows.append((
            name,
            *recalls,
            f"{low:.3f} – {high:.3f}",
            f"{more['ar']:+.3f} ({more['ci95'][0]:+.3f} – {more['ci95'][1]:+.3f})" if index else "",
            f"{figures['median_s']:.2f}",
            f"{figures['masks']:.0f}",
            str(figures["late"]),
        ))  # fmt: skip
    return rows
