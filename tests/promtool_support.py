"""Prometheus' own ``promtool``, from Debian's package ``prometheus``: fetched once into ``.tools``, without root."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".tools" / "prometheus"
_PACKAGE = "prometheus"
_TIMEOUT_S = 240


def promtool(*arguments: str | Path, stdin: str | None = None) -> str:
    """What ``promtool arguments`` prints; fails the test when that fails, or promtool can't be had."""
    done = subprocess.run(
        [_binary(), *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _binary() -> Path:
    binary = HOME / "usr" / "bin" / "promtool"
    if not binary.exists():
        try:
            _install()
        except (OSError, subprocess.SubprocessError) as error:
            told = getattr(error, "stderr", "") or error
            pytest.fail(
                f"promtool can't be had: {told}\nThe tests get it from Debian's package {_PACKAGE} with apt-get and "
                f"dpkg-deb; elsewhere put the binary at {binary}"
            )
    return binary


def _install() -> None:
    """Download and unpack; ``VERSION`` beside it says what was there."""
    HOME.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME.parent) as name:
        folder = Path(name)
        # What the system knows of packages may be nothing, or too old: lists of our own need no root.
        own = [f"-oDir::State::Lists={folder / 'lists'}", f"-oDir::Cache={folder / 'cache'}", "-oDebug::NoLocking=true"]
        for made in ("lists/partial", "cache/archives/partial", "unpacked"):
            (folder / made).mkdir(parents=True)
        _run(["apt-get", *own, "--quiet", "update"], folder)
        _run(["apt-get", *own, "--quiet", "download", _PACKAGE], folder)
        (package,) = folder.glob(f"{_PACKAGE}_*.deb")
        _run(["dpkg-deb", "--extract", str(package), "unpacked"], folder)
        (folder / "unpacked" / "VERSION").write_text(f"{package.name}\n")
        if not HOME.exists():
            shutil.move(folder / "unpacked", HOME)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
