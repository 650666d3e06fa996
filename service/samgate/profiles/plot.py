"""The front of accuracy over latency as a picture. Needs matplotlib, which the extra ``plots`` installs."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from samgate.errors import ProfileError
from samgate.profiles.front import COLD_MEGAPIXELS, cold_s, front
from samgate.profiles.stored import StoredProfile
from samgate.scheduling.profile import PROMPT_KINDS, PromptKind
from samgate.weights.home import atomic_write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Blue and vermilion of Okabe and Ito's palette, which the colour-blind tell apart; shapes differ, too.
_STYLES: dict[PromptKind, tuple[str, str]] = {"box": ("#0072B2", "o"), "point": ("#D55E00", "s")}
_DPI = 150
_MIN_SPAN = 0.02


def require_matplotlib() -> None:
    """Raises ProfileError with the way to install it where it is missing."""
    if find_spec("matplotlib") is None:
        raise ProfileError("a plot needs matplotlib: pip install 'samgate[plots]'")


def plot_profile(profile: StoredProfile, path: Path) -> None:
    """Writes a PNG: mIoU for boxes and for points against the time of a cold request, one panel each. Filled points are
    the front, hollow ones are beaten by another. Raises ProfileError without matplotlib or when it can't be written."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    panels = figure.subplots(len(PROMPT_KINDS), 1, sharex=True, squeeze=False)[:, 0]
    for axes, kind in zip(panels, PROMPT_KINDS, strict=True):
        _panel(axes, profile, kind)
    panels[-1].set_xlabel(f"one cold request at the 95th percentile, ms ({COLD_MEGAPIXELS:g} megapixels, one prompt)")
    machine = profile.fingerprint
    figure.suptitle(
        f"{machine.cpu}, {machine.cores} cores, {machine.engine} {machine.runtime}" if machine else "published figures",
        fontsize="medium",
    )
    drawn = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(drawn, format="png", dpi=_DPI)
    try:
        atomic_write_bytes(path, drawn.getvalue())
    except OSError as error:
        raise ProfileError(f"{path} can't be written: {error.strerror}") from error


def _panel(axes: Axes, profile: StoredProfile, kind: PromptKind) -> None:
    device = profile.device
    found = [(1e3 * cold_s(device, point), point.accuracy[kind]) for point in device.points]
    colour, marker = _STYLES[kind]
    on_front = front(found)
    steps = [found[index] for index in on_front]
    axes.step(*zip(*steps, strict=True), where="post", color=colour, linewidth=1, alpha=0.6, zorder=1)
    middle = (min(found)[0] + max(found)[0]) / 2
    for index, (latency, accuracy) in enumerate(found):
        face = colour if index in on_front else "white"
        axes.plot(latency, accuracy, marker, color=colour, markerfacecolor=face, markersize=8, zorder=2)
        # Names stay inside of the panel, and beside the steps: these come from the left and below.
        right = latency > middle
        axes.annotate(
            device.points[index].name,
            (latency, accuracy),
            xytext=(-7, 5) if right else (7, -5),
            textcoords="offset points",
            ha="right" if right else "left",
            va="bottom" if right else "top",
            fontsize="small",
        )
    axes.set_ylabel(f"mIoU, {kind} prompts")
    axes.margins(0.18, 0.2)
    # Differences of a thousandth shouldn't look like much.
    low, high = axes.get_ylim()
    room = max(0.0, _MIN_SPAN - (high - low)) / 2
    axes.set_ylim(low - room, high + room)
    axes.grid(alpha=0.25)
