"""``samgate profile --show``, tables and plots: all that needs no engine."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import pytest
from rich.console import Console

from profiles_support import HERE, operating_point, record, stored
from samgate.cli.main import main
from samgate.config import Settings
from samgate.errors import ProfileError
from samgate.profiles import plot
from samgate.profiles.files import install_profile, published_profile, read_profile
from samgate.profiles.fingerprint import this_fingerprint
from samgate.profiles.plot import plot_profile
from samgate.profiles.table import as_table

PROFILE = stored(record(operating_point("mobilesam", "bf16")), record(operating_point("mobilesam", "f32", 0.6)))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path))
    return tmp_path


def test_the_table_has_a_row_a_point_and_says_where() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(as_table(PROFILE))
    text = console.export_text()
    for cell in (
        "mobilesam:f32",
        "600.0",
        "15.0 / 45.0 (4)",
        "5.0 + 10.0",
        "0.7585",
        "overhead of a request 4.0 ms",
        HERE.cpu,
    ):
        assert cell in text
    console.print(as_table(published_profile("a100")))
    assert "published figures, for simulations" in console.export_text()


def test_a_published_profile_is_shown_drawn_and_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, copy = home / "front.png", home / "copy.json"
    assert main(["profile", "--show", "a100", "--plot", str(picture), "-o", str(copy), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["points"][0]["variant"] == "efficientvit-sam-l0"
    assert read_profile(copy) == published_profile("a100")
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert min(drawn.shape[:2]) > 900


def test_what_is_installed_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--show"]) == 1
    assert "run `samgate profile`" in capsys.readouterr().err
    install_profile(stored(*PROFILE.records, fingerprint=this_fingerprint(Settings())))
    assert main(["profile", "--show"]) == 0
    assert "mobilesam:bf16" in capsys.readouterr().out


def test_bad_requests_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "bad.json").write_text("{}")
    for arguments, message in (
        (["--show", str(home / "bad.json")], "bad.json: schema is missing"),
        (["--points", "sam3"], "'sam3' is unknown"),
        (["--limit", "3"], "is of --eval's images"),
        (["--eval", str(home / "none.json")], "none.json can't be read"),
    ):
        assert main(["profile", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_plots_without_matplotlib_say_how_to_get_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProfileError, match="can't be written"):
        plot_profile(PROFILE, home / "nowhere" / "front.png")
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(ProfileError, match=r"pip install 'samgate\[plots\]'"):
        plot_profile(PROFILE, home / "front.png")
