"""The engine on a real Triton: the embedded engine's bits, embeddings that stay where they are, deadlines and
cancellation that arrive there."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from samgate.api.server import load_models
from samgate.config import EngineSettings, Settings, TritonSettings
from samgate.domain import Choose, FloatArray, Survivors, least_ious
from samgate.engines.base import Decoded, Engine, Images, Prompts
from samgate.engines.load import load_embedded, load_engine, own_server
from samgate.engines.triton.discovery import endpoints, look_up, look_up_first
from samgate.engines.triton.engine import TritonEngine
from samgate.engines.triton.servers import is_here
from samgate.errors import CompileError, DeadlineExceeded, InvalidArgument, Unavailable
from samgate.triton.server import TritonServer
from samgate.variants.mobilesam import SPEC
from segevery_support import in_full

F32 = EngineSettings(name="auto", precision="f32")
EMBEDDING_BYTES = 4 * 2**20


@pytest.fixture(scope="module")
def embedded(installed: None) -> Iterator[Engine]:
    engine = load_embedded(SPEC, F32, lambda message: None)
    yield engine
    asyncio.run(engine.close())


@asynccontextmanager
async def connected(server: TritonServer, **options: object) -> AsyncIterator[TritonEngine]:
    triton = replace(TritonSettings(endpoints=server.grpc), **options)  # type: ignore[arg-type]
    settings = Settings(engine=EngineSettings(name="triton"), triton=triton)
    engine = await asyncio.to_thread(load_engine, SPEC, settings)
    assert isinstance(engine, TritonEngine)
    try:
        yield engine
    finally:
        await engine.close()


def soon() -> float:
    return time.monotonic() + 60


def least(iou: float) -> Choose:
    """Masks that are predicted better."""
    bounds = least_ious(SPEC.mask_tokens, SPEC.multimask_tokens, iou)
    return lambda ious, coarse: in_full(np.argwhere(ious > bounds), coarse)


def photographs(count: int) -> Images:
    y, x = np.mgrid[:1024, :1024]
    pictures = []
    for number in range(count):
        disc = (x - 300 - 200 * number) ** 2 + (y - 400) ** 2 < 150**2
        picture = np.stack([x // 5, y // 5, np.full_like(x, 100)], -1)
        picture[disc] = (220, 190, 50)
        pictures.append(picture)
    return Images(np.array(pictures, np.uint8), np.array([[768, 1024]] * count, np.int32))


def prompts(images: int, count: int, masks: bool = False) -> Prompts:
    random = np.random.default_rng(count)
    coords = random.uniform(100, 700, (images, count, 2, 2)).astype(np.float32)
    labels = np.tile(np.array([1, -1], np.int32), (images, count, 1))
    if not masks:
        return Prompts(coords, labels)
    logits = random.normal(0, 5, (images, count, 1, 256, 256)).astype(np.float32)
    return Prompts(coords, labels, logits, np.ones((images, count), np.float32))


Answers = tuple[list[FloatArray], Decoded, Decoded, Decoded, Survivors]


async def everything(engine: Engine) -> Answers:
    embeddings = await engine.encode(photographs(1), soon())
    three = photographs(3)
    # The embedded engine's encoder is compiled for one image; Triton's takes batches.
    size = 3 if isinstance(engine, TritonEngine) else 1
    for at in range(0, 3, size):
        embeddings += await engine.encode(Images(three.pixels[at : at + size], three.valid[at : at + size]), soon())
    several = [embeddings[index] for index in (2, 1, 3)]
    return (
        embeddings,
        await engine.decode(embeddings[:1], prompts(1, 5), soon()),
        await engine.decode(several, prompts(3, 2), soon()),
        await engine.decode(several[:2], prompts(2, 2, masks=True), soon()),
        await survivors(engine, embeddings[0], 0.8),
    )


async def survivors(engine: Engine, embedding: FloatArray, threshold: float) -> Survivors:
    """Triton's; of the embedded engine, whose own come of merged tokens, what its decoder makes of the same prompts."""
    asked, choose = prompts(1, 16), least(threshold)
    if isinstance(engine, TritonEngine):
        return await engine.survivors(embedding, asked, choose, soon())
    decoded = await engine.decode([embedding], asked, soon())
    masks, ious = decoded.low_res_masks[0], decoded.iou_predictions[0]
    kept = choose(ious, masks[..., 1::4, 1::4]).kept
    return Survivors(masks[kept[:, 0], kept[:, 1]], kept, ious)


def assert_same(ours: Answers, theirs: Answers) -> None:
    for one, other in zip(ours[0], theirs[0], strict=True):
        assert np.array_equal(one, other)
    for decoded, expected in zip(ours[1:4], theirs[1:4], strict=True):
        assert isinstance(decoded, Decoded)
        assert isinstance(expected, Decoded)
        assert np.array_equal(decoded.low_res_masks, expected.low_res_masks)
        assert np.array_equal(decoded.iou_predictions, expected.iou_predictions)
    assert 0 < len(ours[4].masks) < 48
    assert_alike(ours[4], theirs[4])


def assert_alike(ours: Survivors, theirs: Survivors) -> None:
    """They come of other graphs, in two calls: the same but for rounding."""
    assert np.array_equal(ours.kept, theirs.kept)
    assert ours.masks.shape == theirs.masks.shape
    assert np.allclose(ours.ious, theirs.ious, atol=1e-5)
    assert np.allclose(ours.masks, theirs.masks, atol=1e-2)


@pytest.mark.parametrize("shared_bytes", [256 * 2**20, 0, 6 * 2**20], ids=["shared memory", "gRPC", "too little of it"])
async def test_the_embedded_engines_bits(triton: TritonServer, embedded: Engine, shared_bytes: int) -> None:
    async with connected(triton, shared_memory_bytes=shared_bytes) as engine:
        assert engine.precision == embedded.precision == "f32"
        assert_same(await everything(engine), await everything(embedded))
        assert engine.lent_bytes == 0


async def test_survivors_are_the_decoders_masks_but_for_rounding(triton: TritonServer, embedded: Engine) -> None:
    async with connected(triton) as engine:
        (embedding,) = await engine.encode(photographs(1), soon())
        for threshold in (0.8, 2.0, -math.inf):
            ours = await survivors(engine, embedding, threshold)
            assert_alike(ours, await survivors(embedded, embedding, threshold))


async def test_a_precision_that_the_servers_do_not_have_is_said(triton: TritonServer) -> None:
    settings = Settings(
        variants="mobilesam:bf16",
        engine=EngineSettings(name="triton"),
        triton=TritonSettings(endpoints=triton.grpc),
    )
    with pytest.raises(InvalidArgument, match="'mobilesam:bf16', but the servers have mobilesam at 'f32'"):
        await asyncio.to_thread(load_models, settings, lambda message: None)
    (model,) = await asyncio.to_thread(load_models, replace(settings, variants="mobilesam:f32"), lambda message: None)
    assert model.name == "mobilesam:f32"
    await model.engine.close()


def test_a_server_of_our_own_has_a_variant_at_one_precision() -> None:
    settings = Settings(variants="mobilesam, mobilesam:f32", engine=EngineSettings(name="triton", precision="bf16"))
    with (
        pytest.raises(InvalidArgument, match="mobilesam at 'bf16' and at 'f32', but a Triton server has"),
        own_server(settings, lambda message: None),
    ):
        pass


async def test_embeddings_stay_where_the_encoder_wrote_them(triton: TritonServer) -> None:
    async with connected(triton) as engine:
        embeddings = await engine.encode(photographs(3), soon())
        assert engine.lent_bytes == 3 * EMBEDDING_BYTES
        addresses = [one.__array_interface__["data"][0] for one in embeddings]
        assert addresses == [addresses[0] + index * EMBEDDING_BYTES for index in range(3)]
        decoded = await engine.decode(embeddings[1:], prompts(2, 1), soon())
        # Masks and predictions, but no copy of an embedding.
        assert engine.lent_bytes == 3 * EMBEDDING_BYTES + decoded.low_res_masks.nbytes
        del decoded, embeddings[1]
        assert engine.lent_bytes == 2 * EMBEDDING_BYTES
        embeddings.clear()
        assert engine.lent_bytes == 0


async def computed_s(server: TritonServer) -> float:
    """For how long the server's encoder has computed. Triton counts what it didn't run as a success, too."""
    async with InferenceServerClient(server.grpc) as client:
        statistics = await client.get_inference_statistics("mobilesam_encoder")
    return float(statistics.model_stats[0].inference_stats.compute_infer.ns) / 1e9


async def one_image_s(engine: TritonEngine, server: TritonServer) -> float:
    await engine.encode(photographs(1), soon())
    before = await computed_s(server)
    await engine.encode(photographs(1), soon())
    return await computed_s(server) - before


async def test_cancellation_reaches_triton(triton: TritonServer) -> None:
    async with connected(triton) as engine:
        once = await one_image_s(engine, triton)
        before = await computed_s(triton)
        calls = [asyncio.create_task(engine.encode(photographs(1), soon())) for _ in range(10)]
        await asyncio.sleep(0.1)
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await engine.encode(photographs(1), soon())
        # The first, the last, and perhaps one that had begun; all would be eleven, and times vary.
        assert await computed_s(triton) - before < 6 * once
        # What they were lent is out for as long as Triton might write to it.
        assert engine.lent_bytes >= 9 * EMBEDDING_BYTES


async def test_deadlines_reach_triton(triton: TritonServer) -> None:
    async with connected(triton) as engine:
        once = await one_image_s(engine, triton)
        before = await computed_s(triton)
        first = asyncio.create_task(engine.encode(photographs(2), soon()))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        late = [engine.encode(photographs(1), time.monotonic() + 0.1) for _ in range(8)]
        errors = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(error, DeadlineExceeded) and "mobilesam_encoder" in str(error) for error in errors)
        assert time.monotonic() - started < 2
        await first
        await engine.encode(photographs(1), soon())
        # Three images; with the late ones, eleven.
        assert await computed_s(triton) - before < 6 * once


async def test_a_call_that_the_model_refuses_is_not_repeated_and_harms_nobody(triton: TritonServer) -> None:
    async with connected(triton) as engine:
        (embedding,) = await engine.encode(photographs(1), soon())
        wrong = replace(prompts(1, 2), labels=np.ones((1, 3, 2), np.int32))
        with pytest.raises(Unavailable, match="mobilesam_decoder on Triton"):
            await engine.decode([embedding], wrong, soon())
        assert await engine.healthy()
        await engine.decode([embedding], prompts(1, 2), soon())


def test_what_a_server_lacks_is_told_at_the_start(triton: TritonServer) -> None:
    settings = Settings(engine=EngineSettings(name="triton"), triton=TritonSettings(endpoints=triton.grpc))
    other = replace(SPEC, name="othersam")
    with pytest.raises(Unavailable, match="othersam_encoder"):
        load_engine(other, replace(settings, triton=replace(settings.triton, connect_timeout_s=0.5)))
    unlike = replace(SPEC, embedding_shape=(256, 32, 32))
    with pytest.raises(CompileError, match="build it anew"):
        load_engine(unlike, settings)


def test_nobody_there_is_told_with_what_to_do() -> None:
    triton = TritonSettings(endpoints="127.0.0.1:9", connect_timeout_s=0.5)
    settings = Settings(engine=EngineSettings(name="triton"), triton=triton)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9.*samgate triton up"):
        load_engine(SPEC, settings)


def test_endpoints_are_read_and_checked() -> None:
    assert endpoints("a:1, b:2,a:1,dns:///c:3") == ["a:1", "b:2", "dns:///c:3"]
    for text in ("", " , ", "a", "a:", ":1", "a:b", "a:70000", "http://a:1", "dns:///a", "dns:///:1", "dns:///a/b:1"):
        with pytest.raises(InvalidArgument, match=r"triton\.endpoints"):
            endpoints(text)
    assert [is_here(url) for url in ("localhost:1", "127.0.0.5:1", "[::1]:1", "10.0.0.1:1", "triton:1")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_names_are_looked_up() -> None:
    found = look_up(["a:1", "dns:///localhost:8001", "127.0.0.1:8001"])
    assert found[0] == "a:1"
    assert "127.0.0.1:8001" in found
    assert len(found) == len(set(found))
    with pytest.raises(Unavailable, match=r"no address for dns:///nowhere\.invalid:1 after 0\.6 s"):
        look_up_first(["dns:///nowhere.invalid:1"], 0.6, lambda message: None)
