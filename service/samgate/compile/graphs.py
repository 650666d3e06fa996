"""The ONNX graphs of an installed variant, exported once and kept by content.

The key of an export is what it is made of: the weights' SHA-256 and the source of the code that draws the graph. A
later start with the same of both needs neither torch nor the time.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from samgate.compile.external import LARGE
from samgate.errors import CompileError, NotInstalled
from samgate.variants.graphs import GraphName
from samgate.variants.spec import NetworkSpec
from samgate.weights import store
from samgate.weights.home import file_lock, home_folder

_PACKAGE = Path(__file__).resolve().parents[1]
_EXPORT_TIMEOUT_S = 600.0
_M_MMAP_THRESHOLD = -3
"""As glibc's malloc.h has it."""
_BLOCK = 4 * 2**20


GraphFiles = Mapping[GraphName, Path]
"""ONNX files of one variant by the graph's name."""


def ensure_graphs(spec: NetworkSpec, report: Callable[[str], None] = lambda message: None) -> GraphFiles:
    """The graphs of ``spec``, exported now if they aren't there. ``report`` gets a line for what takes long.

    Safe with several processes: one exports, the others wait for it. Raises NotInstalled without weights and
    CompileError where torch, which the export needs, is missing.
    """
    info = store.installed(spec)
    if info is None:
        raise NotInstalled(f"{spec.name} is not installed; install it with: samgate pull {spec.name}")
    folder = home_folder("graphs") / f"{spec.name}-{graphs_key(spec, info.sha256)}"
    files = {name: folder / f"{name}.onnx" for name in spec.graphs}
    with file_lock(folder.with_name(f"{folder.name}.lock"), timeout_s=_EXPORT_TIMEOUT_S):
        if not folder.exists():
            report(f"exporting {spec.name} to ONNX (once)")
            _export(spec, folder)
    return files


def _export(spec: NetworkSpec, folder: Path) -> None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnx") is None:
        raise CompileError(f"exporting {spec.name} needs torch and onnx: pip install 'samgate[compile]'")
    from samgate.compile.export import export_graph, load_network

    if store.weights_path(spec).stat().st_size >= LARGE:
        _keep_heap_whole()
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        network = load_network(spec, store.load(spec))
        for name in spec.graphs:
            export_graph(spec, network, name, scratch / f"{name}.onnx")
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _keep_heap_whole() -> None:
    """Has glibc ask the system for all blocks of a few MiB, and give them back when they are freed.

    By itself it raises that bound, up to 32 MiB, whenever such a block is freed, and what a network of gigabytes leaves
    between its parts stays: SAM ViT-H's export and OpenVINO took 8.5 GiB instead of 6.2.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _BLOCK)


def graphs_key(spec: NetworkSpec, weights_sha256: str) -> str:
    """What the content of the graphs depends on, as a short hash."""
    digest = hashlib.sha256(weights_sha256.encode())
    digest.update(repr(spec.drawing).encode())
    sources = (_PACKAGE / name for name in ("compile/export.py", "variants/graphs.py", "variants/merging.py"))
    for source in (*sorted((_PACKAGE / "variants" / "nets").glob("*.py")), *sources):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
