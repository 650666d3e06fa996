"""Embedded engines over made-up graphs: how a decoder call is divided over threads, and put together again."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from threading import Barrier, BrokenBarrierError, Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from samgate.domain import Choose, Chosen, FloatArray
from samgate.engines.base import Capacity, Decoded, Prompts
from samgate.engines.embedded import Decoder, EmbeddedEngine, Lane, LoadedGraphs, divide
from samgate.errors import Unavailable
from samgate.variants.graphs import EVERYTHING_BLOCKS, EVERYTHING_PROMPTS, TERMS

Inputs = Mapping[str, NDArray[Any]]
PARTS = 2


def decode(inputs: Inputs) -> list[NDArray[Any]]:
    """Masks of one pixel: its embedding's number and its point's coordinates, mask input included."""
    coords, image = inputs["point_coords"], inputs["image_embedding"][:, 0, 0, 0]
    masks = np.broadcast_to(image[:, None, None], (*coords.shape[:2], 4)) + coords.sum((2, 3))[..., None]
    if "mask_input" in inputs:
        masks = masks + inputs["mask_input"][..., 0, 0]
    masks = masks.astype(np.float32)
    return [masks[..., None, None], masks]


SIDE, TILE = 32, 256
TERMS_OF_BLOCKS = {
    "image_places": np.random.default_rng(1).permutation(SIDE**2).astype(np.int32),
    "image_pixels": np.arange(SIDE**2, dtype=np.float32).reshape(1, -1, 1),
}
"""Blocks have their place as their pixels', and are anywhere among the tokens."""


def attend(inputs: Inputs) -> list[NDArray[Any]]:
    """Masks are worth their point's x, tenths less each; tokens and vectors are what they are worth, and the image's
    scale and weights what prompt and token it is."""
    assert inputs["point_coords"].shape == (1, EVERYTHING_PROMPTS, 2, 2)
    ious = (inputs["point_coords"][0, :, 0, 0, None] - np.arange(4, dtype=np.float32) / 10).astype(np.float32)
    coarse = np.broadcast_to(ious[..., None, None], (*ious.shape, SIDE, SIDE))
    tokens = np.arange(SIDE**2, dtype=np.float32).reshape(-1, 1, 1, TILE) + ious[None, :, :1, None] * 10_000
    return [ious[None], coarse[None], ious, tokens, tokens, ious[..., None]]


def upscale(inputs: Inputs) -> list[NDArray[Any]]:
    """Blocks are their place and 5000, but for the third pixel of their second row: what the mask is worth."""
    worth, places = inputs["mask_tokens"], inputs["block_pixels"].astype(int)[:, 0]
    assert worth.shape == (4,)
    assert np.array_equal(inputs["token_vectors"], worth[:, None])
    assert places.shape == (EVERYTHING_BLOCKS,)
    assert inputs["block_scale"].shape == inputs["block_weights"].shape == (EVERYTHING_BLOCKS, 1)
    assert np.array_equal(inputs["block_scale"], inputs["block_weights"])
    tokens = TERMS_OF_BLOCKS["image_places"][places] + worth[0] * np.float32(10_000)
    assert np.array_equal(inputs["block_scale"][:, 0], tokens.astype(np.float32))
    made = np.broadcast_to(places[None, :, None, None] + np.float32(5000), (4, EVERYTHING_BLOCKS, 4, 4)).copy()
    made[:, :, 1, 2] = worth[:, None]
    return [made]


def better(blocks: Callable[[int], Sequence[int]]) -> Choose:
    """Masks that are worth more than 7.85, and of them the ``blocks`` at these places, by the prompt's x."""

    def choose(ious: FloatArray, coarse: FloatArray) -> Chosen:
        assert np.array_equal(coarse[..., 0, 0], ious)
        kept = np.argwhere(ious > 7.85).astype(np.int32)
        wanted = np.zeros((len(kept), SIDE * SIDE), np.bool_)
        for row, x in zip(wanted, ious[kept[:, 0], 0].tolist(), strict=True):
            row[blocks(int(x))] = True
        return Chosen(kept, wanted.reshape(-1, SIDE, SIDE))

    return choose


def embedding(number: float) -> FloatArray:
    return np.full((256, 64, 64), number, np.float32)


def prompts(images: int, count: int, *, masked: bool = False) -> Prompts:
    coords = np.arange(images * count * 4, dtype=np.float32).reshape(images, count, 2, 2)
    masks = np.ones((images, count, 1, 1, 1), np.float32) if masked else None
    has_mask = np.ones((images, count), np.float32) if masked else None
    return Prompts(coords, np.ones((images, count, 2), np.int32), masks, has_mask)


def engine(decoder: Decoder, lanes: Sequence[Lane] = (Lane(attend, upscale),)) -> EmbeddedEngine:
    loaded = LoadedGraphs(
        encoder=lambda inputs: [np.zeros((1, 256, 64, 64), np.float32)],
        decoder=decoder,
        masked_decoder=decoder,
        terms=lambda inputs: [TERMS_OF_BLOCKS.get(name, np.zeros((1, 1, 1), np.float32)) for name in TERMS],
        lanes=tuple(lanes),
    )
    return EmbeddedEngine("made up", "f32", loaded, Capacity(1, PARTS, 16, 1, together=EVERYTHING_PROMPTS))


def unreached(inputs: Inputs) -> list[NDArray[Any]]:
    raise AssertionError("the whole graph isn't for this call")


@given(images=st.integers(1, 9), count=st.integers(1, 20), parts=st.integers(0, 8), masked=st.booleans())
def test_parts_hold_everything_once_in_order_and_equally(images: int, count: int, parts: int, masked: bool) -> None:
    whole, embeddings = prompts(images, count, masked=masked), [embedding(number) for number in range(images)]
    found = divide(embeddings, whole, parts)
    axis = 0 if images > 1 else 1
    assert len(found) <= max(1, parts)
    assert np.array_equal(np.concatenate([part.coords for _, part in found], axis), whole.coords)
    assert np.array_equal(np.concatenate([part.labels for _, part in found], axis), whole.labels)
    sizes = [part.coords.shape[axis] for _, part in found]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0
    for mine, part in found:
        assert len(mine) == part.coords.shape[0]
        assert part.coords.flags.c_contiguous
        assert (part.masks is not None) == (part.has_mask is not None) == masked
    if images > 1:
        assert [one for mine, _ in found for one in mine] == embeddings
    if parts > 1:
        assert len(found) == (min(images, parts) if images > 1 else parts if count >= parts else 1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("images", "count"), [(2, 1), (3, 1), (2, 3), (1, 2), (1, 5)])
async def test_several_prompts_are_decoded_at_once_and_put_together(images: int, count: int, masked: bool) -> None:
    together = Barrier(PARTS)

    def part(inputs: Inputs) -> list[NDArray[Any]]:
        together.wait(timeout=10)
        return decode(inputs)

    made = engine(Decoder(unreached, (part, part)))
    asked, embeddings = prompts(images, count, masked=masked), [embedding(1000.0 * number) for number in range(images)]
    found = await made.decode(embeddings, asked, math.inf)
    alone = await engine(Decoder(decode)).decode(embeddings, asked, math.inf)
    assert np.array_equal(found.low_res_masks, alone.low_res_masks)
    assert np.array_equal(found.iou_predictions, alone.iou_predictions)
    assert found.low_res_masks.shape == (images, count, 4, 1, 1)
    await made.close()


async def test_one_prompt_has_all_threads() -> None:
    made = engine(Decoder(decode, (unreached, unreached)))
    found = await made.decode([embedding(5.0)], prompts(1, 1), math.inf)
    assert found.iou_predictions.tolist() == [[[11.0] * 4]]
    await made.close()


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 21])
async def test_survivors_keep_their_prompts_numbers(count: int) -> None:
    made, choose = engine(Decoder(decode), [Lane(attend, upscale)] * 2), better(lambda x: range(300 * (x // 4 % 3)))
    found = await made.survivors(embedding(0.0), prompts(1, count), choose, math.inf)
    alone = await engine(Decoder(decode)).survivors(embedding(0.0), prompts(1, count), choose, math.inf)
    assert found.ious.shape == (count, 4)
    assert np.array_equal(found.ious, alone.ious)
    assert np.array_equal(found.kept, alone.kept)
    assert found.kept.dtype == np.int32
    assert np.array_equal(found.masks, alone.masks)
    assert np.array_equal(found.masks[:, 1, 2], found.ious[found.kept[:, 0], found.kept[:, 1]])
    if count == 3:
        assert found.kept.tolist() == [[2, 0], [2, 1]]
    await made.close()


async def test_lanes_run_beside_each_other_and_each_for_one_call_at_a_time() -> None:
    """Whether they are groups of one call or several calls."""
    together, busy = Barrier(PARTS), set[int]()

    def lane(number: int) -> Lane:
        def attending(inputs: Inputs) -> list[NDArray[Any]]:
            assert number not in busy, "called while it runs"
            busy.add(number)
            together.wait(timeout=10)
            busy.remove(number)
            return attend(inputs)

        return Lane(attending, upscale)

    made, choose = engine(Decoder(decode), [lane(number) for number in range(PARTS)]), better(lambda x: [x])
    asked, image = prompts(1, 2 * EVERYTHING_PROMPTS), embedding(0.0)
    whole, *parts = await asyncio.gather(
        made.survivors(image, asked, choose, math.inf),
        *(made.survivors(image, prompts(1, EVERYTHING_PROMPTS), choose, math.inf) for _ in range(4)),
    )
    for part in parts:
        assert np.array_equal(part.ious, whole.ious[:EVERYTHING_PROMPTS])
        assert np.array_equal(part.kept, whole.kept[: len(part.kept)])
        assert np.array_equal(part.masks, whole.masks[: len(part.kept)])
    await made.close()


async def test_a_lane_that_fails_fails_the_call_after_the_others_have_ended() -> None:
    begun, ended = Barrier(PARTS), list[int]()

    def fails(inputs: Inputs) -> list[NDArray[Any]]:
        begun.wait(timeout=10)
        raise RuntimeError("out of memory")

    def ends(inputs: Inputs) -> list[NDArray[Any]]:
        begun.wait(timeout=10)
        time.sleep(0.05)
        ended.append(1)
        return attend(inputs)

    made = engine(Decoder(decode), [Lane(fails, upscale), Lane(ends, upscale)])
    asked = prompts(1, 2 * EVERYTHING_PROMPTS)
    with pytest.raises(Unavailable, match="made up could not run the graph: out of memory"):
        await made.survivors(embedding(0.0), asked, better(lambda x: []), math.inf)
    assert ended == [1]
    # The lane is there for the next call.
    begun.abort()
    with pytest.raises(Unavailable):
        await made.survivors(embedding(0.0), asked, better(lambda x: []), math.inf)
    await made.close()


@pytest.mark.parametrize(("wanted", "made"), [([], 0), ([33], 256), (range(256), 256), (range(100, 400), 512)])
async def test_blocks_are_made_where_they_are_wanted_and_next_to_it(wanted: Sequence[int], made: int) -> None:
    """All else is as the mask is coarsely."""
    one = engine(Decoder(decode))
    found = await one.survivors(embedding(0.0), prompts(1, 3), better(lambda x: wanted), math.inf)
    assert found.kept.tolist() == [[2, 0], [2, 1]]
    for mask, worth in zip(found.masks, found.ious[2], strict=False):
        blocks = mask.reshape(SIDE, 4, SIDE, 4).transpose(0, 2, 1, 3).reshape(-1, 4, 4)
        assert (blocks[:, 1, 2] == worth).all()
        done = blocks[:, 0, 0] == np.arange(SIDE**2) + 5000
        assert np.count_nonzero(done) == made
        assert done[wanted].all()
        assert (blocks[~done] == worth).all()
        if made == EVERYTHING_BLOCKS and len(wanted) == 1:
            rows, columns = np.divmod(np.flatnonzero(done), SIDE)
            assert max(*rows, *columns) < 1 + 2 * math.sqrt(EVERYTHING_BLOCKS / math.pi) + 1
    await one.close()


@pytest.mark.parametrize("failing", range(PARTS))
async def test_a_part_that_fails_fails_the_call_after_the_others_have_ended(failing: int) -> None:
    ended: list[int] = []

    def part(number: int) -> Any:
        def run(inputs: Inputs) -> list[NDArray[Any]]:
            if number == failing:
                raise RuntimeError("out of memory")
            ended.append(number)
            return decode(inputs)

        return run

    made = engine(Decoder(decode, tuple(part(number) for number in range(PARTS))))
    with pytest.raises(Unavailable, match="made up could not run the graph: out of memory"):
        await made.decode([embedding(0.0)], prompts(1, 4), math.inf)
    assert ended == [1 - failing]
    assert (await made.decode([embedding(0.0)], prompts(1, 1), math.inf)).iou_predictions.shape == (1, 1, 4)
    await made.close()


async def test_errors_that_nobody_waits_for_any_more_are_not_complained_about() -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    began, go_on = Event(), Event()

    def fails_late(inputs: Inputs) -> list[NDArray[Any]]:
        began.set()
        go_on.wait(timeout=10)
        raise RuntimeError("too late")

    made_up = engine(Decoder(fails_late))
    call = asyncio.create_task(made_up.decode([embedding(0)], prompts(1, 1), math.inf))
    await asyncio.to_thread(began.wait, 10)
    call.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    del call
    gc.collect()
    await made_up.close()
    assert complaints == []


async def test_calls_made_at_once_take_turns() -> None:
    """A part is called by one thread at a time, whoever asks."""
    busy: list[int] = []

    def part(number: int) -> Any:
        def run(inputs: Inputs) -> list[NDArray[Any]]:
            assert number not in busy, "called while it runs"
            busy.append(number)
            try:
                return decode(inputs)
            finally:
                busy.remove(number)

        return run

    made = engine(Decoder(decode, tuple(part(number) for number in range(PARTS))))

    async def ask(number: int) -> Decoded:
        return await made.decode([embedding(number)], prompts(1, 2), math.inf)

    found = await asyncio.gather(*(ask(number) for number in range(20)))
    assert [float(one.iou_predictions[0, 0, 0]) for one in found] == [6.0 + number for number in range(20)]
    await made.close()


async def test_closing_lets_the_parts_finish() -> None:
    begun, go_on = asyncio.Event(), Barrier(PARTS + 1)
    loop = asyncio.get_running_loop()

    def part(inputs: Inputs) -> list[NDArray[Any]]:
        loop.call_soon_threadsafe(begun.set)
        try:
            go_on.wait(timeout=10)
        except BrokenBarrierError as error:
            raise RuntimeError("nobody came") from error
        return decode(inputs)

    made = engine(Decoder(decode, (part, part)))
    call = asyncio.create_task(made.decode([embedding(0.0)], prompts(1, 2), math.inf))
    await begun.wait()
    closing = asyncio.create_task(made.close())
    await asyncio.sleep(0)
    await asyncio.to_thread(go_on.wait, 10)
    assert (await call).iou_predictions.shape == (1, 2, 4)
    await closing
    with pytest.raises(Unavailable, match="closed"):
        await made.decode([embedding(0.0)], prompts(1, 2), math.inf)


async def test_a_closed_engine_has_no_graphs_whoever_knows_it_still() -> None:
    def whole(inputs: Inputs) -> list[NDArray[Any]]:
        return decode(inputs)

    def attending(inputs: Inputs) -> list[NDArray[Any]]:
        return attend(inputs)

    made = engine(Decoder(whole), [Lane(attending, upscale)])
    await made.decode([embedding(0.0)], prompts(1, 1), math.inf)
    graphs = [weakref.ref(whole), weakref.ref(attending)]
    del whole, attending
    gc.disable()
    try:
        assert all(graph() is not None for graph in graphs)
        await made.close()
        assert all(graph() is None for graph in graphs)
    finally:
        gc.enable()
    with pytest.raises(Unavailable, match="closed"):
        await made.survivors(embedding(0.0), prompts(1, 1), better(lambda x: range(1)), math.inf)
