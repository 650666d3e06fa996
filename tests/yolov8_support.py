"""The int8 YOLOv8n files of the evaluation data: their own runtime, and their weights in a YOLOv8 module of ours.

The files are under the AGPL-3.0: read in tests, never copied.
"""

from __future__ import annotations

from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from samgate.variants.nets.yolov8 import SCALES, Dfl, YoloV8

SIDE, CLASSES = 640, 80


def interpreter(path: Path) -> Any:
    """LiteRT's, on one thread, ready to run."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert, of the extra dev")
    made = litert.Interpreter(str(path), num_threads=1)
    made.allocate_tensors()
    return made


def run_tflite(model: Any, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Of ``image`` ``[1, 3, S, S]`` from 0 to 1: candidates ``[1, C, N]``, boxes in pixels of the input, and prototypes
    where there are any."""
    model.set_tensor(model.get_input_details()[0]["index"], image)
    model.invoke()
    found = [model.get_tensor(detail["index"]).copy() for detail in model.get_output_details()]
    # This export has them as shares of the side.
    found[0][:, :4] *= SIDE
    return found


def dequantised(model: Any, prototypes: int) -> YoloV8:
    """YOLOv8n in f32 with the weights of ``model``, which are per-channel int8 with BatchNorm fused.

    Names don't say which layer a tensor is of, but both networks calculate in one order: within each shape, the first
    convolution that runs there is the first that runs here.
    """
    network = YoloV8(SCALES["n"], CLASSES, prototypes, fused=True).eval()
    waiting: dict[tuple[int, ...], deque[tuple[Any, Any]]] = defaultdict(deque)
    for operation in model._get_ops_details():
        if operation["op_name"] in ("CONV_2D", "TRANSPOSE_CONV"):
            first = 1 if operation["op_name"] == "CONV_2D" else 0
            indices = operation["inputs"]
            weight = _floats(model, indices[1])
            # Outputs, height, width, inputs → as torch has it, which for transposed ones is inputs first.
            weight = weight.transpose(0, 3, 1, 2) if first else weight.transpose(3, 0, 1, 2)
            waiting[weight.shape].append((weight, _floats(model, indices[2 if first else 3])))
    with torch.inference_mode():
        for layer in _in_order_of_execution(network):
            weight, bias = waiting[tuple(layer.weight.shape)].popleft()
            layer.weight.copy_(torch.tensor(np.ascontiguousarray(weight)))
            assert layer.bias is not None
            layer.bias.copy_(torch.tensor(bias))
    # What is left is that of the mean over bins, whose weights are numbers from 0 to 15, exact here.
    assert [len(left) for left in waiting.values() if left] == [1]
    return network


def _floats(model: Any, index: int) -> NDArray[np.float32]:
    detail = next(one for one in model.get_tensor_details() if one["index"] == index)
    told, values = detail["quantization_parameters"], model.get_tensor(index)
    shape = [1] * values.ndim
    shape[told["quantized_dimension"]] = -1
    scales, zeros = (told[key].reshape(shape) for key in ("scales", "zero_points"))
    return np.asarray((values.astype(np.float32) - zeros) * scales, dtype=np.float32)


def _in_order_of_execution(network: YoloV8) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    order: list[nn.Conv2d | nn.ConvTranspose2d] = []
    hooks = [
        module.register_forward_hook(lambda one, given, made: order.append(one))
        for layer in network.modules()
        if not isinstance(layer, Dfl)
        for module in layer.children()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.inference_mode():
        network(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return order


def export(network: YoloV8, path: Path, side: int = SIDE, opset: int = 17) -> None:
    """``network`` as ultralytics exports it: ``images`` → ``output0``, and prototypes in ``output1``."""
    import warnings

    masks = hasattr(network.model["22"], "proto")
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, side, side),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["images"],
            output_names=["output0", "output1"] if masks else ["output0"],
        )


def outputs(network: YoloV8, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What ``network`` makes of ``image`` ``[1, 3, S, S]``: candidates and, where it has them, prototypes."""
    with torch.inference_mode():
        found = network(torch.tensor(image))
    return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]
