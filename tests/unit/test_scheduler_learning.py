"""What the scheduler learns from how calls go: load prices, margins, lateness, paces."""

from __future__ import annotations

import pytest

from samgate.scheduling.request import Reason, Refused, Ticket
from scheduling_support import FAST, admit, busily, decode, encode, only, profile, refuse, request, scheduler


def test_the_load_price_rises_on_busy_devices_and_goes_away() -> None:
    core = scheduler()
    calm = admit(core, request(50.0, image="calm"))
    core.close(calm, 0.0, answered=False)
    resting = core.price.value
    busily(core, 16.0)
    assert core.price.value > 1.4 * (0.80 - 0.70) / (0.41 - 0.11)
    loaded = admit(core, request(50.0, core.devices["cpu"]._now, image="loaded"))
    assert (loaded.point.variant, loaded.reason) == ("fast", Reason.LOAD)
    now = core.devices["cpu"]._now
    for _ in range(300):
        now += 0.05
        core.price.update(0.0, now)
    assert core.price.value == resting


def test_under_overload_images_are_encoded_only_as_far_as_held_ones_leave_time() -> None:
    core = scheduler(profile(FAST))
    now = 0.0
    encoded = prompted = 0
    # Something that can wait, so that there is a queue.
    admit(core, request(200.0, prompts=20, cached=frozenset({FAST.name})))
    for step in range(6000):  # 60 s: 20 prompts of 10 ms and 80 new images a second
        now = step * 0.01
        held = step % 5 == 0
        cached = frozenset({FAST.name}) if held else frozenset()
        found = core.admit(request(0.5, now, image=str(step), cached=cached), now)
        if isinstance(found, Ticket) and now > 20.0:
            encoded += not held
            prompted += held
        if isinstance(found, Ticket):
            core.close(found, now, answered=False)
        core.price.refuse(0.1, now)
    assert core.price.overloaded
    assert prompted >= 799
    assert encoded == pytest.approx(0.8 * 40 / 0.1, rel=0.15)  # 20% of the time goes to prompts


def test_prediction_errors_become_a_margin_and_are_forgotten() -> None:
    core = scheduler(profile(FAST))
    now = 0.0
    for index in range(40):
        now += 1.0
        ticket = admit(core, request(5.0, now, image=str(index)))
        encode(core, ticket, now)
        core.finish(only(core, now), now + 0.1)
        decode(core, ticket, now + 0.1)
        core.finish(only(core, now + 0.1), now + 0.11)
        core.close(ticket, now + 0.11 + 0.05, answered=True)  # 50 ms more than was said
    fresh = admit(core, request(5.0, now, image="new"))
    assert fresh.margin_s == pytest.approx(0.05, abs=0.001)
    # Prompts of held images don't pay for what encodes are wrong by.
    assert admit(core, request(5.0, now, image="held", cached=frozenset({FAST.name}))).margin_s == 0.0
    assert admit(core, request(5.0, now + 60.0, image="later")).margin_s == 0.0


def test_what_is_cut_off_at_its_deadline_makes_those_behind_it_cautious_while_others_wait() -> None:
    core = scheduler(profile(FAST))
    for index in range(20):
        ticket = admit(core, request(0.2, 0.3 * index, image=str(index)))
        work = encode(core, ticket, 0.3 * index)
        core.withdraw(work)
        core.close(ticket, 0.3 * index + 0.2, answered=False)
    now = 6.0
    # An idle server is as fast as ever.
    assert admit(core, request(0.115, now, image="idle")).margin_s == 0.0
    waiting = admit(core, request(0.5, now, image="busy"))
    assert waiting.margin_s == pytest.approx(0.1 * 0.11, rel=0.01)
    held = request(0.5, now, image="held", cached=frozenset({FAST.name}))
    assert admit(core, held).margin_s == 0.0
    # What they are cautious of is no reason to say that no idle server could do it.
    assert refuse(core, request(0.115, now, image="tight")).reason is Refused.BUSY


def test_a_client_that_leaves_early_says_nothing_of_lateness() -> None:
    core = scheduler(profile(FAST))
    for index in range(20):
        core.close(admit(core, request(0.2, 0.3 * index, image=str(index))), 0.3 * index + 0.1, answered=False)
    admit(core, request(0.5, 6.0, image="idle"))
    assert admit(core, request(0.5, 6.0, image="busy")).margin_s == 0.0


def test_encoder_calls_have_a_pace_of_their_own() -> None:
    core = scheduler(profile(FAST))
    now = 0.0
    for index in range(40):
        now += 0.5
        ticket = admit(core, request(5.0, now, image=str(index)))
        encode(core, ticket, now)
        core.finish(only(core, now), now + 0.2)  # twice the profile's time
        for call in range(10):
            decode(core, ticket, now + 0.2 + 0.01 * call)
            core.finish(only(core, now + 0.2 + 0.01 * call), now + 0.21 + 0.01 * call)
        core.close(ticket, now + 0.3, answered=False)
    device = core.devices["cpu"]
    assert device.pace("encode", now) == pytest.approx(2.0, rel=0.1)
    assert device.pace("decode", now) == pytest.approx(1.0, rel=0.1)
    now += 0.5
    held = admit(core, request(5.0, now, image="held", cached=frozenset({FAST.name})))
    core.close(held, now, answered=False)
    assert held.finish - now == pytest.approx(0.01, rel=0.1)
    fresh = admit(core, request(5.0, now, image="fresh"))
    assert fresh.finish - now == pytest.approx(0.21, rel=0.1)
    # An idle server keeps to its profile: a deadline that only the pace is too slow for isn't impossible.
    core.close(fresh, now, answered=False)
    assert refuse(core, request(0.15, now, image="tight")).reason is Refused.BUSY


def test_a_slow_device_is_noticed_and_given_another_chance() -> None:
    core = scheduler(profile(FAST))
    device = core.devices["cpu"]
    now = 0.0
    for index in range(40):
        now += 1.0
        encode(core, admit(core, request(5.0, now, image=str(index))), now)
        core.finish(only(core, now), now + 0.3)
    assert device.pace("encode", now + 0.3) == pytest.approx(3.0, rel=0.1)
    assert admit(core, request(5.0, now + 0.3, image="next")).finish - now - 0.3 > 0.25
    assert device.pace("encode", now + 240.0) == pytest.approx(1.0, abs=0.01)


def test_a_profile_that_was_too_slow_is_outgrown() -> None:
    core = scheduler(profile(FAST))
    assert refuse(core, request(0.08)).reason is Refused.DEADLINE
    now = 0.0
    for index in range(40):
        now += 0.2
        earlier = admit(core, request(5.0, now, image=str(index)))
        encode(core, earlier, now)
        core.finish(only(core, now), now + 0.03)
        decode(core, earlier, now + 0.03)
        core.finish(only(core, now + 0.03), now + 0.033)
        core.close(earlier, now + 0.033, answered=False)
    ticket = admit(core, request(0.08, now + 0.1, image="next"))
    assert ticket.finish - now - 0.1 == pytest.approx(0.033, abs=0.004)
    encode(core, ticket, now + 0.1)
    step = core.step(now + 0.1)
    assert (len(step.start), step.dropped) == (1, [])  # what was admitted on what has been seen isn't given up
