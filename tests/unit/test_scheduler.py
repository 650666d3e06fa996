"""What the scheduler decides: routing, admission, order, batches, shares – each by a case that can be done by hand."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest

from samgate.scheduling.core import Scheduler
from samgate.scheduling.policy import POLICIES
from samgate.scheduling.profile import Line
from samgate.scheduling.queue import Priority, Work
from samgate.scheduling.request import Job, Reason, Refusal, Refused, Ticket
from scheduling_support import (
    FAST,
    PAIR,
    SLOW,
    admit,
    busily,
    decode,
    encode,
    only,
    point,
    profile,
    refuse,
    request,
    scheduler,
)


def test_the_most_accurate_that_meets_the_deadline_answers() -> None:
    relaxed, tight = admit(scheduler(), request(1.0)), admit(scheduler(), request(0.3))
    assert (relaxed.point.variant, relaxed.reason) == ("slow", Reason.MOST_ACCURATE)
    assert (tight.point.variant, tight.reason) == ("fast", Reason.DEADLINE)
    assert relaxed.finish == pytest.approx(0.41)
    assert tight.finish == pytest.approx(0.11)


def test_a_deadline_that_no_idle_server_meets_is_told_the_smallest_that_one_does() -> None:
    refusal = refuse(scheduler(), request(0.1))
    assert refusal.reason is Refused.DEADLINE
    assert refusal.smallest_s == pytest.approx(0.11)
    assert admit(scheduler(), request(0.115)).point.variant == "fast"


def test_named_variants_and_floors_are_honoured() -> None:
    named = admit(scheduler(), request(1.0, points=frozenset({FAST.name})))
    assert (named.point.variant, named.reason) == ("fast", Reason.NAMED)
    assert admit(scheduler(), request(0.5, min_accuracy=0.75)).point.variant == "slow"
    assert refuse(scheduler(), request(0.3, min_accuracy=0.75)).reason is Refused.DEADLINE
    assert refuse(scheduler(), request(9.0, min_accuracy=0.9)).best_accuracy == pytest.approx(0.80)


def test_a_cached_embedding_costs_nothing_to_encode() -> None:
    ticket = admit(scheduler(), request(0.05, cached=frozenset({SLOW.name})))
    assert (ticket.point.variant, ticket.encodes) == ("slow", False)
    assert ticket.finish == pytest.approx(0.01)


def test_queued_work_moves_requests_to_faster_variants() -> None:
    core = scheduler()
    chosen = []
    for index in range(4):
        ticket = admit(core, request(1.15, image=str(index)))
        encode(core, ticket)
        chosen.append((ticket.point.variant, ticket.reason))
    assert chosen[0] == ("slow", Reason.MOST_ACCURATE)
    assert chosen[-1] in {("fast", Reason.DEADLINE), ("fast", Reason.LOAD)}


def test_what_finds_no_room_is_refused() -> None:
    core = scheduler()
    chosen = []
    for index in range(8):
        found = core.admit(request(0.9, image=str(index)), 0.0)
        chosen.append(found.point.variant if isinstance(found, Ticket) else found.reason.value)
        if isinstance(found, Ticket):
            encode(core, found)
    # 0.4 s each and 10 ms a prompt: a third, even of the fast one, would make one of them late.
    assert chosen == ["slow", "slow", *["busy"] * 6]


def test_no_admitted_request_is_pushed_past_its_deadline() -> None:
    core = scheduler(profile(SLOW))
    first = admit(core, request(0.85, image="a"))
    encode(core, first)
    second = admit(core, request(0.84, image="b"))
    encode(core, second)
    # A third with an earlier deadline could be on time itself, but one of the two would not.
    refusal = refuse(core, request(0.6, image="c"))
    assert refusal.reason is Refused.BUSY
    assert 0.0 < (refusal.retry_after_s or 0.0) < 0.6


def test_clicks_delay_an_image_on_a_shared_device_only_when_they_are_more_urgent() -> None:
    def after_clicks(seconds: float) -> Ticket | Refusal:
        core = scheduler(replace(profile(FAST), shared=True))
        for _ in range(10):
            decode(core, admit(core, request(seconds, encodes=0)))
        return core.admit(request(0.15, image="another"), 0.0)

    image = after_clicks(5.0)
    assert isinstance(image, Ticket)
    assert image.finish == pytest.approx(0.11)
    refused = after_clicks(0.12)
    assert isinstance(refused, Refusal)
    assert refused.reason is Refused.BUSY


def test_identical_images_are_one_encode_that_inherits_the_urgency() -> None:
    core = scheduler(profile(SLOW))
    blocker = encode(core, admit(core, request(2.0, image="x")))
    assert only(core, 0.0).works == [blocker]
    patient = admit(core, request(5.0, image="same"))
    work = encode(core, patient)
    other = encode(core, admit(core, request(3.0, image="other")))
    hurried = admit(core, request(1.0, image="same"))
    assert hurried.joined
    assert not hurried.encodes
    core.finish(core.devices["cpu"].running["encode"][0], 0.4)
    assert only(core, 0.4).works == [work]
    assert work.deadline < other.deadline
    for ticket in (patient, hurried):
        core.close(ticket, 0.5, answered=False)
    assert core.devices["cpu"].timeline.total[0] == pytest.approx(0.4)  # the other's


def test_batches_hold_one_key_up_to_the_limit_and_never_cost_the_head_its_deadline() -> None:
    device = profile(point("v", decode=Line(0.01, 0.01), max_prompts=4))
    core = scheduler(device)

    def ask(seconds: float, key: str = "k") -> Work[Job]:
        return decode(core, admit(core, request(seconds, encodes=0)), key=key)

    tight = ask(0.035)
    works = [ask(5.0 + index) for index in range(6)]
    other = ask(4.0, key="other")
    first = only(core, 0.0)
    assert first.works[0] is tight
    assert first.size == 2  # 30 ms; three would take 40
    core.finish(first, 0.03)
    assert only(core, 0.03).works == [other]
    core.finish(core.devices["cpu"].running["decode"][0], 0.05)
    assert only(core, 0.05).works == works[1:5]


@pytest.mark.parametrize(
    ("size", "images", "together"),
    [(1, 2, 2), (3, 2, 2), (3, 4, 4), (8, 16, 2), (5, 16, 3), (16, 2, 1)],
)
def test_a_call_has_no_more_images_than_it_takes_and_no_more_prompts(size: int, images: int, together: int) -> None:
    core = scheduler(profile(point("v", decode_images=images, max_prompts=16)))
    for _ in range(6):
        decode(core, admit(core, request(60.0, encodes=0, prompts=size)), size=size)
    batch = only(core, 0.0)
    assert len(batch.works) == together
    assert batch.size == size * together


def test_bulk_work_goes_in_chunks_when_nothing_interactive_waits() -> None:
    core = scheduler(replace(PAIR, shared=True))
    everything = admit(core, request(60.0, prompts=100, cached=frozenset({SLOW.name}), priority=Priority.BULK))
    assert core.chunk(everything.point, Priority.BULK) == 4  # of 10 ms each, 40 ms at a time
    chunk = decode(core, everything, size=4, key="bulk")
    assert only(core, 0.0).works == [chunk]
    following = decode(core, everything, size=4, key="bulk")
    click = admit(core, request(0.2, cached=frozenset({SLOW.name})))
    assert click.finish == pytest.approx(0.05)  # the chunk's rest and its own
    urgent = decode(core, click)
    core.finish(core.devices["cpu"].running["decode"][0], 0.04)
    assert only(core, 0.04).works == [urgent]
    core.finish(core.devices["cpu"].running["decode"][0], 0.05)
    assert only(core, 0.05).works == [following]


def test_what_an_open_ended_request_adds_waits_for_all_that_was_promised() -> None:
    core = scheduler(profile(SLOW))
    held: dict[str, Any] = {"cached": frozenset({SLOW.name}), "priority": Priority.BULK}
    ended = admit(core, request(1.0, prompts=4, open_ended=True, **held))  # as tight as 100 prompts couldn't be
    assert refuse(core, request(0.9, prompts=100, **held)).reason is Refused.DEADLINE
    first = decode(core, ended, size=4, key="first")
    assert only(core, 0.0).works == [first]
    reserved_s = core.devices["cpu"].timeline.total[2]
    assert reserved_s == pytest.approx(0.0)
    more = decode(core, ended, size=4, key="more")
    assert core.devices["cpu"].timeline.total[2] == reserved_s
    promised = admit(core, request(60.0, now=0.01, prompts=8, **held))
    pieces = [decode(core, promised, 0.01, size=4, key=f"promised {index}") for index in range(2)]
    click = decode(core, admit(core, request(0.5, now=0.02, cached=frozenset({SLOW.name}))), 0.02, key="click")
    order = []
    for index in range(4):
        now = 0.04 * (index + 1)
        core.finish(core.devices["cpu"].running["decode"][0], now)
        order += only(core, now).works
    assert order == [click, *pieces, more]


def test_an_open_ended_request_that_takes_its_time_says_nothing_of_predictions() -> None:
    core = scheduler(profile(SLOW))
    held: dict[str, Any] = {"cached": frozenset({SLOW.name}), "priority": Priority.BULK}
    limit = core.limit.limit
    for index in range(20):
        ended = admit(core, request(1.0, now=2.0 * index, prompts=4, open_ended=True, **held))
        core.close(ended, 2.0 * index + 1.5, answered=True)
    assert core.limit.limit == limit


def test_admitted_bulk_work_keeps_its_deadline() -> None:
    core = scheduler(profile(SLOW))
    bulk = admit(core, request(1.5, prompts=100, cached=frozenset({SLOW.name}), priority=Priority.BULK))
    assert bulk.finish == pytest.approx(1.0)
    encode(core, admit(core, request(5.0, image="one")))
    assert refuse(core, request(5.0, image="two")).reason is Refused.BUSY


def test_a_promise_to_bulk_work_that_cannot_be_kept_keeps_no_click_waiting() -> None:
    core = scheduler(profile(SLOW))
    held: dict[str, Any] = {"cached": frozenset({SLOW.name})}
    lost = admit(core, request(1.5, prompts=100, priority=Priority.BULK, **held))
    decode(core, lost, size=4, key="bulk")
    core.finish(only(core, 0.0), 0.4)  # ten times as long as it should: the other 96 prompts won't be done by 1.5
    assert core.devices["cpu"].pace("decode", 0.4) > 2.0
    assert admit(core, request(1.0, 0.4, **held)).finish < 0.5
    # What can be kept is: 136 prompts by 3.9 leave no time for ten more.
    kept = request(3.5, 0.4, prompts=40, priority=Priority.BULK, **held)
    assert admit(core, kept).finish < 3.9
    assert refuse(core, request(3.5, 0.4, prompts=10, image="other", **held)).reason is Refused.BUSY


def test_hopeless_work_is_dropped_and_told_so() -> None:
    core = scheduler(profile(FAST))
    blocker, late = (
        encode(core, admit(core, request(1.0, image="a"))),
        encode(core, admit(core, request(0.3, image="b"))),
    )
    first = only(core, 0.0)
    assert first.works == [late]
    core.finish(first, 0.95)
    step = core.step(0.95)
    assert step.dropped == [blocker]
    assert step.start == []


def test_a_batch_waits_for_company_only_while_that_can_pay() -> None:
    line = Line(0.02, 0.001)
    core = scheduler(profile(point("v", decode=line, max_prompts=4)))
    alone = decode(core, admit(core, request(1.0, encodes=0)))
    assert only(core, 0.0).works == [alone]  # nothing says that another will come
    core.finish(core.devices["cpu"].running["decode"][0], 0.02)
    now = 0.02
    for _ in range(100):  # 500 a second
        now += 0.002
        decode(core, admit(core, request(1.0, now, encodes=0)), now)
        step = core.step(now)
        for batch in step.start:
            core.finish(batch, now)
    for batch in core.step(now + 0.05).start:
        core.finish(batch, now + 0.05)
    now += 0.06
    decode(core, admit(core, request(1.0, now, encodes=0)), now)
    step = core.step(now)
    assert step.start == []
    assert step.wake is not None
    assert now < step.wake <= now + 0.02
    assert core.step(step.wake).start


def test_one_clients_flood_leaves_room_for_another() -> None:
    core = scheduler(profile(FAST))
    now, admitted = 0.0, {"flood": 0, "calm": 0}
    busy_until = 0.0
    for step in range(2000):
        now = step * 0.01  # 100 requests a second for a device that does 9
        client = "calm" if step % 50 == 0 else "flood"
        found = core.admit(request(1.0, now, image=str(step), client=client), now)
        if isinstance(found, Ticket):
            admitted[client] += 1
            encode(core, found, now)
        if now >= busy_until:
            for running in list(core.devices["cpu"].running["encode"]):
                core.finish(running, now)
                for work in running.works:
                    core.close(work.payload.ticket, now, answered=True)
            for batch in core.step(now).start:
                busy_until = now + 0.1
                assert batch.stage == "encode"
    assert admitted["calm"] >= 36  # of 40, all but those of the first moments
    assert admitted["flood"] >= 100


@pytest.mark.parametrize(
    ("name", "seconds", "expected"),
    [
        ("static-fast", 5.0, "fast"),
        ("static-accurate", 0.05, "slow"),
        ("greedy", 0.2, "fast"),
        ("greedy", 1.0, "slow"),
        ("infaas", 1.0, "slow"),
    ],
)
def test_baselines_choose_by_their_rule_and_refuse_nobody(name: str, seconds: float, expected: str) -> None:
    core = scheduler(policy=POLICIES[name])
    for index in range(20):
        ticket = admit(core, request(seconds, image=str(index)))
        if name != "infaas" or index == 0:
            assert ticket.point.variant == expected


def test_infaas_leaves_an_overloaded_device_to_the_fastest() -> None:
    core = scheduler(policy=POLICIES["infaas"])
    assert admit(core, request(5.0, image="first")).point.variant == "slow"
    busily(core, 5.0)
    assert admit(core, request(5.0, core.devices["cpu"]._now, image="last")).point.variant == "fast"


def test_a_device_that_is_down_is_not_chosen() -> None:
    core = Scheduler({"a": PAIR, "b": PAIR}, 0.0)
    core.devices["a"].available = False
    assert admit(core, request(1.0)).device.name == "b"
    core.devices["b"].available = False
    assert refuse(core, request(1.0)).reason is Refused.DOWN


@pytest.mark.parametrize("runs", [True, False])
def test_what_a_piece_of_work_carries_goes_with_its_request(runs: bool) -> None:
    class Load:
        """An image, say."""

    core = scheduler()
    ticket, load = admit(core, request(1.0)), Load()
    carried = weakref.ref(load)
    gc.disable()  # which would find it in the end: pixels should not wait for that
    try:
        work = core.submit(ticket, "encode", 1, "image", load, 0.0)
        if runs:
            core.finish(only(core, 0.0), 0.4)
        else:
            core.withdraw(work)
        core.close(ticket, 0.4, answered=runs)
        del ticket, work, load
        core.step(0.4)
        assert carried() is None
    finally:
        gc.enable()
