"""Distillation (Hinton et al., 2015, arXiv 1503.02531) of image embeddings, as NanoSAM is made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from samgate.errors import InvalidArgument, SamgateError
from samgate.training.checkpoint import Epoch, load, save
from samgate.training.data import Item, Views
from samgate.training.networks import Student, Teacher
from samgate.training.recipe import Loss, Recipe

_LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "huber": F.huber_loss,
    "l1": F.l1_loss,
    "mse": F.mse_loss,
}


def train(
    student: Student,
    teacher: Teacher,
    paths: Sequence[Path],
    folder: Path,
    recipe: Recipe,
    *,
    workers: int = 0,
    on_step: Callable[[int, float], None] = lambda done, loss: None,
    on_epoch: Callable[[int, Epoch], None] = lambda number, epoch: None,
) -> list[Epoch]:
    """Teaches ``student`` on the images in ``paths``, and leaves it in evaluation mode; all epochs are returned.

    Goes on where a run in ``folder`` stopped. Batches are of ``recipe.batch`` images; as with NanoSAM, those left over
    wait for another epoch.

    Args:
        workers: processes that decode images.
        on_step: called after each step with how many were done, those of earlier runs included, and the loss.
        on_epoch: called after each epoch with its number from 0.

    Raises:
        InvalidArgument: there are fewer images than in a batch.
        SamgateError: the loss is not finite any more, or ``folder`` can't be written, or has another recipe's run.
    """
    if len(paths) < recipe.batch:
        raise InvalidArgument("batch", f"is {recipe.batch}, more than the {len(paths)} images")
    optimizer = torch.optim.Adam([one for one in student.parameters() if one.requires_grad], recipe.lr)
    progress = load(folder, recipe)
    if progress.network is not None and progress.optimizer is not None:
        student.network.load_state_dict(progress.network)
        optimizer.load_state_dict(progress.optimizer)
    views = Views(paths, student.spec, recipe)
    steps = len(paths) // recipe.batch
    for number in range(len(progress.epochs), recipe.epochs):
        started, losses = time.monotonic(), 0.0
        views.epoch = number
        student.train()
        for step, items in enumerate(_batches(views, recipe, workers), number * steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step, recipe.epochs * steps)
            loss = _step(student, teacher, items, recipe, optimizer)
            if not math.isfinite(loss):
                raise SamgateError(f"the loss is {loss} in epoch {number}: start again with a smaller --lr")
            losses += loss
            on_step(step + 1, loss)
        epoch = Epoch(losses / steps, float(optimizer.param_groups[0]["lr"]), time.monotonic() - started)
        progress.epochs.append(epoch)
        progress.network, progress.optimizer = student.network.state_dict(), optimizer.state_dict()
        save(folder, recipe, progress)
        on_epoch(number, epoch)
    student.eval()
    return progress.epochs


def _batches(views: Views, recipe: Recipe, workers: int) -> DataLoader[Item]:
    """In an order that follows from seed and epoch."""
    order = torch.Generator().manual_seed(recipe.seed * 1_000_003 + views.epoch)
    return DataLoader(views, recipe.batch, shuffle=True, drop_last=True, num_workers=workers, generator=order)


def _step(student: Student, teacher: Teacher, items: Item, recipe: Recipe, optimizer: torch.optim.Optimizer) -> float:
    wanted = student.target(teacher.embeddings(items), items)
    optimizer.zero_grad()
    loss = _LOSSES[recipe.loss](student(items), wanted)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())
