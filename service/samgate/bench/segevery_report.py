"""The benchmark of SegmentEverything in figures: recall and speed against upstream, and the floors. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from samgate.bench.report import Verdict
from samgate.evaluation.everything import Answer
from samgate.evaluation.everything_summary import difference_figures, recall_figures, speed_figures
from samgate.evaluation.recall import Found

_MEASURE = "AR@1000"
_SHOWN = ("AR@10", "AR@100", "AR@1000")
_IN_TIME = 0.95
"""Share of answers that have to be in time for a strategy to fit in it."""
COLUMNS = ("", *_SHOWN, "AR@1000 less upstream's", "median s", "first masks s", "masks an image", "speed")


@dataclass(frozen=True, slots=True)
class Floor:
    """What is asked of ``strategy``; None is nothing.

    Attributes:
        max_loss: how far its AR@1000 may be below upstream's on the same images (0 to 1).
        min_speed: upstream's seconds over its, in sum over the images that both have answered in this run.
        best_within_s: it has the highest AR@1000 of all strategies that answer within so many seconds.
        max_first_s: the 95th percentile of the time to its first masks.
    """

    strategy: str
    max_loss: float | None = None
    min_speed: float | None = None
    best_within_s: float | None = None
    max_first_s: float | None = None


FLOORS = (
    Floor("grid", max_loss=0.005, min_speed=20),
    Floor("hierarchical", max_loss=0.015, min_speed=60),
    Floor("object_aware", min_speed=150),
    Floor("auto", best_within_s=2.0, max_first_s=0.8),
)


@dataclass(slots=True)
class Contender:
    """What one of those compared has answered, by the image's number.

    ``found`` has the labelled images, ``answers`` those answered in this run; masks that upstream gave in an earlier
    one are in ``found`` alone.
    """

    name: str
    answers: dict[int, Answer] = field(default_factory=dict)
    found: dict[int, Found] = field(default_factory=dict)

    def recall(self) -> float | None:
        """AR@1000 over all labelled images, None without any."""
        return float(recall_figures(list(self.found.values()))[_MEASURE]["ar"]) if self.found else None

    def fits(self, seconds: float) -> bool:
        """Whether at least 95% of the answers are there within ``seconds``."""
        in_time = [not one.late and one.seconds <= seconds for one in self.answers.values()]
        return bool(np.mean(in_time) >= _IN_TIME)

    def first_s(self) -> float:
        """95th percentile of the time to the first masks; infinite where more answers have none."""
        waits = [np.inf if one.first_s is None else one.first_s for one in self.answers.values()]
        return float(np.percentile(waits, 100 * _IN_TIME, method="higher"))

    def figures(self, upstream: Contender) -> dict[str, Any]:
        """For JSON: recall, what it is less upstream's on the images that both have, and speed (None without any)."""
        both = sorted(self.found.keys() & upstream.found.keys())
        pairs = [one.found for one in (self, upstream)]
        less = difference_figures(*([found[index] for index in both] for found in pairs)) if both else None
        return {
            "recall": recall_figures(list(self.found.values())) if self.found else None,
            "labelled_images": len(self.found),
            "less_upstream": less,
            "compared_images": len(both),
            **speed_figures(list(self.answers.values())),
            "speed": _rounded(speed(self, upstream)),
        }


def speed(contender: Contender, upstream: Contender) -> float | None:
    """Upstream's seconds over the contender's, in sum over what both answered; None if that is nothing."""
    both = contender.answers.keys() & upstream.answers.keys()
    theirs, ours = (sum(one.answers[index].seconds for index in both) for one in (upstream, contender))
    return theirs / ours if ours else None


def row(contender: Contender, upstream: Contender, fullest: Contender) -> tuple[str, ...]:
    """A line of the table with :data:`COLUMNS`; ``fullest`` has answered all images."""
    figures = contender.figures(upstream)
    recalls = [f"{figures['recall'][name]['ar']:.3f}" if figures["recall"] else "" for name in _SHOWN]
    less, factor = figures["less_upstream"], figures["speed"]
    own = contender is upstream
    first = figures["median_first_s"]
    part = f" ({len(contender.found)} of {len(fullest.found)} labelled images)"
    return (
        contender.name + (part if len(contender.found) < len(fullest.found) else ""),
        *recalls,
        _points(less[_MEASURE]) if less and not own else "",
        f"{figures['median_s']:.2f}",
        "–" if first is None else f"{first:.2f}",
        f"{figures['masks']:.0f}" + (f" ({figures['late']} late)" if figures["late"] else ""),
        "" if factor is None else f"{factor:.1f}×",
    )


def verdicts(contenders: Sequence[Contender], upstream: Contender, floors: Sequence[Floor] = FLOORS) -> list[Verdict]:
    """How those of ``floors`` were met whose strategies are among ``contenders`` and that could be measured."""
    by_name = {contender.name: contender for contender in contenders}
    found: list[Verdict] = []
    for floor in floors:
        if floor.strategy in by_name:
            found += _verdicts_of(floor, by_name[floor.strategy], contenders, upstream)
    return found


def _verdicts_of(
    floor: Floor, contender: Contender, contenders: Sequence[Contender], upstream: Contender
) -> list[Verdict]:
    verdicts: list[Verdict] = []
    figures, name = contender.figures(upstream), floor.strategy
    if floor.max_loss is not None and figures["less_upstream"]:
        less = figures["less_upstream"][_MEASURE]
        claim = f"{name}: AR@1000 at most {100 * floor.max_loss:g} points below upstream's"
        verdicts.append(Verdict(claim, _points(less), less["ar"] >= -floor.max_loss))
    factor = speed(contender, upstream)
    if floor.min_speed is not None and factor is not None:
        claim = f"{name}: at least {floor.min_speed:g}× upstream's speed"
        verdicts.append(Verdict(claim, f"{factor:.1f}×", factor >= floor.min_speed))
    own = contender.recall()
    if floor.best_within_s is not None and own is not None:
        verdicts.append(_best(name, own, contender, contenders, floor.best_within_s))
    if floor.max_first_s is not None:
        claim, first_s = f"{name}: first masks within {floor.max_first_s:g} s (p95)", contender.first_s()
        verdicts.append(Verdict(claim, f"{first_s:.2f} s", first_s <= floor.max_first_s))
    return verdicts


def _best(name: str, own: float, contender: Contender, contenders: Sequence[Contender], within_s: float) -> Verdict:
    rivals = [(one.recall() or 0.0, one.name) for one in contenders if one is not contender and one.fits(within_s)]
    best, rival = max(rivals, default=(0.0, "no other"))
    fits = contender.fits(within_s)
    claim = f"{name}: the highest AR@1000 of all that fit in {within_s:g} s"
    value = f"{own:.3f}, {rival} {best:.3f}" if rivals else f"{own:.3f}, no other fits"
    return Verdict(claim, value if fits else f"{value}; doesn't fit itself", fits and own >= best)


def _points(less: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in less["ci95"])
    return f"{100 * less['ar']:+.1f} points ({low:+.1f} to {high:+.1f})"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
