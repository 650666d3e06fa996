"""From an installed detector to installed compiled files, for any target."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from samgate.compile.artifacts import install
from samgate.compile.detector import detector_key, ensure_detector
from samgate.compile.manifest import Manifest, read_manifest, write_manifest
from samgate.compile.pipeline import NOT_RUN, Report, compile_graph, scratch_folder
from samgate.compile.targets import Target, get_target
from samgate.compile.tensorrt import sm
from samgate.compile.toolchain import Toolchain, find_toolchain
from samgate.errors import CompileError, InvalidArgument, NotInstalled
from samgate.variants.detectors import ISLANDS, PRECISIONS, DetectorSpec, detector_graph
from samgate.weights.detector_store import InstalledDetector, require_detector
from samgate.weights.home import home_folder, sha256_file

if TYPE_CHECKING:
    from samgate.compile.prepare import Prepared

_HERE = Path(__file__).resolve().parent
_REFERENCE = "not needed: f32 is the reference"


@dataclass(frozen=True, slots=True)
class DetectorArtifact:
    """An installed compiled detector: its ``file``, in ``folder`` with the manifest."""

    folder: Path
    file: Path
    manifest: Manifest


def compile_detector(
    spec: DetectorSpec,
    target: Target,
    precision: str | None,
    capabilities: Sequence[str],
    root: Path | None,
    report: Report,
) -> list[DetectorArtifact]:
    """Compiles and installs: one artifact, or one a compute capability.

    Args:
        precision: f32, or fp16 where types are written into the graph; None for the target's default.
        capabilities: of GPUs, such as ``8.9``; empty for this machine's.
        root: where artifacts are installed; None for samgate's home.

    Raises:
        NotInstalled: the detector isn't.
        InvalidArgument: the target doesn't run the precision, or lacks an option that it needs.
        CompileError: something is missing here, or the graph can't be compiled.
    """
    chosen = precision or default_precision(target)
    _check_precision(target, chosen)
    toolchain = find_toolchain(spec, target, chosen, capabilities)
    if importlib.util.find_spec("onnx") is None:
        raise CompileError("compiling needs onnx: pip install 'samgate[compile]'")
    graph = ensure_detector(spec, report)
    place = root or home_folder("compiled")
    with scratch_folder(place) as folder:
        prepared = _prepare(graph.file, target, chosen, folder)
        return [
            _install(graph.installed, target, chosen, toolchain, capability, prepared, place, report)
            for capability in toolchain.capabilities
        ]


def default_precision(target: Target) -> str:
    """What detectors are compiled in where nothing else is asked for."""
    return PRECISIONS[-1] if target.module is not None else PRECISIONS[0]


def installed_detector_plan(
    spec: DetectorSpec, target: str, precision: str, capability: str | None, root: Path | None = None
) -> Path:
    """The current compiled file. Raises NotInstalled, with the command that makes it, and InvalidArgument."""
    kind = get_target(target)
    _check_precision(kind, precision)
    installed = require_detector(spec)
    folder = (root or home_folder("compiled")) / _name(installed.spec, kind, precision, capability)
    try:
        manifest = read_manifest(folder)
        entry = manifest.graphs["detector"]
        file = folder / entry.file
        current = manifest.key == _key(installed, kind, precision) and sha256_file(file) == entry.sha256
    except (OSError, KeyError, TypeError, ValueError):
        current = False
    if not current:
        option = f" --compute-capability {capability}" if capability else ""
        raise NotInstalled(
            f"{folder.name} is not compiled, or not from what is installed; compile it with: "
            f"samgate compile {spec.name} --target {target} --precision {precision}{option}"
        )
    return file


def _check_precision(target: Target, precision: str) -> None:
    runs = PRECISIONS if target.typed else PRECISIONS[:1]
    if precision not in runs:
        raise InvalidArgument(
            "precision", f"{precision!r} is not what {target.name} runs detectors in: {', '.join(runs)}"
        )


def _prepare(source: Path, target: Target, precision: str, folder: Path) -> Prepared:
    import onnx

    from samgate.compile.precision import Typing, float_nodes, typed
    from samgate.compile.prepare import Prepared

    began = time.monotonic()
    path = folder / "detector.onnx"
    model = onnx.load(source)
    if precision == "fp16":
        model, typing = typed(model, "fp16", ISLANDS)
        onnx.save(model, path)
    else:
        shutil.copyfile(source, path)
        nodes = float_nodes(model)
        typing = Typing(nodes, {"the plan": nodes}, 0)
    return Prepared(path, typing, target.typed or precision == "f32", time.monotonic() - began, 0)


def _install(
    installed: InstalledDetector,
    target: Target,
    precision: str,
    toolchain: Toolchain,
    capability: str | None,
    prepared: Prepared,
    root: Path,
    report: Callable[[str], None],
) -> DetectorArtifact:
    spec = installed.spec
    folder = root / _name(spec, target, precision, capability)
    graph = detector_graph(spec)
    with scratch_folder(root) as scratch:
        if capability:
            report(f"compiling {spec.name} for compute capability {capability}")
        file = compile_graph(toolchain, graph, prepared, scratch / f"detector{target.suffix}", capability, root)
        manifest = Manifest(
            variant=spec.name,
            weights_sha256=installed.sha256,
            key=_key(installed, target, precision),
            target=target.name,
            precision=precision,
            library=toolchain.library,
            version=toolchain.version,
            compute_capability=capability,
            islands={island.name: island.reason for island in ISLANDS},
            profiles={"detector": [{}]},
            graphs={"detector": file},
            gate=None,
            checked=NOT_RUN if target.module is not None else _REFERENCE,
        )
        write_manifest(manifest, scratch)
        install(scratch, folder)
    return DetectorArtifact(folder, folder / file.file, manifest)


def _name(spec: DetectorSpec, target: Target, precision: str, capability: str | None) -> str:
    return "-".join(filter(None, (spec.name, target.name, precision, capability and sm(capability))))


def _key(installed: InstalledDetector, target: Target, precision: str) -> str:
    """A hash of all that decides what is compiled."""
    digest = hashlib.sha256(f"{detector_key(installed)} {target.name} {precision} {ISLANDS}".encode())
    sources = ("precision.py", "islands.py") if precision == "fp16" else ()
    for name in (*sources, *(("tensorrt.py",) if target.module else ())):
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:16]
