"""Results as Markdown: one section a benchmark, so that one can be measured again without losing the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samgate.bench.errors import BenchmarkError

_HEAD = """\
# Benchmarks

`samgate bench` writes this file, one section a benchmark; `make bench` sets up what it needs and runs it. What is
compared with each other was measured in turns in the same run, so that a machine's drift hits both alike: take the
ratios elsewhere, not the milliseconds.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A floor and whether it is met: ``claim`` names what is asked for, ``value`` what was measured."""

    claim: str
    value: str
    met: bool


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's outcome: ``method`` says in prose what was done, ``figures`` are the numbers for JSON."""

    name: str
    title: str
    method: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[Verdict]
    figures: dict[str, Any] = field(default_factory=dict)

    def met(self) -> bool:
        """Whether every floor is."""
        return all(verdict.met for verdict in self.verdicts)


def section(result: Result, provenance: Sequence[str]) -> str:
    """``result`` as Markdown; ``provenance`` are lines that tell how, where and when it was measured."""
    lines = [f"## {result.title}", "", result.method, ""]
    lines += _table(result.columns, result.rows)
    if result.verdicts:
        rows = [(verdict.claim, verdict.value, "met" if verdict.met else "**missed**") for verdict in result.verdicts]
        lines += ["", *_table(("floor", "measured", "verdict"), rows)]
    return "\n".join([*lines, "", *(f"- {line}" for line in provenance)])


def update(path: Path, sections: dict[str, str], order: Sequence[str]) -> None:
    """Puts ``sections`` (by benchmark name) into the file at ``path``, in place of their earlier versions.

    Sections of other benchmarks stay as they are; all are in the order of ``order``, unknown names last.

    Raises:
        BenchmarkError: the file can't be read or written.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        found = re.findall(r"<!-- bench:(\S+) -->\n(.*?)\n<!-- /bench:\1 -->", text, flags=re.DOTALL)
        merged = {**dict(found), **sections}
        names = sorted(merged, key=lambda name: (order.index(name) if name in order else len(order), name))
        blocks = [f"<!-- bench:{name} -->\n{merged[name]}\n<!-- /bench:{name} -->\n" for name in names]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([_HEAD, *blocks]), encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{path} can't be written: {error.strerror}") from error


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = "|".join(["---", *["---:"] * (len(columns) - 1)])
    return [f"| {' | '.join(columns)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]
