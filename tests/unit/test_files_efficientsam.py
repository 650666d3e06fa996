"""Files as upstream offers EfficientSAM's weights are read, whatever else comes in their place is refused."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from parity.weights import draw_state
from samgate.errors import WeightsError
from samgate.variants import get_variant
from samgate.weights import zipped_file
from samgate.weights.formats import network_shapes
from samgate.weights.pull import pull
from samgate.weights.store import load
from weights_support import checkpoint, home

__all__ = ["home"]

TI, S = (get_variant(name).reduced() for name in ("efficientsam-ti", "efficientsam-s"))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Of the reduced EfficientSAM-S."""
    return {name: torch.tensor(value) for name, value in draw_state(network_shapes(S)).items()}


@pytest.fixture(scope="module")
def weights(state: dict[str, torch.Tensor]) -> bytes:
    """As upstream's ``efficient_sam_vits.pt`` has them."""
    return checkpoint({"model": state})


def zipped(folder: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "efficient_sam_vits.pt.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_the_archive_of_a_checkpoint_is_read(
    tmp_path: Path, state: dict[str, torch.Tensor], weights: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    archive = zipped(tmp_path, {"efficient_sam_vits.pt": weights, "__MACOSX/._efficient_sam_vits.pt": b"notes"})
    info = pull(S, from_file=archive)
    assert info.origin.source == "file:efficient_sam_vits.pt.zip"
    assert "taken on trust" in caplog.text  # nobody publishes its checksum
    installed = load(S)
    assert installed.keys() == state.keys()
    assert all(np.array_equal(installed[name], value.numpy()) for name, value in state.items())


def test_the_checkpoint_itself_is_read_too(tmp_path: Path, weights: bytes, home: Path) -> None:
    path = tmp_path / "efficient_sam_vits.pt"
    path.write_bytes(weights)
    assert pull(S, from_file=path).origin.files.keys() == {path.name}


def test_ti_has_no_archive_around_it(tmp_path: Path) -> None:
    path = tmp_path / "efficient_sam_vitt.pt"
    drawn = draw_state(network_shapes(TI))
    path.write_bytes(checkpoint({"model": {name: torch.tensor(value) for name, value in drawn.items()}}))
    pull(TI, from_file=path)
    assert np.array_equal(load(TI)["image_encoder.pos_embed"], drawn["image_encoder.pos_embed"])


def test_what_no_program_can_check_is_not_fetched() -> None:
    with pytest.raises(WeightsError, match=r"(?s)vits\.pt\.zip: its checksum.*pull efficientsam-s --from FILE"):
        pull(S)


@pytest.mark.parametrize("names", [(), ("a.pt", "b.pt")])
def test_an_archive_of_anything_but_one_checkpoint_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    archive = zipped(tmp_path, dict.fromkeys(names, b"x"))
    with pytest.raises(WeightsError, match=f"vits.pt.zip holds {len(names)} files"):
        zipped_file.read({archive.name: archive})


def test_more_than_the_limit_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped_file, "MOST_BYTES", 1000)
    with pytest.raises(WeightsError, match=r"it unpacks to 1,001 bytes; the limit is 1,000"):
        pull(S, from_file=zipped(tmp_path, {"a.pt": bytes(1001)}))


def test_no_more_is_unpacked_than_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path, {"a.pt": bytes(100_000)})
    told = (100_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(told, (10).to_bytes(4, "little")))
    monkeypatch.setattr(zipped_file, "MOST_BYTES", 1000)
    with pytest.raises(WeightsError, match="can't be unpacked: Bad CRC-32"):
        pull(S, from_file=path)


def test_names_in_the_archive_point_nowhere(tmp_path: Path, weights: bytes, home: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    pull(S, from_file=zipped(folder, {"../../outside.pt": weights}))
    assert not list(tmp_path.rglob("outside.pt"))


def test_code_in_the_archive_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "run"),)

    with pytest.raises(WeightsError, match="samgate never runs code"):
        pull(S, from_file=zipped(tmp_path, {"a.pt": checkpoint({"model": Evil()})}))
    assert not (tmp_path / "run").exists()


def test_damaged_archives_and_other_networks_are_refused(tmp_path: Path, weights: bytes) -> None:
    path = zipped(tmp_path, {"a.pt": weights}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="can't be unpacked: Bad CRC-32"):
        pull(S, from_file=path)
    with pytest.raises(WeightsError, match="not this variant's weights"):
        pull(S, from_file=zipped(tmp_path, {"a.pt": checkpoint({"model": {"a": torch.zeros(1)}})}))
    other = tmp_path / "efficient_sam_vits.pt"
    other.write_bytes(weights)
    with pytest.raises(WeightsError, match=r"not this variant's weights: .* has shape"):
        pull(TI, from_file=other)
