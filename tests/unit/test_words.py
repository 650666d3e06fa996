"""Prompts in words inside the gateway, with a text model that is told what to see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fastsam_support import SPEC, embedded
from parity import rules
from samgate.domain import FloatArray, IntArray, Prompt, UInt8Array
from samgate.errors import DeadlineExceeded, Infeasible, NotFound, Overloaded
from samgate.serving import words as module
from samgate.serving.admission import Admitted
from samgate.serving.requests import Handle, RawImage, Trace
from samgate.serving.words import Words
from samgate.sessions import Embedding
from samgate.text.choice import objects_in
from samgate.variants import VARIANTS
from samgate.variants.clip import MOST_CROPS, MOST_TEXTS, VIT_B_32
from samgate.variants.detections import detections_in

SIZE = (427, 640)
NOTHING = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)


class Model:
    """Sees images as they come: each is a direction of its own. The text with the n-th first token means the n-th."""

    name, spec = "test", VIT_B_32

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.read: list[int] = []
        self.fail_after: int | None = None

    async def image_features(self, crops: UInt8Array, deadline: float) -> FloatArray:
        await asyncio.sleep(0)
        if self.fail_after is not None and len(self.seen) >= self.fail_after:
            raise Overloaded("64 calls wait for test", 1.0, "busy")
        before = sum(self.seen)
        self.seen.append(len(crops))
        return np.eye(self.spec.width, dtype=np.float32)[before : before + len(crops)]

    async def text_features(self, tokens: IntArray, deadline: float) -> FloatArray:
        self.read.append(len(tokens))
        return np.eye(self.spec.width, dtype=np.float32)[tokens[:, 0]]

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None: ...


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@asynccontextmanager
async def decoded(image: RawImage) -> Any:
    yield rules.image_of((image.height, image.width))


def admitted(name: str, image: object = None) -> Admitted:
    image = image or RawImage(SIZE[1], SIZE[0], b"")
    return cast(
        "Admitted",
        SimpleNamespace(
            trace=Trace("fastsam-s", "f32", "test", handle=name),
            source=SimpleNamespace(image=image),
            model=SimpleNamespace(spec=SPEC),
            images=SimpleNamespace(decoded=decoded),
            ticket=SimpleNamespace(request=SimpleNamespace(arrival=time.monotonic())),
        ),
    )


def embedding() -> Embedding:
    values, frame = embedded(SIZE)
    return Embedding(values, frame, {})


def soon() -> float:
    return time.monotonic() + 60


def asking(*places: int) -> IntArray:
    return np.array([[place] for place in places], np.int32)


async def test_all_objects_are_seen_once_and_each_can_be_meant(executor: Executor) -> None:
    model, image = Model(), embedding()
    words = Words(model, executor, 60)
    found = detections_in(image.values)
    objects = objects_in(found, image.frame, SPEC)
    count = len(objects.boxes)
    assert count > 2 * MOST_CROPS
    places = [0, 1, 31, 32, 33, count - 1] * 3
    ask = admitted("one")
    answers = [meaning() for meaning in await words.meanings(ask, image, asking(*places), soon())]
    assert sum(model.seen) == count
    assert max(model.seen) == MOST_CROPS
    assert model.read == [MOST_TEXTS, len(places) - MOST_TEXTS]
    for place, (masks, likely) in zip(places, answers, strict=True):
        at = objects.at[place]
        assert np.allclose(masks[0], found.logits(slice(at, at + 1))[0], atol=1e-3)
        assert likely[0] > 0.99
    assert ask.trace.stages_s["text"] > 0
    await words.meanings(admitted("one", Handle("one")), image, asking(3), soon())
    assert sum(model.seen) == count


async def test_who_asks_at_the_same_time_waits_for_the_same(executor: Executor) -> None:
    model, image = Model(), embedding()
    words = Words(model, executor, 60)
    count = len(objects_in(detections_in(image.values), image.frame, SPEC).boxes)
    both = await asyncio.gather(
        *(words.meanings(admitted("one"), image, asking(place), soon()) for place in (0, count - 1))
    )
    assert sum(model.seen) == count
    assert not np.array_equal(both[0][0]()[0], both[1][0]()[0])


async def test_nobody_is_late_by_another_s_deadline(executor: Executor) -> None:
    model, image = Model(), embedding()
    words, look, short = Words(model, executor, 60), model.image_features, time.monotonic() + 1
    reached = asyncio.Event()

    async def late(crops: UInt8Array, deadline: float) -> FloatArray:
        if deadline == short:
            reached.set()
            await asyncio.sleep(max(0.0, short - time.monotonic()) + 0.01)
            raise DeadlineExceeded("the deadline passed before test had its turn")
        return await look(crops, deadline)

    model.image_features = late  # type: ignore[method-assign]
    first = asyncio.create_task(words.meanings(admitted("one"), image, asking(0), short))
    await reached.wait()
    second = asyncio.create_task(words.meanings(admitted("one"), image, asking(0), soon()))
    with pytest.raises(DeadlineExceeded):
        await first
    assert len(await second) == 1


async def test_only_so_many_images_are_remembered(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2 * module._BOOKS)
    words, image = Words(Model(), executor, 60), embedding()
    nothing = Embedding(np.zeros_like(image.values), image.frame, {})
    for name in ("one", "two", "one", "three"):
        (meaning,) = await words.meanings(admitted(name), nothing, asking(0), soon())
        masks, likely = meaning()
        assert masks.shape == (4, 256, 256)
        assert masks.max() < 0
        assert not likely.any()
    for name in ("one", "three"):
        await words.meanings(admitted(name, Handle(name)), nothing, asking(0), soon())
    with pytest.raises(NotFound, match="send the image"):
        await words.meanings(admitted("two", Handle("two")), nothing, asking(0), soon())


async def test_what_the_model_refuses_is_told_and_nothing_half_done_is_kept(executor: Executor) -> None:
    model, image = Model(), embedding()
    model.fail_after = 1
    words = Words(model, executor, 60)
    with pytest.raises(Overloaded):
        await words.meanings(admitted("one"), image, asking(0), soon())
    with pytest.raises(NotFound):
        await words.meanings(admitted("one", Handle("one")), image, asking(0), soon())
    model.fail_after = None
    assert await words.meanings(admitted("one"), image, asking(0), soon())


async def test_a_call_that_is_cancelled_leaves_nothing_running(executor: Executor) -> None:
    model = Model()
    reached, never = asyncio.Event(), asyncio.Event()

    async def wait(crops: UInt8Array, deadline: float) -> FloatArray:
        reached.set()
        await never.wait()
        raise AssertionError

    model.image_features = wait  # type: ignore[method-assign]
    asked = asyncio.create_task(Words(model, executor, 60).meanings(admitted("one"), embedding(), asking(0), soon()))
    await reached.wait()
    before = asyncio.all_tasks()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    # Its work is told to end with it, and has a moment for that.
    _, left = await asyncio.wait(before - {asyncio.current_task(), asked}, timeout=5)
    assert not left


async def test_tokens_are_of_prompts_in_words_alone(executor: Executor) -> None:
    prompts = [Prompt(*NOTHING, text="a dog"), Prompt(np.ones((1, 2), np.float32), np.ones(1, np.int32))]
    rows = await Words(Model(), executor, 60).tokens([*prompts, Prompt(*NOTHING, text="a cat")])
    assert rows.shape == (2, VIT_B_32.context)
    assert (rows[0] != rows[1]).sum() == 1


async def test_what_can_not_be_done_in_time_is_not_begun(executor: Executor) -> None:
    model, image = Model(), embedding()
    words = Words(model, executor, 60)
    # Nothing is known of the pace at first.
    await words.meanings(admitted("one"), image, asking(0), soon())
    seen = sum(model.seen)
    words._each_s = 0.1
    with pytest.raises(Infeasible, match=rf"{seen} objects, .* takes 0.1 s; the smallest that would do is") as refused:
        await words.meanings(admitted("two"), image, asking(0), time.monotonic() + 0.09 * seen)
    assert refused.value.smallest_deadline_s == pytest.approx(0.1 * seen, abs=3)
    assert sum(model.seen) == seen
    await words.meanings(admitted("two"), image, asking(0), time.monotonic() + 0.1 * seen + 60)
    # What was known is no reason to refuse.
    await words.meanings(admitted("two"), image, asking(0), time.monotonic() + 1)
    assert words._each_s < 0.1


def test_only_systems_whose_embedding_has_all_objects_take_words() -> None:
    able = [spec for spec in VARIANTS.values() if spec.prompts.text]
    assert able
    assert all(spec.finds_everything for spec in able)
