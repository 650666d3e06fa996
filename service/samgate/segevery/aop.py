"""SegEvery by confident prompts: AoP-SAM (arXiv 2505.11980) without its model, and without its network."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from samgate.domain import FloatArray, Frame, Survivors
from samgate.segevery.confidence import confident_positions, filled, to_image
from samgate.segevery.crops import Crop
from samgate.segevery.elimination import Elimination
from samgate.segevery.generator import GridSampler
from samgate.segevery.parameters import AopParameters
from samgate.segevery.sampler import Chunk
from samgate.variants.spec import VariantSpec

ROUND = 16
"""Prompts that are chosen at once."""
MOST_PROMPTS = 256
"""Of one crop. The defaults don't get there with real images."""


@dataclass(slots=True)
class _Choice:
    """``left``: where prompts may still follow, best first, float32 ``[n, 2]`` (x, y) in cells of the embedding, which
    has ``cells`` a side. ``done``: prompts that were added, by round."""

    left: FloatArray
    cells: int
    elimination: Elimination
    done: list[int] = field(default_factory=list)


class AopSampler(GridSampler):
    """A :class:`~samgate.segevery.sampler.Sampler` whose prompts follow from the embedding of each crop.

    As in AoP-SAM, prompts are maxima of a confidence map, and those that finished masks explain are eliminated on the
    way. :mod:`~samgate.segevery.confidence` and :mod:`~samgate.segevery.elimination` say what of either is AoP-SAM's
    and what is ours. Crops and filters are the grid's.

    Prompts are chosen in rounds of :data:`ROUND`, each by the masks of all rounds but the one before. So one round can
    be decoded while another is filtered, and which prompts follow from given masks depends neither on chunks nor on
    the order of arrival.

    Args:
        parameters: of map, elimination and filters.
        size: (height, width) of the image in pixels.
        spec: the variant, for its mask threshold and tokens.
    """

    def __init__(self, parameters: AopParameters, size: tuple[int, int], spec: VariantSpec) -> None:
        super().__init__(parameters.grid, size, spec)
        self._parameters = parameters
        self._mask_threshold = spec.mask_threshold
        self._choices: dict[Crop, _Choice] = {}
        self._rounds: dict[Chunk, int] = {}
        """Of chunks that are under way."""
        for state in self._states.values():
            state.points, state.total = np.empty((0, 2), np.float32), 0

    def open_crop(self, crop: Crop, frame: Frame, embedding: FloatArray) -> None:
        """See :meth:`Sampler.open_crop`. Takes some milliseconds."""
        super().open_crop(crop, frame, embedding)
        features = filled(embedding, frame)
        left = confident_positions(features, self._parameters)[:MOST_PROMPTS]
        cells = embedding.shape[-1]
        elimination = Elimination(features, cells, self._parameters.elimination_factor, self._mask_threshold)
        self._choices[crop] = _Choice(left, cells, elimination)
        self._states[crop].total = len(left)

    def next(self, crop: Crop, limit: int) -> Chunk | None:
        """The round's prompts, then those of the next; None while masks are missing that have a say in which."""
        with self._lock:
            state, choice = self._states[crop], self._choices[crop]
            if state.taken == len(state.points):
                self._open_round(crop)
            points = state.points[state.taken : state.taken + limit]
            if not len(points):
                return None
            state.taken += len(points)
            chunk = Chunk(crop, points)
            self._rounds[chunk] = len(choice.done) - 1
        return chunk

    def add(self, chunk: Chunk, survivors: Survivors) -> None:
        """See :meth:`Sampler.add`."""
        choice, number = self._choices[chunk.crop], self._rounds[chunk]
        stable = self._harvest.add(chunk, self._frame(chunk.crop), survivors)
        choice.elimination.add(number, survivors.masks[stable])
        self._added(chunk)
        with self._lock:
            choice.done[number] += len(chunk)
            del self._rounds[chunk]

    def _open_round(self, crop: Crop) -> None:
        state, choice = self._states[crop], self._choices[crop]
        heard = max(len(choice.done) - 1, 0)
        if not len(choice.left) or any(done < ROUND for done in choice.done[:heard]):
            return
        choice.left = choice.left[~choice.elimination.explained(choice.left, heard)]
        chosen, choice.left = choice.left[:ROUND], choice.left[ROUND:]
        state.points = np.concatenate([state.points, to_image(chosen, choice.cells, self._frame(crop))])
        state.total = len(state.points) + len(choice.left)
        choice.done.append(0)
