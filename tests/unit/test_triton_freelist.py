"""Allocation in a fixed range, against a byte-by-byte model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samgate.engines.triton.freelist import FreeList

SIZE = 64


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 10), st.booleans()), max_size=60))
def test_agrees_with_a_bitmap(steps: list[tuple[int, int, bool]]) -> None:
    free, taken = FreeList(SIZE), [False] * SIZE
    out: list[tuple[int, int]] = []
    for length, which, in_parts in steps:
        if which < 6:
            offset = free.take(length)
            fitting = [at for at in range(SIZE - length + 1) if not any(taken[at : at + length])]
            assert offset == (fitting[0] if fitting else None)
            if offset is not None:
                taken[offset : offset + length] = [True] * length
                half = length // 2 if in_parts else 0
                out += [(offset + half, length - half)] + ([(offset, half)] if half else [])
        elif out:
            offset, length = out.pop(which % len(out))
            free.give_back(offset, length)
            taken[offset : offset + length] = [False] * length
        assert free.free_bytes == taken.count(False)
    for offset, length in out:
        free.give_back(offset, length)
    assert free.take(SIZE) == 0


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (5, 10), (10, 5), (60, 10), (-1, 3)])
def test_what_is_free_is_not_given_back(offset: int, length: int) -> None:
    free = FreeList(SIZE)
    assert free.take(12) == 0
    assert free.take(4) == 12
    free.give_back(0, 12)
    with pytest.raises(ValueError, match="free already"):
        free.give_back(offset, length)


def test_nothing_has_no_room() -> None:
    assert FreeList(0).take(1) is None
