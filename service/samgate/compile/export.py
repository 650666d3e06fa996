"""Torch network → ONNX graphs (opset 20) with the inputs and outputs that every engine relies on.

What these are stands in :mod:`samgate.variants.graphs`. The same weights and code give the same bytes, so files can be
kept by content.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from samgate.compile.external import LARGE, write_external
from samgate.errors import CompileError, WeightsError
from samgate.variants.graphs import GraphName, GraphSpec, TensorSpec, graph_specs
from samgate.variants.spec import NetworkSpec, resolve

OPSET = 20
"""The first with Gelu as one operator; it has LayerNormalization, too."""

_NAMES_SHOWN = 5
EXAMPLE_SIZES = {"N": 1, "I": 2, "P": 3, "K": 4, "U": 2, "S": 5}
"""Of dynamic axes while a graph is traced: each another, where they could be mistaken for each other. An encoder's one
has nothing to be mistaken for, and with two images ViT-H's would take twice the time."""


def load_network(spec: NetworkSpec, state_dict: Mapping[str, Tensor | NDArray[Any]]) -> Any:
    """The network of ``spec``, whatever its class, with exactly the weights of ``state_dict``, in evaluation mode.

    It has the arrays of ``state_dict`` themselves, where they can be written to: ViT-H's take 2.5 GB.

    Raises:
        WeightsError: names or shapes differ from the network's; the message lists the first of them.
    """
    with _Untouched():
        network: nn.Module = resolve(spec.network)(spec)
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
    tensors = {
        name: value if isinstance(value, Tensor) else torch.from_numpy(np.require(value, requirements=["C", "W"]))
        for name, value in state_dict.items()
    }
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval()


class _Untouched(TorchFunctionMode):
    """Leaves parameters as memory is given to them: that isn't used up before something is written to it, and what is
    loaded takes their place."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def graph_module(spec: NetworkSpec, network: nn.Module, name: GraphName) -> nn.Module:
    """What computes the graph ``name`` of ``spec`` in torch, with ``network``'s weights."""
    module: nn.Module = resolve(spec.graph_module)(spec, network, name)
    return module


def export_graph(spec: NetworkSpec, network: nn.Module, name: GraphName, path: Path) -> None:
    """Writes the graph ``name`` of ``spec``. Raises CompileError."""
    graph = graph_specs(spec)[name]
    _export(graph_module(spec, network, name), graph, path)


def _export(module: nn.Module, graph: GraphSpec, path: Path) -> None:
    tensors = (*graph.inputs, *graph.outputs)
    parameters = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    large = sum(value.nbytes for value in parameters.values()) >= LARGE
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
                tuple(_example(tensor) for tensor in graph.inputs),
                cast("Any", buffer),  # annotated as a path, documented as either
                dynamo=False,
                # Of large networks the graph alone, which has its parameters as inputs then.
                export_params=not large,
                do_constant_folding=not large,
                opset_version=OPSET,
                input_names=[tensor.name for tensor in graph.inputs],
                output_names=[tensor.name for tensor in graph.outputs],
                dynamic_axes={
                    tensor.name: {axis: size for axis, size in enumerate(tensor.shape) if isinstance(size, str)}
                    for tensor in tensors
                },
            )
        model = onnx.load_from_string(buffer.getvalue())
        weights = fold_constants(
            model, {name: value.detach().numpy() for name, value in parameters.items()} if large else {}
        )
        del model.graph.input[len(graph.inputs) :]
        for value, tensor in zip(model.graph.output, graph.outputs, strict=True):
            for dimension, size in zip(value.type.tensor_type.shape.dim, tensor.shape, strict=True):
                if isinstance(size, int):
                    dimension.dim_value = size
        if large:
            write_external(model, weights, path)
            onnx.checker.check_model(path, full_check=True)
            return
        model.graph.initializer.extend(numpy_helper.from_array(weights[name], name) for name in sorted(weights))
        onnx.checker.check_model(model, full_check=True)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise CompileError(f"exporting {path.name} failed: {error}") from error
    path.write_bytes(model.SerializeToString(deterministic=True))


def _example(tensor: TensorSpec) -> Tensor:
    shape = tuple(size if isinstance(size, int) else EXAMPLE_SIZES[size] for size in tensor.shape)
    return torch.ones(shape, dtype=getattr(torch, tensor.dtype))


def fold_constants(model: onnx.ModelProto, parameters: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Computes, in place, every node whose inputs are all known, and drops what nothing uses any more and what is there
    twice.

    Known are initializers, and ``parameters`` by name. Returns the initializers that the graph needs now, which it
    doesn't have any more.

    The networks derive weights in ``forward`` (fused BatchNorm, indexed attention biases, positional encodings); this
    makes them weights of the graph.
    """
    graph = model.graph
    known = {**parameters, **{tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}}
    nodes = []
    for node in graph.node:
        if all(name in known for name in node.input if name):
            evaluator = ReferenceEvaluator(node, opsets={"": OPSET})
            values = evaluator.run(None, {name: known[name] for name in node.input if name})
            known.update(zip(node.output, (np.asarray(value) for value in cast("list[Any]", values)), strict=True))
        else:
            nodes.append(node)
    _share_equal(nodes, known)
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    return {name: known[name] for name in used & known.keys()}


def _share_equal(nodes: list[onnx.NodeProto], known: Mapping[str, NDArray[Any]]) -> None:
    """Inputs that are ``known`` and the same get the name of the first of them."""
    first: dict[bytes, str] = {}
    for node in nodes:
        for place, name in enumerate(node.input):
            if name in known:
                node.input[place] = first.setdefault(_identity(known[name]), name)


def _identity(value: NDArray[Any]) -> bytes:
    digest = hashlib.sha256(repr((value.dtype.str, value.shape)).encode())
    digest.update(np.ascontiguousarray(value).data)
    return digest.digest()


def _first(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (" …" if len(names) > _NAMES_SHOWN else "")
