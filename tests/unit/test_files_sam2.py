"""SAM 2's checkpoints as they are published, with drawn numbers: what is taken out of them, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from parity.recording import GOLDEN, golden_path, read, shapes_in
from parity.weights import draw_state
from samgate.errors import WeightsError
from samgate.variants import get_variant
from samgate.variants.spec import UrlSource
from samgate.weights.home import sha256_file
from samgate.weights.pull import pull
from samgate.weights.store import load
from weights_support import home

__all__ = ["home"]

# The published files' sizes are those of the whole networks.
SPEC = get_variant("sam2.1-t").reduced()
SHAPES = shapes_in(read(golden_path(SPEC, small=True)))
VIDEO = json.loads(str(read(GOLDEN / "rules_sam2.npz")["video"]))
"""Names and shapes of what only videos need, from upstream's own network."""


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """All tensors that a checkpoint of upstream's network has."""
    state = draw_state(SHAPES) | draw_state({name: tuple(shape) for name, shape in VIDEO.items()})
    return {name: torch.tensor(value) for name, value in state.items()}


def written(folder: Path, content: object) -> Path:
    path = folder / "sam2.1_hiera_tiny.pt"
    torch.save(content, path)
    return path


def test_a_checkpoint_is_installed_without_what_only_videos_need(tmp_path: Path, published: dict[str, Tensor]) -> None:
    path = written(tmp_path, {"model": published})
    (source,) = SPEC.sources
    assert isinstance(source, UrlSource)
    spec = replace(SPEC, sources=(replace(source, sha256=sha256_file(path), size=path.stat().st_size),))
    info = pull(spec, from_file=path)
    assert info.origin.source == source.url
    state = load(spec)
    assert {name: value.shape for name, value in state.items()} == SHAPES
    for name, value in state.items():
        assert np.array_equal(value, published[name].numpy()), name


def test_a_checkpoint_from_before_2_1_is_taken_with_a_warning(
    tmp_path: Path, published: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    later = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias")
    earlier = {name: value for name, value in published.items() if name not in later}
    assert len(earlier) == len(published) - len(later)
    info = pull(SPEC, from_file=written(tmp_path, {"model": earlier}))
    assert info.origin.source == "file:sam2.1_hiera_tiny.pt"
    assert "numbers are taken on trust" in caplog.text
    assert load(SPEC).keys() == SHAPES.keys()


def test_other_names_other_sizes_and_other_files_are_refused(tmp_path: Path, published: dict[str, Tensor]) -> None:
    missing = {name: value for name, value in published.items() if name != "no_mem_embed"}
    patches = "image_encoder.trunk.patch_embed.proj.weight"
    for content, message in (
        ({"model": published | {"memory_gate.weight": torch.ones(1)}}, "memory_gate.weight is unknown"),
        ({"model": missing}, "no_mem_embed is missing"),
        ({"model": published | {patches: torch.ones(96, 3, 7, 7)}}, rf"{patches} has shape \[96, 3, 7, 7\]"),
        ({"model": published | {"no_mem_embed": torch.full((1, 1, 256), torch.nan)}}, "not finite"),
        (published, "is no checkpoint of SAM 2"),
        ({"model": [published]}, "is no checkpoint of SAM 2"),
        ([published], "is no checkpoint of SAM 2"),
    ):
        with pytest.raises(WeightsError, match=message):
            pull(SPEC, from_file=written(tmp_path, content))


def test_more_than_one_file_is_refused(tmp_path: Path, published: dict[str, Tensor]) -> None:
    written(tmp_path, {"model": published})
    (tmp_path / "other.pt").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"one file, not 2: other\.pt, sam2\.1_hiera_tiny\.pt"):
        pull(SPEC, from_file=tmp_path)
