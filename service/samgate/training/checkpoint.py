"""What a run leaves behind after every epoch, whole or not at all, so that it can go on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from samgate.errors import SamgateError
from samgate.training.recipe import Recipe
from samgate.weights.formats import load_checkpoint
from samgate.weights.home import atomic_write, remove_leftovers

NAME = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch: mean ``loss``, the last learning rate, and how long it took."""

    loss: float
    lr: float
    seconds: float


@dataclass(slots=True)
class Progress:
    """How far a run is: the epochs done, and the state dicts of network and optimiser."""

    epochs: list[Epoch] = field(default_factory=list)
    network: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None


def save(folder: Path, recipe: Recipe, progress: Progress) -> None:
    """Writes the checkpoint. Raises SamgateError if that can't be done; then the last one stays."""
    content = {
        "recipe": recipe.as_dict(),
        "epochs": [asdict(epoch) for epoch in progress.epochs],
        "network": progress.network,
        "optimizer": progress.optimizer,
        "random": torch.get_rng_state(),
    }
    path = folder / NAME
    try:
        remove_leftovers(path)
        atomic_write(path, lambda part: torch.save(content, part))
    except (OSError, RuntimeError) as error:
        raise SamgateError(f"{path} can't be written: {error}") from error


def load(folder: Path, recipe: Recipe) -> Progress:
    """Where the run in ``folder`` stopped, or its beginning; sets torch's random numbers to what came next.

    Raises SamgateError for a checkpoint that is damaged or of another recipe.
    """
    path = folder / NAME
    if not path.exists():
        return Progress()
    content = load_checkpoint(path)
    try:
        theirs = content["recipe"]
        if not recipe.same_but_for_epochs(theirs):
            mine = recipe.as_dict()
            changed = [f"{key} {theirs.get(key)}" for key in mine if key != "epochs" and theirs.get(key) != mine[key]]
            raise SamgateError(
                f"{folder} has a run with {', '.join(changed)}: go on with the same, or choose another --out"
            )
        torch.set_rng_state(content["random"])
        return Progress([Epoch(**one) for one in content["epochs"]], content["network"], content["optimizer"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise SamgateError(
            f"{path} is not a checkpoint of samgate distill: choose another --out, or remove it"
        ) from error
