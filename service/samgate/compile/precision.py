"""f32 graphs → strongly typed graphs: every tensor has the type that its node calculates in.

Compilers that take precision from the graph alone (TensorRT-RTX, TensorRT from 11) leave nothing to guess then. Nodes
run in fp16 or bf16 but for the spec's islands, which stay in f32; a Cast stands wherever the two meet, once a tensor.
Graph inputs and outputs keep their types, so engines needn't know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, version_converter

from samgate.compile.islands import islands_of, movers_in_f32
from samgate.errors import CompileError
from samgate.variants.spec import Island

LowType = Literal["bf16", "fp16"]

_ONNX_TYPES: dict[LowType, int] = {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}
_NUMPY_TYPES: dict[int, Any] = {TensorProto.BFLOAT16: ml_dtypes.bfloat16, TensorProto.FLOAT16: np.float16}
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
_SIZES = {"Shape", "Size"}
"""Operators that don't look at values, and take them in whichever type they are."""
_BF16_OPSET = 22
"""The first whose operators, Conv for one, are defined for bf16."""
_SUFFIXES: dict[int, str] = {TensorProto.BFLOAT16: "bf16", TensorProto.FLOAT16: "fp16", TensorProto.FLOAT: "f32"}


@dataclass(frozen=True, slots=True)
class Typing:
    """What became of a graph: nodes that calculate with floats, those of them in f32 by island, and casts put in."""

    nodes: int
    f32_nodes: Mapping[str, int]
    casts: int

    @property
    def f32_total(self) -> int:
        """Nodes in f32, whichever their island."""
        return sum(self.f32_nodes.values())


def float_nodes(model: onnx.ModelProto) -> int:
    """How many nodes calculate with floats. Raises CompileError as :func:`typed` does."""
    floats = _float_tensors(model)
    return sum(_is_float(node, floats) for node in model.graph.node)


def typed(
    model: onnx.ModelProto, low: LowType, islands: Sequence[Island], folder: Path | None = None
) -> tuple[onnx.ModelProto, Typing]:
    """``model``, whose floats are all f32, in ``low`` with those of ``islands`` that it has in f32.

    QuantizeLinear and DequantizeLinear are typed by their scales: what lies between int8 products becomes ``low``.
    Weights that lie in files of ``folder`` are read from there: in ``low`` they are half as large, and in the result.

    Raises:
        CompileError: a tensor's type is unknown, a weight is too large for ``low``, or an operator has no ``low``.
    """
    if low == "bf16":
        model = version_converter.convert_version(model, max(_BF16_OPSET, model.opset_import[0].version))
    islands = [island for island in islands if island.arithmetic in (None, low)]
    floats = _float_tensors(model)
    nodes = [node for node in model.graph.node if _is_float(node, floats)]
    in_f32 = islands_of(model.graph, islands)
    counted = Counter(in_f32[node.name] for node in nodes if node.name in in_f32)
    high = in_f32.keys() | movers_in_f32(model.graph, floats, in_f32.keys())
    kept = {node.name for node in nodes if node.name in high}
    counted["moves between them"] = len(kept) - counted.total()
    writer = _Writer(model, floats, kept, _ONNX_TYPES[low], str(folder or ""))
    result = writer.write()
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CompileError(f"the graph in {low} is not valid: {error}") from error
    names = [island.name for island in islands] + ["moves between them"]
    return result, Typing(len(nodes), {name: counted[name] for name in names if counted[name]}, writer.casts)


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all tensors of type f32."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise CompileError(f"the types of the graph's tensors can't be inferred: {error}") from error
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
    }
    unknown = [name for node in graph.node for name in node.output if name and not types.get(name)]
    if unknown:
        raise CompileError(f"the type of the tensor {unknown[0]} can't be inferred")
    return {name for name, kind in types.items() if kind == TensorProto.FLOAT}


def _is_float(node: NodeProto, floats: Collection[str]) -> bool:
    return node.op_type not in _SIZES and any(name in floats for name in (*node.input, *node.output))


@dataclass(slots=True)
class _Writer:
    """The graph while it is written again, node by node."""

    model: onnx.ModelProto
    floats: set[str]
    in_f32: set[str]
    low: int
    folder: str = ""
    casts: int = 0
    _nodes: list[NodeProto] = field(default_factory=list)
    _types: dict[str, int] = field(default_factory=dict)
    _names: dict[tuple[str, int], str] = field(default_factory=dict)
    """Of a float tensor of the old graph in one type, where it is to be had."""
    _weights: dict[str, TensorProto] = field(default_factory=dict)

    def write(self) -> onnx.ModelProto:
        graph = self.model.graph
        known = {tensor.name: tensor for tensor in graph.initializer}
        outputs = {value.name for value in graph.output} & self.floats
        for value in graph.input:
            self._have(value.name, TensorProto.FLOAT)
        for node in graph.node:
            kind = TensorProto.FLOAT if node.name in self.in_f32 else self.low
            if node.op_type in _SIZES:
                kind = self._types.get(node.input[0], kind)
            new = NodeProto()
            new.CopyFrom(node)
            new.input[:] = [self._wanted(name, kind, known) for name in node.input]
            new.output[:] = [self._made(name, kind, outputs) for name in node.output]
            if node.op_type == "Cast":
                _retarget(new, kind)
            if node.op_type in _QUANTIZERS:
                _check_scale(node, self._weights.get(new.input[1]))
            self._nodes.append(new)
        for value in graph.output:
            self._wanted(value.name, TensorProto.FLOAT, known)
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
        result.graph.node.extend(self._nodes)
        result.graph.initializer.extend(self._weights[name] for name in sorted(self._weights))
        return result

    def _have(self, tensor: str, kind: int, name: str | None = None) -> None:
        self._types[tensor] = kind
        self._names[tensor, kind] = name or tensor

    def _made(self, tensor: str, kind: int, outputs: Collection[str]) -> str:
        """The name under which a node of type ``kind`` puts out ``tensor``."""
        if tensor not in self.floats:
            return tensor
        # A graph output keeps name and type, so it is a cast's.
        name = f"{tensor}_{_SUFFIXES[kind]}" if tensor in outputs and kind != TensorProto.FLOAT else tensor
        self._have(tensor, kind, name)
        return name

    def _wanted(self, tensor: str, kind: int, known: Mapping[str, TensorProto]) -> str:
        """The name of ``tensor`` for a node of type ``kind``; makes what isn't there yet."""
        if tensor in known:
            return self._weight(known[tensor], kind)
        if tensor not in self.floats:
            return tensor
        if (tensor, kind) not in self._names:
            source = self._names[tensor, self._types[tensor]]
            name = tensor if tensor != source and kind == TensorProto.FLOAT else f"{tensor}_{_SUFFIXES[kind]}"
            self._nodes.append(helper.make_node("Cast", [source], [name], name=f"{name}/Cast", to=kind))
            self._names[tensor, kind] = name
            self.casts += 1
        return self._names[tensor, kind]

    def _weight(self, tensor: TensorProto, kind: int) -> str:
        if tensor.name not in self.floats or kind == TensorProto.FLOAT:
            if tensor.data_location == TensorProto.EXTERNAL:
                tensor = numpy_helper.from_array(numpy_helper.to_array(tensor, self.folder), tensor.name)
            self._weights[tensor.name] = tensor
            return tensor.name
        name = f"{tensor.name}_{_SUFFIXES[kind]}"
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(_rounded(tensor, kind, self.folder), name)
        return name


def _rounded(tensor: TensorProto, kind: int, folder: str) -> NDArray[Any]:
    """The values of an f32 ``tensor`` in type ``kind``. Raises CompileError if one becomes infinite."""
    values = numpy_helper.to_array(tensor, folder)
    with np.errstate(over="ignore"):
        rounded = values.astype(_NUMPY_TYPES[kind])
    if not np.isfinite(rounded).all():
        raise CompileError(
            f"the weight {tensor.name} reaches {np.abs(values).max():g}, beyond the largest number in "
            f"{_SUFFIXES[kind]}: its node has to be one of the spec's islands"
        )
    return rounded


def _check_scale(node: NodeProto, scale: TensorProto | None) -> None:
    if scale is not None and not numpy_helper.to_array(scale).astype(np.float32).all():
        raise CompileError(f"a scale of {node.name} is too small for fp16: calibrate without this node")


def _retarget(cast: NodeProto, kind: int) -> None:
    """A Cast of the graph's own to f32 gives the type its result is wanted in."""
    for attribute in cast.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = kind
