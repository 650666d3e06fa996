"""Compiled files in samgate's home: installed whole or not at all, and found again as long as they are current."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from samgate.compile.external import graph_sha256
from samgate.compile.graphs import graphs_key
from samgate.compile.manifest import Manifest, read_manifest
from samgate.compile.targets import TARGETS, Target, get_target, resolve_plan
from samgate.compile.tensorrt import sm
from samgate.errors import CompileError, InvalidArgument, NotInstalled
from samgate.variants.graphs import GraphName, graph_specs
from samgate.variants.spec import NetworkSpec
from samgate.weights import store
from samgate.weights.home import file_lock, home_folder

logger = logging.getLogger(__name__)

_HERE = Path(__file__).resolve().parent
_LOCK_TIMEOUT_S = 60.0
_TYPED_SOURCES = ("islands.py", "precision.py")
_PLAN_SOURCES = ("tensorrt.py",)
_INT8_SOURCES = ("islands.py", "quantize.py", "calibration.py", "photographs.py")


@dataclass(frozen=True, slots=True)
class Artifact:
    """Installed compiled graphs of one variant, target, precision and GPU: ``files`` by graph."""

    folder: Path
    files: Mapping[GraphName, Path]
    manifest: Manifest


def artifact_name(spec: NetworkSpec, target: Target, precision: str, capability: str | None) -> str:
    """Of the folder, such as ``mobilesam-tensorrt-fp16-sm89``."""
    return "-".join(filter(None, (spec.name, target.name, precision, capability and sm(capability))))


def artifact_key(spec: NetworkSpec, target: Target, precision: str, weights_sha256: str) -> str:
    """A hash of all that decides what is compiled: weights, plan, shapes and the code that handles them."""
    plan = resolve_plan(spec, target, precision)
    shapes = [graph.profiles for graph in graph_specs(spec).values()]
    digest = hashlib.sha256(graphs_key(spec, weights_sha256).encode())
    digest.update(repr((plan.encoder, plan.decoder, target.low, target.graphs, spec.islands, shapes)).encode())
    sources = (*(_TYPED_SOURCES if target.typed else ()), *(_PLAN_SOURCES if target.module else ()))
    if "int8" in plan.arithmetics:
        digest.update(repr(spec.unquantized).encode())
        sources += _INT8_SOURCES
    for name in sources:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:16]


def installed_artifact(
    spec: NetworkSpec, target: str, precision: str, capability: str | None = None, root: Path | None = None
) -> Artifact:
    """The current artifact: made of the installed weights by this code, and undamaged.

    Args:
        capability: of the GPU, such as ``8.9``, for targets whose files are for one.
        root: the folder that holds artifacts; None is samgate's home.

    Raises:
        NotInstalled: with the command that makes it.
        InvalidArgument: there is no such target or plan, or ``capability`` is missing or superfluous.
    """
    kind = get_target(target)
    if (kind.module is None) != (capability is None):
        needs = "has to be named: plans are for one kind of GPU" if capability is None else "is for plans for GPUs only"
        raise InvalidArgument("compute-capability", needs)
    weights = store.installed(spec)
    if weights is None:
        raise NotInstalled(f"{spec.name} is not installed; install it with: samgate pull {spec.name}")
    folder = (root or home_folder("compiled")) / artifact_name(spec, kind, precision, capability)
    found = _read(folder)
    if found is None or found.manifest.key != artifact_key(spec, kind, precision, weights.sha256):
        state = "is not compiled" if found is None else "was compiled from other weights or code"
        raise NotInstalled(
            f"{folder.name} {state}; compile it with: {_command(spec, kind, precision, capability)}"
            + (f" --output {root}" if root else "")
        )
    return found


def installed_artifacts(spec: NetworkSpec, target: str) -> list[Artifact]:
    """All current ones of ``spec`` for ``target``, ordered by precision and compute capability."""
    kind, weights = get_target(target), store.installed(spec)
    folders = home_folder("compiled").glob(f"{spec.name}-{target}-*") if weights else ()
    found = [artifact for artifact in map(_read, folders) if artifact and artifact.manifest.target == target]
    current = [
        artifact
        for artifact in found
        if weights
        and artifact.manifest.precision in spec.precisions
        and artifact.manifest.key == artifact_key(spec, kind, artifact.manifest.precision, weights.sha256)
    ]
    return sorted(current, key=lambda one: (one.manifest.precision, float(one.manifest.compute_capability or 0)))


def install(scratch: Path, folder: Path) -> None:
    """Makes ``scratch``, beside ``folder``, take its place. Raises CompileError when it can't."""
    with file_lock(folder.with_name(f".{folder.name}.lock"), _LOCK_TIMEOUT_S, error=CompileError):
        old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
        try:
            if folder.exists():
                os.replace(folder, old)
            os.replace(scratch, folder)
        except OSError as error:
            raise CompileError(f"{folder} can't be written: {error.strerror}") from error
        finally:
            shutil.rmtree(old, ignore_errors=True)


def _read(folder: Path) -> Artifact | None:
    """What is in ``folder``; None when nothing is, or when it is damaged (which is logged)."""
    # Without a lock, as the folder may be mounted read-only.
    try:
        manifest = read_manifest(folder)
        files = {name: folder / entry.file for name, entry in manifest.graphs.items() if name != "detector"}
        damaged = [name for name, path in files.items() if graph_sha256(path) != manifest.graphs[name].sha256]
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        logger.warning("%s can't be used: %s", folder, error)
        return None
    if damaged:
        logger.warning("%s can't be used: %s is not what was compiled", folder, damaged[0])
        return None
    return Artifact(folder, files, manifest)


def _command(spec: NetworkSpec, target: Target, precision: str, capability: str | None) -> str:
    options = f" --compute-capability {capability}" if capability and target is TARGETS["tensorrt-rtx"] else ""
    images = " --eval instances.json" if target.module is None else ""
    calibrate = " --calibrate DIR" if "int8" in spec.precisions[precision].arithmetics else ""
    return f"samgate compile {spec.name} --target {target.name} --precision {precision}{options}{calibrate}{images}"
