"""The graph of an installed detector, wrapped once and kept by content.

Its key is what it is made of: the file's SHA-256, what the spec says of it, and the source of the code that wraps it. A
later start with the same needs no onnx.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from samgate.errors import CompileError
from samgate.variants.detectors import DetectorSpec
from samgate.weights.detector_store import InstalledDetector, require_detector
from samgate.weights.home import atomic_write_bytes, file_lock, home_folder

_PACKAGE = Path(__file__).resolve().parents[1]
_WRAP_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class DetectorGraph:
    """The ONNX ``file`` of a detector whose ``spec`` has its input size; ``installed`` is what it was made of."""

    spec: DetectorSpec
    file: Path
    installed: InstalledDetector


def ensure_detector(spec: DetectorSpec, report: Callable[[str], None] = lambda message: None) -> DetectorGraph:
    """The graph of ``spec``, made now if it isn't there. ``report`` gets a line for what takes long.

    Safe with several processes. Raises NotInstalled with the command that installs it, CompileError where onnx is
    missing, and WeightsError for a file that can't be read.
    """
    installed = require_detector(spec)
    file = home_folder("graphs") / f"{spec.name}-{detector_key(installed)}.onnx"
    with file_lock(file.with_suffix(".lock"), timeout_s=_WRAP_TIMEOUT_S):
        if not file.exists():
            report(f"wrapping {spec.name} (once)")
            _wrap(installed, file)
    return DetectorGraph(installed.spec, file, installed)


def detector_key(installed: InstalledDetector) -> str:
    """What the content of the graph depends on, as a short hash."""
    digest = hashlib.sha256(installed.sha256.encode())
    spec = installed.spec
    digest.update(repr((spec.name, spec.head, spec.channels, spec.divisor, installed.layout)).encode())
    for source in (_PACKAGE / "compile" / "detector_graph.py", _PACKAGE / "variants" / "detectors.py"):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _wrap(installed: InstalledDetector, file: Path) -> None:
    if importlib.util.find_spec("onnx") is None:
        raise CompileError(f"wrapping {installed.spec.name} needs onnx: pip install 'samgate[compile]'")
    from samgate.compile.detector_graph import wrapped
    from samgate.weights.detector_file import read_model

    model = wrapped(read_model(installed.path), installed.layout, installed.spec)
    atomic_write_bytes(file, model.SerializeToString(deterministic=True))
