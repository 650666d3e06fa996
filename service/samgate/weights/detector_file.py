"""What a detector's ONNX file holds: read and checked, never run, before anything is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samgate.errors import WeightsError
from samgate.variants.detectors import DetectorSpec

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

MAX_FILE_BYTES = 1 << 30
"""Bound on a file: the largest YOLOv8 has a quarter of it."""
MAX_SIDE = 2048
"""Bound on the input's side, in pixels."""
_GRID = 32
_MIN_OPSET = 11
_BOX = 4

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """What was found: names of ``input`` and ``output``, the ``side`` of the input in pixels, how many ``classes`` have
    a probability, and whether there are ``masks``."""

    input: str
    output: str
    side: int
    classes: int
    masks: bool


def read_model(path: Path) -> ModelProto:
    """The graph in ``path``, complete in itself.

    Raises:
        WeightsError: onnx is not installed, or the file is no ONNX file, damaged, too large, refers to other files, or
            has operators that aren't ONNX's own.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ModuleNotFoundError as error:
        raise WeightsError("detectors need onnx to be checked: pip install 'samgate[compile]'") from error
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise WeightsError(f"{path.name} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        # From its bytes: given a path, onnx would go and read the files that it names.
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}") from error
    except DecodeError as error:
        raise WeightsError(f"{path.name} is no ONNX file, or damaged: {error}") from error
    if not model.graph.node or not model.opset_import:
        raise WeightsError(f"{path.name} is no ONNX file: it has no graph")
    _check_contained(model, path.name)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a valid ONNX graph: {error}") from error
    return model


def layout_of(model: ModelProto, spec: DetectorSpec, name: str) -> Layout:
    """Where the head of ``spec`` is in ``model``, the content of the file called ``name``.

    Raises:
        WeightsError: inputs or outputs aren't those of such a detector; the message says which shapes it has.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: _shape(value, name) for value in model.graph.input if value.name not in weights}
    outputs = {value.name: _shape(value, name) for value in model.graph.output}
    side = _side(inputs, spec, name)
    count = spec.sized(side).candidates
    prototypes = [key for key, shape in outputs.items() if shape == (1, spec.head.coefficients, side // 4, side // 4)]
    others = [key for key in outputs if key not in prototypes]
    fixed = _BOX + spec.head.objectness + (spec.head.coefficients if prototypes else 0)
    axis = 1 if spec.head.channels_first else 2
    wanted = f"[1, {fixed} + classes, {count}]" if axis == 1 else f"[1, {count}, {fixed} + classes]"
    shape = outputs[others[0]] if len(others) == 1 else ()
    if len(prototypes) > 1 or len(shape) != 3 or shape[0] != 1 or shape[3 - axis] != count or shape[axis] <= fixed:
        told = ", ".join(f"{key} {list(shape)}" for key, shape in outputs.items())
        raise WeightsError(
            f"{name} is not {spec.title}: at an input of {side} pixels that has an output {wanted}; this has {told}"
        )
    return Layout(next(iter(inputs)), others[0], side, shape[axis] - fixed, bool(prototypes))


def _side(inputs: Mapping[str, Shape], spec: DetectorSpec, name: str) -> int:
    told = ", ".join(f"{key} {list(shape)}" for key, shape in inputs.items()) or "none"
    shape = next(iter(inputs.values())) if len(inputs) == 1 else ()
    if len(shape) != 4 or shape[:2] != (1, 3) or shape[2] != shape[3]:
        raise WeightsError(
            f"{name} is not {spec.title}: it should have one input [1, 3, S, S] of fixed sizes, and has {told}"
        )
    side = shape[2]
    if side % _GRID or not _GRID <= side <= MAX_SIDE:
        raise WeightsError(
            f"{name}: the side of the input is {side}; it has to be a multiple of {_GRID}, from {_GRID} to {MAX_SIDE}"
        )
    if spec.input_size not in (0, side):
        raise WeightsError(f"{name}: the side of the input is {side}; that of {spec.name} is {spec.input_size}")
    return side


def _shape(value: ValueInfoProto, name: str) -> Shape:
    """Sizes; −1 where one isn't fixed."""
    kind = value.type.tensor_type
    if kind.elem_type != 1:  # FLOAT
        raise WeightsError(
            f"{name}: {value.name} is not of type float32: export without half precision or quantisation"
        )
    return tuple(one.dim_value if one.HasField("dim_value") else -1 for one in kind.shape.dim)


def _check_contained(model: ModelProto, name: str) -> None:
    from onnx import TensorProto, defs, numpy_helper

    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    if not _MIN_OPSET <= opset <= defs.onnx_opset_version():
        raise WeightsError(f"{name}: opset {opset} is not from {_MIN_OPSET} to {defs.onnx_opset_version()}")
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign or model.functions or model.graph.sparse_initializer:
        raise WeightsError(f"{name} is refused: it has operators or tensors of no plain kind: {', '.join(foreign)}")
    nested = [node.op_type for node in model.graph.node if any(one.g.node or one.graphs for one in node.attribute)]
    if nested:
        raise WeightsError(f"{name} is refused: detectors need no {nested[0]}; export without NMS in the graph")
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise WeightsError(
                f"{name} is refused: {tensor.name or 'a constant'} lies in another file; make it one file"
            )
        if tensor.data_type == TensorProto.FLOAT:
            try:
                finite = np.isfinite(numpy_helper.to_array(tensor)).all()
            except (ValueError, TypeError) as error:
                raise WeightsError(f"{name} is damaged: {tensor.name}: {error}") from error
            if not finite:
                raise WeightsError(f"{name}: {tensor.name or 'a constant'} holds numbers that are not finite")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
