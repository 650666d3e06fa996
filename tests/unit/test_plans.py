"""What requests take at a point: images that are held or on their way cost nothing, shapes are calculated once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from samgate.scheduling.device import Device
from samgate.scheduling.plans import Cost, Costs, Plan, plans_for
from samgate.scheduling.profile import Line
from samgate.scheduling.queue import Priority
from samgate.scheduling.request import Encode, Request
from samgate.scheduling.timeline import Timeline
from samgate.scheduling.view import View
from scheduling_support import point, profile

SLOW = point("slow", encode=0.4, decode=Line(0.01, 0.02), box=0.80)
FAST = point("fast", encode=0.1, decode=Line(0.01, 0.02), box=0.70)
PROFILE = profile(SLOW, FAST)
COLD = Request(0.0, 1.0, "box", 1, image="photo")


def costs(waiting: tuple[int, int] = (0, 0), request: Request = COLD) -> tuple[Cost, ...]:
    return Costs(PROFILE.points, {SLOW.name: 4, FAST.name: 4}).of(request, waiting)


def plans(request: Request, coming: dict[str, Encode] | None = None) -> tuple[Plan, ...]:
    view = View(Device("cpu", PROFILE, 100, 0.0), 0.0)
    return tuple(plans_for(request, view, costs(request=request), coming or {}, price=0.1)[0])


def test_a_plan_is_worth_its_accuracy_less_the_price_of_its_time() -> None:
    slow, fast = plans(COLD)
    assert (slow.encode_s, slow.decode_s, slow.cost_s) == pytest.approx((0.4, 0.03, 0.43))
    assert (slow.value, fast.value) == pytest.approx((0.80 - 0.043, 0.70 - 0.013))


def test_what_is_held_or_under_way_is_not_encoded_again() -> None:
    slow, fast = plans(replace(COLD, cached=frozenset({SLOW.name})))
    assert (slow.encodes, slow.encode_s, fast.encodes, fast.encode_s) == (0, 0.0, 1, 0.1)
    timeline = Timeline(3, 0.0)
    coming = Encode((FAST.name, "photo"), 0.2, 0.5, 0.9, timeline, timeline.reserve(0, 0, 0.1))
    slow, fast = plans(COLD, {FAST.name: coming})
    assert (slow.joins, slow.encodes, fast.joins, fast.encodes, fast.encode_s) == (None, 1, coming, 0, 0.0)


def test_of_an_image_with_crops_only_the_whole_is_held() -> None:
    slow, _ = plans(replace(COLD, encodes=5, cached=frozenset({SLOW.name})))
    assert slow.encodes == 4
    assert slow.encode_s == pytest.approx(1.6)


def test_the_best_accuracy_is_of_those_that_may_answer() -> None:
    view = View(Device("cpu", PROFILE, 100, 0.0), 0.0)
    named = replace(COLD, points=frozenset({FAST.name}), min_accuracy=0.75)
    assert plans_for(named, view, costs(), {}, 0.0) == ([], 0.70)
    assert plans_for(replace(COLD, points=frozenset({"x"})), view, costs(), {}, 0.0) == ([], None)


def test_shapes_that_cost_something_else_are_told_apart() -> None:
    known = Costs(PROFILE.points, {SLOW.name: 4, FAST.name: 4})
    shapes = [
        COLD,
        replace(COLD, prompts=7),
        replace(COLD, encodes=0),
        replace(COLD, kind="point"),
        replace(COLD, prompts=7, priority=Priority.BULK),
    ]
    for _ in range(2):  # the second time from memory
        for request in shapes:
            for waiting in ((0, 0), (1, 0), (0, 3)):
                fresh = costs(waiting, request)
                assert known.of(replace(request, image="other", arrival=3.0), waiting) == fresh
    # 7 prompts in calls of 4 are two calls.
    assert known.of(shapes[4], (0, 0))[0].decode_s == pytest.approx(2 * 0.01 + 7 * 0.02)


def test_what_is_remembered_is_bounded() -> None:
    known = Costs(PROFILE.points, {})
    for prompts in range(1, 5000):
        known.of(replace(COLD, prompts=prompts), (0, 0))
    assert len(known._known) <= 1024


def test_what_finds_everything_makes_no_more_masks_than_it_finds() -> None:
    grid = replace(COLD, prompts=1024, everything=True, priority=Priority.BULK)
    found = replace(SLOW, most_masks=300)
    for request, masks in ((grid, 300), (replace(grid, encodes=2), 600), (replace(grid, prompts=100), 100)):
        (capped,) = Costs((found,), {SLOW.name: 4}).of(request, (0, 0))
        (as_many,) = Costs((SLOW,), {SLOW.name: 4}).of(replace(request, prompts=masks), (0, 0))
        assert capped.decode_s == pytest.approx(as_many.decode_s)
    one_by_one = replace(COLD, prompts=1024)
    assert Costs((found,), {}).of(one_by_one, (0, 0))[0].decode_s == costs(request=one_by_one)[0].decode_s
