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
    queue: BatchQueue[str] = BatchQueue(10)
    for item in (work("late", deadline=9), work("other", "b", deadline=5), work("soon", deadline=4)):
        queue.push(item)
    assert names(queue.form(3)[0]) == ["soon", "late"]
    assert names(queue.form(3)[0]) == ["other"]
    assert queue.form(3) == ([], [])


def test_a_batch_grows_only_while_it_fits() -> None:
    queue: BatchQueue[str] = BatchQueue(10)
    for deadline in (1, 2, 3):
        queue.push(work(str(deadline), size=2, deadline=deadline))
    assert names(queue.form(16, lambda size: size <= 4)[0]) == ["1", "2"]
    assert queue.size_of("a", 16) == 2


def test_hopeless_pieces_are_taken_out_and_told() -> None:
    queue: BatchQueue[str] = BatchQueue(10)
    for deadline in (1, 2, 3, 4):
        queue.push(work(str(deadline), deadline=deadline))
    batch, dropped = queue.form(2, hopeless=lambda one: one.deadline in (1, 3))
    assert (names(batch), names(dropped)) == (["2", "4"], ["1", "3"])
    assert len(queue) == 0


def test_what_was_cancelled_may_be_pushed_again_with_another_deadline() -> None:
    queue: BatchQueue[str] = BatchQueue(10)
    moved, other = work("moved", deadline=9), work("other", deadline=5)
    queue.push(moved)
    queue.push(other)
    assert queue.cancel(moved)
    moved.deadline = 1
    queue.push(moved)
    assert names(queue.form(1)[0]) == ["moved"]
    assert names(queue.form(4)[0]) == ["other"]
    assert queue.head() is None


def test_interactive_work_goes_before_bulk_work_with_an_earlier_deadline() -> None:
    queue: BatchQueue[str] = BatchQueue(10)
    queue.push(work("bulk", deadline=1, priority=1))
    queue.push(work("click", deadline=9))
    assert names(queue.form(1)[0]) == ["click"]


def test_a_full_queue_refuses_and_says_when_to_retry() -> None:
    queue: BatchQueue[str] = BatchQueue(1)
    queue.push(work())
    with pytest.raises(Overloaded, match="1 pieces") as refused:
        queue.push(work())
    assert refused.value.retry_after_s


def test_work_larger_than_a_batch_goes_alone() -> None:
    queue: BatchQueue[str] = BatchQueue(10)
    queue.push(work("large", size=9, deadline=1))
    queue.push(work("small"))
    assert names(queue.form(4)[0]) == ["large"]


def test_nothing_grows_under_load_that_never_lets_up() -> None:
    queue: BatchQueue[str] = BatchQueue(10)
    queue.push(work())
    for step in range(5000):
        fresh = work(key=str(step))
        queue.push(fresh)
        if step % 2:
            queue.cancel(fresh)
        else:
            queue.form(1)
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
        st.tuples(st.just("form"), st.integers(1, 8)),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_every_piece_comes_out_once_and_in_order(operations: list[tuple[object, ...]]) -> None:
    queue: BatchQueue[int] = BatchQueue(1000)
    pushed: list[Work[int]] = []
    ended: set[int] = set()

    def rank(item: Work[int]) -> tuple[int, float, int]:
        return (item.priority, item.deadline, item.payload)

    for operation in operations:
        match operation:
            case ("push", str(key), int(size), float(deadline), int(priority)):
                item = Work(len(pushed), key, size, deadline, Priority(priority))
                pushed.append(item)
                queue.push(item)
            case ("cancel", int(index)) if index < len(pushed):
                assert queue.cancel(pushed[index]) == (index not in ended)
                ended.add(index)
            case ("form", int(limit)):
                alive = [item for item in pushed if item.payload not in ended]
                batch, _ = queue.form(limit)
                assert bool(batch) == bool(alive)
                if batch:
                    mates = sorted((item for item in alive if item.key == batch[0].key), key=rank)
                    assert batch[0] is min(alive, key=rank)
                    assert batch == mates[: len(batch)]
                    assert len(batch) == 1 or sum(item.size for item in batch) <= limit
                ended.update(item.payload for item in batch)
        assert len(queue) == len(pushed) - len(ended)
        assert (queue.head() is None) == (len(queue) == 0)
