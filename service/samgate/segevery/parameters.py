"""What a caller may choose about SegEvery."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from samgate.errors import InvalidArgument

_LIMITS: dict[str, tuple[float, float]] = {
    "points_per_side": (1, 128),
    "pred_iou_thresh": (0, 1),
    "stability_score_thresh": (0, 1),
    "stability_score_offset": (0, 32),
    "box_nms_thresh": (0, 1),
    "crop_n_layers": (0, 4),
    "crop_nms_thresh": (0, 1),
    "crop_overlap_ratio": (0, 0.9),
    "crop_n_points_downscale_factor": (1, 8),
    "min_mask_region_area": (0, 2**32 - 1),
    "max_masks": (0, 2**32 - 1),
}


def check_limits(name: str, parameters: object, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raises :class:`InvalidArgument` for a field of ``parameters``, the message ``name`` of a request, that isn't
    within its ``limits`` (lowest and highest value)."""
    for item, (low, high) in limits.items():
        value = getattr(parameters, item)
        # Not a number is in no range, so it fails here as well.
        if not (math.isfinite(value) and low <= value <= high):
            raise InvalidArgument(f"{name}.{item}", f"must be from {low} to {high}, is {value}")


@dataclass(frozen=True, slots=True)
class GridParameters:
    """Names, defaults and meaning are those of segment_anything's ``SamAutomaticMaskGenerator``, but for ``max_masks``.

    Raises :class:`InvalidArgument` that names the field (``grid.<name>``), its value and its limits.
    """

    points_per_side: int = 32
    pred_iou_thresh: float = 0.88
    """Masks must be predicted better than this; 0 switches the filter off."""
    stability_score_thresh: float = 0.95
    """Masks must be at least this stable; 0 switches the filter off."""
    stability_score_offset: float = 1.0
    """How far the mask threshold is moved, both ways, to calculate stability; in logits."""
    box_nms_thresh: float = 0.7
    """Of two masks of one crop whose boxes have a higher IoU, the worse predicted one is dropped."""
    crop_n_layers: int = 0
    """Layers of crops besides the whole image; layer n has 4^n."""
    crop_nms_thresh: float = 0.7
    """Of two masks of different crops whose boxes have a higher IoU, the one of the larger crop is dropped."""
    crop_overlap_ratio: float = 512 / 1500
    """Overlap of the first layer's crops as a share of the image's shorter side."""
    crop_n_points_downscale_factor: int = 1
    """Layer n's grid has ``points_per_side`` / this^n points a side."""
    min_mask_region_area: int = 0
    """Holes and islands with fewer pixels are removed."""
    max_masks: int = 0
    """Most masks answered, best first; 0 is all of them."""

    def __post_init__(self) -> None:
        check_limits("grid", self, _LIMITS)

    def layer_points_per_side(self, layer: int) -> int:
        """Side of the point grid in crops of ``layer``. At least 1, where upstream divides by zero."""
        return max(1, int(self.points_per_side / self.crop_n_points_downscale_factor**layer))

    def prompt_count(self) -> int:
        """Point prompts over all crops. Images too small to be cut into all of their crops need fewer."""
        return sum(4**layer * self.layer_points_per_side(layer) ** 2 for layer in range(self.crop_n_layers + 1))


@dataclass(frozen=True, slots=True)
class HierarchicalParameters:
    """Names, defaults and meaning are those of TinySAM's ``SamHierarchicalMaskGenerator``, but for
    ``covering_stages`` and ``neighbours_per_point``; ``grid`` is its fine grid, and its filters. Raises
    :class:`InvalidArgument` as :class:`GridParameters` does (``hierarchical.<name>``)."""

    grid: GridParameters = field(default_factory=GridParameters)
    high_score_thresh: float = 8.5
    """A mask covers where its logits are above."""
    coarse_factor: int = 4
    """Stage one has ``points_per_side`` / this points a side."""
    covering_stages: int = 2
    """Whose masks cover points: 1 is TinySAM's; with 2 those of stage two as well, as soon as they are found, and it
    begins with the most promising points."""
    neighbours_per_point: int = 2
    """Stage two has at most as many points for each one of stage one; 0 is no limit, as in TinySAM."""

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "high_score_thresh": (-100, 100),
        "coarse_factor": (1, 16),
        "covering_stages": (1, 2),
        "neighbours_per_point": (0, 256),
    }

    def __post_init__(self) -> None:
        check_limits("hierarchical", self, self.LIMITS)

    @property
    def coarse_grid(self) -> GridParameters:
        """That of stage one, with all of the filters."""
        return replace(self.grid, points_per_side=max(1, self.grid.points_per_side // self.coarse_factor))

    def layer_prompts(self, layer: int) -> int:
        """The most prompts of a crop of ``layer``."""
        coarse = self.coarse_grid.layer_points_per_side(layer) ** 2
        every = max(coarse, self.grid.layer_points_per_side(layer) ** 2)
        return min(every, coarse * (1 + self.neighbours_per_point)) if self.neighbours_per_point else every


@dataclass(frozen=True, slots=True)
class AopParameters:
    """Names and defaults are AoP-SAM's; ``grid`` has the crops and filters, its points are of no interest. Raises
    :class:`InvalidArgument` as :class:`GridParameters` does (``aop.<name>``)."""

    grid: GridParameters = field(default_factory=GridParameters)
    smoothing_sigma: float = 2.0
    """Standard deviation of the Gaussian that smooths a confidence map, in its pixels; 0 is no smoothing."""
    confidence_thresh: float = 0.2
    """Prompts must be more confident than this; 0 is the least confident place of the image, 1 the most confident."""
    spacing: int = 6
    """Two prompts of one map are at least as many of its pixels apart, along one axis or both."""
    elimination_factor: float = 1.3
    """Prompts on a mask are left out where they are this many times as similar to the masks so far as the image is in
    the mean."""

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "smoothing_sigma": (0, 32),
        "confidence_thresh": (0, 1),
        "spacing": (1, 64),
        "elimination_factor": (0, 100),
    }

    def __post_init__(self) -> None:
        check_limits("aop", self, self.LIMITS)
