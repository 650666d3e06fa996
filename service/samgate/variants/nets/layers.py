"""Layers that several networks share.

Parameters have the names and shapes of the published checkpoints. What is derived from them (fused convolutions, folded
projections) is computed in ``forward`` every time, so it can't go stale; the exporter folds it into constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Reshape(torch.autograd.Function):
    """ONNX Reshape, where 0 copies a dimension: dynamic sizes need no Shape, Gather and Concat nodes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: tuple[int, ...]) -> Tensor:  # noqa: ARG004
        return x.reshape([size or x.shape[axis] for axis, size in enumerate(dims)])

    @staticmethod
    def symbolic(g: Any, x: Any, dims: tuple[int, ...]) -> Any:
        return g.op("Reshape", x, g.op("Constant", value_t=torch.tensor(dims)))


def reshape(x: Tensor, *dims: int) -> Tensor:
    """``x`` with sizes ``dims``: 0 keeps the size that ``x`` has on that axis, −1 (needed once) takes the rest."""
    return _Reshape.apply(x, dims)  # type: ignore[no-any-return, no-untyped-call]


class _Repeat(torch.autograd.Function):
    """ONNX Expand to another tensor's leading sizes; it broadcasts both ways, so the trailing ones needn't be known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, like: Tensor) -> Tensor:  # noqa: ARG004
        return x.expand(*like.shape[:2], *x.shape)

    @staticmethod
    def symbolic(g: Any, x: Any, like: Any) -> Any:
        trailing = g.op("Constant", value_t=torch.tensor((1, 1)))
        return g.op("Expand", x, g.op("Concat", g.op("Shape", like, end_i=2), trailing, axis_i=0))


def repeat(x: Tensor, like: Tensor) -> Tensor:
    """``x`` ``[a, b]`` once for every entry of the first two axes of ``like`` ``[I, P, ...]``: ``[I, P, a, b]``."""
    return _Repeat.apply(x, like)  # type: ignore[no-any-return, no-untyped-call]


def fuse(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight ``[out, in / groups, k, k]`` and bias ``[out]`` of the one convolution that ``conv``, which has no bias,
    and ``bn`` are in evaluation mode."""
    if bn.running_mean is None or bn.running_var is None:
        raise TypeError("a fused BatchNorm needs its running statistics")
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return conv.weight * scale[:, None, None, None], bn.bias - bn.running_mean * scale


def conv_norm(x: Tensor, conv: nn.Conv2d, bn: nn.BatchNorm2d) -> Tensor:
    """``bn(conv(x))``: as one convolution, unless ``bn`` is in training mode and normalises by what it sees."""
    if bn.training:
        return bn(conv(x))  # type: ignore[no-any-return]
    weight, bias = fuse(conv, bn)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class ConvNorm(nn.Module):
    """Convolution without bias (``c``) and batch normalisation (``bn``), run as :func:`conv_norm`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def fused(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution, see :func:`fuse`."""
        return fuse(self.c, self.bn)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W]`` → ``[N, out, H', W']``."""
        return conv_norm(x, self.c, self.bn)


class LayerNorm2d(nn.Module):
    """LayerNorm over channels, which the published networks apply to maps; here tokens ``[N, L, C]`` → the same.

    Rank 3 isn't only habit: OpenVINO has one kernel for it, and takes a LayerNorm of rank 4 apart.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.channels, self.eps = channels, eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.channels,), self.weight, self.bias, self.eps)


def to_tokens(x: Tensor, size: int, dim: int) -> Tensor:
    """Map ``[N, dim, size, size]`` → tokens ``[N, size², dim]``."""
    return x.permute(0, 2, 3, 1).reshape(-1, size * size, dim)


def to_map(x: Tensor, size: int, dim: int) -> Tensor:
    """Tokens ``[N, size², dim]`` → map ``[N, dim, size, size]``."""
    return x.reshape(-1, size, size, dim).permute(0, 3, 1, 2)


class MlpBlock(nn.Module):
    """Two linear layers with an activation between them, the transformer's feed-forward part."""

    def __init__(self, dim: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """``[..., dim]`` → the same."""
        return self.lin2(self.act(self.lin1(x)))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Linear layers with ReLU between them, such as SAM's hypernetworks and IoU head."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., widths[0]]`` → ``[..., widths[-1]]``."""
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)  # type: ignore[no-any-return]
