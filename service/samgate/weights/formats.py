"""State dicts out of weights files, compared with the network's own before any of their numbers is touched."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from samgate.errors import WeightsError
from samgate.variants.spec import NetworkSpec, resolve
from samgate.weights.store import StateDict

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]

_NEEDS_TORCH = "pulling weights needs torch to check them: pip install 'samgate[compile]', then pull again"
_WRAPPERS = ("model", "state_dict")


def network_shapes(spec: NetworkSpec) -> Shapes:
    """Names and shapes of the parameters and buffers that the variant's network loads.

    Raises:
        WeightsError: torch is not installed.
    """
    try:
        import torch

        with torch.device("meta"):  # ViT-H's parameters are 2.6 GB, and only their shapes are wanted
            network: torch.nn.Module = resolve(spec.network)(spec)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise WeightsError(_NEEDS_TORCH) from error
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def check_shapes(actual: Shapes, expected: Shapes) -> None:
    """Raises :class:`WeightsError` that names what differs, unless names and shapes are the same."""
    problems = [f"{name} is missing" for name in expected if name not in actual]
    problems += [f"{name} is unknown" for name in actual if name not in expected]
    problems += [
        f"{name} has shape {list(actual[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in actual and actual[name] != shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"not this variant's weights: {'; '.join(problems[:3])}{more}")


def canonical(state: Mapping[str, Any], shapes: Shapes) -> StateDict:
    """``state`` as float32 and int64 arrays. Raises :class:`WeightsError` for wrong names, shapes or NaNs."""
    check_shapes({name: tuple(value.shape) for name, value in state.items()}, shapes)
    result: StateDict = {}
    for name, value in state.items():
        array = np.asarray(value)
        result[name] = array.astype(np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32, copy=False)
        if not np.isfinite(result[name]).all():
            raise WeightsError(f"{name} holds numbers that are not finite")
    return result


def read_safetensors(path: Path, shapes: Shapes) -> StateDict:
    """The state dict in a safetensors file. Raises :class:`WeightsError` when it is not the network's."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = file.keys()
            check_shapes({name: tuple(file.get_slice(name).get_shape()) for name in names}, shapes)
        return canonical(safetensors.numpy.load_file(path), shapes)
    except (safetensors.SafetensorError, OSError, TypeError, KeyError) as error:
        raise WeightsError(f"{path.name} can't be read as safetensors: {error}") from error


def read_files(spec: NetworkSpec, files: Mapping[str, Path], shapes: Shapes) -> StateDict:
    """The state dict that ``spec``'s reader makes of ``files`` by name, or that the one of them is.

    Raises:
        WeightsError: torch is not installed, or a file is damaged, unsafe or not the network's.
    """
    if spec.reader:
        state: Mapping[str, Any] = resolve(spec.reader)(files)
        check_shapes({name: tuple(value.shape) for name, value in state.items()}, shapes)
        return canonical({name: _plain(name, value) for name, value in state.items()}, shapes)
    (path,) = files.values()
    return read_safetensors(path, shapes) if _is_safetensors(path) else read_checkpoint(path, shapes)


def load_tensors(path: Path) -> Mapping[str, Any]:
    """Tensors or arrays by the names that they have in ``path``, safetensors or a checkpoint of a state dict.

    Raises:
        WeightsError: as :func:`load_state_dict`.
    """
    if not _is_safetensors(path):
        return load_state_dict(path)
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, TypeError, KeyError) as error:
        raise WeightsError(f"{path.name} can't be read as safetensors: {error}") from error


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def load_checkpoint(path: Path) -> Any:
    """What is in a torch checkpoint (``.pt``, ``.pth``): tensors, numbers, text, and containers of these.

    Nothing else is ever loaded: a pickle that asks for it is refused before it gets it.

    Raises:
        WeightsError: torch is not installed, or the file is damaged or unsafe.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise WeightsError(_NEEDS_TORCH) from error
    _check_uncompressed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        logger.debug("%s: %s", path, error)
        raise WeightsError(
            f"{path.name} is refused: it is damaged or holds more than tensors; "
            "samgate never runs code from a weights file"
        ) from error
    except Exception as error:  # a damaged file makes torch's reader raise almost anything
        raise WeightsError(f"{path.name} can't be read as a torch checkpoint: {error}") from error


def load_state_dict(path: Path) -> Mapping[str, torch.Tensor]:
    """The state dict in a torch checkpoint (``.pt``, ``.pth``), itself or under ``model`` or ``state_dict``.

    Raises:
        WeightsError: as :func:`load_checkpoint`, or the file holds something else.
    """
    loaded = load_checkpoint(path)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(hasattr(value, "shape") for value in loaded.values()):
        raise WeightsError(f"{path.name} is not a state dict: it should map names to tensors")
    return loaded


def read_checkpoint(path: Path, shapes: Shapes) -> StateDict:
    """:func:`load_state_dict` as arrays. Raises WeightsError as that does, and when it is not the network's."""
    loaded = load_state_dict(path)
    # Before the conversion: a tensor of a few bytes can claim any shape.
    check_shapes({name: tuple(value.shape) for name, value in loaded.items()}, shapes)
    return canonical({name: _plain(name, value) for name, value in loaded.items()}, shapes)


def _plain(name: str, value: Any) -> NDArray[Any]:
    """A tensor or array as an array."""
    if isinstance(value, np.ndarray):
        return value
    try:
        array: NDArray[Any] = (value.float() if value.is_floating_point() else value.long()).detach().numpy()
    except (RuntimeError, TypeError) as error:
        raise WeightsError(f"{name} holds a tensor that is not a plain array: {error}") from error
    return array


def _check_uncompressed(path: Path) -> None:
    """torch stores without compression, so an archive that unpacks to more than it weighs is a bomb."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{path.name} can't be read as a torch checkpoint: {error}") from error
    if unpacked > path.stat().st_size:
        raise WeightsError(f"{path.name} is refused: it would unpack to {unpacked:,} bytes; torch never compresses")
