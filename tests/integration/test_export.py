"""The exported graphs: what is in them, and that engines answer as torch does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from parity.cases import Case, valid
from parity.recording import golden_path, read, shapes_in
from parity.weights import draw_pixels, draw_state
from samgate.compile.export import OPSET, export_graph, load_network
from samgate.engines.blocks import sketch
from samgate.variants.graphs import TERMS, GraphName, graph_specs
from samgate.variants.merging import Merging
from samgate.variants.mobilesam import SPEC
from samgate.variants.nets.prompt_encoder import RandomPositions
from samgate.variants.nets.sam import (
    AttendGraph,
    DecoderGraph,
    EncoderGraph,
    MaskedDecoderGraph,
    Sam,
    ScoresGraph,
    TermsGraph,
    UpscaleGraph,
)
from samgate.variants.spec import MASK_GRAPHS

TENSORRT = tuple(name for name in MASK_GRAPHS if name not in ("terms", "attend", "upscale"))
"""It has no NonZero, whose output's shape depends on values."""
TOLERANCE = 1e-4
UPSCALING = [tensor.name for tensor in graph_specs(SPEC)["upscale"].inputs]

Arrays = Mapping[str, NDArray[Any]]
Runner = Callable[[Arrays], list[NDArray[np.float32]]]

# What TensorRT's parser and OpenVINO were seen to take. Another operator is no mistake, but is to be tried there first.
OPERATORS = {
    "Add",
    "Cast",
    "Concat",
    "Conv",
    "Cos",
    "Div",
    "Expand",
    "Gather",
    "Gelu",
    "GreaterOrEqual",
    "LayerNormalization",
    "Less",
    "MatMul",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Shape",
    "Sin",
    "Slice",
    "Softmax",
    "Sub",
    "Transpose",
    "Unsqueeze",
}

CASES = (
    Case("one point", SPEC, images=1, prompts=1, points=1),
    Case("two images", SPEC, images=2, prompts=3, points=2),
    Case("box", SPEC, images=1, prompts=4, box=True),
    Case("masked", SPEC, images=2, prompts=2, points=1, mask=True),
)


@pytest.fixture(scope="module")
def network() -> Sam:
    shapes = shapes_in(read(golden_path(SPEC, small=False)))
    loaded: Sam = load_network(SPEC, draw_state(shapes))
    return loaded


@pytest.fixture(scope="module")
def graphs(network: Sam, tmp_path_factory: pytest.TempPathFactory) -> dict[GraphName, Path]:
    return export(network, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def runners(request: pytest.FixtureRequest, graphs: dict[GraphName, Path]) -> dict[str, Runner]:
    load = {"onnxruntime": onnxruntime_runner, "openvino": openvino_runner}[request.param]
    return {name: load(path) for name, path in graphs.items()}


@pytest.mark.parametrize("count", [1, 2])
@torch.inference_mode()
def test_encoder_answers_as_torch_does(network: Sam, runners: dict[str, Runner], count: int) -> None:
    image = draw_pixels("images", (count, SPEC.input_size, SPEC.input_size, 3))
    filled = np.array([valid(SPEC), (SPEC.input_size, 500)][:count], np.int32)
    expected = EncoderGraph(network, SPEC.input_size, SPEC.pixel_mean, SPEC.pixel_std)(
        *map(torch.tensor, (image, filled))
    )
    (embedding,) = runners["encoder"]({"image": image, "valid": filled})
    assert difference(embedding, expected.numpy()) <= TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@torch.inference_mode()
def test_decoder_answers_as_torch_does(network: Sam, runners: dict[str, Runner], case: Case) -> None:
    coords, labels = case.tokens()
    inputs: dict[str, NDArray[Any]] = {
        "image_embedding": case.embedding,
        "point_coords": coords,
        "point_labels": labels,
    }
    module, name = DecoderGraph(network), "decoder"
    if case.mask:
        module, name = MaskedDecoderGraph(network), "masked_decoder"
        has_mask = (np.arange(case.images * case.prompts) % 2).astype(np.float32)
        inputs |= {"mask_input": case.masks, "has_mask": has_mask.reshape(case.images, case.prompts)}
    expected = module(*map(torch.tensor, inputs.values()))
    for ours, theirs in zip(runners[name](inputs), expected, strict=True):
        assert difference(ours, theirs.numpy()) <= TOLERANCE


def everything_case() -> tuple[Case, dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """With its embedding and its prompts, as inputs."""
    case = Case("many", SPEC, images=1, prompts=5, points=1)
    coords, labels = case.tokens()
    return case, {"image_embedding": case.embedding}, {"point_coords": coords, "point_labels": labels}


def in_parts(network: Sam, merging: Merging | None, image: Arrays, asked: Arrays) -> list[NDArray[Any]]:
    """Predicted IoU, coarse masks and masks."""
    terms = TermsGraph(network, merging)(*map(torch.tensor, image.values()))
    attended = AttendGraph(network, 2, merging)(*terms[:-1], *map(torch.tensor, asked.values()))
    upscale = UpscaleGraph(network, 2, merging)
    masks = drawn(lambda part: upscale(*(torch.tensor(part[name]) for name in UPSCALING)).numpy(), terms, attended)
    return [*(value.numpy() for value in attended[:2]), masks]


def drawn(upscale: Callable[[Arrays], NDArray[Any]], terms: Sequence[Any], attended: Sequence[Any]) -> NDArray[Any]:
    """All masks, all blocks of which are made: ``[P, M, 256, 256]``."""
    by_name = {name: np.asarray(value) for name, value in zip(TERMS, terms, strict=True)}
    arrays = [np.asarray(value) for value in attended]
    masks = np.empty((*arrays[1].shape[1:3], 256, 256), np.float32)
    for prompt, found in enumerate(masks):
        whole = sketch(by_name, arrays, prompt, np.arange(len(found), dtype=np.int32), np.ones((1, 64, 64), np.bool_))
        whole.finish([upscale(part.inputs) for part in whole.parts], found)
    return masks


@torch.inference_mode()
def test_masks_made_in_parts_are_the_decoders(network: Sam) -> None:
    _, image, asked = everything_case()
    masks, ious = (value.numpy() for value in DecoderGraph(network)(*map(torch.tensor, (image | asked).values())))
    told, coarse, made = in_parts(network, Merging(64, 0), image, asked)
    assert difference(told, ious) <= TOLERANCE
    assert difference(coarse, masks[..., 1::4, 1::4]) <= TOLERANCE
    assert difference(made, masks[0]) <= TOLERANCE


@torch.inference_mode()
def test_the_graphs_of_the_parts_are_their_modules(network: Sam, runners: dict[str, Runner]) -> None:
    _, image, asked = everything_case()
    expected = in_parts(network, None, image, asked)
    terms = runners["terms"](image)
    attended = runners["attend"](dict(zip(TERMS[:-1], terms[:-1], strict=True)) | asked)
    made = drawn(lambda part: runners["upscale"](part)[0], terms, attended)
    for ours, theirs in zip((*attended[:2], made), expected, strict=True):
        assert difference(ours, theirs) <= TOLERANCE


@torch.inference_mode()
def test_a_token_for_tokens_that_are_the_same_changes_nothing(network: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the 2 × 2 blocks, in image and positions alike; which they are the graph finds by itself."""
    _, image, asked = everything_case()
    blocks = np.random.default_rng(5).choice(1024, 512, replace=False)

    def even(values: Tensor) -> Tensor:
        """``[4096, C]`` with one value in each of the blocks."""
        split = values.reshape(32, 2, 32, 2, -1).transpose(1, 2).reshape(1024, 4, -1).clone()
        split[blocks] = split[blocks, :1]
        return split.reshape(32, 32, 2, 2, -1).transpose(1, 2).reshape(4096, -1)

    positions = even(network.prompt_encoder.pe_layer.grid(64))
    monkeypatch.setattr(RandomPositions, "grid", lambda self, size: positions)
    tokens = even(torch.tensor(image["image_embedding"]).flatten(2)[0].T)
    evened = {"image_embedding": tokens.T.reshape(1, 256, 64, 64).numpy()}
    exact = in_parts(network, Merging(64, 0), evened, asked)
    for ours, theirs in zip(in_parts(network, None, evened, asked), exact, strict=True):
        assert difference(ours, theirs) <= TOLERANCE


@torch.inference_mode()
def test_scores_are_the_decoders(network: Sam, runners: dict[str, Runner]) -> None:
    _, image, asked = everything_case()
    tensors = [torch.tensor(value) for value in (image | asked).values()]
    masks, ious = (value.numpy() for value in DecoderGraph(network)(*tensors))
    module = [value.numpy() for value in ScoresGraph(network)(*tensors)]
    for told, coarse in (runners["scores"](image | asked), module):
        assert difference(told, ious) <= TOLERANCE
        assert difference(coarse, masks[..., 1::4, 1::4]) <= TOLERANCE


def test_inputs_and_outputs_are_the_contracts(graphs: dict[GraphName, Path]) -> None:
    decoder = {
        "image_embedding": (onnx.TensorProto.FLOAT, ["I", 256, 64, 64]),
        "point_coords": (onnx.TensorProto.FLOAT, ["I", "P", "K", 2]),
        "point_labels": (onnx.TensorProto.INT32, ["I", "P", "K"]),
        "low_res_masks": (onnx.TensorProto.FLOAT, ["I", "P", 4, 256, 256]),
        "iou_predictions": (onnx.TensorProto.FLOAT, ["I", "P", 4]),
    }
    mask = {
        "mask_input": (onnx.TensorProto.FLOAT, ["I", "P", 1, 256, 256]),
        "has_mask": (onnx.TensorProto.FLOAT, ["I", "P"]),
    }
    assert signature(graphs["encoder"]) == {
        "image": (onnx.TensorProto.UINT8, ["N", 1024, 1024, 3]),
        "valid": (onnx.TensorProto.INT32, ["N", 2]),
        "image_embedding": (onnx.TensorProto.FLOAT, ["N", 256, 64, 64]),
    }
    assert signature(graphs["decoder"]) == decoder
    assert signature(graphs["masked_decoder"]) == decoder | mask


@pytest.mark.parametrize("name", TENSORRT)
def test_only_operators_and_types_that_tensorrt_takes(graphs: dict[GraphName, Path], name: GraphName) -> None:
    model = onnx.load(graphs[name])
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    types = {value.type.tensor_type.elem_type for value in (*inferred.graph.value_info, *inferred.graph.output)}
    assert onnx.TensorProto.DOUBLE not in types | {weight.data_type for weight in model.graph.initializer}
    # int64 is for shapes and axes alone
    shapes = {name for node in model.graph.node if node.op_type in ("Shape", "Concat") for name in node.output}
    wide = {
        value.name for value in inferred.graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.INT64
    }
    assert wide <= shapes


@pytest.mark.parametrize("name", MASK_GRAPHS)
def test_nothing_is_left_to_fold_and_no_weight_is_stored_twice(graphs: dict[GraphName, Path], name: GraphName) -> None:
    graph = onnx.load(graphs[name]).graph
    known = {weight.name for weight in graph.initializer}
    assert not [node.name for node in graph.node if node.op_type == "Constant" or known.issuperset(node.input)]
    contents = [weight.raw_data for weight in graph.initializer if len(weight.raw_data) > 4096]
    assert len(contents) == len(set(contents))


def test_the_same_network_gives_the_same_bytes(network: Sam, graphs: dict[GraphName, Path], tmp_path: Path) -> None:
    for name, path in export(network, tmp_path).items():
        assert path.read_bytes() == graphs[name].read_bytes()


def export(network: Sam, folder: Path) -> dict[GraphName, Path]:
    paths = {name: folder / f"{name}.onnx" for name in MASK_GRAPHS}
    for name, path in paths.items():
        export_graph(SPEC, network, name, path)
    return paths


def signature(path: Path) -> dict[str, tuple[int, list[str | int]]]:
    graph = onnx.load(path).graph
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input, *graph.output)
    }


def onnxruntime_runner(path: Path) -> Runner:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))


def openvino_runner(path: Path) -> Runner:
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: [np.array(value) for value in compiled(dict(inputs)).values()]


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
