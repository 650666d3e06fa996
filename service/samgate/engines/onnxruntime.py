"""ONNX Runtime on the CPU: every platform that it runs on, in f32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import onnxruntime as ort
from numpy.typing import NDArray

from samgate.engines.embedded import Graph
from samgate.errors import CompileError

NAME = "onnxruntime"


def load_graph(
    path: Path,
    precision: str,
    threads: int,
    size: int | None = None,  # noqa: ARG001
    lend: bool = False,  # noqa: ARG001
) -> Graph:
    """The ONNX file ``path`` on ``threads`` threads; a fixed ``size`` makes no difference here, nor does ``lend``.

    Raises :class:`~samgate.errors.CompileError` when it can't be loaded or ``precision`` isn't ``f32``.
    """
    if precision != "f32":
        raise CompileError(f"ONNX Runtime runs f32 graphs on CPUs, not {precision}; choose precision f32 or OpenVINO")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Prompt counts change from call to call: reusing one call's memory plan for the next would only grow the arena.
    options.enable_mem_pattern = False
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CompileError(f"ONNX Runtime can't load {path.name}: {error}") from error

    # Sessions may be called by several threads at once; one of one thread runs on its caller's.
    def run(inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            return cast("list[NDArray[Any]]", session.run(None, dict(inputs)))
        except Exception as error:  # ONNX Runtime's have no base of their own
            raise RuntimeError(str(error)) from error

    return run


def load_side_by_side(
    path: Path, precision: str, count: int, size: int | None = None, lend: bool = False
) -> tuple[Graph, ...]:
    """``count`` times the graph of :func:`load_graph`, to be called at once: each has one thread. Raises as it does."""
    return (load_graph(path, precision, 1, size, lend),) * count
