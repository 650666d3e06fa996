"""A SAM system: image encoder, prompt encoder and mask decoder, and the graphs that are made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samgate.variants.graphs import EVERYTHING_POINTS
from samgate.variants.merging import Merging
from samgate.variants.nets.factored import ImageTerms
from samgate.variants.nets.factored_prompts import PromptTerms
from samgate.variants.nets.layers import reshape
from samgate.variants.nets.mask_decoder import MaskDecoder
from samgate.variants.nets.prompt_encoder import PromptEncoder
from samgate.variants.spec import GraphName, VariantSpec


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
            ``[N, C, H, H]`` over the whole square, padding included.
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
            point_coords: ``[I, P, K, 2]`` as (x, y) in pixels of the prompt frame, which is the encoder's padded square
                at the spec's ``prompt_size``. Prompts without a box end with one point of label −1 (as in upstream),
                which the caller appends.
            point_labels: int32 ``[I, P, K]``: −1 no point, 0 background, 1 foreground, 2 and 3 a box's two corners.

        Returns:
            low-res logits ``[I, P, M, 4H, 4H]`` of all mask tokens, and their predicted IoU ``[I, P, M]``.
        """
        return self._decode(image_embedding, point_coords, point_labels, self.prompts.no_mask())

    def _decode(self, embedding: Tensor, coords: Tensor, labels: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        tokens, image, ious = self._attend(embedding, coords, labels, dense)
        return self.decoder.upscale(tokens, image), ious

    def _attend(
        self, embedding: Tensor, coords: Tensor, labels: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        image = reshape(embedding, 0, 0, -1).transpose(1, 2).unsqueeze(1) + dense
        positions = self.prompts.pe_layer.grid(self.prompts.embedding_size)
        return self.decoder.attend(image, self.prompts.points(coords, labels), positions)


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


class ScoresGraph(DecoderGraph):
    """The first half of the decoder: what the masks would be worth, and coarsely what they are. One image."""

    def forward(self, image_embedding: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs as those of :class:`DecoderGraph` with I = 1.

        Returns:
            predicted IoU ``[1, P, M]`` of all mask tokens, and every fourth row and column of their logits
            ``[1, P, M, H, H]``, from the second on.
        """
        tokens, image, ious = self._attend(image_embedding, point_coords, point_labels, self.prompts.no_mask())
        x = F.linear(reshape(image, 0, -1, self.decoder.dim), *self.decoder.first_child())
        return ious, self.decoder.coarse_of(tokens, x)


class TermsGraph(nn.Module):
    """What SegEvery needs of an image beside its prompts; see :mod:`samgate.variants.nets.factored`."""

    def __init__(self, sam: Sam, merging: Merging | None = None) -> None:
        super().__init__()
        self.prompts = sam.prompt_encoder
        self.terms = ImageTerms(sam.mask_decoder, merging)

    def forward(self, image_embedding: Tensor) -> tuple[Tensor, ...]:
        """Embedding ``[1, C, H, H]`` → ``image_terms``, ``image_values``, ``image_coarse``, ``image_places`` and
        ``image_pixels`` as :class:`~samgate.variants.nets.factored.ImageTerms` has them."""
        image = image_embedding.flatten(2).transpose(1, 2) + self.prompts.no_mask()
        terms, values, coarse, pixels, places = self.terms(
            image, self.prompts.pe_layer.grid(self.prompts.embedding_size)
        )
        return terms, values, coarse, places, pixels


class AttendGraph(nn.Module):
    """The same for many prompts on one image, with what :class:`UpscaleGraph` makes masks of.

    Args:
        sam: the loaded network.
        points: K of every prompt.
        merging: of image tokens; half of the blocks, if it isn't given.
    """

    def __init__(self, sam: Sam, points: int, merging: Merging | None = None) -> None:
        super().__init__()
        self.prompts = sam.prompt_encoder
        self.decoder = sam.mask_decoder
        self.terms = PromptTerms(sam.mask_decoder, 1 + sam.mask_decoder.masks + points, merging)

    def forward(
        self,
        image_terms: Tensor,
        image_values: Tensor,
        image_coarse: Tensor,
        image_places: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
    ) -> tuple[Tensor, ...]:
        """
        Args:
            image_terms, image_values, image_coarse, image_places: of :class:`TermsGraph`.
            point_coords, point_labels: as those of :class:`DecoderGraph` with I = 1.

        Returns:
            what :class:`ScoresGraph` does, mask tokens ``[P, M, C]``, and the image tokens as
            :class:`~samgate.variants.nets.factored_prompts.Attended` has them: scale, weights and vectors.
        """
        prompt = self.decoder.prompt(self.prompts.points(point_coords, point_labels))[0]
        image = self.terms.attend(image_terms, image_values, prompt)
        tokens, ious = self.decoder.ends(image.tokens.unsqueeze(0))
        coarse = self.terms.coarse(tokens[0], image, image_coarse, image_places)
        return ious, coarse.unsqueeze(0), tokens[0], image.scale, image.weights, image.vectors


class UpscaleGraph(AttendGraph):
    """Parts of the masks of one of the prompts that went through :class:`AttendGraph`.

    A mask's samples tell all that is to be known of it but for its outline, and no pixel depends on more than one image
    token: B of these are made into 4 × 4 pixels.
    """

    def forward(  # type: ignore[override]
        self,
        mask_tokens: Tensor,
        token_vectors: Tensor,
        block_scale: Tensor,
        block_weights: Tensor,
        block_pixels: Tensor,
    ) -> Tensor:
        """
        Args:
            mask_tokens, token_vectors: the prompt's, as they came, ``[M, C]`` and ``[J, C]``.
            block_scale, block_weights: of ``token_scale`` and ``token_weights`` where :class:`TermsGraph`'s
                ``image_places`` say the blocks are: ``[B, 1]`` and ``[B, J]``.
            block_pixels: of ``image_pixels``, ``[B, C]``.

        Returns:
            low-res logits ``[M, B, 4, 4]`` of all mask tokens.
        """
        return self.terms.upscale(mask_tokens, token_vectors, block_scale, block_weights, block_pixels)


def graph_module(spec: VariantSpec, network: Sam, name: GraphName) -> nn.Module:
    """What computes the graph ``name`` of ``spec``."""
    match name:
        case "encoder":
            return EncoderGraph(network, spec.input_size, spec.pixel_mean, spec.pixel_std)
        case "decoder":
            return DecoderGraph(network)
        case "masked_decoder":
            return MaskedDecoderGraph(network)
        case "terms":
            return TermsGraph(network)
        case "attend":
            return AttendGraph(network, EVERYTHING_POINTS)
        case "upscale":
            return UpscaleGraph(network, EVERYTHING_POINTS)
        case "scores":
            return ScoresGraph(network)
        case _:
            raise ValueError(f"{spec.name} has no graph {name!r}")
