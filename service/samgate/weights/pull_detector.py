"""``samgate pull`` of a detector: its ONNX file, checked against the spec before it is installed."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from rich.console import Console

from samgate.errors import CompileError, WeightsError
from samgate.variants.detectors import DetectorSpec
from samgate.weights.detector_file import Layout, layout_of, read_model
from samgate.weights.detector_store import InstalledDetector, installed_detector, pull_command, save_detector
from samgate.weights.download import download
from samgate.weights.home import file_lock, home_folder
from samgate.weights.pull import LOCK_TIMEOUT_S, progress_bar
from samgate.weights.store import Origin

logger = logging.getLogger(__name__)


def pull_detector(
    spec: DetectorSpec,
    *,
    from_file: Path | None = None,
    force: bool = False,
    console: Console | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> InstalledDetector:
    """Installs the detector under :func:`samgate.weights.home.samgate_home`. Safe to call from several processes.

    Args:
        from_file: use this ONNX file instead of the spec's sources.
        force: pull even when the detector is installed, and replace it.
        console: where progress is shown; standard error by default.
        lock_timeout_s: seconds to wait for another process that pulls.

    Raises:
        WeightsError: no source delivers, the file is no such detector, onnx is missing or the file can't be written.
            What was installed before stays.
    """
    if not force and (found := installed_detector(spec)) is not None:
        return found
    downloads = home_folder("downloads")
    with file_lock(downloads / ".lock", lock_timeout_s, error=WeightsError):
        if not force and (found := installed_detector(spec)) is not None:
            return found
        path = from_file or _from_sources(spec, downloads, console)
        layout = check_file(path, spec)
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        known = [source for source in spec.sources if source.sha256 == sha256]
        if not known and spec.sources:
            logger.warning("%s is not a file that samgate knows: its numbers are taken on trust", path)
        name = known[0].url.rsplit("/", 1)[-1] if known else path.name
        origin = Origin(spec.name, known[0].url if known else f"file:{path.name}", {name: sha256})
        made = save_detector(spec, content, sha256, origin, layout)
        if from_file is None:
            path.unlink(missing_ok=True)
    return made


def check_file(path: Path, spec: DetectorSpec) -> Layout:
    """How the detector in ``path`` is laid out. Raises WeightsError unless it is one that ``spec`` describes and that
    can be served."""
    model = read_model(path)
    layout = layout_of(model, spec, path.name)
    from samgate.compile.detector_graph import wrapped

    try:
        wrapped(model, layout, spec.sized(layout.side))
    except CompileError as error:
        raise WeightsError(f"{path.name}: {error}") from error
    return layout


def _from_sources(spec: DetectorSpec, downloads: Path, console: Console | None) -> Path:
    failures = []
    with progress_bar(console) as progress:
        for source in spec.sources:
            try:
                return download(source, downloads, progress)
            except WeightsError as error:
                logger.info("%s: %s; trying the next source", source.url, error)
                failures.append(f"  - {source.url} (SHA-256 {source.sha256}): {error}")
                for task in progress.task_ids:
                    progress.update(task, visible=False)
    if not spec.sources:
        raise WeightsError(
            f"{spec.name} has no file that samgate could fetch (its weights are under {spec.licence}): export one, "
            f"then run `{pull_command(spec)}`"
        )
    raise WeightsError(
        "\n".join(
            [
                f"{spec.name} can't be had from any of its sources:",
                *failures,
                f"Get one of these files elsewhere and run `samgate pull {spec.name} --from FILE`",
            ]
        )
    )
