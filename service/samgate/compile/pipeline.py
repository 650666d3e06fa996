"""From installed weights to installed compiled graphs, for any target."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgate.compile.artifacts import Artifact, artifact_key, artifact_name, install
from samgate.compile.external import copy_graph, graph_sha256, graph_size
from samgate.compile.graphs import GraphFiles, ensure_graphs
from samgate.compile.manifest import CompiledFile, Manifest, write_manifest
from samgate.compile.targets import Target, resolve_plan
from samgate.compile.tensorrt import build_plan
from samgate.compile.toolchain import Toolchain, find_toolchain
from samgate.errors import CompileError, InvalidArgument, NotInstalled
from samgate.variants.graphs import GraphName, GraphSpec, graph_specs
from samgate.variants.spec import NetworkSpec, PrecisionPlan, VariantSpec
from samgate.weights import store
from samgate.weights.home import home_folder

if TYPE_CHECKING:
    from samgate.compile.gate import GateData
    from samgate.compile.prepare import Prepared

Report = Callable[[str], None]

NOT_RUN = "not run: no GPU"


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile.

    ``capabilities`` are of GPUs, such as ``8.9``; ``calibration`` holds images, for int8; ``data`` is what the accuracy
    gate measures on; ``root`` is where artifacts are installed, None for samgate's home.
    """

    spec: NetworkSpec
    target: Target
    precision: str
    capabilities: Sequence[str] = ()
    calibration: Sequence[Path] = ()
    data: GateData | None = None
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class _Gate:
    figures: Mapping[str, Any] | None
    words: str


def compile_variant(request: Request, report: Report) -> list[Artifact]:
    """Compiles, checks and installs: one artifact, or one a compute capability. ``report`` gets a line a step.

    Raises:
        NotInstalled: the weights aren't.
        InvalidArgument: the target doesn't run the precision, or lacks an option that it needs.
        CompileError: something is missing here, a graph can't be compiled, or it fails the accuracy gate.
    """
    spec, target = request.spec, request.target
    plan = resolve_plan(spec, target, request.precision)
    toolchain = find_toolchain(spec, target, request.precision, request.capabilities)
    _require_images(request, plan)
    if importlib.util.find_spec("onnx") is None:
        raise CompileError("compiling needs torch and onnx: pip install 'samgate[compile]'")
    from samgate.compile.prepare import prepare

    reference = ensure_graphs(spec, report)
    root = request.root or home_folder("compiled")
    with scratch_folder(root) as folder:
        prepared = {
            name: prepare(spec, target, plan, name, reference[name], folder, request.calibration, report)
            for name in target.graphs
            if name in spec.graphs
        }
        gate = _gate(request, plan, reference, {name: one.path for name, one in prepared.items()}, report)
        return [
            _install(request, toolchain, capability, prepared, gate, root, report)
            for capability in toolchain.capabilities
        ]


def _require_images(request: Request, plan: PrecisionPlan) -> None:
    if "int8" in plan.arithmetics and not request.calibration:
        raise InvalidArgument("calibrate", "int8 is calibrated on images: give a folder of photographs like yours")
    if not isinstance(request.spec, VariantSpec):
        if request.data is not None:
            raise InvalidArgument("eval", f"{request.spec.name} makes no masks that images could judge: leave it out")
        return
    runs = not any(one in request.target.ungated for one in plan.arithmetics)
    if request.target.module is None and request.data is None and runs:
        raise InvalidArgument(
            "eval",
            "nothing is installed that hasn't passed the accuracy gate: give --eval instances.json (in COCO's format), "
            "or --images DIR with photographs where there are no labels",
        )


def _gate(request: Request, plan: PrecisionPlan, reference: GraphFiles, candidate: GraphFiles, report: Report) -> _Gate:
    plans = request.target.module is not None
    reasons = [request.target.ungated[one] for one in sorted(plan.arithmetics) if one in request.target.ungated]
    if not isinstance(request.spec, VariantSpec):
        return _Gate(None, NOT_RUN if plans else "not run: there are no masks to judge")
    if request.data is None or reasons:
        return _Gate(None, NOT_RUN if plans else f"not run: {reasons[0]}")
    from samgate.compile.gate import run_gate

    result = run_gate(request.spec, reference, candidate, plan, request.data, report, request.target.runtime)
    if not result.passed:
        raise CompileError(
            f"{request.spec.name} in {request.precision} isn't accurate enough for {request.target.name}; nothing was "
            f"installed or kept. {result.summary()}"
        )
    words = f"{NOT_RUN}; the graphs that it was built from, on ONNX Runtime: " if plans else ""
    return _Gate(result.as_dict(), words + result.summary())


def _install(
    request: Request,
    toolchain: Toolchain,
    capability: str | None,
    prepared: Mapping[GraphName, Prepared],
    gate: _Gate,
    root: Path,
    report: Report,
) -> Artifact:
    spec, target = request.spec, request.target
    weights = store.installed(spec)
    if weights is None:
        raise NotInstalled(f"{spec.name} was removed meanwhile; install it with: samgate pull {spec.name}")
    folder = root / artifact_name(spec, target, request.precision, capability)
    graphs = graph_specs(spec)
    with scratch_folder(root) as scratch:
        files: dict[GraphName, CompiledFile] = {}
        for name, one in prepared.items():
            if capability:
                report(f"compiling {name} for compute capability {capability}")
            files[name] = compile_graph(
                toolchain, graphs[name], one, scratch / f"{name}{target.suffix}", capability, root
            )
        manifest = Manifest(
            variant=spec.name,
            weights_sha256=weights.sha256,
            key=artifact_key(spec, target, request.precision, weights.sha256),
            target=target.name,
            precision=request.precision,
            library=toolchain.library,
            version=toolchain.version,
            compute_capability=capability,
            islands={island.name: island.reason for island in spec.islands},
            profiles={name: _profiles(graphs[name]) for name in files},
            graphs=dict(files.items()),
            gate=gate.figures,
            checked=gate.words,
        )
        write_manifest(manifest, scratch)
        install(scratch, folder)
    return Artifact(folder, {name: folder / files[name].file for name in prepared}, manifest)


def compile_graph(
    toolchain: Toolchain, graph: GraphSpec, prepared: Prepared, file: Path, capability: str | None, root: Path
) -> CompiledFile:
    """Makes ``file`` of what was prepared of ``graph``: a plan for ``capability``, or the ONNX graph as it is."""
    began, layers = time.monotonic(), None
    if toolchain.module is None:
        copy_graph(prepared.path, file)
    else:
        timings = root / f".{toolchain.library}-{toolchain.version}-{capability}.timings"
        layers = build_plan(toolchain.module, graph, prepared.path, file, capability, timings).layers
    return CompiledFile(
        file=file.name,
        size=graph_size(file),
        sha256=graph_sha256(file),
        seconds=round(prepared.seconds + time.monotonic() - began, 1),
        nodes=prepared.typing.nodes,
        f32_nodes=dict(prepared.typing.f32_nodes) if prepared.in_graph else None,
        casts=prepared.typing.casts,
        int8_products=prepared.int8_products,
        layers=layers,
    )


def _profiles(graph: GraphSpec) -> list[dict[str, list[int]]]:
    return [
        {axis: [size.smallest, size.typical, size.largest] for axis, size in shapes.items()}
        for shapes in graph.profiles
    ]


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """A folder beside those that are installed, gone after the block unless it was renamed."""
    folder = root / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise CompileError(f"{folder} can't be made: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
