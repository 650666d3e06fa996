"""Every variant through the gateway, in this process and on a real Triton: prompts of every kind, and SegEvery."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from samgate.api.local import local_gateway
from samgate.client import Client
from samgate.client.requests import EverythingOptions
from samgate.compile.export import graph_module, load_network
from samgate.config import EngineSettings, Settings
from samgate.domain import Prompt
from samgate.errors import InvalidArgument, NotInstalled
from samgate.imaging.preprocess import encoder_input
from samgate.segevery.strategies import Strategy, inapplicable
from samgate.serving.prompting import group_prompts
from samgate.variants.detections import NOTHING, detections_in
from samgate.variants.spec import GraphName, VariantSpec
from variants_support import DECODERS, OWN, STEPS, drawn, picture, reduced

IMAGE = picture(240, 360)
SQUARE = picture(360, 360)
"""For systems that find everything: drawn ones find it in the grey around an image first, where it doesn't count."""
POINTS, LABELS = np.array([[100, 80], [300, 200]], np.float32), np.array([1, 1], np.int32)
BOX = np.array([40, 30, 220, 190], np.float32)
TOLERANCE = 1e-3
"""|Δ| / |torch's| of logits: kernels in another order, and drawn weights that carry it far."""


def image_of(spec: VariantSpec) -> NDArray[np.uint8]:
    return SQUARE if spec.finds_everything else IMAGE


ON_TRITON = ("sam2.1-t", "edgesam")
"""One of all sets of graphs but MobileSAM's and FastSAM's, which have tests of their own there; models on Triton take
processes."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for all, where Triton is unpacked once."""
    return tmp_path_factory.mktemp("home")


def _clients() -> Iterator[Any]:
    """Engines and variants; what isn't looked at by default is marked."""
    for engine, names, default in (("auto", OWN, DECODERS), ("triton", DECODERS, ON_TRITON)):
        for name in names:
            yield pytest.param((engine, name), id=f"{name}-{engine}", marks=() if name in default else pytest.mark.full)


class Served(NamedTuple):
    client: Client
    engine: str
    spec: VariantSpec


@pytest.fixture(scope="module", params=list(_clients()))
def served(request: pytest.FixtureRequest, kept: Path) -> Iterator[Served]:
    """A gateway with one variant: all at once would take 17 GB, mostly Triton's."""
    engine, name = request.param
    settings = Settings(engine=EngineSettings(name=engine, precision="f32"), variants=name)
    with reduced((name,), kept) as specs, local_gateway(settings) as target, Client(target, timeout_s=120) as client:
        yield Served(client, engine, specs[0])


def test_prompts_of_every_kind_are_answered_as_torch_does(served: Served) -> None:
    client, _, spec = served
    prompts = list(prompts_of(spec))
    answer = client.segment(image_of(spec), prompts=prompts, selection="multi", return_logits=True, variant=spec.name)
    assert answer.info.variant.partition(":")[0] == spec.name
    found = [mask.low_res_logits for masks in answer.results for mask in masks]
    if "decoder" in spec.graphs:
        expected, bound = torchs(spec, prompts), STEPS if spec.rounds else TOLERANCE
        assert len(found) == len(prompts) * len(spec.multimask_tokens)
        for index, ours in enumerate(found):
            # Of detections that are equally confident, as many are of a drawn network, any may come first.
            those = expected if spec.finds_everything else expected[index : index + 1]
            assert any(np.linalg.norm(ours - theirs) <= bound * np.linalg.norm(theirs) for theirs in those)
        assert len({mask.tobytes() for mask in found if mask is not None and np.any(mask > 0)}) > 1
    for selection in ("single", "best"):
        one = client.segment(image_of(spec), prompts=prompts[:1], selection=selection, variant=spec.name)
        assert len(one.masks) == 1
        assert one.masks[0].to_numpy().shape == image_of(spec).shape[:2]


def test_prompts_that_the_system_was_not_made_for_are_refused(served: Served) -> None:
    client, _, spec = served
    support = spec.prompts
    wrong: list[tuple[str, Prompt]] = []
    if not support.background:
        wrong.append(("points", Prompt(POINTS, np.array([1, 0], np.int32))))
    if not support.mask:
        wrong.append(("mask_logits", Prompt(POINTS, LABELS, mask_logits=np.zeros((256, 256), np.float32))))
    if support.most_points is not None:
        many = np.repeat(POINTS[:1], support.most_points + 1, axis=0)
        wrong.append(("points", Prompt(many, np.ones(len(many), np.int32))))
    with pytest.raises(NotInstalled, match="--text-model clip-vit-b-32"):
        client.segment(image_of(spec), text="a dog", variant=spec.name)
    for field, prompt in wrong:
        with pytest.raises(InvalidArgument, match=rf"prompts\[0\]\.{field}"):
            client.segment(image_of(spec), prompts=[prompt], variant=spec.name)


STRATEGIES = ("grid", "hierarchical", "aop", "auto")


def test_every_strategy_finds_masks(served: Served) -> None:
    client, engine, spec = served
    # What differs on Triton is how masks are decoded, which the grid shows.
    for strategy in STRATEGIES if engine == "auto" else ("grid",):
        options: EverythingOptions = {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1}
        options |= {"spacing": 32} if strategy == "aop" else {"points_per_side": 4}

        ask = partial(client.everything, image_of(spec), strategy=strategy, variant=spec.name, **options)
        if inapplicable(Strategy(strategy), spec):
            with pytest.raises(InvalidArgument, match="strategy: is"):
                ask(timeout_s=30)
        else:
            answer = ask(timeout_s=30 if strategy == "auto" else 300)
            assert answer.info.variant.partition(":")[0] == spec.name
            assert answer.masks, strategy


def prompts_of(spec: VariantSpec) -> Iterator[Prompt]:
    yield Prompt(POINTS[:1], LABELS[:1])
    yield Prompt(POINTS, LABELS)
    yield Prompt(POINTS[:0], LABELS[:0], BOX)
    yield Prompt(POINTS[:1], LABELS[:1], BOX)
    if spec.prompts.background:
        yield Prompt(POINTS, np.array([1, 0], np.int32))
    if spec.prompts.mask:
        logits = np.linspace(-8, 8, 256 * 256, dtype=np.float32).reshape(256, 256)
        yield Prompt(POINTS[:1], LABELS[:1], mask_logits=logits)


@torch.inference_mode()
def torchs(spec: VariantSpec, prompts: list[Prompt]) -> list[np.ndarray[Any, Any]]:
    """The multimask logits of each prompt, or all that there are of the image."""
    network = load_network(spec, drawn(spec))
    pixels, frame = encoder_input(image_of(spec), spec)
    valid = torch.tensor([frame.valid], dtype=torch.int32)
    embedding = graph_module(spec, network, "encoder")(torch.tensor(pixels[None]), valid)
    if spec.finds_everything:
        nothing = np.full((spec.low_res_size,) * 2, NOTHING, np.float32)
        return [nothing, *detections_in(embedding[0].numpy()).logits(slice(None))]
    answers: dict[int, np.ndarray[Any, Any]] = {}
    for group in group_prompts(prompts, frame, spec, len(prompts)):
        given = group.prompts
        inputs = [embedding, torch.tensor(given.coords), torch.tensor(given.labels)]
        if given.masks is not None and given.has_mask is not None:
            inputs += [torch.tensor(given.masks), torch.tensor(given.has_mask)]
        name: GraphName = "decoder" if given.masks is None else "masked_decoder"
        masks, _ = graph_module(spec, network, name)(*inputs)
        answers |= dict(zip(group.indices, masks[0].numpy(), strict=True))
    return [answers[index][token] for index in range(len(prompts)) for token in spec.multimask_tokens]
