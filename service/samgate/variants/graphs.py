"""The graphs that every variant is exported to: names, dtypes and axes of what goes in and comes out, as data.

Exporting, compiling, Triton's configurations and the engines all read them here. What the values mean stands at the
modules in :mod:`samgate.variants.nets.sam`.

Axes: N images an encoder call, I images × P prompts × K points a decoder call, S masks of U prompts made. All are the
caller's choice within the spec's :class:`~samgate.variants.spec.ShapeRange`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from samgate.variants.merging import Merging
from samgate.variants.spec import (
    GRAPHS,
    MASK_GRAPHS,
    GraphName,
    NetworkSpec,
    PaddingPoint,
    ShapeProfile,
    VariantSpec,
    resolve,
)

__all__ = ["GRAPHS", "GraphName"]

AnyGraph = GraphName | Literal["detector"]
"""A variant's graphs, and the one that a detector has (:func:`samgate.variants.detectors.detector_graph`).

For SegEvery, ``scores`` tells of all prompts what their masks are worth and coarsely what they are, so that
``decoder`` need only make those that are of use. Within a process it is done in parts that leave their results where
they are: ``terms``, once an image, ``attend``, and ``upscale`` for the masks of use."""

EVERYTHING_POINTS = 2
"""K of SegEvery's prompts by SAM's rule: a point and the padding point, or a box's two corners."""
EVERYTHING_PROMPTS = 4
"""Of SegEvery that a processor's core decodes at a time: the weights are read once for all of them, and a tile of their
image tokens (:mod:`samgate.variants.merging`) stays in its cache."""
EVERYTHING_BLOCKS = 256
"""Of 4 × 4 pixels of a mask that ``upscale`` makes at a time; an embedding has a multiple of it."""
HEADS = 8
"""Of the decoder's attention."""
TERMS = ("image_terms", "image_values", "image_coarse", "image_places", "image_pixels")
"""What ``terms`` makes: ``attend`` takes all but the last; ``upscale`` rows of the last, where the one before says."""
KEY_TERMS, VALUE_TERMS = 11, 3
"""Projections of the image that ``terms`` makes for the attention of all prompts, in the order of
:class:`samgate.variants.nets.factored.ImageTerms`."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output. ``shape`` holds sizes, and letters where an axis is dynamic."""

    name: str
    dtype: Literal["uint8", "int32", "float32"]
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph. ``batch`` is the letter of the first axis of all of its tensors, None where there is no such axis;
    ``profiles`` are the ranges of the input axes that it is compiled for, at least one."""

    name: AnyGraph
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: Literal["N", "I"] | None
    profiles: tuple[ShapeProfile, ...]


def graph_specs(spec: NetworkSpec) -> dict[GraphName, GraphSpec]:
    """Those that ``spec`` has, by name, for its sizes."""
    every: dict[GraphName, GraphSpec] = resolve(spec.graph_tensors)(spec)
    return {name: every[name] for name in GRAPHS if name in spec.graphs}


def mask_graphs(spec: VariantSpec) -> dict[GraphName, GraphSpec]:
    """All that a system which makes masks may have, by name, for the sizes of ``spec``."""
    masks = spec.mask_tokens
    low_res, size = spec.low_res_size, spec.input_size

    def embedding(images: int | str) -> TensorSpec:
        return TensorSpec("image_embedding", "float32", (images, *spec.embedding_shape))

    def prompts(images: int | str, points: int | str = "K") -> tuple[TensorSpec, ...]:
        return (
            TensorSpec("point_coords", "float32", (images, "P", points, 2)),
            TensorSpec("point_labels", "int32", (images, "P", points)),
        )

    decoded = (
        TensorSpec("low_res_masks", "float32", ("I", "P", masks, low_res, low_res)),
        TensorSpec("iou_predictions", "float32", ("I", "P", masks)),
    )
    earlier_mask = (
        TensorSpec("mask_input", "float32", ("I", "P", 1, low_res, low_res)),
        TensorSpec("has_mask", "float32", ("I", "P")),
    )
    channels, height, width = spec.embedding_shape
    merging, inner = Merging.half(height), channels // 2
    terms = (
        TensorSpec("image_terms", "float32", (merging.tiles, KEY_TERMS * inner + 3, merging.tile)),
        TensorSpec("image_values", "float32", (merging.tiles, VALUE_TERMS * HEADS, merging.tile, inner // HEADS)),
        TensorSpec("image_coarse", "float32", (merging.tiles, merging.tile, channels // 4)),
        TensorSpec("image_places", "int32", (height * width,)),
        TensorSpec("image_pixels", "float32", (1, height * width, channels)),
    )
    scores = (
        TensorSpec("iou_predictions", "float32", (1, "P", masks)),
        TensorSpec("coarse_masks", "float32", (1, "P", masks, height, width)),
    )
    rows = 2 * HEADS * (1 + masks + EVERYTHING_POINTS) + 1
    attended = (
        TensorSpec("mask_tokens", "float32", ("P", masks, channels)),
        TensorSpec("token_scale", "float32", (merging.tiles, "P", 1, merging.tile)),
        TensorSpec("token_weights", "float32", (merging.tiles, "P", rows, merging.tile)),
        TensorSpec("token_vectors", "float32", ("P", rows, channels)),
    )
    # By other rules points and boxes have differently many.
    everything = EVERYTHING_POINTS if spec.padding_point is PaddingPoint.WITHOUT_BOX else "K"
    shapes = spec.shapes
    graphs = (
        GraphSpec(
            "encoder",
            (TensorSpec("image", "uint8", ("N", size, size, 3)), TensorSpec("valid", "int32", ("N", 2))),
            (TensorSpec("image_embedding", "float32", ("N", *spec.embedding_shape)),),
            "N",
            shapes.encoder,
        ),
        GraphSpec("decoder", (embedding("I"), *prompts("I")), decoded, "I", shapes.decoder),
        GraphSpec(
            "masked_decoder", (embedding("I"), *prompts("I"), *earlier_mask), decoded, "I", shapes.masked_decoder
        ),
        GraphSpec("terms", (embedding(1),), terms, None, ({},)),
        GraphSpec(
            "attend", (*terms[:-1], *prompts(1, EVERYTHING_POINTS)), (*scores, *attended), None, shapes.everything
        ),
        GraphSpec(
            "upscale",
            (
                TensorSpec("mask_tokens", "float32", (masks, channels)),
                TensorSpec("token_vectors", "float32", (rows, channels)),
                TensorSpec("block_scale", "float32", (EVERYTHING_BLOCKS, 1)),
                TensorSpec("block_weights", "float32", (EVERYTHING_BLOCKS, rows)),
                TensorSpec("block_pixels", "float32", (EVERYTHING_BLOCKS, channels)),
            ),
            (TensorSpec("block_logits", "float32", (masks, EVERYTHING_BLOCKS, 4, 4)),),
            None,
            ({},),
        ),
        GraphSpec("scores", (embedding(1), *prompts(1, everything)), scores, None, shapes.everything),
    )
    return dict(zip(MASK_GRAPHS, graphs, strict=True))
