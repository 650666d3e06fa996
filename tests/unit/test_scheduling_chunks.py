"""How many prompts of SegmentEverything one call has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from samgate.scheduling.plans import chunk_size
from samgate.scheduling.profile import Line
from scheduling_support import point


def test_chunks_are_as_long_as_may_be_waited_for() -> None:
    assert chunk_size(point("v", decode=Line(0.004, 0.01)), 0.04) == 3
    assert chunk_size(point("v", decode=Line(0.1, 0.01)), 0.04) == 1
    assert chunk_size(point("v", decode=Line(0.0, 0.0001)), 0.04) == 16


@pytest.mark.parametrize(("together", "expected"), [(1, 7), (2, 6), (3, 6), (4, 4), (8, 8), (32, 16)])
def test_chunks_are_filled(together: int, expected: int) -> None:
    """A call with room to spare takes as long as a full one."""
    assert chunk_size(replace(point("v", decode=Line(0.0, 0.005)), together=together), 0.036) == expected
