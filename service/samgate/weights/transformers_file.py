"""SAM's weights as the transformers library names them (``SamModel``), by the names that SAM has for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samgate.errors import WeightsError
from samgate.weights.formats import load_tensors

_RENAMED = (
    (r"^shared_image_embedding\.positional_embedding$", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^vision_encoder\.", "image_encoder."),
    (r"^image_encoder\.layers\.", "image_encoder.blocks."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"\.neck\.conv1\.", ".neck.0."),
    (r"\.neck\.layer_norm1\.", ".neck.1."),
    (r"\.neck\.conv2\.", ".neck.2."),
    (r"\.neck\.layer_norm2\.", ".neck.3."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.0\.", r"\1.layers.1."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.proj_in\.", r"\1.layers.0."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.proj_out\.", r"\1.layers.2."),
    (r"\.layer_norm(\d|_final)", r".norm\1"),
)
_TWICE = "prompt_encoder.shared_embedding.positional_embedding"
"""What is stored under ``shared_image_embedding``, too, in some files."""


def read(files: Mapping[str, Path]) -> dict[str, Any]:
    """The state dict in the one of ``files``, a safetensors file or a checkpoint, by SAM's names, which it may have
    already. Raises WeightsError."""
    if len(files) != 1:
        raise WeightsError(f"the weights are one file, here are {len(files)}")
    (path,) = files.values()
    tensors = load_tensors(path)
    if any(name.startswith("image_encoder.") for name in tensors):
        return dict(tensors)
    return {sams_name(name): value for name, value in tensors.items() if name != _TWICE}


def sams_name(name: str) -> str:
    """What SAM calls the tensor that transformers call ``name``."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
