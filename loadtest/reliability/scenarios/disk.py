"""``samgate pull`` into a home that is full, beside a server that runs from it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path

from loadtest.reliability.findings import Finding, Story
from loadtest.reliability.process import ChaosError
from loadtest.reliability.stage import Scenario, Stage, idle_finding, same
from samgate.errors import SamgateError
from samgate.variants import get_variant
from samgate.weights.home import samgate_home
from samgate.weights.pull import pull
from samgate.weights.store import weights_path

_MIB = 2**20
_SIZE = 1500
_ROOMS = (0, 1, 20, 45)
"""MiB that are left: none, too little for the download, for what it unpacks to, and for what is installed of that."""
_PULL_S = 600.0
_FULL = os.strerror(errno.ENOSPC)


@contextmanager
def small_disk(mebibytes: int) -> Iterator[Path]:
    """A file system of that size in a name space of its own, reached through /proc; gone after the block. Needs no
    rights where user name spaces are allowed. Raises ChaosError where they aren't."""
    script = f'mount -t tmpfs -o size={mebibytes}m tmpfs /mnt && echo "$$" && read -r _'
    holder = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        pid = holder.stdout.readline().strip()
        if not pid:
            raise ChaosError(f"a small disk needs user name spaces and mounts in them: {holder.stderr.read().strip()}")
        try:
            yield Path(f"/proc/{pid}/root/mnt")
        finally:
            holder.stdin.close()


async def _pull(home: Path, *flags: str) -> tuple[int, str]:
    """Exit status and what it said, errors and all."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "samgate.cli.main", "pull", "mobilesam", "--force", *flags,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "SAMGATE_HOME": str(home)},
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _PULL_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return -1, f"no end within {_PULL_S:g} s"
    return process.returncode or 0, said.decode(errors="replace")


def _fill(home: Path, room_mib: int) -> Path:
    """A file that leaves so much room."""
    filler = home / "filler"
    free = shutil.disk_usage(home).free - room_mib * _MIB
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free, 1))
    return filler


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _copy_home(home: Path) -> Path:
    """The installed weights with their graphs, so that no server compiles; the weights' new path."""
    spec = get_variant("mobilesam")
    try:
        pull(spec)
    except SamgateError as error:
        raise ChaosError(f"needs MobileSAM's weights to begin with: {error}") from error
    for name in ("graphs", "blobs", "profiles"):
        if (samgate_home() / name).is_dir():
            shutil.copytree(samgate_home() / name, home / name, ignore=shutil.ignore_patterns("triton-*", "*.lock"))
    weights = home / "weights" / weights_path(spec).name
    weights.parent.mkdir()
    shutil.copy(weights_path(spec), weights)
    return weights


async def _run(stage: Stage) -> Story:
    findings: list[Finding] = []
    with small_disk(_SIZE) as home:
        weights = await asyncio.to_thread(_copy_home, home)
        before = _sum(weights)
        async with stage.gateway(settings={"SAMGATE_HOME": str(home)}) as gateway:
            async with stage.load(gateway.target) as load:
                await load.calm()
                load.fault()
                for room in _ROOMS:
                    stage.report(f"pulling with {room} MiB left")
                    files = _files(home)
                    filler = _fill(home, room)
                    status, said = await _pull(home)
                    filler.unlink()
                    left = _files(home) - files - {"filler"}
                    findings += [
                        Finding(f"{room} MiB left: fails and says why", _gist(status, said), held=_clear(status, said)),
                        same(f"{room} MiB left: installed weights untouched", _sum(weights) == before, True),
                        same(f"{room} MiB left: no half of anything left", sorted(left), []),
                    ]
                await load.go_on(2.0)
                load.over()
                stage.report("pulling with room")
                status, said = await _pull(home)
                findings += [
                    Finding("with room again it succeeds", _gist(status, said), held=status == 0),
                    same("and installs what was there", _sum(weights) == before, True),
                ]
                await load.calm()
            findings += [await idle_finding(gateway), same("ends with status 0", await gateway.stop(), 0)]
    return load.story("disk-full-pull", findings)


def _files(home: Path) -> set[str]:
    """Files that hold something."""
    return {str(one.relative_to(home)) for one in home.rglob("*") if one.is_file() and one.stat().st_size}


def _clear(status: int, said: str) -> bool:
    return status == 1 and _FULL in said and "Traceback" not in said


def _gist(status: int, said: str) -> str:
    words = re.sub(r"\s+", " ", said).strip()
    place = words.find(_FULL)
    return f"status {status}: {words[max(place - 60, 0) : place + len(_FULL)] if place >= 0 else words[-100:]}"


FULL = Scenario(
    "disk-full-pull",
    "no room for `samgate pull`, at several of its steps, in the home of a server that runs",
    "a clear error, no half of anything; the next pull succeeds; the server notices nothing; lost: 0",
    _run,
)
