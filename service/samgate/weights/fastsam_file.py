"""FastSAM's checkpoints: whole networks that ultralytics pickled, in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgate.errors import WeightsError
from samgate.weights.modules_file import read_module

if TYPE_CHECKING:
    import torch

NETWORKS = ("ema.", "model.")
"""Where a checkpoint has its network: the mean over training, if there is one, as ultralytics loads it."""
STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""What a state dict has of modules, which have more: strides and places, for two."""
FIRST = "model.0.conv.weight"


def read(files: Mapping[str, Path]) -> dict[str, torch.Tensor]:
    """The state dict of the network in a checkpoint ``{"model": network, "ema": network or None, …}``, in f32; or in a
    file that is the state dict.

    Raises:
        WeightsError: more than one file is given, or it holds something else. Nothing in it is ever run.
    """
    if len(files) != 1:
        raise WeightsError(f"FastSAM's weights are one file, not {len(files)}: {', '.join(sorted(files))}")
    ((name, path),) = files.items()
    content = read_module(path)
    for prefix in (*NETWORKS, ""):
        if hasattr(content.get(f"{prefix}{FIRST}"), "shape"):
            return {key.removeprefix(prefix): _f32(value) for key, value in content.items() if _is_state(key, prefix)}
    raise WeightsError(f'{name} is no checkpoint of FastSAM: neither "ema" nor "model" in it is a network of YOLOv8\'s')


def _is_state(key: str, prefix: str) -> bool:
    return key.startswith(f"{prefix}model.") and key.rpartition(".")[2] in STATE


def _f32(value: Any) -> torch.Tensor:
    tensor: torch.Tensor = value
    return tensor.float() if tensor.is_floating_point() else tensor
