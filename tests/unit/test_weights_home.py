"""The cache folder: where it is, writes that happen completely or not at all, and the lock between processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from samgate.errors import Unavailable, WeightsError
from samgate.weights.home import (
    atomic_write,
    atomic_write_bytes,
    file_lock,
    home_folder,
    remove_leftovers,
    samgate_home,
    sha256_file,
)


def test_the_home_is_what_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "here"))
    assert samgate_home() == tmp_path / "here"
    assert not samgate_home().exists()
    assert home_folder("graphs") == tmp_path / "here" / "graphs"
    assert home_folder("graphs").is_dir()
    assert not home_folder("blobs", create=False).exists()


@pytest.mark.parametrize("value", [None, ""])
def test_the_home_is_else_the_platforms_cache(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SAMGATE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("SAMGATE_HOME", value)
    assert samgate_home().name == "samgate"


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="set SAMGATE_HOME to a folder that can be written"):
        home_folder("weights")


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    atomic_write_bytes(path, b"one")
    atomic_write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
    assert sha256_file(path) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(part: Path) -> None:
        part.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        atomic_write(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_users_may_read_what_a_private_writer_wrote(tmp_path: Path) -> None:
    def write(part: Path) -> None:
        part.unlink()
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))

    (tmp_path / "usual").touch()
    atomic_write(tmp_path / "a.bin", write)
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_leftovers_of_one_file_only_are_removed(tmp_path: Path) -> None:
    for name in (".a.bin.1-ff.tmp", ".b.bin.1-ff.tmp", "a.bin"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a.bin")
    assert sorted(item.name for item in tmp_path.iterdir()) == [".b.bin.1-ff.tmp", "a.bin"]


def test_the_lock_excludes_a_second_holder_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with file_lock(path, 1):
        with pytest.raises(Unavailable, match=r"another process has held .*\.lock for 0\.2 s"), file_lock(path, 0.2):
            pass
        with pytest.raises(WeightsError), file_lock(path, 0, error=WeightsError):
            pass
    with file_lock(path, 0):
        pass


def test_a_waiter_goes_on_when_the_lock_is_released(tmp_path: Path) -> None:
    path, entered = tmp_path / ".lock", threading.Event()

    def wait() -> None:
        with file_lock(path, 30):
            entered.set()

    waiter = threading.Thread(target=wait)
    with file_lock(path, 1):
        waiter.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    waiter.join(10)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    script = (
        "import sys, time, pathlib\n"
        "from samgate.weights.home import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1]), 1):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Unavailable), file_lock(path, 0):
            pass
        holder.kill()
        holder.wait(10)
    with file_lock(path, 1):
        pass


def test_the_lock_makes_its_folder(tmp_path: Path) -> None:
    with file_lock(tmp_path / "new" / ".lock", 0):
        assert (tmp_path / "new").is_dir()


def test_a_lock_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="can't be opened"), file_lock(tmp_path / "file" / ".lock", 1):
        pass
