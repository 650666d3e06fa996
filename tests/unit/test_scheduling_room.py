"""The demand test against its definition: for every time from a deadline on, what is due by then has to fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from samgate.scheduling.device import STAGES, Batch, Device
from samgate.scheduling.profile import DeviceProfile, Line
from samgate.scheduling.queue import Priority, Work
from samgate.scheduling.view import DECODE, ENCODE, View
from simulation_support import point

SECONDS = st.floats(0.01, 3.0)
WORK = st.tuples(st.sampled_from((ENCODE, DECODE)), SECONDS, st.floats(0.001, 0.4))


def room_by_definition(view: View, row: int, slot: int) -> float:
    """As ``View.room`` says it, slot by slot."""
    due, left, other = view.timeline.due, view.left, 1 - row
    until = (view.timeline.edges - view.now) * view.instances / view.pace
    if not view.shared:
        return float(min(until[s] - due[row, s] - left[row] for s in range(slot, len(until))))
    begins = view.timeline.slot(view.device.running_due(STAGES[other]))
    rooms = []
    for s in range(slot, len(until)):
        demand = due[ENCODE, s] + due[DECODE, s] + left[row]
        rooms.append(until[s] - demand - (left[other] if s >= begins else 0.0))
        if row == DECODE:
            own = due[DECODE, s] + left[DECODE]
            rooms.append(until[s] - own - min(own, left[ENCODE]))
    return float(min(rooms))


@given(st.lists(WORK, max_size=12), st.lists(WORK, max_size=2, unique_by=lambda one: one[0]), SECONDS, st.booleans())
@example(held=[(DECODE, 0.2, 0.12)], running=[(ENCODE, 3.0, 0.4)], seconds=0.2, shared=True)  # twice 0.12 s is too much
def test_room_is_what_the_definition_says_up_to_what_is_wanted(
    held: list[tuple[int, float, float]], running: list[tuple[int, float, float]], seconds: float, shared: bool
) -> None:
    device = Device("cpu", DeviceProfile((point(),), 0.0, 1, shared), 100, 0.0)
    for row, due, work in held:
        device.timeline.reserve(row, device.timeline.slot(due), work)
    for row, due, work in running:
        piece = Work(None, "k", 1, due, Priority.INTERACTIVE, 0.0)
        device.start(Batch("cpu", STAGES[row], "a:x", [piece], Line(0.0, work), 0.0, work))
    view = View(device, 0.0)
    slot = view.slot(seconds)
    # One view answers for many points: what it keeps must not depend on what was asked before.
    for wanted in (0.01, 0.1, 0.5, 2.0):
        for row in (ENCODE, DECODE):
            expected = max(0.0, wanted - room_by_definition(view, row, slot))
            assert max(0.0, wanted - view.room(row, slot, wanted)) == pytest.approx(expected, abs=1e-9)
    assert np.all(view.timeline.due >= 0)
