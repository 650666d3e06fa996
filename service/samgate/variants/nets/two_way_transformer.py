"""SAM's two-way transformer (arXiv 2304.02643, appendix A), with its products in an order that costs less.

A handful of prompt tokens (T) attend to thousands of image tokens (L), and the other way round. Projecting keys,
queries and values of all image tokens for every prompt is most of the work as written in the paper. A matrix product
is associative, so here the few prompt tokens are carried through the image side's projections instead:

* scores ``q · (Wk x + bk)`` become ``(Wkᵀ q) · x``; ``q · bk`` is the same for all x and drops out of the softmax;
* values ``Σ p (Wv x + bv)`` become ``Wv (Σ p x) + bv``, because the p of a token sum to 1;
* the other way round, ``(Wq x + bq) · k`` becomes ``x · (Wqᵀ k) + bq · k``, and the output projection is applied to the
  T value vectors.

Shapes: I images, P prompts an image, G = 1 where the image tokens are the same for all prompts of an image, else P;
T tokens a prompt, L image tokens, C channels, h heads.
"""

from __future__ import annotations

from torch import Tensor, nn

from samgate.variants.nets.layers import MlpBlock, reshape


class Attention(nn.Module):
    """Multi-head attention whose inner width is ``dim / downsample``; the parameters of all three uses below."""

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.dim, self.heads, self.head_dim = dim, heads, inner // heads
        self.scale = self.head_dim**-0.5
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def split(self, x: Tensor) -> Tensor:
        """``[I, P, T, inner]`` → ``[I, P, h, T, head_dim]``."""
        return reshape(x, 0, 0, -1, self.heads, self.head_dim).transpose(2, 3)

    def merge(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`split`."""
        return reshape(x.transpose(2, 3), 0, 0, -1, self.heads * self.head_dim)

    def rows(self, projection: nn.Linear) -> Tensor:
        """A projection into the heads as one matrix a head: ``[h, head_dim, C]``."""
        return projection.weight.reshape(self.heads, self.head_dim, self.dim)


class SelfAttention(Attention):
    """Among the tokens of one prompt."""

    def forward(self, query: Tensor, value: Tensor) -> Tensor:
        """``query`` (also the key) and ``value`` ``[I, P, T, C]`` → ``[I, P, T, C]``."""
        q, k, v = (
            self.split(self.q_proj(query) * self.scale),
            self.split(self.k_proj(query)),
            self.split(self.v_proj(value)),
        )
        return self.out_proj(self.merge((q @ k.transpose(-2, -1)).softmax(-1) @ v))  # type: ignore[no-any-return]


class TokenToImage(Attention):
    """The tokens look at the image."""

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``tokens`` ``[I, P, T, C]``; ``keys`` and ``values`` ``[I, G, L, C]`` → ``[I, P, T, C]``."""
        q = self.split(self.q_proj(tokens)) * self.scale
        q = reshape(q @ self.rows(self.k_proj), 0, 0, -1, self.dim)
        seen = (q @ keys.transpose(-2, -1)).softmax(-1) @ values
        seen = reshape(seen, 0, 0, self.heads, -1, self.dim) @ self.rows(self.v_proj).transpose(1, 2)
        return self.out_proj(self.merge(seen) + self.v_proj.bias)  # type: ignore[no-any-return]


class ImageToToken(Attention):
    """The image, ``pixels`` tokens, looks at the prompt's tokens."""

    def __init__(self, dim: int, heads: int, downsample: int, pixels: int) -> None:
        super().__init__(dim, heads, downsample)
        self.pixels = pixels

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``queries`` ``[I, G, L, C]``; ``keys`` and ``values`` ``[I, P, T, C]`` → ``[I, P, L, C]``."""
        k = self.split(self.k_proj(keys)) * self.scale
        offset = k @ self.q_proj.bias.reshape(self.heads, self.head_dim, 1)
        k = reshape(k @ self.rows(self.q_proj), 0, 0, -1, self.dim)
        # Image tokens last: a softmax over T as the last axis would run on a handful of numbers at a time.
        scores = reshape(k @ queries.transpose(-2, -1), 0, 0, self.heads, -1, self.pixels) + offset
        weights = reshape(scores.softmax(-2), 0, 0, -1, self.pixels)
        out = self.out_proj.weight.reshape(self.dim, self.heads, self.head_dim).permute(1, 2, 0)
        v = reshape(self.split(self.v_proj(values)) @ out, 0, 0, -1, self.dim)
        return weights.transpose(-2, -1) @ v + self.out_proj.bias


class TwoWayBlock(nn.Module):
    """Self-attention, tokens to image, feed-forward, image to tokens; each with a residual and a normalisation."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, pixels: int, first: bool) -> None:
        super().__init__()
        self.dim, self.pixels, self.first = dim, pixels, first
        self.self_attn = SelfAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = TokenToImage(dim, heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp: nn.Module = MlpBlock(dim, mlp_dim, nn.ReLU())
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = ImageToToken(dim, heads, downsample=2, pixels=pixels)

    def forward(self, tokens: Tensor, image: Tensor, prompt: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """``tokens`` and ``prompt`` (their initial values) ``[I, P, T, C]``, ``image`` ``[I, G, L, C]``, ``positions``
        ``[L, C]`` → tokens ``[I, P, T, C]`` and image ``[I, P, L, C]``."""
        tokens = self.norm1(self.among(tokens, prompt))
        placed = image + positions
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + prompt, placed, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(placed, tokens + prompt, tokens)
        image = self.norm4(reshape(image, 0, -1, self.dim))  # of rank 3: see LayerNorm2d
        return tokens, reshape(image, 0, -1, self.pixels, self.dim)

    def among(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        """The self-attention of :meth:`forward` with its residual."""
        # The first block's queries *are* the prompt: it adds neither the prompt nor a residual.
        if self.first:
            return self.self_attn(tokens, tokens)  # type: ignore[no-any-return]
        return tokens + self.self_attn(tokens + prompt, tokens)  # type: ignore[no-any-return]


class TwoWayTransformer(nn.Module):
    """The blocks, and one last look of the tokens at the image, which has ``pixels`` tokens."""

    def __init__(
        self,
        dim: int,
        pixels: int,
        depth: int = 2,
        heads: int = 8,
        mlp_dim: int = 2048,
        block: type[TwoWayBlock] = TwoWayBlock,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(block(dim, heads, mlp_dim, pixels, index == 0) for index in range(depth))
        self.final_attn_token_to_image = TokenToImage(dim, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, prompt: Tensor, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """``prompt`` ``[I, P, T, C]``, ``image`` ``[I, G, L, C]``, ``positions`` ``[L, C]`` → tokens ``[I, P, T, C]``
        and image tokens ``[I, P, L, C]``."""
        tokens = prompt
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompt, positions)
        seen = self.final_attn_token_to_image(tokens + prompt, image + positions, image)
        return self.norm_final_attn(tokens + seen), image
