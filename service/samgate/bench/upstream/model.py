"""Upstream's MobileSAM, built and loaded."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from . import standins


def load(code: Path | None, weights: Path) -> tuple[ModuleType, Any]:
    """Upstream's package ``mobile_sam`` and its model with ``weights``, ready to infer on the CPU.

    Args:
        code: the folder that holds ``mobile_sam``; None when it is installed.
        weights: upstream's state dict, as ``torch.save`` or (``.npz``) ``numpy.savez`` writes it.
    """
    if code is not None:
        sys.path.insert(0, str(code))
    standins.install()
    package = importlib.import_module("mobile_sam")
    model = package.sam_model_registry["vit_t"](None)
    # TinyViT expands its attention biases when eval() is called, and upstream calls it before the weights are there.
    model.train()
    model.load_state_dict(_state(weights), strict=True)
    model.eval()
    return package, model


def _state(weights: Path) -> dict[str, torch.Tensor]:
    if weights.suffix == ".npz":
        with np.load(weights, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    state: dict[str, torch.Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    return state
