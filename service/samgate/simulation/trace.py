"""Recorded or made-up requests as CSV or JSON Lines, with the fields of :class:`Arrival`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from io import StringIO
from pathlib import Path
from typing import Any

from samgate.errors import InvalidArgument, SamgateError
from samgate.scheduling.profile import PROMPT_KINDS
from samgate.simulation.arrival import MAX_DEADLINE_S, MAX_MEGAPIXELS, MAX_PROMPTS, Arrival
from samgate.simulation.processes import MAX_SECONDS
from samgate.simulation.spec import Section, refuse

MAX_BYTES = 2**30
FIELDS = tuple(field.name for field in fields(Arrival))
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order in which they came."""

    entries: tuple[Arrival, ...]

    @property
    def duration_s(self) -> float:
        """From the start until just after the last one."""
        return self.entries[-1].at_s + 1e-3

    @property
    def mean_rate(self) -> float:
        """Requests a second."""
        return len(self.entries) / self.duration_s

    def arrivals(self, factor: float, duration_s: float) -> Iterator[Arrival]:
        """The requests at ``factor`` times their rate, until ``duration_s``. Ends with the trace."""
        for entry in self.entries:
            at_s = entry.at_s / factor
            if at_s >= duration_s:
                return
            yield entry if factor == 1.0 else replace(entry, at_s=at_s)


def read_trace(section: Section, folder: Path) -> Trace:
    """The trace that ``arrivals`` of a workload names. Raises InvalidArgument, SamgateError."""
    section.choice("process", ("replay",))
    path = folder / section.text("file")
    section.end()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SamgateError(f"{path} can't be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise InvalidArgument(path.name, f"has more than {MAX_BYTES} bytes, the most that it may have")
    return parse_trace(data, path.name)


def parse_trace(data: bytes, name: str) -> Trace:
    """The trace that ``data`` holds: CSV with a heading if ``name`` ends in .csv, else an object a line. Raises
    InvalidArgument that names line, field, value and limit."""
    try:
        lines = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument(name, f"is not UTF-8: byte {error.start}") from None
    rows = _csv_rows(lines, name) if name.lower().endswith(".csv") else _json_rows(lines, name)
    entries: list[Arrival] = []
    for where, row in rows:
        entry = _arrival(Section(row, where))
        if entries and entry.at_s < entries[-1].at_s:
            raise refuse(f"{where}at_s", entry.at_s, f"at least {entries[-1].at_s:g}, the time before it")
        entries.append(entry)
    if not entries:
        raise InvalidArgument(name, "holds no requests")
    return Trace(tuple(entries))


def _json_rows(text: str, name: str) -> Iterator[tuple[str, Any]]:
    for count, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield f"{name}:{count}: ", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"{name}:{count}", f"is not JSON: {error}") from None


def _csv_rows(text: str, name: str) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(StringIO(text), strict=True)
    try:
        for row in reader:
            where = f"{name}:{reader.line_num}: "
            if None in row or None in row.values():
                raise InvalidArgument(where.rstrip(": "), f"must have {len(reader.fieldnames or ())} columns")
            yield where, {key: _cell(key, cell) for key, cell in row.items() if cell != ""}
    except csv.Error as error:
        raise InvalidArgument(f"{name}:{reader.line_num}", f"is not CSV: {error}") from None


def _cell(key: str, cell: str) -> Any:
    if key in ("kind", "client", "tier"):
        return cell
    if key == "everything":
        return _FLAGS.get(cell.lower(), cell)
    if key == "points":
        return cell.split()
    try:
        return int(cell) if key in ("image", "prompts") else float(cell)
    except ValueError:
        return cell


def _arrival(row: Section) -> Arrival:
    at_s = row.number("at_s", 0, MAX_SECONDS)
    image = row.whole("image", 0, 2**63 - 1)
    megapixels = row.number("megapixels", 1e-4, MAX_MEGAPIXELS)
    kind = row.choice("kind", PROMPT_KINDS)
    prompts = row.whole("prompts", 1, MAX_PROMPTS)
    deadline_s = row.number("deadline_s", 1e-3, MAX_DEADLINE_S)
    client = row.text("client", default="client")
    min_accuracy = row.number("min_accuracy", 0, 1, default=0.0)
    everything = row.flag("everything", default=False)
    points = None
    if row.has("points"):
        points = tuple(text for _, text in row.items("points", 256))
        if not points or not all(isinstance(text, str) for text in points):
            raise refuse(row.where("points"), list(points), "a list of one name or more")
    tier = row.text("tier", default="requests")
    row.end()
    return Arrival(
        at_s,
        image,
        megapixels,
        "box" if kind == "box" else "point",
        prompts,
        deadline_s,
        client,
        min_accuracy,
        everything,
        points,
        tier,
    )
