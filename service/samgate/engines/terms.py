"""What was calculated of an image for SegEvery, kept for the image's next chunk of prompts."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from samgate.domain import FloatArray

MOST_IMAGES = 2
"""Terms are 23 MB an image. Images that take turns oftener than this calculate theirs anew, a few prompts' time."""

Terms = Mapping[str, NDArray[Any]]
"""By name, as :class:`samgate.variants.nets.sam.TermsGraph` has them."""


class LatestTerms:
    """The terms of the latest embeddings, for as long as somebody has these. Not safe for several threads at once."""

    def __init__(self, most: int = MOST_IMAGES) -> None:
        self._most = most
        self._held: OrderedDict[int, tuple[weakref.ref[FloatArray], Terms]] = OrderedDict()

    def of(self, embedding: FloatArray) -> Terms | None:
        """Of this very array; None when they have to be calculated."""
        owner, terms = self._held.get(id(embedding), (None, None))
        if owner is None or owner() is not embedding:
            return None
        self._held.move_to_end(id(embedding))
        return terms

    def keep(self, embedding: FloatArray, terms: Terms) -> None:
        """Until ``embedding`` goes, or others push them out."""
        for key, (owner, _) in list(self._held.items()):
            if owner() is None:
                del self._held[key]
        self._held[id(embedding)] = (weakref.ref(embedding), terms)
        while len(self._held) > self._most:
            self._held.popitem(last=False)
