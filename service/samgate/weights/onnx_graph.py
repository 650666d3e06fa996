"""What exports of SAM systems by ``torch.onnx.export`` have in common, to get state dicts back from them.

The exporter folded and renamed some parameters; the nodes that use them still carry the module's path:

* a Conv has its BatchNorm fused in: the fused weight becomes the convolution's, and the BatchNorm becomes the identity
  plus the fused bias;
* a Linear's weight is an anonymous, transposed operand of a MatMul;
* the scale and shift of a ``LayerNorm2d`` are anonymous operands of a Mul and an Add.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samgate.errors import WeightsError

if TYPE_CHECKING:
    import onnx

StateDict = dict[str, npt.NDArray[Any]]

ANONYMOUS = "onnx::"
"""How names begin that the exporter made up."""
_BATCHNORM_EPS = 1e-5


def load_graph(path: Path) -> onnx.GraphProto:
    """The graph in ``path``. Raises :class:`WeightsError`: the onnx package is missing, or it is no such file."""
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


def sam_decoder(graph: onnx.GraphProto) -> StateDict:
    """Prompt encoder and mask decoder of an export of segment_anything's ``SamOnnxModel``, by the names of its network.

    Raises ``KeyError``, ``IndexError`` or ``ValueError`` for other graphs, or what it gives lacks tensors.
    """
    constants = initializers(graph)
    state = {
        name.removeprefix("model."): value
        for name, value in constants.items()
        if name.startswith(("model.prompt_encoder.", "mask_decoder."))
    }
    for node in graph.node:
        module = module_path(node.name)
        if node.op_type == "Expand" and node.input[0] in constants:
            # The IoU token and the mask tokens are learned apart but only ever used as one sequence.
            tokens = constants[node.input[0]].reshape(-1, constants[node.input[0]].shape[-1])
            state["mask_decoder.iou_token.weight"], state["mask_decoder.mask_tokens.weight"] = tokens[:1], tokens[1:]
        elif node.op_type == "Mul" and not module and node.input[1].startswith(ANONYMOUS):
            state["prompt_encoder.no_mask_embed.weight"] = constants[node.input[1]].reshape(1, -1)
        else:
            owner = "prompt_encoder" if module.startswith("mask_downscaling") else "mask_decoder"
            state.update(anonymous_parameters(node, f"{owner}.{module}", constants))
    return {name: np.asarray(value, order="C") for name, value in state.items()}


def anonymous_parameters(node: onnx.NodeProto, module: str, constants: StateDict) -> Iterator[tuple[str, Any]]:
    """The parameter of a Linear or LayerNorm2d that ``node`` reads under a name that the exporter made up."""
    for name in node.input:
        if not name.startswith(ANONYMOUS) or name not in constants:
            continue
        if node.op_type == "MatMul":
            yield f"{module}.weight", np.ascontiguousarray(constants[name].T)
        elif node.op_type in ("Mul", "Add"):
            yield f"{module}.{'weight' if node.op_type == 'Mul' else 'bias'}", constants[name].reshape(-1)


def conv_with_batchnorm(conv: str, norm: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any]) -> StateDict:
    """The parameters of a convolution called ``conv`` that stays the fused one, and of a BatchNorm called ``norm`` that
    adds the fused bias and does nothing else."""
    channels = len(bias)
    return {
        f"{conv}.weight": weight,
        f"{norm}.weight": np.full(channels, np.sqrt(1 + _BATCHNORM_EPS), np.float32),
        f"{norm}.bias": bias,
        f"{norm}.running_mean": np.zeros(channels, np.float32),
        f"{norm}.running_var": np.ones(channels, np.float32),
        f"{norm}.num_batches_tracked": np.zeros((), np.int64),
    }


def module_path(node: str) -> str:
    """``/patch_embed/seq/seq.0/c/Conv`` → ``patch_embed.seq.0.c``: a Sequential's items repeat its name."""
    parts = node.split("/")[1:-1]
    return ".".join(part for part, after in pairwise([*parts, ""]) if not after.startswith(f"{part}."))


def initializers(graph: onnx.GraphProto) -> StateDict:
    """All named constants."""
    from onnx import numpy_helper

    return {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in graph.initializer}


def constant(node: onnx.NodeProto) -> npt.NDArray[Any]:
    """What a Constant node is."""
    from onnx import numpy_helper

    return np.array(numpy_helper.to_array(node.attribute[0].t))
