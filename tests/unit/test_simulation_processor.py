"""The truth about devices, the virtual clock, imaging threads and the embedding cache, on cases done by hand."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samgate.scheduling.profile import Line
from samgate.simulation.cache import EmbeddingCache
from samgate.simulation.imaging import ImagingThreads
from samgate.simulation.loop import Loop
from samgate.simulation.processor import Kind, Processor, Task, draw_seconds


def ends(
    *tasks: tuple[float, Kind, float], shared: bool = True, weight: float = 0.0, crowding: float = 1.0
) -> dict[int, float]:
    """When tasks of (start, kind, seconds alone) end, by their place."""
    loop = Loop()
    processor = Processor(loop, shared=shared, weight=weight, crowding=crowding)
    found: dict[int, float] = {}

    def done(place: int) -> None:
        found[place] = loop.now

    def start(one: tuple[Kind, float, int]) -> None:
        processor.start(one[0], one[1], done, one[2])

    for place, (at, kind, seconds) in enumerate(tasks):
        loop.at(at, start, (kind, seconds, place))
    loop.run()
    return found


def test_an_encode_and_a_decode_slow_each_other_down() -> None:
    # Alone until 0.5, then half the speed each: the decode's 0.2 take until 0.9, by when the encode has had 0.7; the
    # rest of it is alone.
    found = ends((0, "encode", 1.0), (0.5, "decode", 0.2))
    assert found == {0: pytest.approx(1.2), 1: pytest.approx(0.9)}


def test_without_sharing_they_do_not() -> None:
    found = ends((0, "encode", 1.0), (0.5, "decode", 0.2), shared=False)
    assert found == {0: pytest.approx(1.0), 1: pytest.approx(0.7)}


def test_instances_of_one_stage_run_side_by_side_at_full_speed() -> None:
    assert ends((0, "encode", 1.0), (0, "encode", 1.0)) == {0: pytest.approx(1.0), 1: pytest.approx(1.0)}


def test_imaging_threads_take_their_weight_of_the_processor() -> None:
    # Two of half a sharer each with an encode make two sharers: half speed. The first ends at 0.4, the second, of which
    # 0.1 is left, goes on beside the encode at 1/1.5 until 0.55; the encode has had 0.2 + 0.1 and needs 0.7 more.
    found = ends((0, "encode", 1.0), (0, "imaging", 0.2), (0, "imaging", 0.3), weight=0.5)
    assert found == {0: pytest.approx(1.25), 1: pytest.approx(0.4), 2: pytest.approx(0.55)}


def test_imaging_alone_is_slowed_only_by_more_than_the_processor_has() -> None:
    assert ends((0, "imaging", 1.0), weight=0.5) == {0: pytest.approx(1.0)}
    three: list[tuple[float, Kind, float]] = [(0.0, "imaging", 1.0)] * 3
    assert ends(*three, weight=0.5) == {place: pytest.approx(1.5) for place in range(3)}


def test_what_runs_at_once_disturbs_each_other() -> None:
    # Alone until 0.5, then at 1/2.2 of its speed: the decode's 0.2 take 0.44, and the encode has had 0.7 by then.
    found = ends((0, "encode", 1.0), (0.5, "decode", 0.2), crowding=1.1)
    assert found == {0: pytest.approx(1.24), 1: pytest.approx(0.94)}
    assert ends((0, "imaging", 1.0), (0, "imaging", 1.0), weight=0.5, crowding=1.1) == {0: 1.0, 1: 1.0}


def test_a_slow_spell_stretches_what_runs_in_it() -> None:
    loop = Loop()
    processor = Processor(loop, shared=True)
    found: list[float] = []
    processor.start("encode", 1.0, lambda _: found.append(loop.now), None)
    loop.at(0.5, processor.slow, 4.0)
    loop.at(1.5, processor.slow, 1.0)
    loop.run()
    # 0.5 before, a quarter of the second within, 0.25 after.
    assert found == [pytest.approx(1.75)]


def test_a_stopped_task_never_ends_and_gives_the_processor_back() -> None:
    loop = Loop()
    processor = Processor(loop, shared=True)
    found: list[str] = []
    task = processor.start("encode", 1.0, found.append, "encode")
    processor.start("decode", 0.5, lambda name: found.append(f"{name} {loop.now:.3f}"), "decode")

    def stop(one: Task) -> None:
        processor.stop(one)
        processor.stop(one)

    loop.at(0.4, stop, task)
    loop.run()
    # Half speed for 0.4, then alone.
    assert found == ["decode 0.700"]
    assert processor.busy_s == pytest.approx(0.7)


def test_busy_time_counts_calls_between_its_bounds() -> None:
    loop = Loop()
    processor = Processor(loop, shared=True, weight=0.5)
    processor.busy_from, processor.busy_to = 1.0, 3.0

    def start(one: tuple[Kind, float]) -> None:
        processor.start(one[0], one[1], lambda _: None, None)

    for at, kind, seconds in ((0.5, "encode", 1.0), (2.0, "imaging", 0.5), (2.9, "decode", 1.0)):
        loop.at(at, start, (kind, seconds))
    loop.run()
    assert processor.busy_s == pytest.approx(0.5 + 0.1)


@given(
    tasks=st.lists(
        st.tuples(st.floats(0, 5), st.sampled_from(["encode", "decode", "imaging"]), st.floats(1e-3, 2)), max_size=12
    ),
    shared=st.booleans(),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_everything_ends_and_nothing_runs_faster_than_alone(
    tasks: list[tuple[float, Kind, float]], shared: bool, weight: float
) -> None:
    found = ends(*tasks, shared=shared, weight=weight)
    assert len(found) == len(tasks)
    for place, (at, _, seconds) in enumerate(tasks):
        assert found[place] >= at + seconds - 1e-6


def test_durations_have_the_line_as_95th_percentile_and_its_ratio_as_median() -> None:
    random = Random(1)
    drawn = sorted(draw_seconds(Line(0.1, 0.2, 0.0, 0.8), 2, random) for _ in range(20_000))
    # Quantiles of 20,000 draws with σ = 0.14 are known to about 0.2% of themselves.
    assert drawn[10_000] == pytest.approx(0.8 * 0.5, rel=0.01)
    assert drawn[19_000] == pytest.approx(0.5, rel=0.01)
    assert draw_seconds(Line(0.1, 0.2), 2, random) == 0.5
    assert math.isfinite(draw_seconds(Line(0.1, 0.2, 0.0, 0.0), 2, random))


def test_events_happen_in_order_and_equal_times_first_come_first_served() -> None:
    loop = Loop()
    found: list[str] = []
    loop.at(2, found.append, "c")
    loop.at(1, found.append, "a")
    loop.at(1, found.append, "b")
    loop.cancel(loop.at(1.5, found.append, "cancelled"))

    def ask_for_the_past(_: object) -> None:
        loop.at(0, found.append, "late ones happen now")

    loop.at(1, ask_for_the_past, None)
    loop.run()
    assert found == ["a", "b", "late ones happen now", "c"]
    assert loop.now == 2


def test_imaging_threads_are_bounded_and_skip_what_nobody_wants() -> None:
    loop = Loop()
    threads = ImagingThreads(Processor(loop, shared=False), 2)
    found: list[tuple[str, float]] = []
    for name in "abcd":
        threads.run(1.0, lambda one: found.append((one, loop.now)), name, lambda name=name: name != "c")  # type: ignore[misc]
    loop.run()
    assert found == [("a", 1.0), ("b", 1.0), ("d", 2.0)]


def test_the_cache_forgets_what_was_used_least_recently() -> None:
    cache = EmbeddingCache(2)
    cache.put(1, "a")
    cache.put(1, "b")
    cache.use(1, "a")
    cache.put(2, "a")
    assert (sorted(cache.points(1)), sorted(cache.points(2))) == (["a"], ["a"])
    cache.use(3, "a")
    cache.put(2, "b")
    assert (sorted(cache.points(1)), sorted(cache.points(2)), len(cache)) == ([], ["a", "b"], 2)


def test_a_cache_of_no_size_holds_nothing() -> None:
    cache = EmbeddingCache(0)
    cache.put(1, "a")
    assert len(cache) == 0
    assert not cache.points(1)
