"""Torch network → ONNX graphs (opset 20) with the inputs and outputs that every engine relies on.

| graph | inputs | outputs |
|---|---|---|
| encoder | ``image`` uint8 ``[N, S, S, 3]``, ``valid`` int32 ``[N, 2]`` | ``image_embedding`` ``[N, 256, 64, 64]`` |
| decoder | ``image_embedding`` ``[I, 256, 64, 64]``, ``point_coords`` ``[I, P, K, 2]``, ``point_labels`` int32 ``[I, P, K]`` | ``low_res_masks`` ``[I, P, M, 256, 256]``, ``iou_predictions`` ``[I, P, M]`` |
| masked decoder | those of the decoder, ``mask_input`` ``[I, P, 1, 256, 256]``, ``has_mask`` ``[I, P]`` | those of the decoder |

Everything else is float32. N, I, P and K are dynamic. What the values mean stands at the modules in
:mod:`samgate.variants.nets.sam`. The same weights and code give the same bytes, so files can be kept by content.
"""  # noqa: E501

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from samgate.errors import CompileError, WeightsError
from samgate.variants.nets.sam import DecoderGraph, EncoderGraph, MaskedDecoderGraph, Sam
from samgate.variants.spec import VariantSpec

OPSET = 20
"""The first with Gelu as one operator; it has LayerNormalization, too."""

_NAMES_SHOWN = 5


def load_network(spec: VariantSpec, state_dict: Mapping[str, Tensor | NDArray[Any]]) -> Sam:
    """The network of ``spec`` with exactly the weights of ``state_dict``, in evaluation mode.

    Raises:
        WeightsError: names or shapes differ from the network's; the message lists the first of them.
    """
    module, _, function = spec.network.partition(":")
    network = cast("Callable[[], Sam]", getattr(importlib.import_module(module), function))()
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state_dict.items()}
    problems = {
        "missing": sorted(own.keys() - given.keys()),
        "unexpected": sorted(given.keys() - own.keys()),
        "of another shape": sorted(name for name in own.keys() & given.keys() if own[name] != given[name]),
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {problem}: {_first(names)}" for problem, names in problems.items() if names)
        raise WeightsError(f"these are not the weights of {spec.name}: {listed}")
    tensors = {name: value if isinstance(value, Tensor) else torch.tensor(value) for name, value in state_dict.items()}
    network.load_state_dict(tensors, strict=True)
    return network.eval()


def export_encoder(spec: VariantSpec, network: Sam, path: Path) -> None:
    """Writes the encoder graph. Raises CompileError."""
    size = spec.input_size
    image = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    valid = torch.full((2, 2), size, dtype=torch.int32)
    graph = EncoderGraph(network, size, spec.pixel_mean, spec.pixel_std)
    _export(
        graph, {"image": (image, "N"), "valid": (valid, "N")}, {"image_embedding": ("N", spec.embedding_shape)}, path
    )


def export_decoder(spec: VariantSpec, network: Sam, path: Path, with_mask: bool) -> None:
    """Writes the decoder graph, or with ``with_mask`` the masked decoder's. Raises CompileError."""
    prompts, points, low_res = (2, 3), 4, spec.low_res_size
    inputs = {
        "image_embedding": (torch.zeros(2, *spec.embedding_shape), "I"),
        "point_coords": (torch.zeros(*prompts, points, 2), "IPK"),
        "point_labels": (torch.zeros((*prompts, points), dtype=torch.int32), "IPK"),
    }
    if with_mask:
        inputs["mask_input"] = (torch.zeros(*prompts, 1, low_res, low_res), "IP")
        inputs["has_mask"] = (torch.ones(prompts), "IP")
    graph = MaskedDecoderGraph(network) if with_mask else DecoderGraph(network)
    masks = network.mask_decoder.masks
    outputs = {"low_res_masks": ("IP", (masks, low_res, low_res)), "iou_predictions": ("IP", (masks,))}
    _export(graph, inputs, outputs, path)


def _export(
    module: nn.Module,
    inputs: Mapping[str, tuple[Tensor, str]],
    outputs: Mapping[str, tuple[str, tuple[int, ...]]],
    path: Path,
) -> None:
    """``inputs``: by name an example and the names of its leading, dynamic axes, a letter each; ``outputs``: by name
    the same letters and the sizes of the other axes."""
    axes = {name: letters for name, (_, letters) in inputs.items()}
    axes |= {name: letters for name, (letters, _) in outputs.items()}
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            # The tracing exporter is deprecated, but draws the graph as it is written here, operator by operator.
            warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based", DeprecationWarning)
            warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
            # It can't fold the reversed paddings of a Pad; fold_constants can.
            warnings.filterwarnings("ignore", "Constant folding - Only steps=1", UserWarning)
            torch.onnx.export(
                module.eval(),
                tuple(example for example, _ in inputs.values()),
                cast("Any", buffer),  # annotated as a path, documented as either
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={name: dict(enumerate(letters)) for name, letters in axes.items()},
            )
        model = onnx.load_from_string(buffer.getvalue())
        fold_constants(model)
        for value in model.graph.output:
            letters, sizes = outputs[value.name]
            for dimension, size in zip(value.type.tensor_type.shape.dim[len(letters) :], sizes, strict=True):
                dimension.dim_value = size
        onnx.checker.check_model(model, full_check=True)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise CompileError(f"exporting {path.name} failed: {error}") from error
    path.write_bytes(model.SerializeToString(deterministic=True))


def fold_constants(model: onnx.ModelProto) -> None:
    """Computes, in place, every node whose inputs are all known, and drops what nothing uses any more.

    The networks derive weights in ``forward`` (fused BatchNorm, indexed attention biases, positional encodings); this
    makes them weights of the graph.
    """
    graph = model.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if all(name in known for name in node.input if name):
            evaluator = ReferenceEvaluator(node, opsets={"": OPSET})
            values = evaluator.run(None, {name: known[name] for name in node.input if name})
            known.update(zip(node.output, (np.asarray(value) for value in cast("list[Any]", values)), strict=True))
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(known[name], name) for name in sorted(used & known.keys()))


def _first(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (" …" if len(names) > _NAMES_SHOWN else "")
