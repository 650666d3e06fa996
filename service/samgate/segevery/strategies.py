"""The strategies of SegEvery, as data: what each decodes, what it needs, and its sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from samgate.domain import FloatArray
from samgate.errors import InvalidArgument
from samgate.scheduling.profile import PromptKind
from samgate.segevery.aop import MOST_PROMPTS, AopSampler
from samgate.segevery.crops import crop_boxes
from samgate.segevery.detections import DetectorParameters
from samgate.segevery.found import FoundSampler
from samgate.segevery.generator import GridSampler
from samgate.segevery.hierarchical import HierarchicalSampler
from samgate.segevery.object_aware import ObjectAwareSampler
from samgate.segevery.parameters import AopParameters, GridParameters, HierarchicalParameters
from samgate.segevery.progressive import ProgressiveSampler, coarse_count
from samgate.segevery.sampler import Sampler
from samgate.variants.spec import VariantSpec

Size = tuple[int, int]


class Strategy(StrEnum):
    """Which prompts find the masks."""

    GRID = "grid"
    HIERARCHICAL = "hierarchical"
    OBJECT_AWARE = "object_aware"
    AOP = "aop"
    AUTO = "auto"


class Boxes(StrEnum):
    """What a strategy wants of a detector."""

    NONE = "none"
    WELCOME = "welcome"
    NEEDED = "needed"


@dataclass(frozen=True, slots=True)
class StrategyParameters:
    """What a caller may choose about any strategy; ``hierarchical`` and ``aop`` have ``grid`` as theirs."""

    grid: GridParameters = field(default_factory=GridParameters)
    hierarchical: HierarchicalParameters = field(default_factory=HierarchicalParameters)
    object_aware: DetectorParameters = field(default_factory=DetectorParameters)
    aop: AopParameters = field(default_factory=AopParameters)


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """One strategy.

    ``make`` makes its sampler for parameters, an image's (height, width), a variant, and boxes float32 ``[B, 4]`` in
    the image's pixels, which are None where no detector was asked; ``prompts`` is the most that it decodes in an image
    of that size, in all crops, which are those of ``parameters.grid`` where it ``crops``; ``kind`` is that of its
    prompts; ``boxes`` what it wants of a detector; ``always_anytime`` whether it is so without being asked to;
    ``answers_found`` whether masks that a system finds without prompts (``finds_everything``) are an answer.
    """

    make: Callable[[StrategyParameters, Size, VariantSpec, FloatArray | None], Sampler]
    prompts: Callable[[StrategyParameters, Size], int]
    kind: PromptKind = "point"
    crops: bool = True
    boxes: Boxes = Boxes.NONE
    always_anytime: bool = False
    answers_found: bool = False

    def sampler(
        self, parameters: StrategyParameters, size: Size, spec: VariantSpec, boxes: FloatArray | None
    ) -> Sampler:
        """That for ``spec``'s system: see ``make``."""
        if spec.finds_everything:
            return FoundSampler(parameters.grid, size, spec)
        return self.make(parameters, size, spec, boxes)


def crop_layers(strategy: StrategySpec, parameters: StrategyParameters, size: Size) -> list[int]:
    """The layer of each crop that has to be encoded, 0 for the whole image."""
    return _crops(parameters, size) if strategy.crops else [0]


def least_prompts(strategy: StrategySpec, parameters: StrategyParameters, size: Size) -> int:
    """What has to be decoded for an answer that is of use, of a request that takes what it can get: as many as the
    coarsest grid of ``auto`` has points."""
    return min(strategy.prompts(parameters, size), coarse_count(parameters.grid.points_per_side))


def inapplicable(strategy: Strategy, spec: VariantSpec) -> InvalidArgument | None:
    """What is the matter with ``strategy`` for ``spec``'s system; None when it can be had of it."""
    if not spec.finds_everything or STRATEGIES[strategy].answers_found:
        return None
    others = " and ".join(one.name for one, found in STRATEGIES.items() if found.answers_found)
    return InvalidArgument("strategy", f"is {strategy.name}; {spec.name} finds masks without prompts: ask for {others}")


def _fine_grid(parameters: StrategyParameters, size: Size) -> int:
    return sum(parameters.grid.layer_points_per_side(layer) ** 2 for layer in _crops(parameters, size))


def _crops(parameters: StrategyParameters, size: Size) -> list[int]:
    grid = parameters.grid
    return [layer for _, layer in crop_boxes(size, grid.crop_n_layers, grid.crop_overlap_ratio)]


def _object_aware(_: StrategyParameters, size: Size, spec: VariantSpec, boxes: FloatArray | None) -> Sampler:
    if boxes is None:
        raise ValueError("the boxes of a detector are needed")
    return ObjectAwareSampler(boxes, size, spec)


STRATEGIES: dict[Strategy, StrategySpec] = {
    Strategy.GRID: StrategySpec(
        make=lambda parameters, size, spec, _: GridSampler(parameters.grid, size, spec),
        prompts=_fine_grid,
        answers_found=True,
    ),
    Strategy.HIERARCHICAL: StrategySpec(
        make=lambda parameters, size, spec, _: HierarchicalSampler(parameters.hierarchical, size, spec),
        prompts=lambda parameters, size: sum(map(parameters.hierarchical.layer_prompts, _crops(parameters, size))),
    ),
    Strategy.OBJECT_AWARE: StrategySpec(
        make=_object_aware,
        prompts=lambda parameters, _: parameters.object_aware.max_detections,
        kind="box",
        crops=False,
        boxes=Boxes.NEEDED,
    ),
    Strategy.AOP: StrategySpec(
        make=lambda parameters, size, spec, _: AopSampler(parameters.aop, size, spec),
        prompts=lambda parameters, size: MOST_PROMPTS * len(_crops(parameters, size)),
    ),
    Strategy.AUTO: StrategySpec(
        make=lambda parameters, size, spec, boxes: ProgressiveSampler(parameters.grid, size, spec, boxes),
        prompts=_fine_grid,
        boxes=Boxes.WELCOME,
        always_anytime=True,
        answers_found=True,
    ),
}
