"""The batch queue against a naive model of it, and the bounds that keep it small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samgate.errors import Overloaded
from samgate.scheduling.queue import BatchQueue, Priority, Work


def work(name: str = "w", key: str = "a", size: int = 1, deadline: float = 10.0, priority: int = 0) -> Work[str]:
    return Work(name, key, size, deadline, Priority(priority))


def names(batch: list[Work[str]]) -> list[str]:
    return [item.payload for item in batch]


def test_the_earliest_deadline_goes_first_and_takes_mates_of_its_key_along() -> None:
    queue: BatchQueue[str] = BatchQueue(max_batch=3, max_waiting=10)
    for item in (work("late", deadline=9), work("other", "b", deadline=5), work("soon", deadline=4)):
        queue.push(item)
    assert names(queue.pop(0)[0]) == ["soon", "late"]
    assert names(queue.pop(0)[0]) == ["other"]
    assert queue.pop(0) == ([], [])


def test_interactive_work_goes_before_bulk_work_with_an_earlier_deadline() -> None:
    queue: BatchQueue[str] = BatchQueue(max_batch=1, max_waiting=10)
    queue.push(work("bulk", deadline=1, priority=1))
    queue.push(work("click", deadline=9))
    assert names(queue.pop(0)[0]) == ["click"]


def test_a_full_queue_refuses_and_says_when_to_retry() -> None:
    queue: BatchQueue[str] = BatchQueue(max_batch=1, max_waiting=1)
    queue.push(work())
    with pytest.raises(Overloaded, match="1 pieces") as refused:
        queue.push(work())
    assert refused.value.retry_after_s


def test_work_larger_than_a_batch_goes_alone() -> None:
    queue: BatchQueue[str] = BatchQueue(max_batch=4, max_waiting=10)
    queue.push(work("large", size=9, deadline=1))
    queue.push(work("small"))
    assert names(queue.pop(0)[0]) == ["large"]


def test_nothing_grows_under_load_that_never_lets_up() -> None:
    queue: BatchQueue[str] = BatchQueue(max_batch=1, max_waiting=10)
    queue.push(work())
    for step in range(5000):
        fresh = work(key=str(step))
        queue.push(fresh)
        if step % 2:
            queue.cancel(fresh)
        else:
            queue.pop(0)
    assert len(queue._all) < 200
    assert sum(map(len, queue._by_key.values())) < 200


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("push"),
            st.sampled_from("abc"),
            st.integers(1, 5),
            st.floats(0, 20),
            st.integers(0, 1),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("pop"), st.floats(0, 20)),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_every_piece_comes_out_once_in_order_and_never_late(operations: list[tuple[object, ...]]) -> None:
    queue: BatchQueue[int] = BatchQueue(max_batch=6, max_waiting=1000)
    pushed: list[Work[int]] = []
    ended: set[int] = set()
    for operation in operations:
        match operation:
            case ("push", str(key), int(size), float(deadline), int(priority)):
                item = Work(len(pushed), key, size, deadline, Priority(priority))
                pushed.append(item)
                queue.push(item)
            case ("cancel", int(index)) if index < len(pushed):
                assert queue.cancel(pushed[index]) == (index not in ended)
                ended.add(index)
            case ("pop", float(now)):
                alive = [item for item in pushed if item.payload not in ended and item.deadline > now]
                batch, expired = queue.pop(now)
                assert bool(batch) == bool(alive)
                assert all(item.deadline <= now for item in expired)
                if batch:
                    assert batch[0] is min(alive)
                    assert len({item.key for item in batch}) == 1
                    assert len(batch) == 1 or sum(item.size for item in batch) <= 6
                    assert batch == sorted(batch)
                for item in (*batch, *expired):
                    assert item.payload not in ended
                    ended.add(item.payload)
        assert len(queue) == len(pushed) - len(ended)
