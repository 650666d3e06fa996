"""CLIP (Radford et al., 2021): images and words as vectors that are near to each other where one describes the other.

FastSAM's upstream chooses by it which of the objects that it found is meant by a text. It serves beside variants that
take words (:attr:`samgate.variants.spec.PromptSupport.text`), one for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from samgate.errors import NotFound
from samgate.variants.gates import LOW_FLOAT, SAME
from samgate.variants.graphs import GraphName, GraphSpec, TensorSpec
from samgate.variants.spec import TEXT_GRAPHS, Island, NetworkSpec, PrecisionPlan, ShapeProfile, ShapeRange, UrlSource

MOST_CROPS, MOST_TEXTS = 32, 16
"""Images and texts of one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec(NetworkSpec):
    """A CLIP with a vision transformer. ``context``: tokens of a text, the first and the last included; ``vocabulary``:
    how many tokens there are; ``width``: of the vectors that images and texts become."""

    context: int = 77
    vocabulary: int = 49408
    width: int = 512
    images: tuple[ShapeProfile, ...] = ({"N": ShapeRange(1, 16, MOST_CROPS)},)
    texts: tuple[ShapeProfile, ...] = ({"N": ShapeRange(1, 1, MOST_TEXTS)},)
    """What the graphs are compiled for."""

    @property
    def drawing(self) -> tuple[object, ...]:
        """See :attr:`NetworkSpec.drawing`."""
        return (*super(ClipSpec, self).drawing, self.context, self.vocabulary, self.width)


def text_graphs(spec: ClipSpec) -> dict[GraphName, GraphSpec]:
    """Both, by name. ``image`` is what :mod:`samgate.text.crops` makes, ``tokens`` end with zeros; ``features`` have
    the length 1."""
    side, features = spec.input_size, TensorSpec("features", "float32", ("N", spec.width))
    image = TensorSpec("image", "uint8", ("N", side, side, 3))
    tokens = TensorSpec("tokens", "int32", ("N", spec.context))
    return {
        "image_features": GraphSpec("image_features", (image,), (features,), "N", spec.images),
        "text_features": GraphSpec("text_features", (tokens,), (features,), "N", spec.texts),
    }


VIT_B_32 = ClipSpec(
    name="clip-vit-b-32",
    title="CLIP ViT-B/32",
    paper="arXiv 2103.00020",
    licence="MIT",
    licence_note="the authors advise against deployment without tests of the use that is meant",
    parameters=151_300_000,
    network="samgate.variants.nets.clip:build",
    graph_module="samgate.variants.nets.clip:graph_module",
    graph_tensors="samgate.variants.clip:text_graphs",
    graphs=TEXT_GRAPHS,
    architecture={
        "patch": 32,
        "image_width": 768,
        "image_depth": 12,
        "text_width": 512,
        "text_depth": 12,
        "head": 64,
    },
    small={"image_width": 128, "image_depth": 2, "text_width": 64, "text_depth": 2},
    sources=(
        UrlSource(
            url="https://openaipublic.azureedge.net/clip/models/"
            "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
            sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        ),
    ),
    reader="samgate.weights.clip_file:read",
    input_size=224,
    pixel_mean=(255 * 0.48145466, 255 * 0.4578275, 255 * 0.40821073),
    pixel_std=(255 * 0.26862954, 255 * 0.26130258, 255 * 0.27577711),
    precisions={
        "f32": PrecisionPlan("f32", "f32", "the reference", SAME),
        "fp16": PrecisionPlan(
            "fp16",
            "fp16",
            "what the weights were trained and published in; no accuracy was measured here",
            LOW_FLOAT,
        ),
    },
    islands=(
        Island(
            name="normalisation",
            operators=("LayerNormalization", "ReduceL2", "Div", "Sub"),
            reason="as upstream has it; sums of squares leave fp16's range",
        ),
    ),
)
TEXT_MODELS: dict[str, ClipSpec] = {spec.name: spec for spec in (VIT_B_32,)}


def get_text_model(name: str) -> ClipSpec:
    """The spec called ``name``. Raises :class:`NotFound` that lists the names there are."""
    try:
        return TEXT_MODELS[name]
    except KeyError:
        raise NotFound(f"text model {name!r} is unknown; known: {', '.join(sorted(TEXT_MODELS))}") from None
