"""The accuracy gate on real graphs and photographs: it passes what is right and stops what isn't. With the smallest
input, which takes a fraction of the time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from samgate.compile.gate import MAX_IMAGES, PROMPTS_PER_IMAGE, GateData, run_gate
from samgate.compile.graphs import GraphFiles, ensure_graphs
from samgate.compile.photographs import spread
from samgate.errors import InvalidArgument
from samgate.evaluation.dataset import DatasetError
from samgate.variants.graphs import GraphName
from samgate.variants.mobilesam_smaller import SPEC_512 as SPEC

F32 = SPEC.precisions["f32"]
INT8 = SPEC.precisions["int8"].on("f32")
"""Its bounds; in f32, so that what is damaged is all that differs."""


@pytest.fixture(scope="module")
def graphs(installed: None) -> GraphFiles:
    return ensure_graphs(SPEC)


@pytest.fixture(scope="module")
def labelled(shared_data: Path) -> GateData:
    """Two images of the evaluation data with their objects."""
    return GateData(spread(GateData.from_paths(shared_data / "eval" / "instances.json", None).images, 2))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, photo: bytes) -> GateData:
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "photo.png").write_bytes(photo)
    return GateData.from_paths(None, folder)


def _damaged(graph: Path, out: Path, weight: int, factor: float) -> Path:
    """``graph`` with its ``weight``-th largest weight multiplied by ``factor``."""
    model = onnx.load(graph)
    tensors = sorted(model.graph.initializer, key=lambda tensor: -np.prod(tensor.dims))
    values = numpy_helper.to_array(tensors[weight])
    tensors[weight].CopyFrom(numpy_helper.from_array((values * np.float32(factor)), tensors[weight].name))
    onnx.save(model, out)
    return out


def test_f32_equals_itself(graphs: GraphFiles, labelled: GateData) -> None:
    result = run_gate(SPEC, graphs, graphs, F32, labelled)
    assert result.passed
    assert result.images == 2
    assert {(one.graph, one.prompt) for one in result.agreements} == {
        ("decoder", "box"),
        ("masked_decoder", "point"),
        ("decoder", "point"),
        ("upscale", "point"),
        ("scores", "point"),
    }
    for one in result.agreements:
        assert one.mask_iou == 1.0
        assert one.other_masks == 0.0
        assert one.reference_miou == one.candidate_miou is not None
    assert result.mious is not None
    assert result.mious[0] > 0.5
    assert json.loads(json.dumps(result.as_dict()))["passed"] is True


def test_a_layer_without_weights_fails_against_masks_and_truth(
    graphs: GraphFiles, labelled: GateData, tmp_path: Path
) -> None:
    broken = _damaged(graphs["encoder"], tmp_path / "encoder.onnx", weight=0, factor=0.0)
    result = run_gate(SPEC, graphs, {**graphs, "encoder": broken}, INT8, labelled)
    assert not result.passed
    assert result.mask_iou < 0.5
    assert result.mious is not None
    assert result.mious[0] - result.mious[1] > INT8.gate.max_miou_loss
    assert result.summary().startswith("failed on 2 images")


@pytest.mark.parametrize("name", ["decoder", "masked_decoder", "upscale", "scores"])
def test_each_graph_that_makes_masks_is_judged(
    graphs: GraphFiles, photographs: GateData, tmp_path: Path, name: GraphName
) -> None:
    broken = _damaged(graphs[name], tmp_path / f"{name}.onnx", weight=0, factor=-4.0)
    result = run_gate(SPEC, graphs, {**graphs, name: broken}, INT8, photographs)
    others = [one.mask_iou for one in result.agreements if one.graph not in (name, "scores")]
    assert not result.passed
    assert min(one.mask_iou for one in result.agreements if one.graph == name) < INT8.gate.min_mask_iou
    assert min(others) >= INT8.gate.min_mask_iou


def test_values_that_overflow_count_as_no_mask(graphs: GraphFiles, photographs: GateData, tmp_path: Path) -> None:
    broken = _damaged(graphs["encoder"], tmp_path / "encoder.onnx", weight=0, factor=np.inf)
    result = run_gate(SPEC, graphs, {**graphs, "encoder": broken}, INT8, photographs)
    assert not result.passed
    assert result.mask_iou == 0.0


def test_bf16_passes(graphs: GraphFiles, labelled: GateData) -> None:
    files: GraphFiles = {"encoder": graphs["encoder"], "decoder": graphs["decoder"]}
    result = run_gate(SPEC, graphs, files, SPEC.precisions["bf16-encoder"], labelled)
    assert result.passed
    assert result.mask_iou > 0.97


def test_onnx_runtime_draws_what_openvino_does(graphs: GraphFiles, photographs: GateData) -> None:
    files: GraphFiles = {"encoder": graphs["encoder"], "decoder": graphs["decoder"]}
    result = run_gate(SPEC, graphs, files, F32, photographs, runtime="onnxruntime")
    assert result.passed
    assert result.mask_iou == 1.0
    assert result.mious is None


def test_images_and_objects_are_few_and_the_same_every_time(shared_data: Path) -> None:
    labels = shared_data / "eval" / "instances.json"
    one, other = GateData.from_paths(labels, None), GateData.from_paths(labels, None)
    assert one == other
    assert len(one.images) == MAX_IMAGES
    assert len({image.path for image in one.images}) == MAX_IMAGES
    assert all(1 <= len(image.instances) <= PROMPTS_PER_IMAGE for image in one.images)


def test_nothing_to_look_at_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="--eval"):
        GateData.from_paths(None, None)
    with pytest.raises(InvalidArgument, match="holds no"):
        GateData.from_paths(None, tmp_path)
    with pytest.raises(DatasetError, match="can't be read"):
        GateData.from_paths(tmp_path / "instances.json", None)
