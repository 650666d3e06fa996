"""The plain vision transformer of SAM (arXiv 2304.02643, appendix A; Li et al., 2022, arXiv 2203.16527) with its neck.

Most blocks attend within windows, a few globally; both add the relative position of two tokens, by rows and by columns
apart, to their score. That sum is written as products here: a query gets its scores against the positions of all rows
and columns as further channels, and a key channels that pick its own row and column. So there is one product of queries
and keys and no table of L × L biases, and whatever fuses attention can fuse this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.nets.layers import LayerNorm2d, MlpBlock, to_map, to_tokens
from samgate.variants.nets.mask_decoder import MaskDecoder
from samgate.variants.nets.prompt_encoder import PromptEncoder
from samgate.variants.nets.sam import Sam
from samgate.variants.spec import VariantSpec

_PATCH = 16
_EPS = 1e-6

_Neck = tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d]


class Attention(nn.Module):
    """Self-attention within squares of ``size`` × ``size`` tokens: ``[B, size², C]`` → the same."""

    def __init__(self, dim: int, heads: int, size: int) -> None:
        super().__init__()
        self.dim, self.heads, self.size = dim, heads, size
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        size, heads, channels = self.size, self.heads, self.dim // self.heads
        qkv = self.qkv(x).reshape(-1, size * size, 3, heads, channels).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        apart = torch.arange(size)[:, None] - torch.arange(size)[None] + size - 1
        rows, columns = self.rel_pos_h[apart], self.rel_pos_w[apart]  # [size of the query, size of the key, channels]
        by_row = q.reshape(-1, heads, size, size, channels)
        by_column = by_row.transpose(2, 3)
        to_rows = (by_row @ rows.transpose(1, 2)).reshape(-1, heads, size * size, size)
        to_columns = (by_column @ columns.transpose(1, 2)).transpose(2, 3).reshape(-1, heads, size * size, size)
        q = torch.cat((q * channels**-0.5, to_rows, to_columns), -1)
        k = torch.cat((k, _own_places(size).expand(k.shape[0], heads, -1, -1)), -1)
        attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.proj(attended.transpose(1, 2).reshape(-1, size * size, self.dim))  # type: ignore[no-any-return]


def _own_places(size: int) -> Tensor:
    """``[size², 2·size]``: for each token a 1 at its row and a 1 at its column."""
    one = torch.eye(size)
    return torch.cat((one.repeat_interleave(size, 0), one.repeat(size, 1)), 1)


class Block(nn.Module):
    """A transformer block on ``side`` × ``side`` tokens; attention in windows of ``window``, or over all if that is 0.

    Windows at the edge are filled up with zeros, which are attended to like tokens.
    """

    def __init__(self, dim: int, hidden: int, heads: int, side: int, window: int) -> None:
        super().__init__()
        self.dim, self.side, self.window = dim, side, window
        self.norm1 = nn.LayerNorm(dim, _EPS)
        self.attn = Attention(dim, heads, window or side)
        self.norm2 = nn.LayerNorm(dim, _EPS)
        self.mlp = MlpBlock(dim, hidden, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """``[N, side², C]`` → the same."""
        normed = self.norm1(x)
        x = x + (self._windowed(normed) if self.window else self.attn(normed))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def _windowed(self, x: Tensor) -> Tensor:
        side, window, dim = self.side, self.window, self.dim
        count = -(-side // window)
        missing = count * window - side
        x = F.pad(x.reshape(-1, side, side, dim), (0, 0, 0, missing, 0, missing))
        x = x.reshape(-1, count, window, count, window, dim).transpose(2, 3)
        x = self.attn(x.reshape(-1, window * window, dim)).reshape(-1, count, count, window, window, dim)
        x = x.transpose(2, 3).reshape(-1, count * window, count * window, dim)
        return x[:, :side, :side].reshape(-1, side * side, dim)


class _PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, _PATCH, _PATCH)


class ImageEncoderViT(nn.Module):
    """The image encoder.

    Args:
        image_size: of the input.
        dim, depth, heads, hidden: of the blocks; ``hidden`` is the width within their feed-forward parts.
        global_blocks: which of them attend over all tokens; the others do in windows of ``window``.
        out_channels: of the embedding.
    """

    def __init__(
        self,
        image_size: int,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        global_blocks: Sequence[int],
        window: int = 14,
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        self.dim, self.side, self.out_channels = dim, image_size // _PATCH, out_channels
        self.patch_embed = _PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side, self.side, dim))
        self.blocks = nn.ModuleList(
            Block(dim, hidden, heads, self.side, 0 if index in global_blocks else window) for index in range(depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(dim, out_channels, 1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, S, S]`` normalised and padded → image embedding ``[N, out_channels, S/16, S/16]``."""
        side, channels = self.side, self.out_channels
        x = to_tokens(self.patch_embed.proj(x), side, self.dim) + self.pos_embed.reshape(1, side * side, self.dim)
        for block in self.blocks:
            x = block(x)
        first, norm1, second, norm2 = cast("_Neck", tuple(self.neck))
        x = second(to_map(norm1(F.linear(x, first.weight.flatten(1))), side, channels))
        return to_map(norm2(to_tokens(x, side, channels)), side, channels)


def build(spec: VariantSpec) -> Sam:
    """The network for the numbers of ``spec``, with its parameters not yet loaded."""
    numbers: dict[str, Any] = dict(spec.architecture)
    channels, size, _ = spec.embedding_shape
    encoder = ImageEncoderViT(spec.input_size, out_channels=channels, **numbers)
    return Sam(encoder, PromptEncoder(channels, size, spec.prompt_size), MaskDecoder())
