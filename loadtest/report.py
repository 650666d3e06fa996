"""Figures → JSON, a page in one file that needs nothing else, and a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from loadtest.charts import Line, chart
from samgate.cli.files import write_bytes, write_json
from samgate.errors import SamgateError

_LEAST_WIDTH = 120
_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 940px; margin: 2em auto; padding: 0 1em }
body { color: #111; background: #fff }
table { border-collapse: collapse; margin: 1em 0 } caption { text-align: left; font-weight: 600; padding: .3em 0 }
td, th { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums }
td:first-child, th:first-child { text-align: left } .good { color: #00664d } .bad { color: #a33f00 }
svg { width: 100%; height: auto; margin: .6em 0 }
svg text { font-size: 12px; fill: #333 } svg .title { font-weight: 600 }
svg .left, svg .right { text-anchor: end } svg .left { dominant-baseline: middle } svg .below { text-anchor: middle }
svg path { fill: none } svg .grid { stroke: #e5e5e5 } svg .level { stroke: #888; stroke-dasharray: 1 3 }
svg .line { stroke-width: 1.8 }
pre { background: #f4f4f4; padding: .8em; overflow-x: auto }
"""


def page(title: str, body: Iterable[str]) -> str:
    """An HTML page; ``body`` is HTML, ``title`` text."""
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    return f"{head}<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(body)}</body></html>\n"


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of texts."""
    head = "".join(f"<th>{escape(one)}</th>" for one in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{body}</table>"


def paragraph(text: str, kind: str = "") -> str:
    """HTML of a paragraph; ``kind`` is good, bad or nothing."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>'


TIER_HEADINGS = (
    "tier", "sent", "on time", "goodput/s", "shed", "late", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "held",
    "answered by",
)  # fmt: skip


def tier_rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row a tier, and one for all."""
    tiers: Mapping[str, Any] = figures["tiers"]
    shown = [*tiers.items(), ("all", figures["overall"])] if len(tiers) != 1 else list(tiers.items())
    return [
        (
            tier,
            str(one["sent"]),
            percent(one["attainment"]),
            f"{one['goodput']:.4g}",
            percent(one["shed"]),
            percent(one["late"] + one["dropped"]),
            *(milliseconds(one[name]) for name in ("p50_s", "p90_s", "p95_s", "p99_s")),
            percent(one["cached"]),
            ", ".join(f"{point} {share:.0%}" for point, share in one["points"].items()),
        )
        for tier, one in shown
    ]


def verdict(figures: Mapping[str, Any]) -> tuple[str, bool]:
    """In a sentence whether the run was good, and whether it was."""
    if not figures["valid"]:
        return f"No verdict: the load generator was to blame: {'; '.join(figures['generator']['problems'])}.", False
    budget, share = figures["budget"], figures["overall"]["attainment"]
    used = f", {budget['used']:.0%} of the error budget" if budget["used"] is not None else ""
    word = "Met" if figures["met"] else "Missed"
    return f"{word}: {share:.2%} on time of {budget['sent']} (target {budget['target']:.2%}){used}.", bool(
        figures["met"]
    )


def html(figures: Mapping[str, Any]) -> str:
    """The report of a run."""
    plan, buckets = figures["plan"], figures["buckets"]
    text, good = verdict(figures)
    middles = [(one["from_s"] + one["to_s"]) / 2 for one in buckets]

    def line(label: str, name: str, factor: float = 1.0) -> Line:
        values = [one[name] for one in buckets]
        return Line(label, [(x, None if y is None else factor * y) for x, y in zip(middles, values, strict=True)])

    users = ", ".join(f"{one['user']} ({Path(one['workload']).name})" for one in plan["sources"])
    about = (
        f"{users} on {figures['target']}: {plan['rate']:.4g} requests/s in the mean for {plan['duration_s']:.4g} s, of "
        f"which the first {plan['warmup_s']:.4g} don't count; shape {plan['shape']}, seed {plan['seed']}, generating "
        f"processes: {figures['workers']}. Latency counts from the time that a request was due to be sent, and is that "
        f"of answered requests. Figures over time are by when requests were due."
    )
    return page(
        f"Load test: {', '.join(one['user'] for one in plan['sources'])}",
        [
            paragraph(text, "good" if good else "bad"),
            paragraph(about),
            table("Tiers, after the warm-up", TIER_HEADINGS, tier_rows(figures)),
            chart(
                "requests a second", "seconds",
                [line("offered", "offered"), line("on time", "goodput"), line("refused", "refused")],
            ),
            chart("latency, ms", "seconds", [line(name, f"{name}_s", 1e3) for name in ("p50", "p95", "p99")]),
            chart("share on time", "seconds", [line("on time", "attainment")], plan["target_share"]),
            table(
                "Parts of the run",
                ("seconds", "offered/s", "goodput/s", "on time", "p50 ms", "p95 ms"),
                [
                    (
                        f"{one['from_s']:.4g} to {one['to_s']:.4g}", f"{one['offered']:.4g}", f"{one['goodput']:.4g}",
                        percent(one["attainment"]), milliseconds(one["p50_s"]), milliseconds(one["p95_s"]),
                    )
                    for one in figures["slices"]
                ],
            ),
            table("Ends", ("end", "requests"), [(end, str(count)) for end, count in figures["ends"].items()]),
            table("The generator itself", ("", ""), _generator_rows(figures)),
            f"<details><summary>The plan</summary><pre>{escape(json.dumps(plan, indent=2))}</pre></details>",
        ],
    )  # fmt: skip


def _generator_rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts, generator = figures["requests"], figures["generator"]
    numbers = ("planned", "sent", "skipped", "unreported")
    lags = ("lag_p50_s", "lag_p99_s", "lag_max_s")
    return [
        (" / ".join(numbers), " / ".join(str(counts[name]) for name in numbers)),
        ("sent late by, ms: p50 / p99 / most", " / ".join(milliseconds(generator[name], 1) for name in lags)),
        *(
            (
                node["name"],
                f"event loop late by {milliseconds(node['loop_lag_p99_s'], 1)} ms (p99), {node['cpu_share']:.0%} of a "
                f"core, ready after {node['ready_s']:.1f} s",
            )
            for node in generator["nodes"]
        ),
    ]


def write(path: Path, figures: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write ``path``.json and ``path``.html. Raises SamgateError if they can't be written."""
    return write_both(path, figures, html(figures))


def write_both(path: Path, content: Mapping[str, Any], made: str) -> tuple[Path, Path]:
    """``content`` as ``path``.json, the page ``made`` as ``path``.html. Raises SamgateError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SamgateError(f"{path.parent} can't be made: {error.strerror}") from error
    found = path.with_name(f"{path.name}.json"), path.with_name(f"{path.name}.html")
    write_json(found[0], content)
    write_bytes(found[1], made.encode())
    return found


def show(figures: Mapping[str, Any]) -> None:
    """The verdict and the tiers, on standard error."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, _LEAST_WIDTH)
    shown = Table(box=SIMPLE, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for place, heading in enumerate(TIER_HEADINGS[:-1]):
        shown.add_column(heading, justify="right" if place else "left", no_wrap=True)
    *_, overall = rows = tier_rows(figures)
    for row in rows:
        shown.add_row(*row[:-1])
    console.print(shown)
    console.print(f"answered by {overall[-1] or 'nobody'}")
    text, good = verdict(figures)
    console.print(text, style="green" if good else "red")


def percent(share: float | None) -> str:
    """For people; a dash for None."""
    return "–" if share is None else f"{share:.1%}"


def milliseconds(seconds: float | None, digits: int = 0) -> str:
    """For people; a dash for None."""
    return "–" if seconds is None else f"{1e3 * seconds:.{digits}f}"
