"""What the upstreams that began as copies of segment_anything have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parity.cases import Case
from parity.recording import Shapes
from parity.weights import FloatArray


class SamLike:
    """An :class:`~parity.recording.Upstream` around a ``Sam`` with ``image_encoder``, ``prompt_encoder``,
    ``mask_decoder`` and ``preprocess``."""

    def __init__(self, sam: Any) -> None:
        self.sam = sam

    def shapes(self) -> Shapes:
        return {name: tuple(value.shape) for name, value in self.sam.state_dict().items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        # Some expand attention biases when they enter evaluation mode, so load before that.
        self.sam.train()
        self.sam.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)
        self.sam.eval()

    def encode(self, pixels: NDArray[np.uint8], valid: tuple[int, int]) -> FloatArray:
        height, width = valid
        image = torch.tensor(pixels)[:, :height, :width].permute(0, 3, 1, 2).float()
        embedding: FloatArray = self.sam.image_encoder(self.sam.preprocess(image)).numpy()
        return embedding

    def decode(self, case: Case, index: int) -> tuple[FloatArray, FloatArray]:
        points = (torch.tensor(case.coords[index]), torch.tensor(case.labels[index])) if case.points else None
        sparse, dense = self.sam.prompt_encoder(
            points=points,
            boxes=torch.tensor(case.boxes[index]) if case.box else None,
            masks=torch.tensor(case.masks[index]) if case.mask else None,
        )
        masks, ious = self.sam.mask_decoder.predict_masks(
            image_embeddings=torch.tensor(case.embedding[index : index + 1]),
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        return masks.numpy(), ious.numpy()
