"""What a student is worth: mIoU of what the gateway answers with it, and what that is to be compared with."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from samgate.api.local import local_gateway
from samgate.client import Client
from samgate.config import settings_from
from samgate.domain import Rle
from samgate.evaluation.dataset import LabelledImage
from samgate.evaluation.metrics import ious, mean_iou
from samgate.evaluation.prompts import box_prompt
from samgate.evaluation.runner import evaluate
from samgate.evaluation.summary import summarise
from samgate.variants.spec import VariantSpec
from samgate.weights.store import Origin, StateDict, save

_TIMEOUT_S = 600.0


def served(
    spec: VariantSpec,
    state: StateDict,
    images: Sequence[LabelledImage],
    folder: Path,
    *,
    precision: str = "f32",
    threads: int | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Figures as :func:`samgate.evaluation.summary.summarise` has them, of a gateway inside this process that serves
    ``state``, which is installed nowhere but in a home of its own below ``folder`` for as long as that takes."""
    settings = {"variants": spec.name, "engine.precision": precision, "engine.threads": threads}
    with _home(folder):
        save(spec, state, Origin(spec.weights_name, "distilled", {}))
        chosen = settings_from(overrides=settings)
        with local_gateway(chosen) as target, Client(target, timeout_s=_TIMEOUT_S) as client:
            return summarise(evaluate(client, images, spec.name, on_image))


def box_filling(images: Sequence[LabelledImage]) -> dict[str, Any]:
    """mIoU of masks that are their boxes, whatever is in them: what a box is worth without any network."""
    found = [
        [
            float(ious(instance.rle, [_filled(box_prompt(instance), instance.rle.size)])[0])
            for instance in image.instances
        ]
        for image in images
    ]
    mean = mean_iou(found)
    return {"box": {"miou": round(mean.miou, 6), "ci95": [round(bound, 6) for bound in mean.ci95], "n": mean.n}}


def _filled(box: tuple[float, float, float, float], size: tuple[int, int]) -> Rle:
    x0, y0, x1, y1 = box
    (packed,) = coco_mask.frPyObjects(np.array([[x0, y0, x1 - x0, y1 - y0]], np.float64), *size)
    return Rle(size, packed["counts"])


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """A SAMGATE_HOME of its own while the block runs."""
    before = os.environ.get("SAMGATE_HOME")
    with tempfile.TemporaryDirectory(prefix=".home-", dir=folder) as home:
        os.environ["SAMGATE_HOME"] = home
        try:
            yield
        finally:
            if before is None:
                del os.environ["SAMGATE_HOME"]
            else:
                os.environ["SAMGATE_HOME"] = before
