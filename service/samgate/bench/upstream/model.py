"""Upstream's MobileSAM, built and loaded."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from . import standins


def load(code: Path | None, weights: Path) -> tuple[ModuleType, Any]:
    """Upstream's package ``mobile_sam`` and its model with ``weights`` (a state dict), ready to infer on the CPU.

    Args:
        code: the folder that holds ``mobile_sam``; None when it is installed.
        weights: a file that ``torch.save`` wrote a state dict to.
    """
    if code is not None:
        sys.path.insert(0, str(code))
    standins.install()
    package = importlib.import_module("mobile_sam")
    model = package.sam_model_registry["vit_t"](None)
    # TinyViT expands its attention biases when eval() is called, and upstream calls it before the weights are there.
    model.train()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    model.eval()
    return package, model
