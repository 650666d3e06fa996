"""A soak's samples, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from loadtest.reliability.judgement import Series


def plot_series(series: Sequence[Series], title: str, path: Path) -> None:
    """One small chart a quantity, over minutes."""
    figure, axes = pyplot.subplots(len(series), 1, sharex=True, squeeze=False, figsize=(8, 1.3 * len(series)))
    for axis, one in zip(axes[:, 0], series, strict=True):
        axis.plot([at / 60 for at in one.at_s], one.values, linewidth=1)
        axis.set_ylabel(one.name if one.unit == one.name else f"{one.name}\n{one.unit}", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("minutes", fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
