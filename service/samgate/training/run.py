"""One run: a folder with its checkpoint, the student that comes out, and figures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import safetensors.numpy
import torch

from samgate.errors import SamgateError
from samgate.evaluation.dataset import LabelledImage
from samgate.training.checkpoint import Epoch
from samgate.training.data import find_images
from samgate.training.loop import train
from samgate.training.networks import Student, Teacher, untrained
from samgate.training.recipe import Recipe
from samgate.variants.spec import VariantSpec
from samgate.weights.home import atomic_write_bytes, file_lock, sha256_file
from samgate.weights.store import load, weights_path

WEIGHTS = "student.safetensors"
_LOCK_S = 1.0


class Run:
    """A context that nobody else has entered for the same folder.

    Args:
        teacher, student: their specs; the teacher's weights are installed.
        recipe: see :class:`Recipe`.
        images: a folder with images.
        folder: what comes out; made if it isn't there.
        init: see :func:`samgate.training.networks.untrained`.
        threads: of the CPU; None for all.

    Entering raises SamgateError: no weights, no images, unfitting networks, a folder that can't be written.
    """

    def __init__(
        self,
        teacher: VariantSpec,
        student: VariantSpec,
        recipe: Recipe,
        images: Path,
        folder: Path,
        init: Path | None = None,
        threads: int | None = None,
    ) -> None:
        self.recipe, self.folder = recipe, folder
        self.paths = find_images(images)
        self.steps = len(self.paths) // recipe.batch
        self.epochs: list[Epoch] = []
        if threads is not None:
            torch.set_num_threads(threads)
        self._specs = teacher, student
        self._taught = load(teacher)
        self.student = Student(student, untrained(student, self._taught, recipe.seed, init), recipe)
        self._before = self.student.weights()
        self._kept = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SamgateError(f"{self.folder} can't be made: {error.strerror}") from error
        self._kept.enter_context(file_lock(self.folder / ".lock", _LOCK_S, error=SamgateError))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.close()

    def train(
        self, workers: int, on_step: Callable[[int, float], None], on_epoch: Callable[[int, Epoch], None]
    ) -> None:
        """See :func:`samgate.training.loop.train`."""
        teacher, recipe = self._specs[0], self.recipe
        # What is kept of the teacher is of these very weights and crops.
        key = f"{teacher.name}-{sha256_file(weights_path(teacher))[:16]}-{recipe.seed}-{recipe.scale:g}"
        taught = Teacher(teacher, self._taught, self.folder / "embeddings" / key)
        self.epochs = train(
            self.student, taught, self.paths, self.folder, recipe, workers=workers, on_step=on_step, on_epoch=on_epoch
        )

    def save(self) -> Path:
        """Writes the student's state dict, and says where. Raises SamgateError if that can't be done."""
        path = self.folder / WEIGHTS
        try:
            atomic_write_bytes(path, safetensors.numpy.save(self.student.weights()))
        except OSError as error:
            raise SamgateError(f"{path} can't be written: {error.strerror}") from error
        return path

    def figures(self) -> dict[str, Any]:
        """Recipe, images and losses as plain values."""
        losses = [round(epoch.loss, 6) for epoch in self.epochs]
        seconds = round(sum(epoch.seconds for epoch in self.epochs), 1)
        return {"recipe": self.recipe.as_dict(), "images": len(self.paths), "loss": losses, "seconds": seconds}

    def evaluate(self, images: list[LabelledImage], threads: int | None) -> dict[str, Any]:
        """mIoU on ``images`` by what answered: boxes themselves, the student untrained and trained, the teacher."""
        from samgate.training.evaluation import box_filling, served

        teacher, student = self._specs
        states = {
            "untrained": (student, self._before),
            "student": (student, self.student.weights()),
            "teacher": (teacher, self._taught),
        }
        found = {"box filling": box_filling(images)}
        for name, (spec, state) in states.items():
            found[name] = served(spec, state, images, self.folder, threads=threads)
        return found
