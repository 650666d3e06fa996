"""Asks a gateway for everything in labelled images, with several strategies in turn, and scores what comes back."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from samgate.client import AnswerInfo, Client, EverythingMask
from samgate.client.readers import EverythingCollector
from samgate.errors import DeadlineExceeded, Infeasible, InvalidArgument, Overloaded
from samgate.evaluation.dataset import DatasetError, LabelledImage
from samgate.evaluation.recall import Found, Proposals, score

_MARK_BYTES = 16
_GRID = re.compile(r"grid-(?P<side>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to segment everything: ``options`` are keywords of :meth:`samgate.client.Client.everything`.

    With ``deadline_s`` an answer that isn't there in time counts as one without masks. ``detector``: whether the server
    has to serve one.
    """

    name: str
    options: Mapping[str, Any]
    deadline_s: float | None = None
    detector: bool = False


STRATEGIES: tuple[Strategy, ...] = (
    Strategy("grid", {"points_per_side": 32}),
    Strategy("grid-16", {"points_per_side": 16}),
    Strategy("hierarchical", {"strategy": "hierarchical"}),
    # With no parameter of ours.
    Strategy("hierarchical-tinysam", {"strategy": "hierarchical", "covering_stages": 1, "neighbours_per_point": 0}),
    Strategy("aop", {"strategy": "aop"}),
    Strategy("object_aware", {"strategy": "object_aware"}, detector=True),
    Strategy("auto", {"strategy": "auto"}, deadline_s=2.0),
)
"""Those that the commands know by name. The first is what others are compared with."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One image's masks, the seconds from the call to the last of them and to the first (None without any), the
    image's (height, width), and what answered. One that is ``late`` has nothing but its ``seconds``."""

    proposals: Proposals
    seconds: float
    first_s: float | None = None
    size: tuple[int, int] | None = None
    info: AnswerInfo | None = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """What ``strategy`` found of ``image``."""

    strategy: Strategy
    image: LabelledImage
    answer: Answer
    found: Found


def chosen_strategies(
    names: Sequence[str], deadline_s: float | None = None, known: Sequence[Strategy] = STRATEGIES
) -> list[Strategy]:
    """The strategies of these names, for none all ``known`` ones that need no detector, with ``deadline_s`` where it is
    given.

    ``grid-N`` is the grid with N points a side, for any N. Raises :class:`~samgate.errors.InvalidArgument` for an
    unknown name.
    """
    by_name = {strategy.name: strategy for strategy in known}
    for name in names:
        if (grid := _GRID.fullmatch(name)) is not None:
            by_name.setdefault(name, Strategy(name, {"points_per_side": int(grid["side"])}))
        elif name not in by_name:
            raise InvalidArgument("strategy", f"must be one of {', '.join(by_name)} or grid-N, is {name!r}")
    chosen = [by_name[name] for name in dict.fromkeys(names)] or [one for one in known if not one.detector]
    return chosen if deadline_s is None else [replace(strategy, deadline_s=deadline_s) for strategy in chosen]


def unseen(image: bytes) -> bytes:
    """``image``, a JPEG, PNG or WebP file, as a file that no cache has: random bytes follow its end, where no decoder
    looks. A server that names embeddings by their image's content has to encode it anew."""
    return image + secrets.token_bytes(_MARK_BYTES)


def segment_everything(client: Client, image: bytes, strategy: Strategy, variant: str = "") -> Answer:
    """Everything in ``image``, which is :func:`unseen` to the server.

    Raises :class:`~samgate.errors.SamgateError`: what the server answers, but not that it can't meet the strategy's
    deadline.
    """
    fresh, collector = unseen(image), EverythingCollector()
    options = {**strategy.options, "timeout_s": strategy.deadline_s, "variant": variant}
    first_s: float | None = None
    started = time.perf_counter()
    try:
        for event in client.everything_events(fresh, **options):
            if first_s is None and isinstance(event, EverythingMask):
                first_s = time.perf_counter() - started
            collector.add(event)
    except (DeadlineExceeded, Infeasible, Overloaded):
        if strategy.deadline_s is None:
            raise
        return Answer(Proposals((), ()), time.perf_counter() - started, late=True)
    seconds = time.perf_counter() - started
    answer = collector.everything()
    masks = [found.mask for found in answer.masks]
    rles = tuple(mask.rle for mask in masks if mask.rle is not None)
    proposals = Proposals(rles, tuple(mask.predicted_iou for mask in masks))
    return Answer(proposals, seconds, first_s, answer.size, answer.info)


def evaluate_everything(
    client: Client, images: Sequence[LabelledImage], strategies: Sequence[Strategy], variant: str = ""
) -> Iterator[Scored]:
    """Every strategy's answer to every image, image by image; which strategy comes first changes each time.

    Raises :class:`~samgate.errors.SamgateError`: what :func:`segment_everything` raises, or DatasetError for an image
    whose size isn't what the data set says.
    """
    for turn, image in enumerate(images):
        data = image.path.read_bytes()
        for index in range(len(strategies)):
            strategy = strategies[(turn + index) % len(strategies)]
            answer = segment_everything(client, data, strategy, variant)
            check_size(image, answer.size)
            yield Scored(strategy, image, answer, score(answer.proposals, image.instances))


def check_size(image: LabelledImage, size: tuple[int, int] | None) -> None:
    """Raises DatasetError if an answer is for an image of another ``size`` (height, width) than is labelled."""
    if size is not None and size != image.size:
        found, said = (f"{width}×{height}" for height, width in (size, image.size))
        raise DatasetError(f"{image.path} is {found} pixels, the data set says {said}")
