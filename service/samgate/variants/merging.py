"""How many image tokens SegEvery's decoder works on, and in which portions."""

from __future__ import annotations

from dataclasses import dataclass

_TILE = 512
"""Tokens of an image, before merging, that make up a tile, or a few more."""


@dataclass(frozen=True, slots=True)
class Merging:
    """Of an image embedding of ``side`` × ``side`` tokens, a multiple of 4: ``merged`` blocks become one token.

    Attention over image tokens is a mean, and tokens that are alike can be taken together as long as they count as many
    (Token Merging's proportional attention, arXiv 2210.09461). Here these are the 2 × 2 blocks that differ least within
    themselves: padding, sky, walls.
    """

    side: int
    merged: int

    @classmethod
    def half(cls, side: int) -> Merging:
        """Half of all blocks, which leaves five eighths of the tokens."""
        return cls(side, side**2 // 8)

    @property
    def pixels(self) -> int:
        """Tokens before."""
        return self.side**2

    @property
    def blocks(self) -> int:
        """2 × 2 tokens each."""
        return self.pixels // 4

    @property
    def tokens(self) -> int:
        """That are left: those of merged blocks first."""
        return self.pixels - 3 * self.merged

    @property
    def tiles(self) -> int:
        """Portions of equal size, so small that what a processor works on at a time stays in its own cache."""
        return next(count for count in range(max(1, self.pixels // _TILE), 0, -1) if not self.tokens % count)

    @property
    def tile(self) -> int:
        """Tokens of a portion."""
        return self.tokens // self.tiles
