"""Figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from samgate.top.figures import Figures

OBJECTIVE = 0.99
_NARROW = 100
"""Columns from which two tables have room beside each other."""


def view(figures: Figures | None, servers: Mapping[str, Figures | str | None], width: int) -> RenderableType:
    """All ``servers`` (by address: figures, why there are none, or None before the second scrape), and ``figures`` of
    those that answer together."""
    parts: list[RenderableType] = [_servers(servers)]
    if figures is not None:
        upper, lower = (_load(figures), _objective(figures)), (_stages(figures), _points(figures))
        if width >= _NARROW:
            parts += [_beside(*upper), _variants(figures), _beside(*lower)]
        else:
            parts += [*upper, _variants(figures), *lower]
        if figures.tritons:
            parts.append(_tritons(figures))
    return Group(*parts)


def _servers(servers: Mapping[str, Figures | str | None]) -> RenderableType:
    table = _table("server", "calls/s", "in time/s", "in flight", "queued work", "version", "state")
    for address, found in servers.items():
        if isinstance(found, Figures):
            good = found.outcomes_s.get("met", 0.0)
            cells = (f"{found.calls_s:.1f}", f"{good:.1f}", f"{found.in_flight:.0f}", _seconds(found.queued_work_s))
            table.add_row(address, *cells, ", ".join(found.versions), _state(found))
        else:
            waiting = Text("waiting for a second look", style="dim")
            table.add_row(address, *[""] * 5, waiting if found is None else Text(found, style="red"))
    return Panel(table, title="samgate top", title_align="left")


def _state(figures: Figures) -> Text:
    if figures.draining:
        return Text("draining", style="yellow")
    down = [point.name for point in figures.points if not point.healthy]
    return Text(f"down: {', '.join(down)}", style="red") if down else Text("healthy", style="green")


def _load(figures: Figures) -> RenderableType:
    table = _table("load", "")
    table.add_row("calls", f"{figures.calls_s:.1f}/s over {_seconds(figures.seconds)}")
    table.add_row("in flight", f"{figures.in_flight:.0f} of at most {figures.limit:.0f}")
    refused = ", ".join(f"{reason} {rate:.1f}" for reason, rate in figures.refusals_s.items() if rate > 0)
    table.add_row("refused/s", refused or "none")
    table.add_row("queued work", f"{_seconds(figures.queued_work_s)}, engine busy {figures.busy:.0%}")
    table.add_row("load price μ", f"{figures.price:.3g} mIoU/s")
    entries = f"{figures.cache_entries:.0f} embeddings"
    table.add_row("cache", f"{_bytes(figures.cache_bytes)} of {_bytes(figures.cache_max_bytes)}, {entries}")
    table.add_row("cache hits", _share(figures.hit_ratio))
    table.add_row("event loop", f"late by {_seconds(figures.lag_s)}")
    return Panel(table, title="load", title_align="left")


def _objective(figures: Figures) -> RenderableType:
    table = _table("class", "now", "since start")
    for name, now in figures.attainment.items():
        table.add_row(name, _attained(now), _attained(figures.attainment_since_start[name]))
    outcomes = _table("outcome", "calls/s")
    for name, rate in figures.outcomes_s.items():
        outcomes.add_row(name, f"{rate:.1f}")
    return Panel(Group(table, Text(), outcomes), title=f"objective: {OBJECTIVE:.0%} in time", title_align="left")


def _variants(figures: Figures) -> RenderableType:
    table = _table("variant", "calls/s", "p50", "p95")
    for one in figures.variants:
        table.add_row(
            "(none answered)" if one.name == "none" else one.name,
            f"{one.calls_s:.1f}",
            _seconds(one.p50_s),
            _seconds(one.p95_s),
        )
    return Panel(table, title="variants", title_align="left")


def _stages(figures: Figures) -> RenderableType:
    table = _table("stage", "waiting", "waits, p95", "a call", "busy", "pace")
    for one in figures.stages:
        batch = "–" if one.batch is None else f"{one.batch:.1f}"
        table.add_row(one.name, f"{one.waiting:.0f}", _seconds(one.p95_s), batch, f"{one.busy:.2f}", f"{one.pace:.2f}×")
    return Panel(table, title="queue and engine", title_align="left")


def _points(figures: Figures) -> RenderableType:
    table = _table("point", "decisions/s", "ε held", "ε new", "late")
    for one in figures.points:
        why = ", ".join(f"{reason} {rate:.1f}" for reason, rate in one.decisions_s.items() if rate > 0)
        table.add_row(
            one.name, why or "none", _seconds(one.held_margin_s), _seconds(one.new_margin_s), _share(one.late_share)
        )
    return Panel(table, title="operating points", title_align="left")


def _tritons(figures: Figures) -> RenderableType:
    table = _table("server", "model", "")
    for (url, model), well in figures.tritons.items():
        table.add_row(url, model, Text("up", style="green") if well else Text("out", style="red"))
    return Panel(table, title="Triton", title_align="left")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=len(columns) > 2, header_style="dim")
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0)
    return table


def _beside(left: RenderableType, right: RenderableType) -> RenderableType:
    table = Table.grid(expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(left, right)
    return table


def _attained(value: float | None) -> Text:
    style = "dim" if value is None else "green" if value >= OBJECTIVE else "red"
    return Text(_share(value), style=style)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.0f} ms"


def _bytes(value: float) -> str:
    return f"{value / 2**20:.0f} MiB"
