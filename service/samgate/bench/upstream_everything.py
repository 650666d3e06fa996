"""Upstream's automatic mask generator: its answers, and the masks that it gave before."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from samgate.bench.errors import BenchmarkError
from samgate.bench.upstream_process import CODE, TORCH
from samgate.bench.worker import Worker
from samgate.domain import Rle
from samgate.evaluation.everything import Answer
from samgate.evaluation.recall import Proposals
from samgate.weights.home import atomic_write_bytes, home_folder


def parameters(points_per_side: int) -> dict[str, int]:
    """Upstream's defaults, but for the grid."""
    return {"points_per_side": points_per_side, "points_per_batch": 64}


def ask_upstream(worker: Worker, image: Path, chosen: Mapping[str, Any]) -> Answer:
    """What upstream's ``SamAutomaticMaskGenerator`` with ``chosen`` parameters finds in ``image``, in its order.

    The time is the worker's own, from the file's bytes to run lengths. Raises BenchmarkError if the worker ends.
    """
    answer = worker.ask(image=str(image.absolute()), everything=dict(chosen))
    height, width = answer["size"]
    seconds = answer["ms"] / 1000
    proposals = Proposals(
        tuple(_compressed(one["counts"], (height, width)) for one in answer["masks"]),
        tuple(one["predicted_iou"] for one in answer["masks"]),
    )
    return Answer(proposals, seconds, seconds, (height, width))


class MaskCache:
    """Masks that upstream gave in earlier runs, by everything they depend on: the image's content, the weights, the
    parameters and the code. Times aren't kept: they are those of a machine at an hour.

    Args:
        weights: SHA-256 of the weights' file.
        chosen: the generator's parameters.
        folder: None for ``bench/upstream-everything`` in samgate's home.
        code: what runs.
    """

    def __init__(
        self,
        weights: str,
        chosen: Mapping[str, Any],
        folder: Path | None = None,
        code: Sequence[str] = (CODE, TORCH),
    ) -> None:
        self._folder = home_folder("bench") / "upstream-everything" if folder is None else folder
        self._key = {"weights": weights, "parameters": dict(chosen), "code": list(code)}

    def get(self, image: bytes) -> Proposals | None:
        """The masks of ``image``, None if they aren't known. Raises BenchmarkError if the file is damaged."""
        path, _ = self._place(image)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            (height, width), masks = content["size"], content["masks"]
            rles = tuple(Rle((height, width), counts.encode()) for counts, _ in masks)
            return Proposals(rles, tuple(float(predicted) for _, predicted in masks))
        except FileNotFoundError:
            return None
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise BenchmarkError(f"{path} can't be used ({error}): remove it") from error

    def put(self, image: bytes, answer: Answer) -> None:
        """Keep the masks of ``image``. Raises BenchmarkError if they can't be written."""
        path, key = self._place(image)
        kept = zip(answer.proposals.rles, answer.proposals.predicted_ious, strict=True)
        masks = [(rle.counts.decode("ascii"), predicted) for rle, predicted in kept]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = {**key, "size": answer.size, "masks": masks}
            atomic_write_bytes(path, json.dumps(content).encode())
        except OSError as error:
            raise BenchmarkError(f"{path} can't be written: {error.strerror}") from error

    def _place(self, image: bytes) -> tuple[Path, dict[str, Any]]:
        key = {"image": hashlib.sha256(image).hexdigest(), **self._key}
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return self._folder / f"{name}.json", key


def _compressed(counts: list[int], size: tuple[int, int]) -> Rle:
    """Run lengths of 0s and 1s, column by column → COCO's compressed ones."""
    if sum(counts) != math.prod(size):
        raise BenchmarkError(f"upstream's run lengths sum up to {sum(counts)}, its image has {math.prod(size)} pixels")
    packed = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
    return Rle(size, packed["counts"])
