"""Policies compared over load, as a picture. Needs matplotlib, which the extra ``plots`` installs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from samgate.errors import SamgateError
from samgate.simulation.summary import Summary

# Okabe and Ito's palette, which the colour-blind tell apart, with a marker each.
_STYLES = (
    ("#0072B2", "o"), ("#56B4E9", "s"), ("#D55E00", "^"), ("#009E73", "v"), ("#CC79A7", "D"), ("#000000", "x"),
    ("#E69F00", "P"),
)  # fmt: skip
_DPI = 150

_PANELS: tuple[tuple[str, Callable[[Summary], float | None]], ...] = (
    ("answered on time, share of all sent", lambda one: one.attainment),
    ("goodput, on-time answers a second", lambda one: one.goodput),
    ("accuracy of on-time answers, mIoU", lambda one: one.accuracy),
    ("on time × accuracy", lambda one: one.value),
)


def require_matplotlib() -> None:
    """Raises SamgateError with the way to install it where it is missing."""
    if find_spec("matplotlib") is None:
        raise SamgateError("a plot needs matplotlib: pip install 'samgate[plots]'")


def plot_policies(summaries: Sequence[Summary], title: str, path: Path) -> None:
    """Writes a PNG of four panels, a line a policy. Raises SamgateError without matplotlib or when it can't be
    written."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    policies = list(dict.fromkeys(one.policy for one in summaries))
    for axes, (label, value) in zip(panels.flat, _PANELS, strict=True):
        for place, policy in enumerate(policies):
            colour, marker = _STYLES[place % len(_STYLES)]
            mine = sorted((one for one in summaries if one.policy == policy), key=lambda one: one.rate)
            found = [(one.rate, value(one)) for one in mine]
            x = [rate for rate, y in found if y is not None]
            y = [y for _, y in found if y is not None]
            # Ours is drawn last and stands out.
            first = policy == "samgate"
            axes.plot(
                x, y, color=colour, marker=marker, markersize=5, label=policy,
                linewidth=2.5 if first else 1.3, zorder=3 if first else 2,
            )  # fmt: skip
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if "share" in label:
            axes.set_ylim(0, 1.02)
    for axes in panels[1]:
        axes.set_xlabel("requests a second")
    panels[0][0].legend(loc="lower left", fontsize="small")
    figure.suptitle(title, fontsize="medium")
    drawn = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(drawn, format="png", dpi=_DPI)
    try:
        path.write_bytes(drawn.getvalue())
    except OSError as error:
        raise SamgateError(f"{path} can't be written: {error.strerror}") from error
