"""How the loss fell, as a picture. Needs matplotlib, which the extra ``plots`` installs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from samgate.errors import SamgateError
from samgate.training.checkpoint import Epoch
from samgate.weights.home import atomic_write_bytes

_DPI = 150


def can_plot() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def plot_loss(epochs: Sequence[Epoch], title: str, path: Path) -> None:
    """Writes a PNG of the mean loss of every epoch. Raises SamgateError when it can't be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(epochs) + 1), [epoch.loss for epoch in epochs], color="#0072B2")
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean loss")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3, which="both")
    drawn = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(drawn, format="png", dpi=_DPI)
    try:
        atomic_write_bytes(path, drawn.getvalue())
    except OSError as error:
        raise SamgateError(f"{path} can't be written: {error.strerror}") from error
