"""EdgeSAM's and RepViT-SAM's files, licences, and what EdgeSAM ranks masks by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from parity.cases import cases_of
from parity.recording import difference, golden_path, read, shapes_in
from parity.weights import draw_state
from samgate.compile.export import load_network
from samgate.errors import WeightsError
from samgate.variants import VARIANTS, get_variant
from samgate.variants.nets.repvit import Stability
from samgate.variants.nets.sam import DecoderGraph
from samgate.weights.pull import pull
from samgate.weights.store import load
from weights_support import home

__all__ = ["home"]


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Files as upstreams write them, of reduced networks: plain state dicts."""
    files = {}
    for name in ("edgesam", "repvit-sam"):
        spec = get_variant(name).reduced()
        monkeypatch.setitem(VARIANTS, name, spec)
        state = draw_state(shapes_in(read(golden_path(spec, small=True))))
        files[name] = tmp_path / f"{name}.pth"
        torch.save({key: torch.tensor(value) for key, value in state.items()}, files[name])
    return files


def test_official_files_are_read(official: dict[str, Path]) -> None:
    for name, path in official.items():
        pull(VARIANTS[name], from_file=path, accept_licence=True)
        expected = draw_state(shapes_in(read(golden_path(VARIANTS[name], small=True))))
        assert load(VARIANTS[name]).keys() == expected.keys()


def test_a_licence_that_is_not_for_every_use_has_to_be_accepted(official: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match=r"S-Lab.*non-commercial.*samgate pull edgesam --accept-license"):
        pull(VARIANTS["edgesam"], from_file=official["edgesam"])
    pull(VARIANTS["repvit-sam"], from_file=official["repvit-sam"])


def test_one_systems_file_is_not_the_others(official: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match="not this variant's weights"):
        pull(VARIANTS["repvit-sam"], from_file=official["edgesam"])


@torch.inference_mode()
def test_edgesams_own_head_predicts_what_sams_does() -> None:
    """Not what masks are ranked by, but the file has it. Drawn weights are those of MobileSAM, and so are answers."""
    spec = get_variant("edgesam").reduced()
    network = load_network(spec, draw_state(shapes_in(read(golden_path(spec, small=True)))))
    sams = read(golden_path(get_variant("mobilesam"), small=False))
    (case,) = (case for case in cases_of(spec) if case.name == "points")
    _, ious = DecoderGraph(network)(*map(torch.tensor, (case.embedding, *case.tokens())))
    assert difference("points/ious", ious.numpy(), sams) <= 1e-4


def test_stability_is_the_share_of_a_mask_that_is_sure() -> None:
    masks = torch.full((1, 1, 3, 4, 4), -9.0)
    masks[0, 0, 0, :2] = 5
    masks[0, 0, 0, 2] = 0.5
    masks[0, 0, 1, 0] = 1.0  # not above it
    np.testing.assert_allclose(Stability()(masks)[0, 0], [8 / 12, 0, 0])
