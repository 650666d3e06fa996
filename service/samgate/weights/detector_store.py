"""Installed detectors: the ONNX file as it came, and beside it what it is and where it is from."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from samgate.errors import NotInstalled, WeightsError
from samgate.variants.detectors import DETECTORS, DetectorSpec
from samgate.weights.detector_file import Layout
from samgate.weights.home import atomic_write_bytes, home_folder, sha256_file
from samgate.weights.store import Origin

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InstalledDetector:
    """``spec`` with the input size of what is installed; ``path`` of the ONNX file and ``sha256`` of its content, which
    is laid out as ``layout`` says."""

    spec: DetectorSpec
    path: Path
    sha256: str
    origin: Origin
    layout: Layout


def installed_detector(spec: DetectorSpec) -> InstalledDetector | None:
    """What is installed of ``spec``; None when nothing is, or when it is damaged (which is logged)."""
    record = _record(spec)
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        origin, layout = Origin(**content["origin"]), Layout(**content["layout"])
        path = record.with_name(f"{spec.name}-{content['sha256'][:16]}.onnx")
        if sha256_file(path) != content["sha256"]:
            raise ValueError(f"{path.name} is not what was installed")  # noqa: TRY301
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s can't be used (%s): `%s --force` replaces it", record, error, pull_command(spec))
        return None
    return InstalledDetector(spec.sized(layout.side), path, content["sha256"], origin, layout)


def require_detector(spec: DetectorSpec) -> InstalledDetector:
    """What is installed of ``spec``. Raises NotInstalled, with the command that installs it."""
    found = installed_detector(spec)
    if found is None:
        raise NotInstalled(f"{spec.name} is not installed; install it with: {pull_command(spec)}")
    return found


def installed_detectors() -> list[InstalledDetector]:
    """All that are installed, in the order of :data:`samgate.variants.detectors.DETECTORS`."""
    return [found for spec in DETECTORS.values() if (found := installed_detector(spec)) is not None]


def save_detector(spec: DetectorSpec, content: bytes, sha256: str, origin: Origin, layout: Layout) -> InstalledDetector:
    """Installs ``content``, whose checksum is ``sha256``, in the place of what was installed before.

    The caller holds the lock of :func:`samgate.weights.pull_detector.pull_detector`. Raises WeightsError when a file
    can't be written; then what was installed before stays.
    """
    record = home_folder("detectors") / _record(spec).name
    path = record.with_name(f"{spec.name}-{sha256[:16]}.onnx")
    told = {"sha256": sha256, "origin": asdict(origin), "layout": asdict(layout)}
    try:
        atomic_write_bytes(path, content)
        # From here on the new file is the one that counts; nobody reads the old ones any more.
        atomic_write_bytes(record, json.dumps(told, indent=2, sort_keys=True).encode() + b"\n")
        for old in record.parent.glob(f"{spec.name}-{'[0-9a-f]' * 16}.onnx"):
            if old != path:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"{path} can't be written: {error}") from error
    return InstalledDetector(spec.sized(layout.side), path, sha256, origin, layout)


def pull_command(spec: DetectorSpec) -> str:
    """What installs ``spec``."""
    return f"samgate pull {spec.name}" + ("" if spec.sources else " --from FILE.onnx")


def _record(spec: DetectorSpec) -> Path:
    return home_folder("detectors", create=False) / f"{spec.name}.json"
