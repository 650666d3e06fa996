"""OpenVINO on the CPU. Compiled graphs are kept on disk: the next start loads them in a fraction of the time."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from samgate.compile.external import data_file
from samgate.engines.cpu import allowed_cores, cpu_info
from samgate.engines.embedded import Graph
from samgate.engines.quiet_openvino import ov
from samgate.errors import CompileError
from samgate.weights.home import atomic_write_bytes, file_lock, home_folder, sha256_file

NAME = "openvino"


def load_graph(path: Path, precision: str, threads: int, size: int | None = None, lend: bool = False) -> Graph:
    """The ONNX file ``path`` compiled for this CPU in ``precision`` (``f32`` or ``bf16``), on ``threads`` threads.

    ``size`` fixes all axes that the file leaves open: with shapes that are known it runs a tenth to a third faster.
    With ``lend``, results are valid until the next call only.

    Raises :class:`~samgate.errors.CompileError` with OpenVINO's own words when it can't be compiled.
    """
    return _Request(_compiled(path, precision, threads, streams=1, size=size), lend)


def load_side_by_side(
    path: Path, precision: str, count: int, size: int | None = None, lend: bool = False
) -> tuple[Graph, ...]:
    """``count`` times the graph of :func:`load_graph`, to be called at once: each has one thread. Raises as it does."""
    model = _compiled(path, precision, threads=count, streams=count, size=size)
    return tuple(_Request(model, lend) for _ in range(count))


def _compiled(path: Path, precision: str, threads: int, streams: int, size: int | None = None) -> ov.CompiledModel:
    core = ov.Core()
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        # OpenVINO pins to the first cores: engines that have some of the cores each would all be on the same ones.
        "ENABLE_CPU_PINNING": threads >= allowed_cores(),
    }
    blob = home_folder("blobs") / f"{path.stem}-{precision}-{_fingerprint(path, options, size)}.blob"
    try:
        with file_lock(blob.with_suffix(".lock"), timeout_s=300):
            # A blob of gigabytes would be in memory twice before it is on the disk.
            keep = not data_file(path).exists()
            model = _cached(core, blob, options) if keep else None
            if model is None:
                graph = core.read_model(path)
                if size is not None:
                    graph.reshape(
                        {port: [size if one.is_dynamic else one for one in port.partial_shape] for port in graph.inputs}
                    )
                model = core.compile_model(graph, "CPU", options)
                if keep:
                    stream = io.BytesIO()
                    model.export_model(stream)
                    atomic_write_bytes(blob, stream.getvalue())
    except RuntimeError as error:
        raise CompileError(f"OpenVINO can't compile {path.name}: {error}") from error
    return model


class _Request:
    """One inference request; its output buffers are OpenVINO's, so results are copied out, unless they are lent."""

    def __init__(self, model: ov.CompiledModel, lend: bool) -> None:
        self._lend = lend
        self._request = model.create_infer_request()
        self._outputs = len(model.outputs)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        # Not ``infer``: that takes 2 to 3% longer for decoders of one thread.
        self._request.start_async(dict(inputs), share_inputs=True)
        self._request.wait()
        results = [self._request.get_output_tensor(index).data for index in range(self._outputs)]
        return results if self._lend else [result.copy() for result in results]


def _cached(core: ov.Core, blob: Path, options: dict[str, object]) -> ov.CompiledModel | None:
    if not blob.exists():
        return None
    try:
        return core.import_model(blob.read_bytes(), "CPU", options)
    except RuntimeError:
        # A blob that OpenVINO refuses is worth no more than none: compile again and replace it.
        return None


def _fingerprint(path: Path, options: dict[str, object], size: int | None) -> str:
    parts = [sha256_file(path), ov.__version__, cpu_info().get("flags", ""), repr((sorted(options.items()), size))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
