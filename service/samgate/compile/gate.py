"""The accuracy gate: what graphs of a precision plan answer, against the f32 graphs, on photographs.

Judged is what a client would get: boxes are answered by the single-mask token, points by the best predicted of the
multimask tokens, so that a plan that ranks masks otherwise is seen as well as one that draws them otherwise. Every
graph that makes or ranks masks is asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from samgate.compile.photographs import photographs, read_photograph, spread
from samgate.domain import FloatArray, Frame, Prompt, UInt8Array
from samgate.engines.base import Images
from samgate.engines.cpu import usable_cores
from samgate.engines.embedded import Graph
from samgate.errors import InvalidArgument
from samgate.evaluation.dataset import Instance, load_dataset
from samgate.evaluation.prompts import box_prompt, centre_point
from samgate.imaging.masks import finish
from samgate.serving.prompting import group_prompts
from samgate.variants.graphs import GraphName
from samgate.variants.spec import Arithmetic, Gate, PrecisionPlan, VariantSpec

Runtime = Literal["openvino", "onnxruntime"]
PromptKind = Literal["box", "point"]
Report = Callable[[str], None]
_Graphs = Mapping[GraphName, Graph]

MAX_IMAGES = 16
PROMPTS_PER_IMAGE = 4
"""Of each kind. Four of 16 images tell a plan that fails from one that doesn't, in less than a minute on OpenVINO."""
OTHER_MASK = 0.5
"""Below this IoU two masks count as masks of different things."""

_ALL_SURVIVE = -1e4
_Question = tuple[GraphName, PromptKind]


@dataclass(frozen=True, slots=True)
class GateImage:
    """An image file and the objects that are prompted for; without any, a grid of points is."""

    path: Path
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class GateData:
    """What the gate looks at: the same images and objects, in the same order, every time."""

    images: tuple[GateImage, ...]

    @classmethod
    def from_paths(cls, labels: Path | None, images: Path | None) -> GateData:
        """At most :data:`MAX_IMAGES`, spread over what there is.

        Args:
            labels: an instances file in COCO's format. Masks are then compared with the ground truth, too.
            images: a folder of photographs, where there are no labels.

        Raises:
            InvalidArgument: neither is given, or the folder holds no images.
            DatasetError: the labels can't be used.
        """
        if labels is not None:
            labelled = spread(load_dataset(labels), MAX_IMAGES)
            return cls(tuple(GateImage(one.path, spread(one.instances, PROMPTS_PER_IMAGE)) for one in labelled))
        if images is not None:
            return cls(tuple(GateImage(path) for path in spread(photographs(images, "images"), MAX_IMAGES)))
        raise InvalidArgument("eval", "give --eval instances.json (in COCO's format) or --images DIR")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How one graph answered one kind of prompt. IoUs are means over ``prompts`` masks, 0 to 1.

    ``mask_iou`` is with f32's masks, ``other_masks`` the share of masks with less than :data:`OTHER_MASK`;
    ``reference_miou`` (f32) and ``candidate_miou`` are with the ground truth, None without labels.
    """

    graph: GraphName
    prompt: PromptKind
    prompts: int
    mask_iou: float
    other_masks: float
    reference_miou: float | None
    candidate_miou: float | None


@dataclass(frozen=True, slots=True)
class GateResult:
    """All agreements, on ``images`` images, and the thresholds they are judged by."""

    agreements: tuple[Agreement, ...]
    images: int
    gate: Gate

    @property
    def mask_iou(self) -> float:
        """That of the graph and kind of prompt where it is lowest."""
        return min(one.mask_iou for one in self.agreements)

    @property
    def mious(self) -> tuple[float, float] | None:
        """f32's and the candidate's mIoU with the ground truth over the decoder's masks, None without labels."""
        pairs = [
            (one.reference_miou, one.candidate_miou)
            for one in self.agreements
            if one.graph == "decoder" and one.reference_miou is not None and one.candidate_miou is not None
        ]
        return (float(np.mean([a for a, _ in pairs])), float(np.mean([b for _, b in pairs]))) if pairs else None

    @property
    def passed(self) -> bool:
        """Whether every graph's masks are near enough to f32's, and the ground truth isn't missed by too much more."""
        reference, candidate = self.mious or (0.0, 0.0)
        return self.mask_iou >= self.gate.min_mask_iou and reference - candidate <= self.gate.max_miou_loss

    def summary(self) -> str:
        """One sentence with the figures and their thresholds."""
        lowest = min(self.agreements, key=lambda one: one.mask_iou)
        words = (
            f"{'passed' if self.passed else 'failed'} on {self.images} images: mask IoU with f32 {lowest.mask_iou:.4f} "
            f"({lowest.graph}, {lowest.prompt} prompts; at least {self.gate.min_mask_iou:g})"
        )
        if self.mious is None:
            return words
        reference, candidate = self.mious
        return f"{words}; mIoU {candidate:.4f}, f32 {reference:.4f} (may lose {self.gate.max_miou_loss:g})"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "passed": self.passed,
            "images": self.images,
            "min_mask_iou": self.gate.min_mask_iou,
            "max_miou_loss": self.gate.max_miou_loss,
            "agreements": [
                {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(one).items()}
                for one in self.agreements
            ],
        }


def run_gate(
    spec: VariantSpec,
    reference: Mapping[GraphName, Path],
    candidate: Mapping[GraphName, Path],
    plan: PrecisionPlan,
    data: GateData,
    report: Report = lambda message: None,
    runtime: Runtime = "openvino",
) -> GateResult:
    """Runs f32's graphs and the candidate's on ``data`` and compares their masks at the images' size.

    Args:
        reference: f32 ONNX graphs; all that ``candidate`` has.
        candidate: ONNX graphs of ``plan``, the encoder and the decoder at least.
        plan: as its target runs it (:meth:`PrecisionPlan.on`); its gate holds the thresholds.
        runtime: what runs the candidate. OpenVINO is told ``plan``'s arithmetic; for ONNX Runtime it has to be written
            into the graphs. The reference runs on the same.

    Raises:
        CompileError: a graph can't be loaded.
        InvalidArgument: an image can't be read.
    """
    report(f"checking accuracy on {len(data.images)} images")
    f32 = PrecisionPlan("f32", "f32", reason="the reference", gate=plan.gate)
    sides = [_load(reference, candidate, f32, runtime), _load(candidate, candidate, plan, runtime)]
    collected: dict[_Question, list[tuple[float, ...]]] = {}
    for image in data.images:
        for question, figures in _compare(spec, sides[0], sides[1], image):
            collected.setdefault(question, []).append(figures)
    agreements = tuple(_agreement(question, figures) for question, figures in collected.items())
    return GateResult(agreements, len(data.images), plan.gate)


def _agreement(question: _Question, figures: Sequence[tuple[float, ...]]) -> Agreement:
    graph, kind = question
    mask_iou, *truths = (float(value) for value in np.mean(figures, axis=0))
    other = float(np.mean([values[0] < OTHER_MASK for values in figures]))
    before, after = truths or (None, None)
    return Agreement(graph, kind, len(figures), mask_iou, other, before, after)


def _compare(
    spec: VariantSpec, reference: _Graphs, candidate: _Graphs, image: GateImage
) -> Iterator[tuple[_Question, tuple[float, ...]]]:
    """For each question and prompt: the IoU of both masks, and where there are labels of each with the truth."""
    pixels, frame = read_photograph(image.path, spec)
    prompts = _prompts(image, frame)
    truths = [instance.mask() for instance in image.instances]
    expected = _answer(spec, reference, pixels, frame, prompts, {})
    given = _answer(spec, candidate, pixels, frame, prompts, expected)
    for question, masks in given.items():
        for index, low_res in enumerate(masks):
            before, after = (_mask(one, frame, spec) for one in (expected[question][index], low_res))
            truth = truths[index : index + 1]
            yield question, (_iou(before, after), *(_iou(one, known) for known in truth for one in (before, after)))


def _prompts(image: GateImage, frame: Frame) -> dict[PromptKind, list[Prompt]]:
    nothing, one = np.zeros((0, 2), np.float32), np.ones(1, np.int32)
    if not image.instances:
        height, width = frame.original
        side = int(PROMPTS_PER_IMAGE**0.5)
        steps = [(step + 0.5) / side for step in range(side)]
        return {"point": [Prompt(np.array([[x * width, y * height]], np.float32), one) for y in steps for x in steps]}
    boxes = [Prompt(nothing, one[:0], np.array(box_prompt(each), np.float32)) for each in image.instances]
    points = [Prompt(np.array([centre_point(each.mask())], np.float32), one) for each in image.instances]
    return {"box": boxes, "point": points}


class _Loader(Protocol):
    def load_graph(self, path: Path, precision: str, threads: int, batch: int | None = None) -> Graph: ...


def _load(
    files: Mapping[GraphName, Path], wanted: Mapping[GraphName, Path], plan: PrecisionPlan, runtime: Runtime
) -> _Graphs:
    loader = cast("_Loader", importlib.import_module(f"samgate.engines.{runtime}"))

    def load(name: GraphName) -> Graph:
        precision = _hint(plan.encoder if name == "encoder" else plan.decoder, plan, runtime)
        return loader.load_graph(files[name], precision, usable_cores(), 1 if name == "encoder" else None)

    return {name: load(name) for name in wanted}


def _hint(arithmetic: Arithmetic, plan: PrecisionPlan, runtime: Runtime) -> str:
    """What the runtime is told: int8 is in the graph, and what is beside it runs as the decoder does."""
    if runtime == "onnxruntime":
        return "f32"
    return plan.decoder if arithmetic == "int8" else arithmetic


def _answer(
    spec: VariantSpec,
    graphs: _Graphs,
    pixels: Images,
    frame: Frame,
    prompts: Mapping[PromptKind, Sequence[Prompt]],
    expected: Mapping[_Question, FloatArray],
) -> dict[_Question, FloatArray]:
    """The logits float32 ``[P, 256, 256]`` that answer each question. Prompts of the second round hold the first
    round's masks: f32's, which are ``expected``, so that it is the graph that is compared and not its input."""
    (embedding,) = graphs["encoder"]({"image": pixels.pixels, "valid": pixels.valid})
    found: dict[_Question, FloatArray] = {}
    first = next(iter(prompts))
    for kind, members in prompts.items():
        group = group_prompts(members, frame, spec, len(members))[0].prompts
        inputs: dict[str, NDArray[Any]] = {
            "image_embedding": embedding,
            "point_coords": group.coords,
            "point_labels": group.labels,
        }
        tokens = (spec.single_mask_token,) if kind == "box" else spec.multimask_tokens
        masks, ious = (output[0] for output in graphs["decoder"](inputs))
        found["decoder", kind] = _best(masks[:, tokens], ious[:, tokens])
        if "masked_decoder" in graphs and kind == first:
            earlier = expected.get(("decoder", kind), found["decoder", kind])[None, :, None]
            present = np.ones((1, len(members)), np.float32)
            second, _ = graphs["masked_decoder"](inputs | {"mask_input": earlier, "has_mask": present})
            found["masked_decoder", kind] = second[0][:, spec.single_mask_token]
        if kind == "point" and "scores" in graphs:
            (scores,) = graphs["scores"](inputs)
            found["scores", kind] = _best(masks[:, tokens], scores[0])
        if kind == "point" and "survivors" in graphs:
            left, kept, scores = graphs["survivors"](inputs | {"min_iou": np.array([_ALL_SURVIVE], np.float32)})
            candidates = np.full((*scores[0].shape, *left.shape[1:]), -1.0, np.float32)
            candidates[kept[:, 0], kept[:, 1]] = left
            found["survivors", kind] = _best(candidates, scores[0])
    return found


def _best(masks: FloatArray, ious: FloatArray) -> FloatArray:
    """Of ``masks`` ``[P, C, 256, 256]`` those with the highest of ``ious`` ``[P, C]``."""
    best: FloatArray = masks[np.arange(len(masks)), ious.argmax(axis=1)]
    return best


def _mask(low_res: FloatArray, frame: Frame, spec: VariantSpec) -> UInt8Array:
    """uint8 ``[H, W]``; empty where logits aren't numbers, as in a graph that overflows."""
    if not np.isfinite(low_res).all():
        return np.zeros(frame.original, np.uint8)
    return finish(low_res, frame, spec.mask_threshold).mask


def _iou(one: UInt8Array, other: UInt8Array) -> float:
    """1 for two empty masks."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
