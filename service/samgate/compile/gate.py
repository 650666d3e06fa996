"""The accuracy gate: what graphs of a precision plan answer, against the f32 graphs, on photographs.

Every graph that makes or ranks masks is asked, and no figure makes up for another: see
:mod:`samgate.compile.questions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samgate.compile.photographs import photographs, read_photograph, spread
from samgate.compile.questions import TIMED, Graphs, PromptKind, Question, Runtime, ask, load_graphs, prompts_for
from samgate.domain import FloatArray, Frame, UInt8Array
from samgate.errors import InvalidArgument
from samgate.evaluation.dataset import Instance, load_dataset
from samgate.imaging.masks import finish
from samgate.variants.graphs import GraphName
from samgate.variants.spec import Gate, PrecisionPlan, VariantSpec

MAX_IMAGES = 16
PROMPTS_PER_IMAGE = 4
"""Of each kind. Four of 16 images tell a plan that fails from one that doesn't, in less than a minute on OpenVINO."""
OTHER_MASK = 0.5
"""Below this IoU two masks count as masks of different things."""


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
    """All agreements, on ``images`` images, and the thresholds they are judged by. ``milliseconds`` are medians of a
    call of f32's graph and of the candidate's, in turns: one image, and the decoder's prompts of one image."""

    agreements: tuple[Agreement, ...]
    images: int
    gate: Gate
    milliseconds: Mapping[GraphName, tuple[float, float]]

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
            "milliseconds": {name: [round(one, 1) for one in both] for name, both in self.milliseconds.items()},
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
    report: Callable[[str], None] = lambda message: None,
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
    sides = load_graphs(reference, candidate, f32, runtime), load_graphs(candidate, candidate, plan, runtime)
    collected: dict[Question, list[tuple[float, ...]]] = {}
    for image in data.images:
        for question, figures in _compare(spec, sides[0], sides[1], image):
            collected.setdefault(question, []).append(figures)
    agreements = tuple(_agreement(question, figures) for question, figures in collected.items())
    f32_calls, calls = sides
    milliseconds = {name: (f32_calls[name].milliseconds, calls[name].milliseconds) for name in TIMED}
    return GateResult(agreements, len(data.images), plan.gate, milliseconds)


def _agreement(question: Question, figures: Sequence[tuple[float, ...]]) -> Agreement:
    graph, kind = question
    mask_iou, *truths = (float(value) for value in np.mean(figures, axis=0))
    other = float(np.mean([values[0] < OTHER_MASK for values in figures]))
    before, after = truths or (None, None)
    return Agreement(graph, kind, len(figures), mask_iou, other, before, after)


def _compare(
    spec: VariantSpec, reference: Graphs, candidate: Graphs, image: GateImage
) -> Iterator[tuple[Question, tuple[float, ...]]]:
    """For each question and prompt: the IoU of both masks, and where there are labels of each with the truth."""
    pixels, frame = read_photograph(image.path, spec)
    prompts = prompts_for(image.instances, frame)
    expected = ask(spec, reference, pixels, frame, prompts, {})
    given = ask(spec, candidate, pixels, frame, prompts, expected)
    truths = [instance.mask() for instance in image.instances]
    for question, masks in given.items():
        for index, low_res in enumerate(masks):
            before, after = (_mask(one, frame, spec) for one in (expected[question][index], low_res))
            known = truths[index : index + 1]
            yield question, (_iou(before, after), *(_iou(one, truth) for truth in known for one in (before, after)))


def _mask(low_res: FloatArray, frame: Frame, spec: VariantSpec) -> UInt8Array:
    """uint8 ``[H, W]``; empty where logits aren't numbers, as in a graph that overflows."""
    if not np.isfinite(low_res).all():
        return np.zeros(frame.original, np.uint8)
    return finish(low_res, frame, spec.mask_threshold).mask


def _iou(one: UInt8Array, other: UInt8Array) -> float:
    """1 for two empty masks."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
