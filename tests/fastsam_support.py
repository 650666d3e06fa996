"""FastSAM's embedding of the crafted answer that upstream's rules were recorded for."""

from __future__ import annotations

from functools import cache

import torch

from parity.upstream.fastsam import crafted_candidates, crafted_prototypes
from samgate.domain import FloatArray, Frame
from samgate.imaging.preprocess import frame_of
from samgate.variants import get_variant
from samgate.variants.nets.fastsam import FastSamEncoderGraph
from samgate.variants.nets.yolov8 import YoloV8

SPEC = get_variant("fastsam-s")
Size = tuple[int, int]


class _Answers(YoloV8):
    """Has a crafted answer for every image."""

    def __init__(self, wholes: int) -> None:
        torch.nn.Module.__init__(self)
        self._answer = torch.tensor(crafted_candidates(wholes))[None], torch.tensor(crafted_prototypes())[None]

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._answer


@cache
def embedded(size: Size, wholes: int = 1) -> tuple[FloatArray, Frame]:
    """The embedding ``[C, H, H]`` that the crafted answer makes of an image of ``size``."""
    frame = frame_of(*size, SPEC)
    pixels = torch.zeros(1, SPEC.input_size, SPEC.input_size, 3, dtype=torch.uint8)
    with torch.inference_mode():
        made = FastSamEncoderGraph(_Answers(wholes), SPEC)(pixels, torch.tensor([frame.valid], dtype=torch.int32))
    return made[0].numpy(), frame
