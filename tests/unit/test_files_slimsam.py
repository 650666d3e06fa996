"""SAM's weights by transformers' names, as SlimSAM's authors publish them, and by its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray

from parity.recording import golden_path, read, shapes_in
from parity.weights import draw_state
from samgate.errors import WeightsError
from samgate.variants import VARIANTS, get_variant
from samgate.variants.spec import VariantSpec
from samgate.weights.pull import pull
from samgate.weights.store import load
from weights_support import home

__all__ = ["home"]

_POSITIONS = "positional_embedding"
_PARTS = {
    "neck.0": "neck.conv1",
    "neck.1": "neck.layer_norm1",
    "neck.2": "neck.conv2",
    "neck.3": "neck.layer_norm2",
    "mask_downscaling.0": "mask_embed.conv1",
    "mask_downscaling.1": "mask_embed.layer_norm1",
    "mask_downscaling.3": "mask_embed.conv2",
    "mask_downscaling.4": "mask_embed.layer_norm2",
    "mask_downscaling.6": "mask_embed.conv3",
    "output_upscaling.0": "upscale_conv1",
    "output_upscaling.1": "upscale_layer_norm",
    "output_upscaling.3": "upscale_conv2",
    "norm_final_attn": "layer_norm_final_attn",
    "patch_embed.proj": "patch_embed.projection",
    "point_embeddings": "point_embed",
}
_LAYERS = {"0": "proj_in", "1": "layers.0", "2": "proj_out"}


def transformers_name(name: str) -> str:
    """What ``SamModel`` calls the tensor that SAM calls ``name``."""
    if name.endswith("gaussian_matrix"):
        return f"shared_image_embedding.{_POSITIONS}"
    for ours, theirs in _PARTS.items():
        name = re.sub(rf"\b{re.escape(ours)}\b", theirs, name)
    if name.startswith("image_encoder."):
        name = name.replace("image_encoder.", "vision_encoder.").replace(".blocks.", ".layers.")
    heads = r"((?:hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.(\d)\."
    name = re.sub(heads, lambda found: f"{found[1]}.{_LAYERS[found[2]]}.", name)
    return re.sub(r"\.norm(\d)\.", r".layer_norm\1.", name)


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> VariantSpec:
    small = get_variant("slimsam-77").reduced()
    monkeypatch.setitem(VARIANTS, small.name, small)
    return small


@pytest.fixture
def state(spec: VariantSpec) -> dict[str, NDArray[Any]]:
    return draw_state(shapes_in(read(golden_path(spec, small=True))))


@pytest.fixture
def official(state: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """By transformers' names, the positions' matrix twice."""
    tensors = {transformers_name(name): value for name, value in state.items()}
    return tensors | {f"prompt_encoder.shared_embedding.{_POSITIONS}": tensors[f"shared_image_embedding.{_POSITIONS}"]}


def test_what_transformers_wrote_is_read(
    spec: VariantSpec, state: dict[str, NDArray[Any]], official: dict[str, NDArray[Any]], home: Path, tmp_path: Path
) -> None:
    assert "vision_encoder.layers.0.attn.rel_pos_h" in official
    assert "mask_decoder.output_hypernetworks_mlps.3.proj_out.bias" in official
    assert "mask_decoder.transformer.layers.1.layer_norm4.weight" in official
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(official, file)
    pull(spec, from_file=file)
    found = load(spec)
    assert found.keys() == state.keys()
    assert all(np.array_equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_sams_own_names_are_read(
    spec: VariantSpec, state: dict[str, NDArray[Any]], home: Path, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"slimsam.{suffix}"
    if suffix == "pth":
        torch.save({name: torch.tensor(value) for name, value in state.items()}, file)
    else:
        safetensors.numpy.save_file(state, file)
    pull(spec, from_file=file)
    assert load(spec).keys() == state.keys()


def test_another_networks_file_is_refused(
    spec: VariantSpec, official: dict[str, NDArray[Any]], home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({name: value for name, value in official.items() if "rel_pos" not in name}, file)
    with pytest.raises(WeightsError, match=r"image_encoder\.blocks\.0\.attn\.rel_pos_h is missing"):
        pull(spec, from_file=file)
    file.write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00{oops")
    with pytest.raises(WeightsError, match="can't be read as safetensors"):
        pull(spec, from_file=file)
