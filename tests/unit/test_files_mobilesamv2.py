"""MobileSAMv2's two files become one network's weights; anything less is refused and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from parity.weights import draw_state
from samgate.errors import WeightsError
from samgate.variants import get_variant
from samgate.weights.formats import network_shapes
from samgate.weights.pull import pull
from samgate.weights.store import load
from weights_support import home

__all__ = ["home"]

SPEC = get_variant("mobilesamv2").reduced()
ENCODER, DECODER, DETECTOR = "l2.pt", "Prompt_guided_Mask_Decoder.pt", "ObjectAwareModel.pt"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in draw_state(network_shapes(SPEC)).items()}


@pytest.fixture
def folder(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    """Both files as upstream has them, and the detector's, which is a pickle of code."""
    path = tmp_path / "weight"
    path.mkdir()
    encoder = {f"module.{name}": value for name, value in state.items() if name.startswith("image_encoder.")}
    torch.save({"state_dict": encoder | {"module.other": torch.zeros(1)}, "epoch": 3}, path / ENCODER)
    parts = {
        part: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for part, prefix in (("PromtEncoder", "prompt_encoder."), ("MaskDecoder", "mask_decoder."))
    }
    torch.save(parts, path / DECODER)
    torch.save({"model": Path}, path / DETECTOR)
    return path


def test_both_files_of_a_folder_are_put_together(home: Path, folder: Path, state: dict[str, torch.Tensor]) -> None:
    info = pull(SPEC, from_file=folder)
    assert {ENCODER, DECODER} < info.origin.files.keys()
    loaded = load(SPEC)
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(loaded[name], value.numpy())


@pytest.mark.parametrize(("missing", "named"), [(ENCODER, "l2.pt"), (DECODER, "Prompt_guided_Mask_Decoder.pt")])
def test_a_folder_without_one_of_them_is_refused(folder: Path, missing: str, named: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(WeightsError, match=rf"two files.* missing: .*{named}\); ObjectAwareModel.pt is refused"):
        pull(SPEC, from_file=folder)


def test_one_file_alone_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"two files.* missing: .*Prompt_guided_Mask_Decoder.pt\)"):
        pull(SPEC, from_file=folder / ENCODER)


def test_another_networks_weights_are_refused(folder: Path) -> None:
    content = torch.load(folder / DECODER)
    content["MaskDecoder"]["iou_token.weight"] = torch.zeros(2, 256)
    torch.save(content, folder / DECODER)
    with pytest.raises(WeightsError, match=r"mask_decoder.iou_token.weight has shape \[2, 256\]"):
        pull(SPEC, from_file=folder)


def test_without_files_pull_says_where_to_get_them() -> None:
    with pytest.raises(WeightsError, match=r"a folder with both l2.pt.*Google Drive"):
        pull(SPEC)
