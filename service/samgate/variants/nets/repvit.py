"""RepViT (Wang et al., 2024, arXiv 2307.09283) as an image encoder with SAM's neck: EdgeSAM's and RepViT-SAM's.

A block mixes tokens by a depthwise convolution, then channels by two products. In training the depthwise convolution is
a sum of branches; all of them are one convolution here, put together in ``forward``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import ConvNorm, LayerNorm2d, to_map, to_tokens
from samgate.variants.nets.mask_decoder import MaskDecoder
from samgate.variants.nets.prompt_encoder import PromptEncoder
from samgate.variants.nets.resampling import Resample
from samgate.variants.nets.sam import Sam, graph_module
from samgate.variants.spec import GraphName, VariantSpec

_NECK = 256
_Neck = tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d]


class SqueezeExcite(nn.Module):
    """Channels weighed by what a small network makes of their means (Hu et al., 2018, arXiv 1709.01507)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(8, int(dim * 0.25 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` → the same."""
        # In two steps: some engines add tens of thousands of numbers one after the other, and lose two digits.
        means = x.mean(3, keepdim=True).mean(2, keepdim=True)
        return x * self.fc2(F.relu(self.fc1(means))).sigmoid()  # type: ignore[no-any-return]


class Depthwise(nn.Module):
    """The sum of a 3 × 3 and a 1 × 1 depthwise convolution and of what goes in. ``[N, C, H, W]`` → the same.

    With ``norm`` that sum is normalised, and not the smaller of both convolutions.
    """

    def __init__(self, dim: int, norm: bool) -> None:
        super().__init__()
        self.dim = dim
        self.conv = ConvNorm(dim, dim, 3, padding=1, groups=dim)
        self.conv1 = nn.Conv2d(dim, dim, 1, groups=dim) if norm else ConvNorm(dim, dim, groups=dim)
        self.bn = nn.BatchNorm2d(dim) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.conv.fused()
        if isinstance(self.conv1, ConvNorm):
            centre, more = self.conv1.fused()
        else:
            centre, more = self.conv1.weight, cast("Tensor", self.conv1.bias)
        # Not as a Pad, after which the exporter doesn't know the kernel's size any more.
        middle = torch.zeros(3, 3)
        middle[1, 1] = 1
        weight, bias = weight + (centre + 1) * middle, bias + more
        if self.bn is not None:
            mean, variance = cast("Tensor", self.bn.running_mean), cast("Tensor", self.bn.running_var)
            scale = self.bn.weight / torch.sqrt(variance + self.bn.eps)
            weight, bias = weight * scale[:, None, None, None], self.bn.bias + (bias - mean) * scale
        return F.conv2d(x, weight, bias, padding=1, groups=self.dim)


class ChannelMixer(nn.Module):
    """Two products with GELU between them, added to what goes in. ``[N, C, H, W]`` → the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.m = nn.Sequential(ConvNorm(dim, 2 * dim), nn.GELU(), ConvNorm(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.m(x)  # type: ignore[no-any-return]


def _block(from_dim: int, dim: int, stride: int, squeeze: bool, norm: bool) -> nn.Module:
    """``stride`` 0 is a block within a stage, any other the one that begins it."""
    excite = SqueezeExcite(from_dim) if squeeze else nn.Identity()
    if stride:
        depthwise = ConvNorm(from_dim, from_dim, 3, stride, 1, groups=from_dim)
        mixer = nn.Sequential(depthwise, excite, ConvNorm(from_dim, dim))
    else:
        mixer = nn.Sequential(Depthwise(dim, norm), excite)
    return nn.Sequential(OrderedDict(token_mixer=mixer, channel_mixer=ChannelMixer(dim)))


class RepViT(nn.Module):
    """The image encoder: a quarter of the input's size after the stem, half of that after each stage but the first.

    Args:
        image_size: of the input.
        dims: channels by stage.
        squeezes: by stage, which blocks have a :class:`SqueezeExcite`.
        norm: of the branches' sum, see :class:`Depthwise`.
        fused: the last stage halves, too, and is brought to the size of the one before and added to it (EdgeSAM);
            without, it keeps that size.
    """

    def __init__(
        self, image_size: int, dims: Sequence[int], squeezes: Sequence[Sequence[int]], norm: bool, fused: bool
    ) -> None:
        super().__init__()
        first, last = dims[0], len(dims) - 1
        stem = nn.Sequential(ConvNorm(3, first // 2, 3, 2, 1), nn.GELU(), ConvNorm(first // 2, first, 3, 2, 1))
        blocks: list[nn.Module] = [stem]
        self.ends: list[int] = []
        before = first
        for stage, (dim, flags) in enumerate(zip(dims, squeezes, strict=True)):
            for index, flag in enumerate(flags):
                begins = stage > 0 and index == 0
                stride = (1 if stage == last and not fused else 2) if begins else 0
                blocks.append(_block(before, dim, stride, bool(flag), norm))
                before = dim
            self.ends.append(len(blocks) - 1)
        self.features = nn.ModuleList(blocks)
        self.dims, self.fused = tuple(dims), fused
        self.size = image_size // 4 // 2 ** (last - 1)
        if fused:
            self.fuse_stage2 = nn.Conv2d(dims[-2], _NECK, 1, bias=False)
            self.fuse_stage3 = nn.Module()
            self.fuse_stage3.op_list = nn.ModuleList([nn.Conv2d(dims[-1], _NECK, 1, bias=False)])
            self.enlarge = Resample(self.size // 2, self.size, _NECK)
        self.neck = nn.Sequential(
            nn.Conv2d(_NECK if fused else dims[-1], _NECK, 1, bias=False),
            LayerNorm2d(_NECK),
            nn.Conv2d(_NECK, _NECK, 3, padding=1, bias=False),
            LayerNorm2d(_NECK),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, S, S]`` normalised and padded → image embedding ``[N, 256, S/16, S/16]``."""
        stages: list[Tensor] = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self.ends:
                stages.append(x)
        size = self.size
        tokens = self._fuse(stages[-2], stages[-1]) if self.fused else to_tokens(stages[-1], size, self.dims[-1])
        first, norm1, second, norm2 = cast("_Neck", tuple(self.neck))
        x = second(to_map(norm1(F.linear(tokens, first.weight.flatten(1))), size, _NECK))
        return to_map(norm2(to_tokens(x, size, _NECK)), size, _NECK)

    def _fuse(self, finer: Tensor, coarser: Tensor) -> Tensor:
        """Both last stages as tokens of the finer one's size."""
        (second,) = cast("Sequence[nn.Conv2d]", self.fuse_stage3.op_list)
        fine = F.linear(to_tokens(finer, self.size, self.dims[-2]), self.fuse_stage2.weight.flatten(1))
        coarse = F.linear(to_tokens(coarser, self.size // 2, self.dims[-1]), second.weight.flatten(1))
        return fine + self.enlarge(coarse)  # type: ignore[no-any-return]


def build(spec: VariantSpec) -> Sam:
    """The network for the numbers of ``spec``, with its parameters not yet loaded."""
    numbers: dict[str, Any] = dict(spec.architecture)
    channels, size, _ = spec.embedding_shape
    return Sam(RepViT(spec.input_size, **numbers), PromptEncoder(channels, size, spec.prompt_size), MaskDecoder())


class Stability(nn.Module):
    """The IoU of a mask above and below its threshold by ``offset`` logits: ``[I, P, M, h, w]`` → ``[I, P, M]``, 0 for
    an empty mask, where upstream divides by 0."""

    def __init__(self, offset: float = 1.0) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, masks: Tensor) -> Tensor:
        inner, outer = ((masks > offset).to(masks.dtype).sum((-2, -1)) for offset in (self.offset, -self.offset))
        return inner / outer.clamp(min=1.0)


class RankedByStability(nn.Module):
    """A decoder's graph whose predicted IoUs are the masks' stability (EdgeSAM, arXiv 2312.06660: its IoU head isn't
    distilled, and upstream's ``predict_torch`` takes this in its place)."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.stability = Stability()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`~samgate.variants.nets.sam.DecoderGraph`."""
        masks, _ = self.decoder(*inputs)
        return masks, self.stability(masks)


def stability_graph_module(spec: VariantSpec, network: Sam, name: GraphName) -> nn.Module:
    """EdgeSAM's graphs."""
    module = graph_module(spec, network, name)
    return module if name == "encoder" else RankedByStability(module)
