"""EfficientViT-SAM's published layout, a state dict of the whole, is read; a sibling's is refused."""

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

SPEC = get_variant("efficientvit-sam-l0").reduced()


def state_of(name: str) -> dict[str, torch.Tensor]:
    shapes = network_shapes(get_variant(name).reduced())
    return {key: torch.tensor(value) for key, value in draw_state(shapes).items()}


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_published_layout_is_read(home: Path, tmp_path: Path, wrapped: bool) -> None:
    state = state_of(SPEC.name)
    path = tmp_path / "efficientvit_sam_l0.pt"
    torch.save({"state_dict": state} if wrapped else state, path)
    info = pull(SPEC, from_file=path)
    assert info.origin.source == "file:efficientvit_sam_l0.pt"
    name = "image_encoder.backbone.stages.4.op_list.1.context_module.main.qkv.conv.weight"
    np.testing.assert_array_equal(load(SPEC)[name], state[name].numpy())


@pytest.mark.parametrize("other", ["efficientvit-sam-l2", "efficientvit-sam-xl0"])
def test_a_siblings_weights_are_refused(tmp_path: Path, other: str) -> None:
    path = tmp_path / "efficientvit_sam_l0.pt"
    torch.save(state_of(other), path)
    with pytest.raises(WeightsError, match="not this variant's weights: image_encoder"):
        pull(SPEC, from_file=path)


def test_every_published_file_is_known_by_its_own_checksum() -> None:
    sources = [get_variant(f"efficientvit-sam-{size}").sources for size in ("l0", "l1", "l2", "xl0", "xl1")]
    urls = {source.url for (source,) in sources if source.kind == "url"}
    checksums = {source.sha256 for (source,) in sources if source.kind == "url"}
    assert len(urls) == len(checksums) == 5
    assert {len(checksum) for checksum in checksums} == {64}
