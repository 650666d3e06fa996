"""A detector's network → the graph that all detectors have, of ONNX operators alone.

It takes the letterboxed image as it is in memory and gives boxes in its pixels and one score for each; what a network
wants of its input, and how its head puts out candidates, stands in the spec. Names, types and shapes are those of
:func:`samgate.variants.detectors.detector_graph`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from samgate.errors import CompileError
from samgate.variants.detectors import STRIDES, DetectorSpec, detector_graph
from samgate.variants.graphs import TensorSpec
from samgate.weights.detector_file import Layout

MAX_TENSOR_ELEMENTS = 1 << 28
"""Bound on the tensors of a graph: at an input of 2048 pixels, the largest of YOLOv8x have a fifth of it."""

_NETWORK, _OURS = "network", "samgate"
_REDUCE_AXES_INPUT = 18
"""The first opset in which ReduceMax takes its axes as an input."""
_TYPES = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32, "float32": TensorProto.FLOAT}


def wrapped(model: onnx.ModelProto, layout: Layout, spec: DetectorSpec) -> onnx.ModelProto:
    """``model``, laid out as ``layout`` says, inside of the contract; what its boxes don't need is left out.

    The same bytes for the same model. ``spec.input_size`` is the layout's side.

    Raises:
        CompileError: the result isn't valid, a tensor in it would be larger than :data:`MAX_TENSOR_ELEMENTS`, or a
            constant is of a kind of its own.
    """
    graph = detector_graph(spec)
    network, weights = _network(model, layout)
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    builder = _Builder(opset)
    builder.take_image(spec, _named(layout.input))
    builder.nodes += network
    builder.give_boxes(spec, layout, _named(layout.output))
    made = helper.make_model(
        helper.make_graph(
            builder.nodes,
            spec.name,
            [_value(tensor) for tensor in graph.inputs],
            [_value(tensor) for tensor in graph.outputs],
            [*weights, *builder.constants],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=model.ir_version,
        producer_name="samgate",
    )
    _check(made, spec)
    return made


def _network(model: onnx.ModelProto, layout: Layout) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes that the output is calculated from, in order, and their weights, under names that collide with none of
    ours. Constants are weights: whoever types the graph looks for them there."""
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    known |= {node.output[0]: _constant(node) for node in model.graph.node if node.op_type == "Constant"}
    wanted, nodes = {layout.output}, []
    for index, node in reversed(list(enumerate(model.graph.node))):
        if wanted.isdisjoint(node.output) or node.op_type == "Constant":
            continue
        wanted.update(node.input)
        new = NodeProto()
        new.CopyFrom(node)
        # Exporters leave nodes without names, or give several the same.
        new.name, new.doc_string = f"{_NETWORK}/{index}/{node.op_type}", ""
        new.input[:] = [_named(name) for name in node.input]
        new.output[:] = [_named(name) for name in node.output]
        nodes.append(new)
    weights = []
    for name in sorted(wanted & known.keys()):
        weight = TensorProto()
        weight.CopyFrom(known[name])
        weight.name = _named(name)
        weights.append(weight)
    return nodes[::-1], weights


def _constant(node: NodeProto) -> TensorProto:
    value = helper.get_attribute_value(node.attribute[0])
    if isinstance(value, TensorProto):
        return value
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    kind = kinds.get(node.attribute[0].name)
    if kind is None:
        raise CompileError(f"a constant of the kind {node.attribute[0].name} is nothing that detectors need")
    return numpy_helper.from_array(np.asarray(value, dtype=kind))


def _named(tensor: str) -> str:
    # An empty name stands for an optional input that isn't given.
    return f"{_NETWORK}/{tensor}" if tensor else ""


@dataclass(slots=True)
class _Builder:
    """Nodes and constants of our own, as they come."""

    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def take_image(self, spec: DetectorSpec, to: str) -> None:
        """``image`` uint8 ``[1, S, S, 3]`` → what the network takes, float32 ``[1, 3, S, S]``."""
        pixels = self.add("Cast", "image", to=TensorProto.FLOAT)
        if spec.channels == "BGR":
            pixels = self.add("Gather", pixels, self.constant("bgr", np.array([2, 1, 0])), axis=3)
        if spec.divisor != 1:
            pixels = self.add("Div", pixels, self.constant("divisor", np.float32(spec.divisor)))
        self.add("Transpose", pixels, result=to, perm=[0, 3, 1, 2])

    def give_boxes(self, spec: DetectorSpec, layout: Layout, found: str) -> None:
        """The head's output → ``boxes`` and ``scores``."""
        head = spec.head
        axis = 1 if head.channels_first else 2
        centre, size = self.part(found, axis, 0, 2), self.part(found, axis, 2, 4)
        if not head.decoded:
            places, strides = _grid(spec)
            grid, stride = self.constant("grid", _turned(places, axis)), self.constant("stride", _turned(strides, axis))
            centre = self.add("Mul", self.add("Add", centre, grid), stride)
            size = self.add("Mul", self.add("Exp", size), stride)
        half = self.add("Mul", size, self.constant("half", np.float32(0.5)))
        corners = (self.add("Sub", centre, half), self.add("Add", centre, half))
        boxes = self.add("Concat", *corners, result="" if head.channels_first else "boxes", axis=axis)
        if head.channels_first:
            self.add("Transpose", boxes, result="boxes", perm=[0, 2, 1])
        first = 4 + head.objectness
        scores = self.largest(self.part(found, axis, first, first + layout.classes), axis)
        if head.objectness:
            scores = self.add("Mul", scores, self.part(found, axis, 4, 5))
        self.add("Reshape", scores, self.constant("flat", np.array([1, spec.candidates])), result="scores")

    def part(self, tensor: str, axis: int, start: int, end: int) -> str:
        ends = [self.constant(f"slice_{value}", np.array([value])) for value in (start, end, axis)]
        return self.add("Slice", tensor, *ends)

    def largest(self, tensor: str, axis: int) -> str:
        if self.opset < _REDUCE_AXES_INPUT:
            return self.add("ReduceMax", tensor, axes=[axis], keepdims=1)
        return self.add("ReduceMax", tensor, self.constant("class_axis", np.array([axis])), keepdims=1)

    def add(self, kind: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        """A node; the name of its output."""
        name = f"{_OURS}/{len(self.nodes)}/{kind}"
        self.nodes.append(helper.make_node(kind, inputs, [result or name], name=name, **attributes))
        return result or name

    def constant(self, name: str, value: NDArray[Any] | np.float32) -> str:
        full = f"{_OURS}/{name}"
        if all(one.name != full for one in self.constants):
            self.constants.append(numpy_helper.from_array(np.asarray(value), full))
        return full


def _grid(spec: DetectorSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where candidates look, float32 ``[1, N, 2]`` (x, y) in strides, and the stride of each, float32 ``[1, N, 1]``."""
    places, strides = [], []
    for stride in STRIDES:
        count = spec.input_size // stride
        y, x = np.mgrid[:count, :count]
        places.append(np.stack([x.ravel(), y.ravel()], axis=-1))
        strides.append(np.full((count * count, 1), stride))
    return np.concatenate(places)[None].astype(np.float32), np.concatenate(strides)[None].astype(np.float32)


def _turned(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(values.transpose(0, 2, 1)) if axis == 1 else values


def _value(tensor: TensorSpec) -> ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], tensor.shape)


def _check(model: onnx.ModelProto, spec: DetectorSpec) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise CompileError(f"the graph of {spec.name} is not valid: {error}") from error
    for value in inferred.value_info:
        sizes = [max(1, one.dim_value) for one in value.type.tensor_type.shape.dim]
        if np.prod(sizes, dtype=np.float64) > MAX_TENSOR_ELEMENTS:
            raise CompileError(
                f"the graph of {spec.name} is refused: {value.name} has the shape {sizes}, more than "
                f"{MAX_TENSOR_ELEMENTS:,} numbers"
            )
