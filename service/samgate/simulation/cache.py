"""A gateway's embedding cache: which image is held at which operating points."""

from __future__ import annotations

from collections import OrderedDict

EMBEDDING_BYTES = 256 * 64 * 64 * 4
"""Of one image's embedding, float32 ``[256, 64, 64]``."""


class EmbeddingCache:
    """Forgets the least recently used beyond ``capacity`` embeddings."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: OrderedDict[tuple[int, str], None] = OrderedDict()
        self._points: dict[int, frozenset[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def points(self, image: int) -> frozenset[str]:
        """The operating points whose embedding of ``image`` is held."""
        return self._points.get(image, frozenset())

    def use(self, image: int, point: str) -> None:
        """The embedding was asked for, if it is held: it is the last to go now."""
        if (image, point) in self._entries:
            self._entries.move_to_end((image, point))

    def put(self, image: int, point: str) -> None:
        """Hold an embedding."""
        if self.capacity < 1:
            return
        self._entries[image, point] = None
        self._entries.move_to_end((image, point))
        self._points[image] = self.points(image) | {point}
        while len(self._entries) > self.capacity:
            (old, gone), _ = self._entries.popitem(last=False)
            rest = self._points[old] - {gone}
            if rest:
                self._points[old] = rest
            else:
                del self._points[old]
