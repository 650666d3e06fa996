"""EfficientSAM: github.com/yformer/EfficientSAM at d525f62, with torch 2.13.0."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from parity.cases import Case
from parity.recording import GOLDEN, Shapes, sampled
from parity.weights import FloatArray, draw, draw_pixels, draw_state
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

VARIANTS = ("efficientsam-ti", "efficientsam-s")


class EfficientSam:
    """An :class:`~parity.recording.Upstream` around upstream's ``EfficientSam``."""

    def __init__(self, sam: Any) -> None:
        self.sam = sam.eval()

    def shapes(self) -> Shapes:
        return {name: tuple(value.shape) for name, value in self.sam.state_dict().items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.sam.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)

    def encode(self, pixels: NDArray[np.uint8], valid: tuple[int, int]) -> FloatArray:
        if valid != pixels.shape[1:3]:
            raise ValueError("upstream's images fill the encoder's input")
        image = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255
        embedding: FloatArray = self.sam.get_image_embeddings(image).numpy()
        return embedding

    def decode(self, case: Case, index: int) -> tuple[FloatArray, FloatArray]:
        coords, labels = [case.coords[index]], [case.labels[index]]
        if case.box:
            coords.append(case.boxes[index].reshape(-1, 2, 2))
            labels.append(np.broadcast_to(np.array([2, 3], np.int32), (case.prompts, 2)))
        call = partial(
            self.sam.predict_masks,
            torch.tensor(case.embedding[index : index + 1]),
            torch.tensor(np.concatenate(coords, 1)[None]),
            torch.tensor(np.concatenate(labels, 1)[None]),
            input_h=case.spec.prompt_size,
            input_w=case.spec.prompt_size,
        )
        # It answers with the first mask or with the three others.
        one, three = call(multimask_output=False), call(multimask_output=True)
        masks, ious = (torch.cat(pair, 2)[0].numpy() for pair in zip(one, three, strict=True))
        return masks, ious


def load(checkout: str, spec: VariantSpec) -> EfficientSam:
    """Upstream's network; of its builder's sizes those that it doesn't ask for are replaced in what it calls."""
    module = importlib.import_module("efficient_sam.efficient_sam")
    wide = spec.architecture
    resized = {
        "ImageEncoderViT": {"depth": wide["depth"]},
        "TwoWayTransformer": {"mlp_dim": wide["decoder_mlp"]},
    }

    def smaller(name: str) -> Any:
        make = getattr(module, name)
        return patch.object(module, name, lambda **given: make(**given | resized[name]))

    with smaller("ImageEncoderViT"), smaller("TwoWayTransformer"):
        return EfficientSam(module.build_efficient_sam(wide["dim"], wide["heads"]))


RULE_SIZES = ((5, 7), (427, 640), (777, 333), (1024, 1024), (1500, 1100))
"""(height, width) of images: tiny, landscape, portrait, as the encoder's input, larger than that."""
RULE_POINTS = ((0.0, 0.0), (0.25, 0.5), (0.999, 0.999), (1.0, 1.0))
"""In parts of the image."""


def rule_image(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Noise of a size in :data:`RULE_SIZES`, ``[H, W, 3]``."""
    return draw_pixels(f"image {size}", (*size, 3))


def rule_logits() -> FloatArray:
    """A decoder's ``[256, 256]``: waves of several pixels with noise."""
    y, x = np.mgrid[:256, :256].astype(np.float32)
    logits: FloatArray = (4 * np.sin(x / 9) * np.cos(y / 13) + draw("logits", (256, 256))).astype(np.float32)
    return logits


def record_rules(checkout: str) -> dict[str, NDArray[Any]]:
    """What upstream makes of images, points and logits around its networks, of those in :data:`RULE_SIZES`: the
    encoder's input before it is normalised, what comes to the prompt encoder, logits at the image's size and the mask
    of them. And the embedding that its reduced network has of an image, weights drawn."""
    spec = get_variant(VARIANTS[0]).reduced()
    upstream = load(checkout, spec)
    upstream.load(draw_state(upstream.shapes()))
    sam = upstream.sam
    arrays: dict[str, NDArray[Any]] = {}
    for size in RULE_SIZES:
        height, width = size
        image = torch.tensor(rule_image(size)).permute(2, 0, 1)[None].float() / 255
        pixels = sam.preprocess(image) * sam.pixel_std + sam.pixel_mean
        arrays |= sampled(f"{size}/input", pixels.numpy().transpose(0, 2, 3, 1))
        points = torch.tensor(RULE_POINTS) * torch.tensor([width, height])
        labels = torch.ones(1, 1, len(RULE_POINTS))
        with (
            patch.object(sam.prompt_encoder, "forward", wraps=sam.prompt_encoder.forward) as encoder,
            patch.object(sam.mask_decoder, "forward") as decoder,
        ):
            decoder.return_value = torch.tensor(rule_logits())[None, None], torch.ones(1, 1)
            embedding = torch.zeros(1, *spec.embedding_shape)
            logits, _ = sam.predict_masks(embedding, points[None, None], labels, True, height, width, height, width)
        (coords, kinds), _ = encoder.call_args
        arrays |= {f"{size}/coords": coords[0].numpy(), f"{size}/labels": kinds[0].numpy()}
        arrays |= sampled(f"{size}/logits", logits[0, 0, 0].numpy())
        arrays[f"{size}/area"] = np.array(int(torch.ge(logits, 0).sum()))
    image = torch.tensor(rule_image(RULE_SIZES[1])).permute(2, 0, 1)[None].float() / 255
    return arrays | sampled("embedding", sam.get_image_embeddings(image).numpy())


if __name__ == "__main__":
    # PYTHONPATH=service:tests python -m parity.upstream.efficientsam CHECKOUT
    sys.path.insert(0, sys.argv[1])
    with torch.inference_mode():
        np.savez_compressed(GOLDEN / "rules_efficientsam.npz", allow_pickle=False, **record_rules(sys.argv[1]))
