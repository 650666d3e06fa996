"""``samgate profile`` with a real engine and a real gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from samgate.cli.main import main
from samgate.config import Settings
from samgate.profiles.files import installed_profile, read_profile
from samgate.profiles.fingerprint import this_fingerprint
from samgate.weights.home import home_folder


@pytest.fixture
def own_profiles(installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own with everybody's weights and graphs."""
    for name in ("weights", "graphs", "blobs"):
        (tmp_path / "home").mkdir(exist_ok=True)
        (tmp_path / "home" / name).symlink_to(home_folder(name))
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "home"))


@pytest.fixture
def labelled(tmp_path: Path, photo: bytes) -> Path:
    """A data set of one picture with one object: the dark square of ``photo``."""
    (tmp_path / "photo.png").write_bytes(photo)
    square = [200, 60, 290, 60, 290, 160, 200, 160]
    annotation = {
        "id": 1,
        "image_id": 1,
        "iscrowd": 0,
        "area": 9000,
        "bbox": [200, 60, 90, 100],
        "segmentation": [square],
    }
    image = {"id": 1, "file_name": "photo.png", "width": 320, "height": 240}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    return path


def test_a_point_is_measured_and_kept(
    own_profiles: None, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "here.json"
    arguments = ["profile", "--points", "mobilesam", "--quick", "--eval", str(labelled), "-o", str(output)]
    assert main([*arguments, "--plot", str(tmp_path / "front.png")]) == 0
    assert "mobilesam:" in capsys.readouterr().out
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    profile = read_profile(output)
    assert profile == installed_profile(this_fingerprint(Settings()))
    (record,) = profile.records
    point = record.point
    assert (record.origin, profile.overhead_origin) == ("quick", "quick")
    assert record.accuracy_origin == "measured on 1 masks of instances.json"
    assert point.accuracy["box"] > 0.9
    assert record.graphs
    # Loose: machines differ. Wrong units, or lines of each other, would be off by more.
    assert 0.01 < point.encode(1) < 30
    assert point.decode(1) < point.encode(1)
    assert point.decode(1) < point.decode(16) < 16 * point.decode(1) * 1.5
    assert point.finish(1) < point.decode(1)
    assert 0.0002 < profile.overhead_s < 1
