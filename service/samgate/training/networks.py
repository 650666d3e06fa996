"""Teacher and student as they are used here: pixels in, embeddings out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samgate.compile.export import graph_module, load_network
from samgate.errors import InvalidArgument, SamgateError, WeightsError
from samgate.training.data import Item
from samgate.training.recipe import Recipe
from samgate.variants.spec import VariantSpec, resolve
from samgate.weights.formats import load_checkpoint
from samgate.weights.home import atomic_write
from samgate.weights.store import StateDict

ENCODER = "image_encoder."


class Teacher:
    """Embeddings of a network that doesn't change, kept in ``folder`` for views that have a name."""

    def __init__(self, spec: VariantSpec, state: StateDict, folder: Path) -> None:
        self.graph, self.folder = graph_module(spec, load_network(spec, state), "encoder"), folder

    @torch.no_grad()
    def embeddings(self, items: Item) -> Tensor:
        """float32 ``[N, C, H, H]``. Raises SamgateError if one can't be written."""
        made = []
        for pixels, valid, name in zip(items.pixels, items.valid, items.name, strict=True):
            path = self.folder / f"{name}.npy" if name else None
            embedding = _read(path)
            if embedding is None:
                embedding = self.graph(pixels[None], valid[None])[0]
                if path is not None:
                    _write(path, embedding)
            made.append(embedding)
        return torch.stack(made)


def _read(path: Path | None) -> Tensor | None:
    if path is None:
        return None
    try:
        return torch.from_numpy(np.load(path).astype(np.float32))
    except (OSError, ValueError, EOFError):
        return None  # not there yet, or broken: it is made again


def _write(path: Path, embedding: Tensor) -> None:
    # Half of it is enough: fp16's steps are a thousandth of what students are off by.
    content: NDArray[np.float16] = embedding.numpy().astype(np.float16)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.save(file, content)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, write)
    except OSError as error:
        raise SamgateError(f"{path} can't be written: {error.strerror}") from error


class Student(nn.Module):
    """A network whose encoder learns. Pixels become what the encoder takes as its graph does it.

    Args:
        spec: its variant.
        network: with the decoder that it is to have.
        recipe: for ``window`` and ``precision``.
    """

    def __init__(self, spec: VariantSpec, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.spec, self.recipe = spec, recipe
        self.network = network
        self.graph = graph_module(spec, network, "encoder")
        encoder = network.get_submodule(ENCODER.removesuffix("."))
        network.requires_grad_(False)
        encoder.requires_grad_(True)
        # A quarter faster on CPUs.
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parts = getattr(encoder, "window", None)
        if recipe.window is not None and self.parts is None:
            raise InvalidArgument("size", f"{spec.name} can't be trained on parts of its input: leave it out")

    def forward(self, items: Item) -> Tensor:
        """The embedding of each item, or the part of it that its window is: float32 ``[N, C, h, h]``."""
        low = self.recipe.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16) if low else contextlib.nullcontext():
            found = self.graph(items.pixels, items.valid) if self.recipe.window is None else self._part(items)
        return found.float()  # type: ignore[no-any-return]

    def _part(self, items: Item) -> Any:
        side, cells = self.recipe.window or self.spec.input_size, self._cells
        mean, std = (torch.tensor(values) for values in (self.spec.pixel_mean, self.spec.pixel_std))
        parts, places = [], []
        for pixels, valid, (top, left) in zip(items.pixels, items.valid, items.window.tolist(), strict=True):
            part = (pixels[top : top + side, left : left + side].float() - mean) / std
            height, width = (valid - torch.tensor((top, left))).clamp_min(0).tolist()
            part[height:] = 0
            part[:, width:] = 0
            parts.append(part.permute(2, 0, 1))
            places.append((top // cells, left // cells))
        if self.parts is None:
            raise TypeError(f"{self.spec.name} has no windows")
        return self.parts(torch.stack(parts), places)

    def target(self, embeddings: Tensor, items: Item) -> Tensor:
        """What :meth:`forward` should give, of the teacher's ``embeddings``."""
        if self.recipe.window is None:
            return embeddings
        side, parts = self.recipe.window // self._cells, []
        for embedding, (top, left) in zip(embeddings, items.window.tolist(), strict=True):
            row, column = top // self._cells, left // self._cells
            parts.append(embedding[:, row : row + side, column : column + side])
        return torch.stack(parts)

    @property
    def _cells(self) -> int:
        """Pixels a side of what one place of the embedding stands for."""
        return self.spec.input_size // self.spec.embedding_shape[1]

    def weights(self) -> StateDict:
        """The whole network's state dict as arrays."""
        return {name: value.numpy().copy() for name, value in self.network.state_dict().items()}


def untrained(spec: VariantSpec, teacher: StateDict, seed: int, init: Path | None) -> nn.Module:
    """The student's network before it learns: everything but the encoder is the teacher's.

    Args:
        init: a file with weights to start from, named as in the network or as in a part of its encoder, such as a
            ResNet's that was trained to classify; what isn't in it starts at random.

    Raises:
        InvalidArgument: the two don't have the same decoder, or ``init`` has nothing for the encoder.
    """
    torch.manual_seed(seed)
    network: nn.Module = resolve(spec.network)(spec)
    own = network.state_dict()
    shared = {name: value for name, value in teacher.items() if not name.startswith(ENCODER)}
    mine = {name: tuple(value.shape) for name, value in own.items() if not name.startswith(ENCODER)}
    if mine != {name: tuple(value.shape) for name, value in shared.items()} or len(mine) == len(own):
        raise InvalidArgument(
            "student", f"{spec.name} has another decoder than its teacher, so it can't have that one's"
        )
    start = {name: torch.from_numpy(np.array(value)) for name, value in shared.items()}
    if init is not None:
        start |= _fitting(init, own)
    network.load_state_dict({**own, **start})
    return network


def _fitting(init: Path, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ``init`` has for the encoder: names in it may lack their beginning."""
    given = _tensors(init)
    found = {}
    for name, value in own.items():
        if not name.startswith(ENCODER):
            continue
        parts = name.split(".")
        for start in range(min(3, len(parts))):
            one = given.get(".".join(parts[start:]))
            if one is not None and one.shape == value.shape:
                found[name] = one.to(value.dtype)
                break
    if not found:
        raise InvalidArgument("init", f"{init} has nothing that is named and shaped as in the student's encoder")
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            safe = file.read(9)[8:] == b"{"
        if safe:
            from safetensors.torch import load_file

            return load_file(path)
        loaded = load_checkpoint(path)
    except OSError as error:
        raise InvalidArgument("init", f"{path} can't be read: {error.strerror}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path.name} is not a state dict: it should map names to tensors")
    return {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
