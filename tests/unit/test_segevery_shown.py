"""What a client holds is what the sampler has, after every update and in the end."""

from __future__ import annotations

from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from samgate.domain import Rle
from samgate.imaging.preprocess import frame_of
from samgate.segevery.generator import GridSampler
from samgate.segevery.parameters import GridParameters
from samgate.segevery.sampler import EverythingResult
from samgate.segevery.shown import Change, Shown
from segevery_support import NO_EMBEDDING, SPEC, Scene, run


def result(number: int) -> EverythingResult:
    return EverythingResult(Rle((1, 1), b"01"), (0, 0, 1, 1), 1, 0.5, 1.0, (float(number), 0.0), (0, 0, 1, 1))


class Client:
    """Does what it is told."""

    def __init__(self) -> None:
        self.held: dict[int, EverythingResult] = {}
        self.ids: list[int] = []

    def apply(self, shown: Shown, change: Change, most: int | None = None) -> None:
        for number in change.retracted:
            del self.held[number]
        for number, one in islice(change.new, most):
            shown.sent(number, one)
            self.held[number] = one
            self.ids.append(number)


def places(client: Client) -> list[float]:
    return sorted(one.point[0] for one in client.held.values())


@given(st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=8), st.none() | st.integers(0, 5)), max_size=12))
def test_the_set_is_what_was_asked_for(updates: list[tuple[list[int], int | None]]) -> None:
    shown, client = Shown(), Client()
    for wanted, most in updates:
        change = shown.change([result(number) for number in wanted])
        client.apply(shown, change, most)
        if most is None:
            assert places(client) == sorted(map(float, wanted))
        else:
            assert set(places(client)) <= set(map(float, wanted))
        assert shown.count == len(client.held)
        before = [number for number, _ in change.new]
        assert before == sorted(before)
    assert client.ids == list(range(len(client.ids)))
    client.apply(shown, shown.change([result(1), result(1), result(4)]))
    assert places(client) == [1.0, 1.0, 4.0]


def test_nothing_is_sent_twice() -> None:
    shown, client = Shown(), Client()
    client.apply(shown, shown.change([result(1), result(2)]))
    change = shown.change([result(3), result(2)])
    assert change == Change(((2, result(3)),), (0,))
    client.apply(shown, change)
    assert shown.change([result(2), result(3)]) == Change((), ())


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_updates_end_with_what_the_sampler_finishes_with(data: st.DataObject) -> None:
    discs = data.draw(
        st.lists(st.tuples(st.integers(0, 120), st.integers(0, 90), st.integers(8, 40)), min_size=1, max_size=5)
    )
    scene = Scene(
        (90, 120), [(float(x), float(y), float(r)) for x, y, r in discs], slope=12, tie=data.draw(st.booleans())
    )
    parameters = GridParameters(points_per_side=5, crop_n_layers=data.draw(st.integers(0, 1)), max_masks=3)
    sampler = GridSampler(parameters, scene.size, SPEC)
    shown, client = Shown(), Client()
    for crop in sampler.crops:
        sampler.open_crop(crop, frame_of(*crop.size, SPEC), NO_EMBEDDING)
        while chunk := sampler.next(crop, 7):
            sampler.add(chunk, scene.decode(chunk, sampler.min_ious))
            if data.draw(st.booleans()):
                present = sampler.present()
                client.apply(shown, shown.change(present))
                assert sorted(map(repr, client.held.values())) == sorted(map(repr, present))
        sampler.finish_crop(crop)
    final = sampler.finish()
    client.apply(shown, shown.change(final))
    held = [client.held[number] for number in sorted(client.held)]
    assert sorted(map(repr, held)) == sorted(map(repr, final))
    expected, _ = run(GridSampler(parameters, scene.size, SPEC), scene)
    assert final == expected
    assert np.all(np.diff([one.predicted_iou for one in final]) <= 0)
