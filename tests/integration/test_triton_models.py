"""The python-cpu models on the real server: the embedded engine's bits, and refusals that leave the model alive."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from samgate.compile.graphs import ensure_graphs
from samgate.domain import FloatArray
from samgate.engines.cpu import has_native_bf16, usable_cores
from samgate.engines.openvino import load_graph
from samgate.imaging.decode import decode
from samgate.imaging.preprocess import encoder_input
from samgate.repository.models import model_name, served_graphs
from samgate.repository.profiles import PROFILES
from samgate.triton.local import local_triton
from samgate.triton.server import TritonServer
from samgate.variants.graphs import GraphName
from samgate.variants.mobilesam import SPEC
from triton_support import Arrays, infer, statistics, tensor, triton

__all__ = ["triton"]

README = Path(__file__).resolve().parents[2] / "model_repository" / "README.md"
GRAPHS = served_graphs(SPEC, PROFILES["python-cpu"])


@pytest.fixture(scope="session")
def image(photo: bytes) -> Arrays:
    """The photo as the encoder takes it."""
    pixels, frame = encoder_input(decode(photo, 1_000_000, "image"), SPEC)
    return {"image": pixels[None], "valid": np.array([frame.resized], np.int32)}


@pytest.fixture(scope="session")
def embedding(installed: None, image: Arrays) -> FloatArray:
    """What the embedded engine makes of it, float32 ``[1, 256, 64, 64]``."""
    return embedded("encoder", "f32", image)[0]


def embedded(graph: GraphName, precision: str, inputs: Arrays) -> list[NDArray[Any]]:
    run = load_graph(ensure_graphs(SPEC)[graph], precision, usable_cores(), size=1 if graph == "encoder" else None)
    return run(inputs)


def prompts(embedding: FloatArray, images: int, count: int, points: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    draw = np.random.default_rng(seed)
    return {
        "image_embedding": np.concatenate([embedding] * images),
        "point_coords": draw.uniform(0, 768, (images, count, points, 2)).astype(np.float32),
        "point_labels": draw.integers(0, 2, (images, count, points)).astype(np.int32),
    }


def inputs_of(graph: GraphName, image: Arrays, embedding: FloatArray) -> Arrays:
    """What ``graph`` is called with in the comparisons."""
    match graph:
        case "encoder":
            return image
        case "decoder":
            return prompts(embedding, images=2, count=3, points=2)
        case "scores":
            return prompts(embedding, images=1, count=5, points=2)
        case "masked_decoder":
            masks = np.random.default_rng(1).normal(0, 5, (1, 3, 1, 256, 256)).astype(np.float32)
            return prompts(embedding, 1, 3, 1) | {"mask_input": masks, "has_mask": np.array([[1, 0, 1]], np.float32)}
        case _:
            raise AssertionError(f"{graph} is not for Triton")


def name(graph: GraphName) -> str:
    return model_name(SPEC.name, graph)


def settled(address: str, graph: GraphName) -> int:
    """How often ``graph`` has run, once that stays: Triton books a call some time after it has answered it."""
    seen = [-2, -1]
    while seen[-2] != seen[-1]:
        time.sleep(0.5)
        seen.append(statistics(address, name(graph)).execution_count)
    return seen[-1]


@pytest.mark.parametrize("graph", GRAPHS)
def test_answers_have_the_embedded_engine_s_bits(
    triton: TritonServer, image: Arrays, embedding: FloatArray, graph: GraphName
) -> None:
    inputs = inputs_of(graph, image, embedding)
    answers = list(infer(triton.grpc, name(graph), inputs).values())
    expected = embedded(graph, "f32", inputs)
    assert [answer.shape for answer in answers] == [one.shape for one in expected]
    assert all(np.array_equal(answer, one) for answer, one in zip(answers, expected, strict=True))
    assert all(one.size for one in expected), "nothing was compared"


def test_several_images_go_through_the_encoder_one_by_one(
    triton: TritonServer, image: Arrays, embedding: FloatArray
) -> None:
    flipped = image["image"][:, ::-1].copy()
    batch = {
        "image": np.concatenate([image["image"], flipped, image["image"]]),
        "valid": np.repeat(image["valid"], 3, axis=0),
    }
    answer = infer(triton.grpc, name("encoder"), batch)["image_embedding"]
    assert answer.shape == (3, 256, 64, 64)
    other = embedded("encoder", "f32", {"image": flipped, "valid": image["valid"]})[0]
    assert np.array_equal(answer, np.concatenate([embedding, other, embedding]))
    assert not np.array_equal(other, embedding)


def test_tensors_of_size_0_go_both_ways(triton: TritonServer, embedding: FloatArray) -> None:
    mask = np.full((1, 1, 1, 256, 256), 3, np.float32)
    only_mask = prompts(embedding, 1, 1, points=0) | {"mask_input": mask, "has_mask": np.ones((1, 1), np.float32)}
    answer = infer(triton.grpc, name("masked_decoder"), only_mask)
    assert np.array_equal(answer["low_res_masks"], embedded("masked_decoder", "f32", only_mask)[0])


BAD: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "labels of other prompts": (lambda good: {"point_labels": good["point_labels"][:, :2]}, "but P is 3"),
    "an embedding of another size": (
        lambda good: {"image_embedding": good["image_embedding"][:, :, :32]},
        r"Expected \[-1,256,64,64\]",
    ),
    "an embedding too few": (lambda good: {"image_embedding": good["image_embedding"][:1]}, "batch size"),
    "labels of another type": (lambda good: {"point_labels": good["point_labels"].astype(np.float32)}, "data-type"),
    "an axis too many": (lambda good: {"point_coords": good["point_coords"][:, None]}, "unexpected shape"),
    "too large a batch": (
        lambda good: {key: np.concatenate([good[key]] * 5) for key in good},
        "batch-size must be <= 8",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tensors_are_refused_and_the_model_lives_on(triton: TritonServer, embedding: FloatArray, case: str) -> None:
    change, said = BAD[case]
    processes = triton.stub_pids()
    good: Arrays = prompts(embedding, 2, 3, 1)
    with pytest.raises(InferenceServerException, match=said) as refusal:
        infer(triton.grpc, name("decoder"), {**good, **change(good)})
    assert refusal.value.status() in ("StatusCode.INVALID_ARGUMENT", "StatusCode.INTERNAL")
    assert infer(triton.grpc, name("decoder"), good)["iou_predictions"].shape == (2, 3, 4)
    assert triton.stub_pids() == processes


def test_requests_that_wait_are_not_merged(triton: TritonServer, embedding: FloatArray) -> None:
    given = [prompts(embedding, images, 4, 2) for images in (1, 1, 2)] * 4
    before = settled(triton.grpc, "decoder")
    with ThreadPoolExecutor(len(given)) as threads:
        answers = list(threads.map(lambda one: infer(triton.grpc, name("decoder"), one), given))
    assert settled(triton.grpc, "decoder") - before == len(given)
    expected = {images: embedded("decoder", "f32", prompts(embedding, images, 4, 2))[0] for images in (1, 2)}
    for inputs, answer in zip(given, answers, strict=True):
        assert np.array_equal(answer["low_res_masks"], expected[len(inputs["image_embedding"])])


def test_what_is_cancelled_while_it_waits_does_not_run(triton: TritonServer, embedding: FloatArray) -> None:
    """Triton counts what the model answers with "cancelled" among its executions, so time has to tell."""
    given = prompts(embedding, 1, 64, 2)
    inputs = [tensor(key, array) for key, array in given.items()]

    def spent() -> tuple[int, int]:
        now = statistics(triton.grpc, name("decoder"))
        return now.execution_count, now.inference_stats.compute_infer.ns

    infer(triton.grpc, name("decoder"), given)
    start = spent()
    infer(triton.grpc, name("decoder"), given)
    one = spent()
    with InferenceServerClient(triton.grpc) as client, ThreadPoolExecutor(1) as thread:
        running = thread.submit(infer, triton.grpc, name("decoder"), given)
        calls = [client.async_infer(name("decoder"), inputs, callback=lambda result, error: None) for _ in range(6)]
        time.sleep(0.5)
        for call in calls:
            call.cancel()
        running.result()
    infer(triton.grpc, name("decoder"), given)  # in its turn, after all of them
    end = spent()
    arrived = end[0] - one[0]
    assert arrived > 4, "hardly any of the cancelled calls had arrived"
    assert end[1] - one[1] < 0.75 * arrived * (one[1] - start[1]), "cancelled calls have run"


@pytest.mark.parametrize("graph", ["decoder", pytest.param("scores", marks=pytest.mark.full)])
def test_bounded_queues_refuse_what_is_too_much_or_waits_too_long(
    graph: GraphName, installed: None, embedding: FloatArray
) -> None:
    inputs = [tensor(key, array) for key, array in prompts(embedding, 1, 1, 2).items()]
    with local_triton({SPEC.name: "f32"}, batching="bounded") as server:

        def outcomes(calls: int, timeout: int | None) -> list[str]:
            def call(number: int) -> str:
                with InferenceServerClient(server.grpc) as client:
                    try:
                        client.infer(name(graph), inputs, timeout=timeout)
                    except InferenceServerException as error:
                        return str(error)
                return "answered"

            with ThreadPoolExecutor(calls) as threads:
                return list(threads.map(call, range(calls)))

        before = settled(server.grpc, graph)
        answered, refused = split(outcomes(40, None))
        assert refused, "40 at once are more than run and wait"
        assert all("UNAVAILABLE" in one and "maximum queue size" in one for one in refused)
        assert settled(server.grpc, graph) - before == answered
        _, refused = split(outcomes(4, 1000))
        assert refused, "of four calls that begin together, at least one waits longer than a millisecond"
        assert all("UNAVAILABLE" in one and "timeout expired" in one for one in refused)
        assert outcomes(1, None) == ["answered"]


def split(outcomes: list[str]) -> tuple[int, list[str]]:
    """How many were answered, and what the others were told."""
    refused = [one for one in outcomes if one != "answered"]
    return len(outcomes) - len(refused), refused


def test_the_readme_s_call_works(triton: TritonServer) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code) == 1
    names: dict[str, Any] = {}
    exec(code[0].replace("127.0.0.1:8001", triton.grpc), names)
    names["client"].close()
    assert names["embedding"].shape == (1, 256, 64, 64)


def test_bf16_has_the_embedded_engine_s_bits_and_dynamic_batching_merges(
    installed: None, image: Arrays, embedding: FloatArray
) -> None:
    precision = "bf16" if has_native_bf16() else "f32"
    with local_triton({SPEC.name: precision}, batching="dynamic") as server:
        for graph in GRAPHS:
            inputs = inputs_of(graph, image, embedding)
            given = infer(server.grpc, name(graph), inputs).values()
            expected = embedded(graph, precision, inputs)
            assert all(np.array_equal(answer, one) for answer, one in zip(given, expected, strict=True)), graph
        several = [prompts(embedding, 1, 2, 2, seed) for seed in range(12)]
        before = settled(server.grpc, "decoder")
        with ThreadPoolExecutor(len(several)) as threads:
            answers = list(threads.map(lambda one: infer(server.grpc, name("decoder"), one), several))
        assert settled(server.grpc, "decoder") - before < len(several)
        for inputs, answer in zip(several, answers, strict=True):
            masks, ious = embedded("decoder", precision, inputs)
            assert answer["low_res_masks"].shape == masks.shape
            assert np.abs(answer["iou_predictions"] - ious).max() < 0.02
            assert ((answer["low_res_masks"] > 0) == (masks > 0)).mean() > 0.995
