"""How a student is distilled, as data. The defaults are NanoSAM's (its repository's tools/train.py)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from samgate.errors import InvalidArgument
from samgate.variants.spec import VariantSpec

Loss = Literal["huber", "l1", "mse"]
Schedule = Literal["constant", "cosine"]
STRIDE = 32
"""Of windows, in pixels: what the deepest map of a network has a place for."""
_WARM_UP, _LAST = 0.05, 0.01


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides which weights come out, beside images and starting weights.

    ``window``: side in pixels of the part of the input that the student sees, None for all of it. ``views``: how many
    fixed crops an image has, of which the first is the whole image as it is served; with 0 every epoch has new ones.
    ``scale``: least share of the image in a crop. ``precision``: of the student's arithmetic while it learns.
    """

    teacher: str
    student: str
    epochs: int = 200
    batch: int = 16
    lr: float = 3e-4
    loss: Loss = "huber"
    schedule: Schedule = "constant"
    seed: int = 0
    window: int | None = None
    views: int = 0
    scale: float = 0.08
    precision: Literal["f32", "bf16"] = "f32"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        return asdict(self)

    def same_but_for_epochs(self, other: dict[str, Any]) -> bool:
        """Whether a run of ``other`` (see :meth:`as_dict`) can go on as this one."""
        return {**self.as_dict(), "epochs": None} == {**other, "epochs": None}

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of ``step`` of ``steps``. ``cosine`` rises for a twentieth of them, then falls as half a
        cosine (Loshchilov and Hutter, 2016) to a hundredth."""
        if self.schedule == "constant":
            return self.lr
        warm_up = max(1, round(_WARM_UP * steps))
        if step < warm_up:
            return self.lr * (step + 1) / warm_up
        done = (step - warm_up) / max(1, steps - warm_up)
        return self.lr * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * done)) / 2)


def check_pair(recipe: Recipe, teacher: VariantSpec, student: VariantSpec) -> None:
    """Raises InvalidArgument unless ``student`` can learn the embeddings of ``teacher``."""
    if teacher.weights_name == student.weights_name:
        raise InvalidArgument("student", f"{student.name} has the weights of its teacher: there is nothing to learn")
    for field, mine, theirs in (
        ("embeddings", student.embedding_shape, teacher.embedding_shape),
        ("inputs of a side of", student.input_size, teacher.input_size),
    ):
        if mine != theirs:
            raise InvalidArgument(
                "student", f"{student.name} has {field} {mine}, {teacher.name} {theirs}: they have to be the same"
            )
    window = recipe.window
    if window is not None and (window % STRIDE or not STRIDE <= window <= student.input_size):
        raise InvalidArgument("size", f"has to be a multiple of {STRIDE} of at most {student.input_size}, is {window}")
