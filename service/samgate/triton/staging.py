"""A ``python-cpu`` repository to run here: its configurations fit this machine, its graphs are the installed ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import openvino as ov

from samgate.engines.cpu import cpu_info, usable_cores
from samgate.engines.graphs import RuntimeGraphs, runtime_graphs
from samgate.repository.build import write_files
from samgate.repository.models import Batching
from samgate.repository.profiles import PROFILES
from samgate.repository.tree import Parameters, model_path, repository_files
from samgate.variants import get_variant
from samgate.variants.graphs import GraphName
from samgate.weights.home import home_folder, sha256_file

_PROFILE = PROFILES["python-cpu"]


@dataclass(frozen=True, slots=True)
class StagingOptions:
    """``threads``: of each model, 0 for all cores."""

    threads: int = 0
    batching: Batching = "formed"


def stage(
    wanted: Mapping[str, str], folder: Path, options: StagingOptions, report: Callable[[str], None]
) -> dict[str, str]:
    """Writes the repository of the variants in ``wanted``, each with a plan's name or ``auto``, into ``folder`` and
    returns the chosen plan of each.

    Raises NotInstalled, CompileError and InvalidArgument as exporting and choosing a precision do.
    """
    precisions: dict[str, str] = {}
    parameters: dict[str, Parameters] = {}
    links: dict[str, Path] = {}
    specs = [get_variant(name) for name in wanted]
    for spec in specs:
        graphs = runtime_graphs(spec, wanted[spec.name], "openvino", report)
        precisions[spec.name] = graphs.plan
        parameters[spec.name] = {
            graph: _parameters(graph, graphs, options.threads or usable_cores()) for graph in _PROFILE.graphs
        }
        links |= {model_path(_PROFILE, spec.name, graph): graphs.files[graph] for graph in _PROFILE.graphs}
    write_files(folder, repository_files(_PROFILE, specs, options.batching, parameters))
    for path, file in links.items():
        (folder / path).symlink_to(file)
    return precisions


def _parameters(graph: GraphName, graphs: RuntimeGraphs, threads: int) -> dict[str, str]:
    file, precision = graphs.files[graph], graphs.hints[graph]
    # What the compiled graph depends on; with another of any it is another file.
    parts = (sha256_file(file), ov.__version__, cpu_info().get("flags", ""), precision, str(threads))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    blob = home_folder("blobs") / f"triton-{graph}-{precision}-{key}.blob"
    return {"plan": graphs.plan, "precision": precision, "threads": str(threads), "blob": str(blob)}
