"""The caches between weights and a running engine: filled once by whoever comes first, and not trusted blindly."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from samgate.compile import artifacts
from samgate.engines.cpu import usable_cores
from samgate.engines.graphs import runtime_graphs
from samgate.errors import NotInstalled
from samgate.variants.mobilesam import SPEC
from samgate.variants.mobilesam_smaller import SPEC_512
from samgate.weights.store import weights_path

LOAD = """
from samgate.config import EngineSettings, Settings
from samgate.engines.load import load_engine
from samgate.variants.mobilesam_smaller import SPEC_512
def report(told):
    if told.startswith("exporting"):
        print(told)
print(load_engine(SPEC_512, Settings(engine=EngineSettings(name="openvino")), report).name)
"""
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n" + LOAD


@pytest.fixture
def home(tmp_path: Path, installed: None) -> Path:
    """A cache that holds the weights and nothing else."""
    (tmp_path / "weights").mkdir()
    shutil.copy(weights_path(SPEC_512), tmp_path / "weights")
    return tmp_path


def load(home: Path, program: str = LOAD) -> subprocess.Popen[str]:
    environment = {"SAMGATE_HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output.splitlines()


def test_two_processes_export_once_and_later_ones_need_no_torch(home: Path) -> None:
    told = [ended(process) for process in [load(home), load(home)]]
    assert sorted(len(lines) for lines in told) == [1, 2]  # "exporting …" was told by one of them
    assert len([path for path in (home / "graphs").iterdir() if path.is_dir()]) == 1
    # The encoder's, that of SegEvery's terms and both halves of its decoder; other decoders': for all threads, and for
    # one each.
    assert len(list((home / "blobs").glob("*.blob"))) == 4 + 2 * (2 if usable_cores() > 1 else 1)
    assert len(ended(load(home, WITHOUT_TORCH))) == 1
    left = [path.name for folder in ("graphs", "blobs") for path in (home / folder).iterdir()]
    assert not [name for name in left if name.startswith(".")]

    for blob in (home / "blobs").glob("*.blob"):
        blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
    ended(load(home, WITHOUT_TORCH))
    assert all(blob.stat().st_size > 1_000_000 for blob in (home / "blobs").glob("*.blob"))


def test_int8_runs_once_it_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installed: None) -> None:
    monkeypatch.setattr(artifacts, "home_folder", lambda name: tmp_path)
    with pytest.raises(NotInstalled, match="samgate compile mobilesam --target openvino --precision int8 --calibrate"):
        runtime_graphs(SPEC, "int8", "openvino", lambda message: None)
