"""A SAM system: image encoder, prompt encoder and mask decoder, and the two graphs that are made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from samgate.variants.nets.layers import reshape
from samgate.variants.nets.mask_decoder import MaskDecoder
from samgate.variants.nets.prompt_encoder import PromptEncoder


class Sam(nn.Module):
    """The three parts under the names that published checkpoints use."""

    def __init__(self, image_encoder: nn.Module, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder


class EncoderGraph(nn.Module):
    """Pixels → image embedding.

    Args:
        sam: the loaded network.
        size: height and width S of its input.
        mean, std: of the pixels, by channel, on the 0–255 scale.
    """

    def __init__(self, sam: Sam, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        self.size = size
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """
        Args:
            image: uint8 ``[N, S, S, 3]`` RGB, resized; what lies in the padding doesn't matter.
            valid: int32 ``[N, 2]``, (height, width) of the part from the top left corner that isn't padding. The rest
                becomes 0 *after* normalisation, as the networks are trained; no uint8 value does.

        Returns:
            ``[N, 256, S/16, S/16]``.
        """
        position = torch.arange(self.size, dtype=torch.int32)
        rows = (position < valid[:, :1]).to(torch.float32)[:, None, :, None]
        columns = (position < valid[:, 1:]).to(torch.float32)[:, None, None]
        x = image.to(torch.float32).permute(0, 3, 1, 2)
        x = (x - self.mean[:, None, None]) / self.std[:, None, None] * (rows * columns)
        return self.encoder(x)  # type: ignore[no-any-return]


class DecoderGraph(nn.Module):
    """Image embeddings and prompts → masks. Prompts of one image share the work that depends on the image alone."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompts = sam.prompt_encoder
        self.decoder = sam.mask_decoder

    def forward(self, image_embedding: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            image_embedding: ``[I, C, H, H]``.
            point_coords: ``[I, P, K, 2]`` as (x, y) in encoder-input pixels. Prompts without a box end with one point
                of label −1 (as in upstream), which the caller appends.
            point_labels: int32 ``[I, P, K]``: −1 no point, 0 background, 1 foreground, 2 and 3 a box's two corners.

        Returns:
            low-res logits ``[I, P, M, 4H, 4H]`` of all mask tokens, and their predicted IoU ``[I, P, M]``.
        """
        return self._decode(image_embedding, point_coords, point_labels, self.prompts.no_mask())

    def _decode(self, embedding: Tensor, coords: Tensor, labels: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        image = reshape(embedding, 0, 0, -1).transpose(1, 2).unsqueeze(1) + dense
        positions = self.prompts.pe_layer.grid(self.prompts.embedding_size)
        tokens, image, ious = self.decoder.attend(image, self.prompts.points(coords, labels), positions)
        return self.decoder.upscale(tokens, image), ious


class MaskedDecoderGraph(DecoderGraph):
    """The same for prompts of which some have a mask of an earlier round."""

    def forward(  # type: ignore[override]
        self, image_embedding: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As :class:`DecoderGraph`, and:

        Args:
            mask_input: low-res logits ``[I, P, 1, 4H, 4H]``.
            has_mask: float ``[I, P]``, 1 where the prompt has a mask, 0 where ``mask_input`` is to be ignored.
        """
        dense = self.prompts.masks(mask_input, has_mask)
        return self._decode(image_embedding, point_coords, point_labels, dense)
