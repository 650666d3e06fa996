"""NanoSAM: github.com/NVIDIA-AI-IOT/nanosam at 6536336, with torch 2.13.0, timm 0.9.16 and torchvision.

Its predictor runs TensorRT engines: what these are exported of runs here in their place. ``record_rules`` records what
its functions around them do with images, points and masks.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from parity.cases import Case
from parity.recording import GOLDEN, Upstream
from parity.upstream.sam_like import SamLike
from parity.weights import FloatArray, draw, draw_pixels
from samgate.variants.spec import VariantSpec

VARIANTS = ("nanosam",)
SIZES = ((480, 640), (640, 427), (333, 333), (37, 50), (1, 49), (49, 98), (93, 128), (1365, 2048))
"""(height, width) of the images of the rules: usual ones, and some where a product or a quotient is just off a whole
number."""
EVERY = tuple((height, width) for height in range(1, 200) for width in range(1, 200))
"""Of these there is a digest of where upstream cuts."""


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's networks: the student, and MobileSAM's decoder as it is exported."""
    timm = importlib.import_module("timm")
    resnet = importlib.import_module("timm.models.resnet")
    sizes, make = spec.architecture, resnet.make_blocks

    def narrow(block: Any, widths: Any, *args: Any, **kwargs: Any) -> Any:
        return make(block, list(sizes["widths"]), *args, **kwargs)

    def create(name: str, **kwargs: Any) -> Any:
        network = timm_create(name, layers=list(sizes["depths"]), **kwargs)
        # timm says of its table how wide a stage is; these are other ones.
        for info, width in zip(network.feature_info.info[1:], sizes["widths"], strict=True):
            info["num_chs"] = width
        return network

    timm_create = timm.create_model
    with mock.patch.object(resnet, "make_blocks", narrow), mock.patch.object(timm, "create_model", create):
        encoders = importlib.import_module("nanosam.models.timm_image_encoder")
        encoder = encoders.TimmImageEncoder("resnet18", neck_channels=sizes["neck"])
    encoder.img_size = spec.input_size
    sam = importlib.import_module("nanosam.mobile_sam").sam_model_registry["vit_t"](None)
    sam.image_encoder = encoder
    return NanoSam(sam)


class NanoSam(SamLike):
    """``sam`` with the decoder's graph in the place of its prompt encoder: points and corners are what is given."""

    def decode(self, case: Case, index: int) -> tuple[FloatArray, FloatArray]:
        graph = importlib.import_module("nanosam.mobile_sam.utils.onnx").SamOnnxModel(self.sam, False)
        coords, labels = [case.coords[index]], [case.labels[index]]
        if case.box:
            coords.append(case.boxes[index].reshape(-1, 2, 2))
            labels.append(np.tile(np.array([[2, 3]], np.int32), (case.prompts, 1)))
        masks = case.masks[index] if case.mask else np.zeros((1, 1, 256, 256), np.float32)
        ious, logits = graph(
            torch.tensor(case.embedding[index : index + 1]),
            torch.tensor(np.concatenate(coords, 1)),
            torch.tensor(np.concatenate(labels, 1)).float(),
            torch.tensor(masks),
            torch.tensor([float(case.mask)]),
        )
        return logits.numpy(), ious.numpy()


def record_rules() -> None:
    """Writes ``rules_nanosam.npz``; run as ``python -m parity.upstream.nanosam CHECKOUT``."""
    for name in ("torch2trt", "tensorrt"):
        sys.modules[name] = ModuleType(name)
    sys.modules["torch2trt"].TRTModule = object  # type: ignore[attr-defined]
    predictor = importlib.import_module("nanosam.utils.predictor")
    arrays: dict[str, NDArray[Any]] = {"sizes": np.array(SIZES)}
    logits = draw("rules/logits", (1, 4, 256, 256)) * np.float32(4)
    with mock.patch.object(torch.Tensor, "cuda", lambda self: self):
        for height, width in SIZES:
            key = f"{height}x{width}"
            image = Image.fromarray(draw_pixels(f"rules/{key}", (height, width, 3)))
            square = predictor.preprocess_image(image, 1024)[0].numpy()
            arrays[f"{key}/input"] = square.ravel()[::5998]
            points = np.abs(draw(f"rules/{key}/points", (5, 2))).astype(np.float64) / 2 * (width, height)
            scaled = predictor.preprocess_points(points, (height, width))
            arrays[f"{key}/points"] = torch.tensor([scaled]).float().numpy()[0]
            full = predictor.upscale_mask(torch.tensor(logits), (height, width))[0].numpy()
            arrays[f"{key}/masks"] = full.ravel()[:: max(1, full.size // 1024) | 1]
        arrays["every/resized"], arrays["every/cuts"] = (np.array(digest) for digest in _of_every_size(predictor))
    path = GOLDEN / "rules_nanosam.npz"
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{path}: {path.stat().st_size:,} bytes", flush=True)


def _of_every_size(predictor: Any) -> tuple[str, str]:
    """Digests of the (height, width) that images of ``EVERY`` size are resized to, and of their cuts."""
    resized: list[tuple[int, int]] = []

    class Probe:
        def __init__(self, size: tuple[int, int]) -> None:
            self.height, self.width = size

        def resize(self, size: tuple[int, int]) -> NDArray[np.uint8]:
            resized.append((size[1], size[0]))
            return np.zeros((size[1], size[0], 3), np.uint8)

    blank, square = torch.empty(1, 1, 256, 256), torch.empty(1, 3, 1024, 1024)
    with (
        mock.patch.object(predictor.F, "interpolate", lambda mask, *_, **__: mask),
        mock.patch.object(predictor.torch, "zeros", return_value=square),
        mock.patch.object(predictor.torch, "from_numpy", lambda array: torch.empty(1).expand(array.shape)),
    ):
        cuts = [tuple(predictor.upscale_mask(blank, size).shape[2:]) for size in EVERY]
        for size in EVERY[::7]:
            predictor.preprocess_image(Probe(size), 1024)
    return digest(resized), digest(cuts)


def digest(sizes: Sequence[tuple[int, ...]]) -> str:
    """SHA-256 of ``sizes``."""
    return hashlib.sha256(np.array(sizes, np.int64).tobytes()).hexdigest()


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    record_rules()
