"""ResNet of basic blocks (He et al., 2015, arXiv 1512.03385) as a backbone: its last feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import conv_norm


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions around which the input goes; ``downsample`` fits it where sizes change.

    ``[N, in, H, W]`` → ``[N, out, H / stride, W / stride]``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(conv_norm(x, self.conv1, self.bn1))
        y = conv_norm(y, self.conv2, self.bn2)
        if self.downsample is not None:
            x = conv_norm(x, *cast("tuple[nn.Conv2d, nn.BatchNorm2d]", tuple(self.downsample)))
        return F.relu(x + y)


class ResNet(nn.Module):
    """``[N, 3, S, S]`` → ``[N, widths[-1], S / 32, S / 32]``. The defaults are ResNet-18's.

    Args:
        widths: channels of each stage.
        depths: blocks of each stage.
        stem: channels of the first convolution.
    """

    def __init__(
        self, widths: Sequence[int] = (64, 128, 256, 512), depths: Sequence[int] = (2, 2, 2, 2), stem: int = 64
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
            blocks = []
            for index in range(depth):
                blocks.append(BasicBlock(channels, width, 2 if stage > 1 and index == 0 else 1))
                channels = width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.stages = len(widths)
        self.channels = channels
        for layer in self.modules():
            start(layer)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(conv_norm(x, self.conv1, self.bn1)), 3, 2, 1)
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


def start(layer: nn.Module) -> None:
    """Convolutions begin so that activations neither grow nor shrink (He et al., 2015, arXiv 1502.01852)."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
