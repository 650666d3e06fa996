"""Findings, and how they are told: to people, as JSON, as rows of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from loadtest.reliability.ledger import Fate, Tally


@dataclass(frozen=True, slots=True)
class Finding:
    """What must hold, what was found, and whether it held."""

    claim: str
    found: str
    held: bool


@dataclass(frozen=True, slots=True)
class Story:
    """One run: how requests fared in its spans (before, during and after the fault), and what was found.

    ``recovery_s``: from the end of the fault to the first answer to a request sent after it; None where that says
    nothing."""

    name: str
    spans: Mapping[str, Tally]
    findings: Sequence[Finding]
    recovery_s: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether all held."""
        return all(finding.held for finding in self.findings)


def counted(tally: Tally) -> dict[str, Any]:
    """For JSON."""
    return {
        "sent": tally.sent,
        **{fate.value: tally[fate] for fate in Fate},
        "refused_by_status": dict(tally.refused),
        "lost_by_status": dict(tally.lost),
        "p50_s": tally.p50_s,
    }


def as_json(story: Story) -> dict[str, Any]:
    """For JSON."""
    return {
        "name": story.name,
        "passed": story.passed,
        "recovery_s": story.recovery_s,
        "spans": {name: counted(tally) for name, tally in story.spans.items()},
        "findings": [{"claim": one.claim, "found": one.found, "held": one.held} for one in story.findings],
        "figures": dict(story.figures),
    }


def table_of(story: Story) -> list[Table]:
    """For people: requests by span, then findings."""
    requests = Table(box=SIMPLE_HEAD, title=story.name, title_justify="left")
    for column in ("", "sent", *(fate.value for fate in Fate), "refused as", "p50 ms"):
        requests.add_column(column, justify="right" if column else "left")
    for name, tally in story.spans.items():
        median = "" if tally.p50_s is None else f"{1e3 * tally.p50_s:.0f}"
        counts = (str(tally[fate]) for fate in Fate)
        requests.add_row(name, str(tally.sent), *counts, escape(by_status(tally)), median)
    found = Table(box=SIMPLE_HEAD)
    for column in ("what must hold", "found", ""):
        found.add_column(column)
    for one in story.findings:
        verdict = "[green]held[/]" if one.held else "[bold red]FAILED[/]"
        found.add_row(escape(one.claim), escape(one.found), verdict)
    return [requests, found]


def by_status(tally: Tally) -> str:
    """Which statuses the refused and the lost had."""
    return ", ".join(f"{status} {number}" for status, number in sorted((tally.refused + tally.lost).items()))


def markdown(stories: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of a table, one a story as :func:`as_json` has it."""
    lines = [
        "| scenario | sent | answered | refused | out of time | cancelled | **lost** | back after | verdict |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for story in stories:
        spans = story["spans"].values()
        sums = {name: sum(span[name] for span in spans) for name in ("sent", *(fate.value for fate in Fate))}
        back = "" if story["recovery_s"] is None else f"{story['recovery_s']:.1f} s"
        failed = [one["claim"] for one in story["findings"] if not one["held"]]
        verdict = "passed" if story["passed"] else f"**failed**: {'; '.join(failed)}"
        cells = [story["name"], *(f"{number:,}" for number in sums.values()), back, verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def markdown_findings(story: Mapping[str, Any]) -> list[str]:
    """What a story's run found, as rows."""
    lines = ["| what must hold | found | |", "|---|---|---|"]
    lines += [
        f"| {one['claim']} | {one['found']} | {'held' if one['held'] else '**failed**'} |" for one in story["findings"]
    ]
    return lines
