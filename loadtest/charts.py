"""Lines over time as SVG, to be put inside an HTML page as they are. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Okabe and Ito's palette, which the colour-blind tell apart, with a dash pattern each.
_STYLES = (("#0072B2", ""), ("#D55E00", "6 3"), ("#009E73", "2 3"), ("#000000", "8 3 2 3"))
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 240, 56, 12, 30, 34
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """A line through (x, y); where y is None there is a gap."""

    label: str
    points: Sequence[tuple[float, float | None]]


def chart(title: str, x_label: str, lines: Sequence[Line], level: float | None = None) -> str:
    """An ``<svg>`` of ``lines`` on axes from 0, with a thin one across at ``level``."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points if y is not None]
    x_step, y_step = _step(max(xs, default=0.0)), _step(max([*ys, level or 0.0]))
    x_end = max(max(xs, default=0.0), x_step)
    y_end = y_step * math.ceil(max([*ys, level or 0.0, y_step]) / y_step - 1e-9)

    def at(x: float, y: float) -> str:
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / x_end
        down = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * y / y_end
        return f"{across:.1f},{down:.1f}"

    parts = [f'<text x="{_LEFT}" y="16" class="title">{escape(title)}</text>']
    for count in range(round(y_end / y_step) + 1):
        y = count * y_step
        parts.append(_path(f"M{at(0, y)} L{at(x_end, y)}", "grid"))
        parts.append(f'<text x="{_LEFT - 6}" y="{at(0, y).split(",")[1]}" class="left">{y:g}</text>')
    for count in range(math.floor(x_end / x_step + 1e-9) + 1):
        across = at(count * x_step, 0).split(",")[0]
        parts.append(f'<text x="{across}" y="{_HEIGHT - _BOTTOM + 14}" class="below">{count * x_step:g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" class="right">{escape(x_label)}</text>')
    if level is not None:
        parts.append(_path(f"M{at(0, level)} L{at(x_end, level)}", "level"))
    legend = _WIDTH - _RIGHT
    for place, line in reversed(list(enumerate(lines))):
        colour, dashes = _STYLES[place % len(_STYLES)]
        style = f'stroke="{colour}" stroke-dasharray="{dashes}"'
        drawn, pen = [], "M"
        for x, value in line.points:
            if value is not None:
                drawn.append(f"{pen}{at(x, value)}")
            pen = "M" if value is None else "L"
        parts.append(_path(" ".join(drawn) or "M0,0", "line", style))
        legend -= 7 * len(line.label) + 44
        parts.append(_path(f"M{legend},12 L{legend + 26},12", "line", style))
        parts.append(f'<text x="{legend + 31}" y="16">{escape(line.label)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _path(drawn: str, kind: str, style: str = "") -> str:
    return f'<path d="{drawn}" class="{kind}" {style}/>'


def _step(most: float) -> float:
    """A round distance between ticks, for about five of them up to ``most``."""
    if not 1e-9 < most < math.inf:
        return 1.0
    rough = most / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(one for one in (1, 2, 2.5, 5, 10) if one * power >= rough * (1 - 1e-9))
