"""SAM 2: github.com/facebookresearch/sam2 at 2b90b9f, with torch 2.13.0, torchvision, hydra 1.3 and iopath.

Networks are those of ``sam2/configs/sam2.1``, asked through ``SAM2ImagePredictor``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parity.cases import Case
from parity.recording import Shapes
from parity.weights import FloatArray
from samgate.variants.spec import VariantSpec

CONFIGS = {"sam2.1-t": "t", "sam2.1-s": "s", "sam2.1-b-plus": "b+", "sam2.1-l": "l"}
VARIANTS = tuple(CONFIGS)
IMAGE = ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed")
"""What names of tensors begin with that images need."""


def build(spec: VariantSpec) -> Any:
    """Upstream's network with the architecture of ``spec``."""
    own = spec.architecture
    trunk = {
        "embed_dim": own["width"],
        "num_heads": own["heads"],
        "stages": list(own["depths"]),
        "global_att_blocks": list(own["global_blocks"]),
    }
    overrides = [f"++model.image_encoder.trunk.{name}={value}".replace(" ", "") for name, value in trunk.items()]
    widths = [own["width"] * 2**stage for stage in (3, 2, 1, 0)]
    overrides.append(f"++model.image_encoder.neck.backbone_channel_list={widths}".replace(" ", ""))
    config = f"configs/sam2.1/sam2.1_hiera_{CONFIGS[spec.name]}.yaml"
    build_sam2 = importlib.import_module("sam2.build_sam").build_sam2
    return build_sam2(config, device="cpu", hydra_overrides_extra=overrides)


class Sam2:
    """An :class:`~parity.recording.Upstream` around ``SAM2ImagePredictor``."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.predictor = importlib.import_module("sam2.sam2_image_predictor").SAM2ImagePredictor(network)

    def shapes(self) -> Shapes:
        state = self.network.state_dict()
        return {name: tuple(value.shape) for name, value in state.items() if name.startswith(IMAGE)}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        own = self.network.state_dict()
        assert {name for name in own if name.startswith(IMAGE)} == state.keys()
        self.network.load_state_dict(own | {name: torch.tensor(value) for name, value in state.items()})
        self.network.eval()

    def encode(self, pixels: NDArray[np.uint8], valid: tuple[int, int]) -> FloatArray:
        assert valid == pixels.shape[1:3]
        self.predictor.set_image(pixels[0])
        features = self.predictor._features
        return _packed([features["image_embed"], *features["high_res_feats"][::-1]])

    def decode(self, case: Case, index: int) -> tuple[FloatArray, FloatArray]:
        """All masks, before the choice among them: what ``predict_masks`` answers to ``_predict``'s question."""
        image, fine, finest = _unpacked(case.embedding[index : index + 1])
        self.predictor._features = {"image_embed": image, "high_res_feats": [finest, fine]}
        self.predictor._is_image_set = True
        self.predictor._orig_hw = [(64, 64)]
        answers = []
        decoder = self.network.sam_mask_decoder
        predict_masks = decoder.predict_masks

        def kept(**arguments: Any) -> Any:
            answers.append(predict_masks(**arguments))
            return answers[-1]

        decoder.predict_masks = kept
        try:
            self.predictor._predict(
                torch.tensor(case.coords[index]) if case.points else None,
                torch.tensor(case.labels[index]) if case.points else None,
                torch.tensor(case.boxes[index]) if case.box else None,
                torch.tensor(case.masks[index]) if case.mask else None,
            )
        finally:
            decoder.predict_masks = predict_masks
        ((masks, ious, _, _),) = answers
        return masks.numpy(), ious.numpy()


def load(checkout: str, spec: VariantSpec) -> Sam2:
    """Upstream's network."""
    return Sam2(build(spec))


def _packed(maps: Sequence[Tensor]) -> FloatArray:
    """Maps ``[1, C, n·H, n·H]`` → one embedding: channels pixel by pixel of each place, in the order of a tree of 2 × 2
    children."""
    parts = []
    for features in maps:
        x = features
        while x.shape[-1] > maps[0].shape[-1]:
            # From the innermost children outwards: each step puts the pixel before what is already there.
            x = torch.cat([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], 1)
        parts.append(x)
    packed: FloatArray = torch.cat(parts, 1).numpy()
    return packed


def _unpacked(embedding: FloatArray) -> list[Tensor]:
    """The inverse of :func:`_packed` for SAM 2's three maps, the coarsest first."""
    maps = []
    for levels, part in enumerate(torch.tensor(part) for part in np.split(embedding, (256, 512), 1)):
        x = part
        for _ in range(levels):
            size = 2 * x.shape[-1]
            finer = torch.empty(1, x.shape[1] // 4, size, size)
            for pixel, channels in enumerate(x.chunk(4, 1)):
                finer[:, :, pixel // 2 :: 2, pixel % 2 :: 2] = channels
            x = finer
        maps.append(x)
    return maps
