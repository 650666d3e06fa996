"""Square maps brought to another size by cubic convolution (Keys, 1981), as two products with a fixed matrix.

That is what ``torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`` computes. As products it runs on
every engine's best kernels, stays channels-last, and says in the graph itself how edges and pixel centres are meant,
which resize operators of different runtimes don't agree on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SHARPNESS = -0.75
"""Keys's a: the slope of the kernel at distance 1. PyTorch's and OpenCV's value."""
_REACH = 2
"""Pixels on either side that a cubic kernel takes in."""


class Resample(nn.Module):
    """Tokens ``[N, from_size², channels]`` of a square map → tokens ``[N, to_size², channels]`` of the same square."""

    def __init__(self, from_size: int, to_size: int, channels: int) -> None:
        super().__init__()
        self.from_size, self.to_size, self.channels = from_size, to_size, channels
        self.register_buffer("weights", cubic_weights(from_size, to_size), persistent=False)
        self.weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        # The matrix stands on the left: then it is no "product with weights", which int8 would take.
        x = self.weights @ x.reshape(-1, self.from_size, self.from_size * self.channels)
        x = self.weights @ x.reshape(-1, self.to_size, self.from_size, self.channels)
        return x.reshape(-1, self.to_size**2, self.channels)


def cubic_weights(from_size: int, to_size: int) -> Tensor:
    """``[to_size, from_size]``: how much of each pixel is in each resampled one, along one axis.

    Pixels are areas, so centres lie at half pixels; beyond the edge its last pixel goes on. Every row's sum is 1.
    """
    rows = torch.arange(to_size, dtype=torch.float64)
    centre = (rows + 0.5) * (from_size / to_size) - 0.5
    weights = torch.zeros(to_size, from_size, dtype=torch.float64)
    for offset in range(1 - _REACH, 1 + _REACH):
        pixel = centre.floor() + offset
        share = _cubic((centre - pixel).abs())
        weights[rows.long(), pixel.clamp(0, from_size - 1).long()] += share
    return weights.to(torch.float32)


def _cubic(distance: Tensor) -> Tensor:
    """The kernel at distances 0 to 2."""
    a = _SHARPNESS
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, far)
