"""What a search for the capacity found → JSON and a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.charts import Line, chart
from loadtest.report import TIER_HEADINGS, milliseconds, page, paragraph, percent, table, tier_rows, write_both


def verdict(content: Mapping[str, Any]) -> tuple[str, bool]:
    """In a sentence what was found, and whether it can be relied on."""
    rules, rate, failed = content["rules"], content["rate"], content["failed"]
    target, runs = f"{rules['target']:.2%} on time", len(content["trials"])
    if not rate:
        return (
            f"No rate was found that passes ({target}) in {runs} runs; {failed or 0:.3g} requests/s is too much.",
            False,
        )
    above = "no rate that fails was found"
    if failed is not None:
        above = f"{failed:.3g} can't be tried by this generator" if content["limited"] else f"{failed:.3g} fails"
    if content["confirmed"] and not content["limited"]:
        return f"Capacity: {rate:.3g} requests/s ({target}, in {rules['repeats']} runs); {above}; {runs} runs.", True
    why = "the generator was the limit" if content["limited"] else "not confirmed within the runs that were allowed"
    return f"At least {rate:.3g} requests/s ({target}), {why}; {above}; {runs} runs.", False


def html(content: Mapping[str, Any]) -> str:
    """The report."""
    text, good = verdict(content)
    trials, runs = content["trials"], content["runs"]
    by_rate = sorted((one["rate"], one["share"]) for one in trials if one["share"] is not None)
    best = [run for one, run in zip(trials, runs, strict=True) if one["rate"] == content["rate"] and run["valid"]]
    rows = [
        (
            str(place + 1),
            f"{trial['rate']:.2f}",
            str(run["overall"]["sent"]),
            percent(run["overall"]["attainment"]),
            f"{run['overall']['goodput']:.2f}",
            percent(run["overall"]["shed"]),
            milliseconds(run["overall"]["p95_s"]),
            milliseconds(run["generator"]["lag_p99_s"]),
            ("met" if run["met"] else "missed") if run["valid"] else "; ".join(run["generator"]["problems"]),
        )
        for place, (trial, run) in enumerate(zip(trials, runs, strict=True))
    ]
    headings = (
        "run",
        "requests/s",
        "counted",
        "on time",
        "goodput/s",
        "shed",
        "p95 ms",
        "sent late by, p99 ms",
        "verdict",
    )
    return page(
        "Capacity",
        [
            paragraph(text, "good" if good else "bad"),
            paragraph(
                f"{content['command']}, {content['date']}; {content['took_s']:.0f} s; server: {content['target']}."
            ),
            paragraph(content["machine"]),
            chart("share on time", "requests a second", [Line("runs", by_rate)], content["rules"]["target"]),
            table("Runs", headings, rows),
            *(
                table(
                    f"At {content['rate']:.2f} requests/s, run with seed {run['plan']['seed']}",
                    TIER_HEADINGS,
                    tier_rows(run),
                )
                for run in best
            ),
        ],
    )


def write(path: Path, content: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write ``path``.json and ``path``.html. Raises SamgateError if they can't be written."""
    return write_both(path, content, html(content))
