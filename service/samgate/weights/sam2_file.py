"""SAM 2's checkpoints, which hold one network for images and videos: what images need of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samgate.errors import WeightsError
from samgate.weights.formats import load_checkpoint

VIDEO = (
    "maskmem_tpos_enc",
    "mask_downsample.",
    "memory_attention.",
    "memory_encoder.",
    "no_mem_pos_enc",
    "no_obj_embed_spatial",
    "no_obj_ptr",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
)
"""How the names of tensors begin that only videos need: memory of earlier frames, and pointers to objects in them."""


def read(files: Mapping[str, Path]) -> dict[str, Any]:
    """The state dict of the network for images in a checkpoint ``{"model": state dict}``: everything but
    :data:`VIDEO`. Names that are in neither are left in, for the caller to refuse.

    Raises:
        WeightsError: more than one file is given, or it holds something else.
    """
    if len(files) != 1:
        raise WeightsError(f"SAM 2's weights are one file, not {len(files)}: {', '.join(sorted(files))}")
    ((name, path),) = files.items()
    loaded = load_checkpoint(path)
    state = loaded.get("model") if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(hasattr(value, "shape") for value in state.values()):
        raise WeightsError(f'{name} is no checkpoint of SAM 2: it should map "model" to a state dict')
    return {tensor: value for tensor, value in state.items() if not tensor.startswith(VIDEO)}
