"""Prompts in words through the gateway, on every engine: reduced networks, against torch and FastSAM's rule as it is
written there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from parity.weights import draw_state
from samgate.api.local import local_gateway
from samgate.api.server import load_text_model_of
from samgate.cli.main import main
from samgate.cli.triton import text_models_for
from samgate.client import Client, SamPredictor, prompt
from samgate.compile.artifacts import installed_artifact
from samgate.compile.export import graph_module, load_network
from samgate.compile.gate import GateData
from samgate.compile.graphs import ensure_graphs
from samgate.compile.pipeline import Request, compile_variant
from samgate.compile.targets import TARGETS
from samgate.config import EngineSettings, Settings
from samgate.domain import FloatArray
from samgate.engines import onnxruntime
from samgate.errors import InvalidArgument, NotFound
from samgate.imaging.masks import finish
from samgate.imaging.preprocess import encoder_input
from samgate.text.tokens import tokens_of
from samgate.variants import get_variant
from samgate.variants.clip import ClipSpec
from samgate.variants.detections import detections_in
from samgate.variants.spec import VariantSpec
from samgate.weights.formats import network_shapes
from variants_support import drawn, picture, reduced, reduced_text_model

IMAGE = picture(360, 420)
TEXTS = ("a black dog", "the sky above the roofs", "Zwölf Boxkämpfer 🥊")
CLOSE = 2e-3
"""Of probabilities, which have a hundred times the error of cosines."""
LOW = 5e-3
"""Between features of the length 1, of which one is from fp16: five of its last digits."""


class Served(NamedTuple):
    client: Client
    target: str
    spec: VariantSpec
    clip: ClipSpec


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", params=["openvino", "onnxruntime", "torch", "triton"])
def served(request: pytest.FixtureRequest, kept: Path) -> Iterator[Served]:
    settings = Settings(
        engine=EngineSettings(name=request.param, precision="f32"), variants="fastsam-s", text_model="clip-vit-b-32"
    )
    with (
        reduced(("fastsam-s",), kept) as specs,
        reduced_text_model(kept) as clip,
        local_gateway(settings) as target,
        Client(target, timeout_s=120) as client,
    ):
        yield Served(client, target, specs[0], clip)


class Expected(NamedTuple):
    """``masks`` bool ``[k, H, W]`` of all objects that can be meant, and ``likely`` ``[T, k]``."""

    masks: NDArray[np.bool_]
    likely: FloatArray


@torch.inference_mode()
def expected(spec: VariantSpec, clip: ClipSpec, texts: tuple[str, ...]) -> Expected:
    """By torch, Pillow and the words of upstream's ``text_prompt``."""
    pixels, frame = encoder_input(IMAGE, spec)
    encoder = graph_module(spec, load_network(spec, drawn(spec)), "encoder")
    valid = torch.tensor([frame.valid], dtype=torch.int32)
    found = detections_in(encoder(torch.tensor(pixels[None]), valid)[0].numpy())
    masks = [finish(logits, frame, spec.mask_threshold).mask.astype(bool) for logits in found.logits(slice(None))]
    masks = [mask for mask in masks if mask.sum() > 100]
    network = load_network(clip, draw_state(network_shapes(clip)))
    crops = torch.tensor(np.stack([_shown(mask, clip.input_size) for mask in masks]))
    tokens = torch.tensor(tokens_of([("text", text) for text in texts], clip.context))
    cosines = (
        graph_module(clip, network, "text_features")(tokens) @ graph_module(clip, network, "image_features")(crops).T
    )
    return Expected(np.stack(masks), (100 * cosines).softmax(1).numpy())


def _shown(mask: NDArray[np.bool_], side: int) -> NDArray[np.uint8]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    blank = np.full_like(IMAGE, 255)
    blank[inside] = IMAGE[inside]
    height, width = IMAGE.shape[:2]
    resized = Image.fromarray(blank).resize((side * width // height, side), Image.Resampling.BICUBIC)
    left = round((resized.width - side) / 2)
    return np.asarray(resized.crop((left, 0, left + side, side)))


def _iou(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_words_choose_what_upstream_s_rule_does(served: Served) -> None:
    client, _, spec, clip = served
    truth = expected(spec, clip, TEXTS)
    assert len(truth.masks) > 5
    assert len(set(truth.likely.argmax(1))) > 1, "these texts mean the same: the test could not tell them apart"
    prompts = [prompt(text=text) for text in TEXTS]
    answer = client.segment(IMAGE, prompts=prompts, selection="multi")
    assert answer.info.timings.text_ms > 0
    for likely, masks in zip(truth.likely, answer.results, strict=True):
        assert len(masks) == 3
        best = np.argsort(-likely, kind="stable")[:3]
        assert [mask.predicted_iou for mask in masks] == pytest.approx(likely[best], abs=CLOSE)
        for mask, index in zip(masks, best, strict=True):
            alike = [one for one in range(len(likely)) if abs(likely[one] - likely[index]) < 2 * CLOSE]
            assert max(_iou(mask.to_numpy().astype(bool), truth.masks[one]) for one in alike) > 0.99
    for selection in ("single", "best"):
        one = client.segment(IMAGE, prompts=prompts, selection=selection)
        for several, (mask,) in zip(answer.results, one.results, strict=True):
            np.testing.assert_array_equal(mask.to_numpy(), several[0].to_numpy())


def test_words_and_other_prompts_go_together(served: Served) -> None:
    client = served.client
    box = prompt(box=(40, 30, 220, 190))
    words = prompt(text=TEXTS[0])
    both = client.segment(IMAGE, prompts=[box, words, box])
    alone = [client.segment(IMAGE, prompts=[one]) for one in (box, words, box)]
    for masks, one in zip(both.results, alone, strict=True):
        np.testing.assert_array_equal(masks[0].to_numpy(), one.masks[0].to_numpy())


def test_a_handle_will_do_once_objects_are_known(served: Served) -> None:
    client = served.client
    image = picture(320, 330)
    handle = client.embed(image).handle
    with pytest.raises(NotFound, match="send the image"):
        client.segment(handle, text=TEXTS[0])
    first = client.segment(image, text=TEXTS[0])
    again = client.segment(handle, text=TEXTS[0])
    np.testing.assert_array_equal(first.masks[0].to_numpy(), again.masks[0].to_numpy())
    predictor = SamPredictor(client)
    predictor.set_image(picture(330, 320))
    masks, likely, _ = predictor.predict(text=TEXTS[1])
    assert masks.shape == (3, 330, 320)
    assert list(likely) == sorted(likely, reverse=True)


def test_what_is_no_words_is_told(served: Served) -> None:
    client = served.client
    with pytest.raises(InvalidArgument, match=r"prompts\[1\]\.text: has \d+ tokens .*; the limit is 75"):
        client.segment(IMAGE, prompts=[prompt(text="dog"), prompt(text="dog " * 76)])
    with pytest.raises(InvalidArgument, match=r"prompts\[0\]\.text: has no words"):
        client.segment(IMAGE, text="&nbsp;")
    assert client.segment(IMAGE, text="dog").masks


def test_where_nothing_can_be_meant_the_mask_is_empty(served: Served) -> None:
    # No object has more than 100 pixels.
    answer = served.client.segment(picture(9, 10), text="dog", selection="multi", return_logits=True)
    assert len(answer.masks) == 3
    for mask in answer.masks:
        assert mask.predicted_iou == 0
        assert not mask.to_numpy().any()
        assert mask.low_res_logits is not None


def test_a_text_model_without_a_variant_for_it_is_refused_at_the_start() -> None:
    settings = Settings(variants="mobilesam,sam-vit-b:f32", text_model="clip-vit-b-32")
    with pytest.raises(InvalidArgument, match="no variant is served that takes words, as do fastsam-s, fastsam-x"):
        load_text_model_of(settings, lambda line: None)


def test_the_command_brings_what_words_need(kept: Path, tmp_path: Path) -> None:
    photo, mask, figures = (str(tmp_path / name) for name in ("photo.png", "mask.png", "figures.json"))
    Image.fromarray(IMAGE).save(photo)
    with reduced(("fastsam-s",), kept), reduced_text_model(kept), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMGATE_ENGINE_PRECISION", "f32")
        assert main(["segment", photo, "--text", TEXTS[0], "-o", mask, "--json", figures]) == 0
    told = json.loads(Path(figures).read_text())
    assert told["variant"] == "fastsam-s"
    assert told["timings_ms"]["text"] > 0
    assert np.count_nonzero(np.asarray(Image.open(mask))) == told["masks"][0]["area"] > 100


def test_triton_has_an_installed_text_model_where_a_variant_takes_words(kept: Path) -> None:
    fastsam, mobilesam = get_variant("fastsam-s"), get_variant("mobilesam")
    with reduced_text_model(kept):
        assert text_models_for([mobilesam, fastsam]) == ["clip-vit-b-32"]
        assert text_models_for([mobilesam]) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMGATE_HOME", str(kept / "empty"))
        assert text_models_for([fastsam]) == []


def test_a_text_model_is_compiled_through_no_gate(kept: Path, tmp_path: Path, photo: bytes) -> None:
    with reduced_text_model(kept) as clip:
        request = Request(clip, TARGETS["onnx"], "fp16", root=tmp_path)
        (artifact,) = compile_variant(request, lambda line: None)
        assert installed_artifact(clip, "onnx", "fp16", root=tmp_path).manifest == artifact.manifest
        assert (artifact.manifest.gate, artifact.manifest.checked) == (None, "not run: there are no masks to judge")
        crops = {"image": picture(224, 224)[None]}
        low, full = (
            onnxruntime.load_graph(files["image_features"], "f32", 2)(crops)[0]
            for files in (artifact.files, ensure_graphs(clip))
        )
        assert 0 < np.linalg.norm(low - full) < LOW
        folder = tmp_path / "photos"
        folder.mkdir()
        (folder / "photo.png").write_bytes(photo)
        with pytest.raises(InvalidArgument, match="eval: clip-vit-b-32 makes no masks that images could judge"):
            compile_variant(replace(request, data=GateData.from_paths(None, folder)), lambda line: None)
