"""EfficientViT's large networks (Cai et al., 2023, arXiv 2205.14756) with the neck that makes SAM's image embedding of
their last three stages (Zhang et al., 2024, arXiv 2402.05008)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.efficientvit_blocks import ConvLayer, Wrapped, attention, fused_mb, mb, res, stack
from samgate.variants.nets.layers import LayerNorm2d, to_map, to_tokens
from samgate.variants.nets.resampling import Resample

Block = Literal["res", "fmb", "mb", "att3", "att5"]
_LOCAL = {"res": res, "fmb": fused_mb, "mb": mb}
_NECK_STAGES = 3


@dataclass(frozen=True, slots=True)
class EfficientVitConfig:
    """Sizes of an encoder, tuples with one entry a stage; each stage halves the map, beginning with the first.

    ``blocks`` are what a stage repeats ``depths`` times, "att3" and "att5" attention that gathers from 3 × 3 and
    5 × 5 tokens; ``expands`` how much wider they are inside. Stages of ``fewer_norms`` have biases instead of most
    normalisations. ``halved``: the input is brought to half its size first.
    """

    image_size: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    blocks: tuple[Block, ...]
    expands: tuple[int, ...]
    fewer_norms: tuple[bool, ...]
    neck_depth: int
    neck_expand: int
    neck_width: int = 256
    head_dim: int = 32
    halved: bool = False
    out_channels: int = 256
    out_size: int = 64

    def size(self, stage: int) -> int:
        """Height and width of a stage's map."""
        return self.image_size >> (stage + 1 + self.halved)


class Backbone(nn.Module):
    """``[N, 3, S, S]`` → maps of the last three stages, last first, each half as large as the next."""

    def __init__(self, config: EfficientVitConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stack(_stage(config, stage)) for stage in range(len(config.widths)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(reversed(maps[-_NECK_STAGES:]))


class Neck(nn.Module):
    """The maps of :class:`Backbone`, brought to one size and width and added up → tokens ``[N, out_size², C]``."""

    def __init__(self, config: EfficientVitConfig) -> None:
        super().__init__()
        self.size, self.width = config.out_size, config.neck_width
        last = len(config.widths) - 1
        stages = range(last, last - _NECK_STAGES, -1)
        self.sizes = tuple(config.size(stage) for stage in stages)
        self.input_ops = nn.ModuleList(
            stack([ConvLayer(config.widths[stage], self.width, act=False), _resample(config.size(stage), config)])
            for stage in stages
        )
        self.middle = stack(
            Wrapped(fused_mb(self.width, self.width, 1, config.neck_expand, fewer_norms=False))
            for _ in range(config.neck_depth)
        )
        self.output_ops = nn.ModuleList([stack([ConvLayer(self.width, config.out_channels, norm=False, act=False)])])

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        one, two, three = (self._brought(*one) for one in zip(self.input_ops, maps, self.sizes, strict=True))
        x = self.middle(to_map(one + (two + three), self.size, self.width))
        (last,) = _ops(self.output_ops[0])
        return _pointwise(cast("ConvLayer", last), x, self.size)

    def _brought(self, ops: nn.Module, x: Tensor, size: int) -> Tensor:
        convolution, resample = _ops(ops)
        return resample(_pointwise(cast("ConvLayer", convolution), x, size))  # type: ignore[no-any-return]


class EfficientVit(nn.Module):
    """The image encoder. ``[N, 3, S, S]`` normalised and padded → image embedding ``[N, out_channels, H, H]``."""

    def __init__(self, config: EfficientVitConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.neck = Neck(config)
        self.norm = LayerNorm2d(config.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.halved:
            x = F.avg_pool2d(x, 2)  # what bilinear interpolation to half the size is
        return to_map(self.norm(self.neck(self.backbone(x))), self.config.out_size, self.config.out_channels)


def _stage(config: EfficientVitConfig, stage: int) -> Iterator[nn.Module]:
    width, block = config.widths[stage], config.blocks[stage]
    expand, fewer_norms = config.expands[stage], config.fewer_norms[stage]
    if stage == 0:
        yield ConvLayer(3, width, 3, 2)
    else:
        halve = _LOCAL[block] if block in ("mb", "fmb") else mb
        yield Wrapped(halve(config.widths[stage - 1], width, 2, 4 * expand, fewer_norms), residual=False)
    for _ in range(config.depths[stage]):
        if block in _LOCAL:
            yield Wrapped(_LOCAL[block](width, width, 1, expand, fewer_norms))
        else:
            yield attention(width, expand, config.head_dim, int(block[-1]), config.size(stage))


def _resample(size: int, config: EfficientVitConfig) -> nn.Module:
    return nn.Identity() if size == config.out_size else Resample(size, config.out_size, config.neck_width)


def _ops(stacked: nn.Module) -> tuple[nn.Module, ...]:
    return tuple(cast("nn.Sequential", stacked.op_list))


def _pointwise(layer: ConvLayer, x: Tensor, size: int) -> Tensor:
    """A 1 × 1 convolution as one product of tokens, which resampling and normalisation want anyway: map
    ``[N, in, size, size]`` → tokens ``[N, size², out]``."""
    weight, bias = layer.fused()
    return F.linear(to_tokens(x, size, layer.conv.in_channels), weight.flatten(1), bias)
