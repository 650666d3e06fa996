"""A ``python-cpu`` repository to run here: its configurations fit this machine, its graphs are the installed ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samgate.compile.detector import ensure_detector
from samgate.compile.external import data_file, link_graph
from samgate.engines.cpu import cpu_info, usable_cores
from samgate.engines.graphs import runtime_graphs
from samgate.engines.quiet_openvino import ov
from samgate.repository.build import write_files
from samgate.repository.models import Batching, served_graphs
from samgate.repository.profiles import PROFILES
from samgate.repository.tree import Parameters, model_path, repository_files
from samgate.variants import get_variant
from samgate.variants.clip import get_text_model
from samgate.variants.detectors import DetectorSpec, get_detector
from samgate.variants.graphs import AnyGraph
from samgate.variants.spec import NetworkSpec
from samgate.weights.home import home_folder, sha256_file

_PROFILE = PROFILES["python-cpu"]


@dataclass(frozen=True, slots=True)
class Beside:
    """Names of what serves beside the variants."""

    detectors: Sequence[str] = ()
    text_models: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StagingOptions:
    """``threads``: of each model, 0 for all cores."""

    threads: int = 0
    batching: Batching = "formed"
    beside: Beside = Beside()


def stage(
    wanted: Mapping[str, str], folder: Path, options: StagingOptions, report: Callable[[str], None]
) -> dict[str, str]:
    """Writes the repository of the variants in ``wanted``, each with a plan's name or ``auto``, into ``folder`` and
    returns the chosen plan of each.

    Raises NotInstalled, CompileError and InvalidArgument as exporting and choosing a precision do.
    """
    threads = options.threads or usable_cores()
    precisions: dict[str, str] = {}
    parameters: dict[str, Parameters] = {}
    links: dict[str, Path] = {}
    specs: list[NetworkSpec] = [get_variant(name) for name in wanted]
    specs += [get_text_model(name) for name in options.beside.text_models]
    for spec in specs:
        # Text models are in f32: see samgate.engines.text.
        graphs = runtime_graphs(spec, wanted.get(spec.name, "f32"), "openvino", report)
        precisions[spec.name] = graphs.plan
        parameters[spec.name] = {
            graph: _parameters(graph, graphs.files[graph], graphs.plan, graphs.hints[graph], threads)
            for graph in served_graphs(spec, _PROFILE)
        }
        links |= {model_path(_PROFILE, spec.name, graph): graphs.files[graph] for graph in parameters[spec.name]}
    detectors: dict[DetectorSpec, Mapping[str, str]] = {}
    for name in options.beside.detectors:
        made = ensure_detector(get_detector(name), report)
        detectors[made.spec] = _parameters("detector", made.file, "f32", "f32", threads)
        links[model_path(_PROFILE, name, "detector")] = made.file
    write_files(folder, repository_files(_PROFILE, specs, options.batching, parameters, detectors))
    for path, file in links.items():
        link_graph(file, folder / path)
    return precisions


def _parameters(graph: AnyGraph, file: Path, plan: str, precision: str, threads: int) -> dict[str, str]:
    # What the compiled graph depends on; with another of any it is another file.
    parts = (sha256_file(file), ov.__version__, cpu_info().get("flags", ""), precision, str(threads))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    blob = home_folder("blobs") / f"triton-{graph}-{precision}-{key}.blob"
    # One of gigabytes would be in memory twice before it is on the disk.
    kept = {} if data_file(file).exists() else {"blob": str(blob)}
    return {"plan": plan, "precision": precision, "threads": str(threads), **kept}
