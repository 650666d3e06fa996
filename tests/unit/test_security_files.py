"""Files that change under a running server: whatever is wrong with a new one, the old one stays in force."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from samgate.security.files import WatchedFiles


def test_not_even_an_unforeseen_error_reaches_who_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samgate.security.files._LOOK_EVERY_S", 0.0)
    file = tmp_path / "number"
    file.write_text("1")

    def read(files: Sequence[bytes]) -> float:
        return 1 / int(files[0])

    watched = WatchedFiles("number", [file], read)
    for broken in ("00", "none at all"):
        file.write_text(broken)
        assert watched.current() == 1.0
    file.write_text("4")
    assert watched.current() == 0.25


def test_what_is_wrong_at_the_start_is_told(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("0")
    with pytest.raises(ZeroDivisionError):
        WatchedFiles("number", [file], lambda files: 1 / int(files[0]))
