"""EfficientViT-SAM: github.com/mit-han-lab/efficientvit at de7d773, with torch 2.13.0 and torchvision, beside
github.com/facebookresearch/segment-anything at dca509f (``segment-anything`` in the folder that CHECKOUT is in).

Its package also imports Triton, whose kernels its SAM models don't use: stand-ins take its place.

Run as a script with CHECKOUT, it records what upstream does around its networks: ``golden/rules_efficientvit_sam.npz``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from parity.recording import Upstream
from parity.rules import SIZES, coords_of, image_of, logits_of, sample, write
from parity.upstream.sam_like import SamLike
from parity.weights import FloatArray
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

VARIANTS = tuple(f"efficientvit-sam-{size}" for size in ("l0", "l1", "l2", "xl0", "xl1"))
RULES = ("efficientvit-sam-l0", "efficientvit-sam-xl0")
"""One variant of each input size."""
_BLOCKS = {"att3": "att@3", "att5": "att@5"}


class EfficientVitSam(SamLike):
    """Upstream's network with its own preparation of images, of which the resize is left out."""

    def encode(self, pixels: NDArray[np.uint8], valid: tuple[int, int]) -> FloatArray:
        height, width = valid
        x: Any = pixels[0, :height, :width]
        for step in self.sam.transform.transforms[1:]:
            x = step(x)
        embedding: FloatArray = self.sam.image_encoder(x[None]).numpy()
        return embedding


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's network by upstream's name; a reduced one of upstream's parts."""
    _stand_in()
    sys.path.insert(0, str(Path(checkout).resolve().parent / "segment-anything"))
    zoo = importlib.import_module("efficientvit.sam_model_zoo")
    if spec == get_variant(spec.name):
        return EfficientVitSam(zoo.create_efficientvit_sam_model(spec.name, pretrained=False))
    network = importlib.import_module("efficientvit.models.efficientvit.sam").build_efficientvit_sam(
        encoder(spec), spec.input_size
    )
    _, eps, _ = zoo.REGISTERED_EFFICIENTVIT_SAM_MODEL[spec.name]
    importlib.import_module("efficientvit.models.nn.norm").set_norm_eps(network, eps)
    return EfficientVitSam(network)


def encoder(spec: VariantSpec) -> Any:
    """Upstream's image encoder with the numbers of ``spec``."""
    backbones = importlib.import_module("efficientvit.models.efficientvit.backbone")
    sam = importlib.import_module("efficientvit.models.efficientvit.sam")
    numbers, widths = spec.architecture, spec.architecture["widths"]
    backbone = backbones.EfficientViTLargeBackbone(
        width_list=list(widths),
        depth_list=list(numbers["depths"]),
        block_list=[_BLOCKS.get(block, block) for block in numbers["blocks"]],
        expand_list=list(numbers["expands"]),
        fewer_norm_list=list(numbers["fewer_norms"]),
    )
    last = len(widths) - 1
    neck = sam.SamNeck(
        fid_list=[f"stage{stage}" for stage in (last, last - 1, last - 2)],
        in_channel_list=[widths[stage] for stage in (last, last - 1, last - 2)],
        head_width=numbers["neck_width"],
        head_depth=numbers["neck_depth"],
        expand_ratio=numbers["neck_expand"],
        middle_op="fmb",
    )
    return sam.EfficientViTSamImageEncoder(backbone, neck)


class _Seen(torch.nn.Module):
    """An image encoder that keeps what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.image = x
        return x


@torch.inference_mode()
def record_rules(checkout: str) -> dict[str, NDArray[Any]]:
    """By variant, what the decoder's LayerNorms add to variances, and by the image's size: the encoder's input,
    coordinates in the prompt frame, logits of the image."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in RULES:
        network = cast("EfficientVitSam", load(checkout, get_variant(name))).sam
        norms = [one for one in network.mask_decoder.modules() if isinstance(one, torch.nn.LayerNorm)]
        arrays[f"{name}/decoder_eps"] = np.array([norm.eps for norm in norms])
        network.image_encoder = seen = _Seen()
        predictor = importlib.import_module("efficientvit.models.efficientvit.sam").EfficientViTSamPredictor(network)
        for size in SIZES:
            predictor.set_image(image_of(size))
            logits = torch.tensor(logits_of(size))[None, None]
            masks = network.postprocess_masks(logits, predictor.input_size, predictor.original_size)
            arrays[f"{name}/{size}/input"] = sample(seen.image.numpy())
            arrays[f"{name}/{size}/coords"] = predictor.apply_coords(coords_of(size))
            arrays[f"{name}/{size}/logits"] = sample(masks.numpy())
    return arrays


def _stand_in() -> None:
    """Modules of which upstream only takes decorators and types. torch looks for them, too, when torchvision comes."""
    importlib.import_module("torchvision")
    triton, language = ModuleType("triton"), ModuleType("triton.language")
    triton.jit = lambda function: function  # type: ignore[attr-defined]
    triton.language = language  # type: ignore[attr-defined]
    language.constexpr = int  # type: ignore[attr-defined]
    sys.modules.setdefault("triton", triton)
    sys.modules.setdefault("triton.language", language)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    write("efficientvit_sam", record_rules(sys.argv[1]))
