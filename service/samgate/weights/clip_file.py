"""CLIP's checkpoints: networks in half precision, saved by ``torch.jit`` as programs, of which only data is read."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgate.errors import WeightsError
from samgate.weights.formats import load_tensors
from samgate.weights.modules_file import read_module

if TYPE_CHECKING:
    import torch

STATE = (
    "weight",
    "bias",
    "in_proj_weight",
    "in_proj_bias",
    "class_embedding",
    "positional_embedding",
    "proj",
    "text_projection",
    "logit_scale",
)
"""What a state dict has of modules, which have more: ``input_resolution``, ``context_length`` and ``vocab_size``, which
upstream drops, and whether they are in training."""
FIRST = ("visual.class_embedding", "token_embedding.weight")
"""That a CLIP with a vision transformer has, and nothing else has both."""


def read(files: Mapping[str, Path]) -> dict[str, torch.Tensor]:
    """The state dict in the one of ``files``, in f32: an archive as upstream offers it, or a file of a state dict.

    Raises:
        WeightsError: more than one file is given, or it is damaged or holds something else. Nothing in it is ever run.
    """
    if len(files) != 1:
        raise WeightsError(f"CLIP's weights are one file, not {len(files)}: {', '.join(sorted(files))}")
    ((name, path),) = files.items()
    content = read_module(path) if zipfile.is_zipfile(path) else load_tensors(path)
    if not all(hasattr(content.get(first), "shape") for first in FIRST):
        raise WeightsError(f"{name} is no checkpoint of CLIP with a vision transformer: no {' or no '.join(FIRST)}")
    return {
        key: _f32(value)
        for key, value in content.items()
        if hasattr(value, "shape") and key.rpartition(".")[2] in STATE
    }


def _f32(value: Any) -> torch.Tensor:
    import torch

    return torch.as_tensor(value).float()
