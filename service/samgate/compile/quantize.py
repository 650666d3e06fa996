"""Post-training static quantization: f32 encoder → explicit Q/DQ ONNX graph in symmetric int8.

Weights get a scale an output channel, activations one a tensor, zero points are all 0 (TensorRT takes no other). What
is quantized are products with weights, convolutions and matrix products, by their inputs: outputs and biases stay
floats, and so does everything between. ONNX Runtime's quantizer writes the graph. The ranges are ours: its min-max
calibration is less accurate here, and its histograms hold the activations of all images at once.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from samgate.compile.calibration import activation_ranges
from samgate.compile.islands import islands_of
from samgate.compile.photographs import read_photograph, spread
from samgate.errors import CompileError, InvalidArgument
from samgate.variants.spec import VariantSpec

MAX_IMAGES = 32
"""Eight made as accurate a graph as 24."""

_PRODUCTS = ("Conv", "MatMul")
_PREPROCESSED = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""What tells the quantizer that shapes are inferred and constants folded, as they are here."""
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(_PRODUCTS),
    "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "MatMul": 1},
}


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """What was quantized: ``int8_products`` of the products with weights; ``float_products`` stayed, by the name of
    the spec's reason. ``images`` were calibrated on. Sizes are of the files, in bytes."""

    images: int
    int8_products: int
    float_products: Mapping[str, int]
    f32_size: int
    int8_size: int


def quantize_encoder(
    spec: VariantSpec,
    encoder: Path,
    out: Path,
    images: Sequence[Path],
    report: Callable[[str], None] = lambda message: None,
) -> QuantizationReport:
    """Writes ``out``: ``encoder``, the f32 graph of ``spec``, with its products in int8 but for ``spec.unquantized``.

    Args:
        images: photographs like those that will be served, at least one; :data:`MAX_IMAGES` of them are used, spread
            over all.

    Raises:
        CompileError: the graph can't be run or quantized.
        InvalidArgument: there is no image, or one can't be read.
    """
    if not images:
        raise InvalidArgument("calibrate", "int8 needs images to calibrate on")
    chosen = spread(images, MAX_IMAGES)
    model = onnx.load(encoder)
    products = _products(model.graph)
    kept = islands_of(model.graph, spec.unquantized)
    nodes = [node for node in products if node.name not in kept]
    report(f"calibrating int8 on {len(chosen)} images")
    ranges = activation_ranges(model, sorted({node.input[0] for node in nodes}), _inputs(spec, chosen))
    report("quantizing the encoder")
    _write(model, [node.name for node in nodes], ranges, out)
    return QuantizationReport(
        images=len(chosen),
        int8_products=len(nodes),
        float_products=dict(Counter(kept[node.name] for node in products if node.name in kept)),
        f32_size=encoder.stat().st_size,
        int8_size=out.stat().st_size,
    )


def _products(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that multiply activations with weights."""
    weights = {tensor.name for tensor in graph.initializer}
    return [node for node in graph.node if node.op_type in _PRODUCTS and node.input[1] in weights]


def _inputs(spec: VariantSpec, images: Sequence[Path]) -> Iterator[dict[str, NDArray[Any]]]:
    for path in images:
        batch, _ = read_photograph(path, spec)
        yield {"image": batch.pixels, "valid": batch.valid}


def _write(model: onnx.ModelProto, nodes: Sequence[str], ranges: Mapping[str, float], out: Path) -> None:
    onnx.helper.set_model_props(model, _PREPROCESSED)
    bounds = {name: (np.float32(-bound), np.float32(bound)) for name, bound in ranges.items()}
    with tempfile.TemporaryDirectory() as folder:
        # Known ranges go in as the cache of a calibration.
        cache = Path(folder) / "ranges.json"
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, bounds), cache)
        try:
            quantize_static(
                model,
                out,
                op_types_to_quantize=list(_PRODUCTS),
                nodes_to_quantize=list(nodes),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibration_cache_path=cache,
                extra_options=_OPTIONS,
            )
            onnx.checker.check_model(out, full_check=True)
        except (ValueError, RuntimeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise CompileError(f"the encoder can't be quantized: {error}") from error
