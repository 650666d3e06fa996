"""What is known of compiled files, as it stands beside them in ``manifest.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samgate.variants.graphs import AnyGraph

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class CompiledFile:
    """One graph's file.

    ``size`` in bytes and ``sha256`` (of :func:`~samgate.compile.external.graph_sha256`) count weights that lie beside
    the file, ``seconds`` is what its compilation took. ``nodes`` of the ONNX graph calculate with floats,
    ``f32_nodes`` of them in f32, by island; None where the runtime decides when it loads the graph. ``casts`` were put
    between them. ``int8_products`` multiply 8-bit integers. ``layers`` are those of TensorRT's network, None for ONNX
    files.
    """

    file: str
    size: int
    sha256: str
    seconds: float
    nodes: int
    f32_nodes: Mapping[str, int] | None
    casts: int
    int8_products: int
    layers: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that says what an artifact is.

    Attributes:
        key: hash of weights, plan and code: another one is another artifact.
        library, version: what compiled it.
        compute_capability: of the GPU that it is for, such as ``8.9``; None where it is for CPUs.
        islands: what stays in f32, with the reason.
        profiles: by graph, the [smallest, typical, largest] size of each dynamic axis, an entry a profile.
        gate: figures of the accuracy gate; None where it didn't run.
        checked: in words, what ran and what didn't.
    """

    variant: str
    weights_sha256: str
    key: str
    target: str
    precision: str
    library: str
    version: str
    compute_capability: str | None
    islands: Mapping[str, str]
    profiles: Mapping[str, list[dict[str, list[int]]]]
    graphs: Mapping[AnyGraph, CompiledFile]
    gate: Mapping[str, Any] | None
    checked: str


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes ``manifest`` into ``folder``. Raises ``OSError``."""
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``. Raises ``OSError``, and ValueError or TypeError for one that isn't ours."""
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("graphs"), dict):
        raise TypeError("it is no manifest")
    graphs = {name: CompiledFile(**entry) for name, entry in content["graphs"].items()}
    return Manifest(**{**content, "graphs": graphs})
