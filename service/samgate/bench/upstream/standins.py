"""The few functions that upstream takes from torchvision and timm, for environments that have neither.

torchvision's wheels have to match torch to the patch level and bring CUDA along; of both packages upstream uses, in
evaluation mode, what is written out here. Each stand-in computes what the original does for the arguments that
upstream gives it: for PIL images torchvision's ``resize`` *is* ``PIL.Image.resize``, ``nms`` keeps its order (stable,
by descending score) and its comparison (strictly greater), and ``DropPath`` is the identity outside of training.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image


class DropPath(torch.nn.Module):
    """timm's stochastic depth in evaluation mode: nothing is dropped."""

    def __init__(self, drop_prob: float | None = None) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def to_2tuple(value: Any) -> tuple[Any, Any]:
    return (value, value)


def register_model(function: Any) -> Any:
    return function


def to_pil_image(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Image.Image:
    """``pixels`` uint8 ``[H, W, 3]``."""
    return Image.fromarray(pixels)


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """``size`` is (height, width)."""
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    """Areas ``[N]`` of ``boxes`` ``[N, 4]`` (x0, y0, x1, y1)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices ``[K]`` of the ``boxes`` ``[N, 4]`` that stay, by descending score."""
    order = torch.sort(scores, descending=True, stable=True)[1]
    areas, kept = box_area(boxes), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        order = order[~(shared / (areas[best] + areas[order] - shared) > iou_threshold)]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.long)


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """:func:`nms` within each group of ``idxs``. Raises ``ValueError`` for several groups, which upstream never has."""
    if len(idxs) and not bool((idxs == idxs[0]).all()):
        raise ValueError("this stand-in handles one group of boxes only")
    return nms(boxes, scores, iou_threshold)


def install() -> list[str]:
    """Puts stand-ins where torchvision or timm is missing. Returns the names of the packages that were."""
    missing = [name for name in ("torchvision", "timm") if importlib.util.find_spec(name) is None]
    if "torchvision" in missing:
        _module("torchvision.transforms.functional", resize=resize, to_pil_image=to_pil_image)
        _module("torchvision.ops.boxes", batched_nms=batched_nms, box_area=box_area)
    if "timm" in missing:
        layers = {"DropPath": DropPath, "to_2tuple": to_2tuple, "trunc_normal_": torch.nn.init.trunc_normal_}
        _module("timm.models.layers", **layers)
        _module("timm.models.registry", register_model=register_model)
    return missing


def _module(path: str, **contents: Any) -> None:
    """Makes ``path`` importable, with all of its parents, and puts ``contents`` into it."""
    parts = path.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        if name not in sys.modules:
            module = ModuleType(name)
            module.__path__ = []
            sys.modules[name] = module
            if depth > 1:
                setattr(sys.modules[".".join(parts[: depth - 1])], parts[depth - 1], module)
    vars(sys.modules[path]).update(contents)
