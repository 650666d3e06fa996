"""FastSAM: github.com/CASIA-IVA-Lab/FastSAM at b4ed20c with the ultralytics 8.0.120 that it brings, with torch 2.13.0,
opencv 5.0.0, scipy, pandas and matplotlib. torchvision's NMS, of its compiled operators, is replaced by one here."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from parity import rules
from parity.cases import Case
from parity.recording import Shapes, sampled
from parity.rules import Size
from parity.weights import FloatArray, draw
from samgate.variants.spec import VariantSpec

VARIANTS = ("fastsam-s", "fastsam-x")
SIDE = 1024
MOST, COLUMNS = 300, 37
"""Detections of an image at most; of each four sides of the box, confidence and 32 coefficients."""
CONFIDENCE, OVERLAP = 0.4, 0.9
_CLASS = 5
"""Upstream's column between confidence and coefficients: there is one class."""


class FastSam:
    """An :class:`~parity.recording.Upstream` around upstream's ``SegmentationModel`` and ``FastSAMPredictor``.

    Its embedding is everything that prompts are answered from: prototypes, and the table of detections."""

    def __init__(self, network: Any) -> None:
        self.network = network.eval()

    def shapes(self) -> Shapes:
        return {name: tuple(value.shape) for name, value in self.network.state_dict().items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.network.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)

    def answer(self, pixels: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """Candidates ``[1, 37, N]`` and prototypes ``[1, 32, S / 4, S / 4]``."""
        candidates, (_, _, prototypes) = self.network(torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255)
        return candidates, prototypes

    def encode(self, pixels: NDArray[np.uint8], valid: tuple[int, int]) -> FloatArray:
        """``valid`` is in the middle: this system pads on all sides."""
        candidates, prototypes = self.answer(pixels)
        found = torch.zeros(SIDE * SIDE // 256, 3)
        rows = _table(candidates, prototypes, valid)
        found.view(-1)[: rows.numel()] = rows.view(-1)
        maps = torch.nn.functional.pixel_unshuffle(prototypes, 4)
        return torch.cat((maps, found.view(1, 3, *maps.shape[2:])), 1).numpy()

    def decode(self, case: Case, index: int) -> tuple[FloatArray, FloatArray]:
        raise NotImplementedError(f"FastSAM has no decoder for {case.name} {index}")


def load(checkout: str, spec: VariantSpec) -> FastSam:
    """Upstream's network of its description, scaled by the spec's numbers, for one class."""
    _package()
    tasks = importlib.import_module("ultralytics.nn.tasks")
    described = tasks.yaml_load(f"{checkout}/ultralytics/models/v8/yolov8-seg.yaml")
    wide = spec.architecture
    described["scales"] = {"own": [wide["depth"], wide["width"], wide["max_channels"]]}
    return FastSam(tasks.SegmentationModel(described | {"scale": "own"}, nc=1, verbose=False))


def _package() -> Any:
    """Upstream's package, whose ultralytics wants a folder for its settings."""
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    return importlib.import_module("fastsam")


def _nms(boxes: torch.Tensor, scores: torch.Tensor, most: float) -> torch.Tensor:
    """As torchvision has it: indices of boxes ``[N, 4]``, the best first, without those of which the intersection with
    a better one that stays is more than ``most`` of the union."""
    left, top, right, bottom = boxes.unbind(1)
    areas = (right - left) * (bottom - top)
    order, kept = scores.argsort(descending=True, stable=True), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        width = torch.minimum(right[best], right[order]) - torch.maximum(left[best], left[order])
        height = torch.minimum(bottom[best], bottom[order]) - torch.maximum(top[best], top[order])
        both = width.clamp(min=0) * height.clamp(min=0)
        order = order[both / (areas[best] + areas[order] - both) <= most]
    return torch.stack(kept)


@contextlib.contextmanager
def _predictor(size: Size) -> Iterator[Any]:
    """Upstream's ``postprocess`` for answers to an image of ``size``: ``(candidates, prototypes)`` → results."""
    predictor: Any = object.__new__(_package().FastSAMPredictor)
    predictor.args = SimpleNamespace(
        conf=CONFIDENCE, iou=OVERLAP, max_det=MOST, agnostic_nms=False, classes=None, retina_masks=True
    )
    predictor.model, predictor.batch = SimpleNamespace(names={0: "object"}), (["image"],)
    image = np.zeros((*size, 3), np.uint8)
    ops = importlib.import_module("ultralytics.yolo.utils.ops")
    with patch.object(ops.torchvision.ops, "nms", _nms), contextlib.redirect_stdout(io.StringIO()):
        yield lambda *found: predictor.postprocess((found[0].clone(), found[1]), torch.empty(1, 3, SIDE, SIDE), [image])


def _table(candidates: torch.Tensor, prototypes: torch.Tensor, valid: tuple[int, int]) -> torch.Tensor:
    """Rows ``[300, 37]`` of what upstream makes masks of: boxes in parts of the square. It has them relative to the
    image, here one that the square holds as it is, and cut off where that ends.

    Upstream fails where two boxes or more are almost the whole square: there are no golden numbers of that."""
    ops = importlib.import_module("ultralytics.yolo.utils.ops")
    rows = torch.zeros(MOST, COLUMNS)
    with _predictor(valid) as postprocess, patch.object(ops, "process_mask_native") as masks:
        masks.return_value = torch.zeros(1, *valid)
        (result,) = postprocess(candidates, prototypes) or [None]
    if result is not None:
        _, coefficients, boxes, _ = masks.call_args.args
        # Where upstream's masks are: it cuts prototypes at whole pixels and stretches what is left to the image.
        pads = [(256 - side / 4) / 2 for side in valid[::-1]] * 2
        starts = torch.tensor([int(pad) for pad in pads])
        stops = torch.tensor([int(256 - pad) for pad in pads])
        boxes = (starts + boxes / torch.tensor(valid[::-1] * 2) * (stops - starts)) / 256
        rows[: len(boxes)] = torch.cat((boxes, result.boxes.data[:, 4:5], coefficients), 1)
    return rows


RULE_SIZES = ((427, 640), (640, 427), (333, 500), (512, 512), (768, 1024), (37, 53), (97, 1001))
"""(height, width) of images."""
PROMPT_SIZES = ((427, 640), (37, 53), (97, 1001))
"""Of those, the ones that masks and prompts are kept for."""
RULE_BOXES = (
    (0.0, 0.0, 1.0, 1.0),
    (0.1, 0.1, 0.45, 0.8),
    (0.3, 0.2, 0.9, 0.95),
    (0.613, 0.407, 0.752, 0.689),
    (-0.05, 0.3, 0.257, 1.1),
    (0.5, 0.05, 0.55, 0.21),
    (0.02, 0.4, 0.98, 0.6),
)
"""x0, y0, x1, y1 in parts of the image; one reaches beyond."""
Point = tuple[float, float, int]
RULE_POINTS: tuple[tuple[Point, ...], ...] = (
    ((0.25, 0.5, 1),),
    ((0.5, 0.5, 1),),
    ((0.71, 0.32, 1),),
    ((0.999, 0.5, 1),),
    ((0.2, 0.3, 1), (0.8, 0.7, 1)),
    ((0.4, 0.6, 1), (0.55, 0.45, 0)),
    ((0.55, 0.45, 0), (0.4, 0.6, 1)),
    ((0.3, 0.5, 1), (0.7, 0.5, 1), (0.5, 0.4, 0)),
)
"""x, y in parts of the image, and 1 or 0 for foreground or background. Nothing is at the fourth."""


def rule_box(box: tuple[float, float, float, float], size: Size) -> list[float]:
    """One of :data:`RULE_BOXES` in pixels, which upstream rounds."""
    height, width = size
    return [box[0] * width, box[1] * height, box[2] * width, box[3] * height]


def rule_points(points: tuple[Point, ...], size: Size) -> tuple[list[list[int]], list[int]]:
    """One of :data:`RULE_POINTS` as whole pixels (x, y), and the labels."""
    height, width = size
    return [[int(x * width), int(y * height)] for x, y, _ in points], [label for _, _, label in points]


def crafted_prototypes() -> FloatArray:
    """``[32, 256, 256]``: each three waves, of 1 to 20 periods along a side."""
    y, x = np.mgrid[:256, :256] / 256
    frequencies = 2 * np.pi * 20 ** (draw("crafted/frequencies", (32, 3, 2)).astype(np.float64) / 2 / np.sqrt(3) + 0.5)
    signs = np.sign(draw("crafted/signs", (32, 3, 2)))
    phases = draw("crafted/phases", (32, 3)).astype(np.float64) * np.pi / np.sqrt(3)
    made = np.zeros((32, 256, 256))
    for wave in range(3):
        across, down = (frequencies * signs)[:, wave].T[:, :, None, None]
        made += np.cos(across * x + down * y + phases[:, wave, None, None]) * np.sqrt(2 / 3)
    return made.astype(np.float32)


def crafted_candidates(wholes: int = 1) -> FloatArray:
    """``[37, 21504]``: centre, size, confidence and coefficients of candidates, of which some 120 may count; ``wholes``
    (1 or 2) of them are almost the whole square."""
    boxes = np.concatenate((_WHOLES[:wholes], _EDGES, _scattered(), _clusters()))
    count = len(boxes)
    made = np.zeros((COLUMNS, 21504), np.float32)
    made[4] = 0.05
    cells = np.argsort(draw("crafted/cells", (21504,)), kind="stable")[:count]
    made[:2, cells] = (boxes[:, :2] + boxes[:, 2:]).T / 2
    made[2:4, cells] = (boxes[:, 2:] - boxes[:, :2]).T
    # As far from each other as they can be, and from the threshold.
    order = np.argsort(draw("crafted/scores", (128,)), kind="stable")[:count]
    made[4, cells] = 0.3021 + 0.005 * order
    made[4, cells[:wholes]] = _WHOLE_SCORES[:wholes]
    made[5:, cells] = draw("crafted/coefficients", (128, 32))[:count].T
    return made


_WHOLES = np.array([(12, 15, 985, 1010), (3, 75, 1021, 1022)], np.float64)
"""Of the second the IoU with the first is below 0.9, and both have one above with the square when sides within 20
pixels of its edges are put there."""
_WHOLE_SCORES = (0.4271, 0.9821)
_EDGES = np.array(
    [
        (5, 300, 190, 500),
        (19.5, 620, 330, 777),
        (20.5, 540, 410, 800),
        (25, 440, 160, 570),
        (-12, 470, 300, 530),
        (640, 480, 1003.5, 760),
        (700, 200, 1004.5, 480),
        (830, 560, 1030, 700),
        (400, 19, 640, 460),
        (480, 21, 760, 500),
        (200, 520, 560, 1003),
        (300, 500, 620, 1005),
        (0, 190, 1024, 1010),
    ],
    np.float64,
)
_NOTHING = (1023, 512)
"""No box of those below has this in it."""


def _scattered() -> NDArray[np.float64]:
    """Boxes of 16 to 700 pixels, anywhere, also beyond the square."""
    drawn = draw("crafted/boxes", (60, 4)).astype(np.float64) / np.sqrt(3) / 2 + 0.5
    centre, half = drawn[:, :2] * (960, 760) + (0, 130), 8 * (350 / 8) ** drawn[:, 2:]
    boxes = np.concatenate((centre - half, centre + half), 1)
    x, y = _NOTHING
    around = (boxes[:, 0] <= x) & (boxes[:, 2] > x - 20) & (boxes[:, 1] <= y) & (boxes[:, 3] > y)
    return boxes[~around]


def _clusters() -> NDArray[np.float64]:
    """Boxes with neighbours by 3, 6, 2 and 9 percent of the width: IoUs of 0.94, 0.89, 0.96 and 0.83 with the first.
    The second overlaps the first and the third above the threshold, which these two do each other not."""
    drawn = draw("crafted/clusters", (10, 4)).astype(np.float64) / np.sqrt(3) / 2 + 0.5
    corner, extent = drawn[:, :2] * (600, 400) + (30, 250), drawn[:, 2:] * 250 + 70
    boxes = np.concatenate((corner, corner + extent), 1)[:, None]
    shifts = np.array([0, 0.03, 0.06, -0.02, -0.09])[:, None] * np.array([1, 0, 1, 0])
    moved: NDArray[np.float64] = boxes + shifts * extent[:, None, :1]
    return moved.reshape(-1, 4)


def record_network(upstream: FastSam, pixels: NDArray[np.uint8], valid: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """What the network answers, and all of the table but most coefficients: of that, embeddings keep some numbers."""
    candidates, prototypes = upstream.answer(pixels)
    rows = _table(candidates, prototypes, valid).numpy()
    arrays = sampled("network/candidates", candidates.numpy()) | sampled("network/prototypes", prototypes.numpy())
    return arrays | {"network/boxes": rows[:, :5]} | sampled("network/coefficients", rows[:, 5:])


def record_rules() -> dict[str, NDArray[Any]]:
    """What upstream's own functions make of images and of the crafted answers, for :data:`RULE_SIZES`."""
    augment = importlib.import_module("ultralytics.yolo.data.augment")
    package = _package()
    arrays: dict[str, NDArray[Any]] = {}
    prototypes = torch.tensor(crafted_prototypes())[None]
    one, two = (torch.tensor(crafted_candidates(wholes))[None] for wholes in (1, 2))
    for size in RULE_SIZES:
        letterbox = augment.LetterBox(SIDE, auto=False)
        arrays[f"{size}/input"] = rules.sample(letterbox(image=rules.image_of(size)))
        with _predictor(size) as postprocess:
            (result,) = results = postprocess(one, prototypes)
        masks = result.masks.data.numpy().astype(np.bool_)
        arrays |= {f"{size}/boxes": result.boxes.data.numpy(), f"{size}/areas": masks.sum((1, 2))}
        if size not in PROMPT_SIZES:
            continue
        arrays[f"{size}/masks"] = np.packbits(masks)
        prompt = package.FastSAMPrompt(np.zeros((*size, 3), np.uint8), results, device="cpu")
        chosen = [prompt.box_prompt(bboxes=[rule_box(box, size)])[0] for box in RULE_BOXES]
        arrays[f"{size}/chosen"] = np.array([int((masks == mask).all((1, 2)).argmax()) for mask in chosen])
        united = [prompt.point_prompt(*rule_points(points, size))[0] for points in RULE_POINTS]
        arrays[f"{size}/united"] = np.packbits(np.stack(united))
    try:
        with _predictor(RULE_SIZES[0]) as postprocess:
            postprocess(two, prototypes)
    except Exception as error:
        arrays["two wholes"] = np.array(type(error).__name__)
    return arrays


if __name__ == "__main__":
    # PYTHONPATH=service:tests python -m parity.upstream.fastsam CHECKOUT
    sys.path.insert(0, sys.argv[1])
    with torch.inference_mode():
        rules.write("fastsam", record_rules())
