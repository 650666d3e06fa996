"""The blocks of EfficientViT's large networks (Cai et al., 2023, arXiv 2205.14756), under the names of its checkpoints.

Maps are ``[N, C, H, W]``. GELU is the tanh approximation everywhere, as the networks are trained.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
"""Of every normalisation."""
ATTENTION_EPS = 1e-15
"""Keeps 0 / 0 out of linear attention where a query sees nothing. 0 in fp16: see the spec's islands."""


class ConvLayer(nn.Module):
    """Convolution with a bias or with batch normalisation (then run as one convolution), and GELU where ``act``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        norm: bool = True,
        act: bool = True,
    ) -> None:
        super().__init__()
        groups = in_channels if depthwise else 1
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=not norm)
        self.norm = nn.BatchNorm2d(out_channels, eps=NORM_EPS) if norm else None
        self.act = act

    def fused(self) -> tuple[Tensor, Tensor | None]:
        """Weight ``[out, in / groups, k, k]`` and bias ``[out]`` of the one convolution."""
        norm = self.norm
        if norm is None:
            return self.conv.weight, self.conv.bias
        if norm.running_mean is None or norm.running_var is None:
            raise TypeError("a fused BatchNorm needs its running statistics")
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return self.conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W]`` → ``[N, out, H', W']``."""
        weight, bias = self.fused()
        conv = self.conv
        x = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        return F.gelu(x, approximate="tanh") if self.act else x


def res(in_channels: int, out_channels: int, stride: int, expand: int, fewer_norms: bool) -> nn.Module:
    """Two 3 × 3 convolutions."""
    hidden = in_channels * expand
    return _chain(
        conv1=ConvLayer(in_channels, hidden, 3, stride, norm=not fewer_norms),
        conv2=ConvLayer(hidden, out_channels, 3, act=False),
    )


def fused_mb(in_channels: int, out_channels: int, stride: int, expand: int, fewer_norms: bool) -> nn.Module:
    """An inverted bottleneck whose expansion and depthwise convolution are one full 3 × 3 convolution."""
    hidden = in_channels * expand
    return _chain(
        spatial_conv=ConvLayer(in_channels, hidden, 3, stride, norm=not fewer_norms),
        point_conv=ConvLayer(hidden, out_channels, act=False),
    )


def mb(in_channels: int, out_channels: int, stride: int, expand: int, fewer_norms: bool) -> nn.Module:
    """An inverted bottleneck: expand, depthwise, project."""
    hidden = in_channels * expand
    return _chain(
        inverted_conv=ConvLayer(in_channels, hidden, norm=not fewer_norms),
        depth_conv=ConvLayer(hidden, hidden, 3, stride, depthwise=True, norm=not fewer_norms),
        point_conv=ConvLayer(hidden, out_channels, act=False),
    )


class LiteMla(nn.Module):
    """Multi-scale linear attention: softmax's place is taken by ReLU on queries and keys, so that keys and values can
    be multiplied first, whatever the number of tokens.

    Heads come twice: of the tokens themselves, and of what a depthwise convolution gathers around each.

    Args:
        channels: of the map.
        head_dim: width of a head.
        scale: side of the depthwise convolution.
        size: height and width of the map.
    """

    def __init__(self, channels: int, head_dim: int, scale: int, size: int) -> None:
        super().__init__()
        self.head_dim, self.size = head_dim, size
        heads = channels // head_dim
        width = heads * head_dim
        self.heads = 2 * heads
        self.qkv = _chain(conv=nn.Conv2d(channels, 3 * width, 1, bias=False))
        self.aggreg = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(3 * width, 3 * width, scale, padding=scale // 2, groups=3 * width, bias=False),
                    nn.Conv2d(3 * width, 3 * width, 1, groups=3 * heads, bias=False),
                )
            ]
        )
        self.proj = ConvLayer(2 * width, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, size, size]`` → the same."""
        dim, pixels = self.head_dim, self.size**2
        x = self.qkv(x)
        x = torch.cat((x, *(gather(x) for gather in self.aggreg)), 1)
        x = x.reshape(-1, self.heads, 3 * dim, pixels)
        q, k, v = F.relu(x[:, :, :dim]), F.relu(x[:, :, dim : 2 * dim]), x[:, :, 2 * dim :]
        # The paper appends a row of ones to v for the denominators; the sum of k is what it makes of them.
        seen = (v @ k.transpose(-2, -1)) @ q
        share = k.sum(-1, keepdim=True).transpose(-2, -1) @ q
        x = (seen / (share + ATTENTION_EPS)).reshape(-1, self.heads * dim, self.size, self.size)
        return self.proj(x)  # type: ignore[no-any-return]


class Wrapped(nn.Module):
    """A block by the name that checkpoints have for it; with a residual, unless it changes the map's shape."""

    def __init__(self, main: nn.Module, residual: bool = True) -> None:
        super().__init__()
        self.main, self.residual = main, residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x) if self.residual else self.main(x)  # type: ignore[no-any-return]


def attention(channels: int, expand: int, head_dim: int, scale: int, size: int) -> nn.Module:
    """Linear attention, and an inverted bottleneck for what is near."""
    return _chain(
        context_module=Wrapped(LiteMla(channels, head_dim, scale, size)),
        local_module=Wrapped(mb(channels, channels, 1, expand, fewer_norms=True)),
    )


def stack(blocks: Iterable[nn.Module]) -> nn.Sequential:
    """One after the other, by the name that checkpoints have for that."""
    return _chain(op_list=nn.Sequential(*blocks))


def _chain(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))
