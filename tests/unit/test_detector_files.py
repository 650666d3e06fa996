"""What a detector's file may be; of one that may not nothing is installed, and the error says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from detector_support import COUNT, SIDE, YOLOV8, YOLOX, network, write
from samgate.compile.detector import ensure_detector
from samgate.errors import NotInstalled, WeightsError
from samgate.variants.detectors import DetectorSpec
from samgate.variants.spec import UrlSource
from samgate.weights.detector_file import MAX_FILE_BYTES
from samgate.weights.detector_store import installed_detector, installed_detectors, require_detector
from samgate.weights.home import sha256_file
from samgate.weights.pull_detector import pull_detector
from weights_support import Served, closed_url, home, serving, sha256

__all__ = ["home"]

GOOD = np.zeros((1, 6, COUNT), np.float32)


def small(change: Callable[[onnx.ModelProto], object] = lambda model: None) -> onnx.ModelProto:
    return network(GOOD, change=change)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(small(), tmp_path / "best.onnx")


def test_the_file_is_installed_as_it_is_with_its_origin(file: Path, home: Path) -> None:
    made = pull_detector(YOLOV8, from_file=file)
    assert made.path.read_bytes() == file.read_bytes()
    assert made.path.parent == home / "detectors"
    assert (made.origin.source, made.origin.files) == ("file:best.onnx", {"best.onnx": sha256_file(file)})
    assert (made.spec.input_size, made.layout.classes, made.layout.masks) == (SIDE, 2, False)
    assert installed_detector(YOLOV8) == made
    assert installed_detectors() == [made]
    graph = ensure_detector(YOLOV8)
    assert graph.spec == made.spec
    assert ensure_detector(YOLOV8).file.stat().st_mtime_ns == graph.file.stat().st_mtime_ns


def test_another_file_replaces_it_only_by_force(file: Path, tmp_path: Path) -> None:
    first = pull_detector(YOLOV8, from_file=file)
    graph = ensure_detector(YOLOV8).file
    other = write(network(np.zeros((1, 9, 336), np.float32), side=128), tmp_path / "other.onnx")
    assert pull_detector(YOLOV8, from_file=other) == first
    second = pull_detector(YOLOV8, from_file=other, force=True)
    assert (second.spec.input_size, second.layout.classes) == (128, 5)
    assert not first.path.exists()
    assert ensure_detector(YOLOV8).file != graph


def test_a_pull_that_fails_keeps_what_was_there(file: Path, tmp_path: Path) -> None:
    made = pull_detector(YOLOV8, from_file=file)
    (tmp_path / "bad.onnx").write_bytes(b"\x08")
    with pytest.raises(WeightsError):
        pull_detector(YOLOV8, from_file=tmp_path / "bad.onnx", force=True)
    assert installed_detector(YOLOV8) == made


def test_a_damaged_installation_is_none(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = pull_detector(YOLOV8, from_file=file)
    made.path.write_bytes(made.path.read_bytes()[:-1])
    with pytest.raises(NotInstalled, match=r"install it with: samgate pull yolov8 --from FILE\.onnx"):
        require_detector(YOLOV8)
    assert "is not what was installed" in caplog.text
    assert pull_detector(YOLOV8, from_file=file) == made
    made.path.with_name("yolov8.json").write_text('{"sha256": 3}')
    assert installed_detector(YOLOV8) is None


def test_the_first_source_that_delivers_is_taken_and_named(home: Path) -> None:
    content = write(small(), home.parent / "served.onnx").read_bytes()
    with serving(Served(content)) as url:
        sources = (UrlSource(closed_url(), "0" * 64, 5), UrlSource(url, sha256(content), len(content)))
        made = pull_detector(replace(YOLOV8, sources=sources))
    assert (made.origin.source, list(made.origin.files)) == (url, ["tiny.pt"])
    assert not list((home / "downloads").glob("[0-9a-f]*"))


def test_without_sources_or_network_the_error_says_what_to_do() -> None:
    with pytest.raises(WeightsError, match=r"under AGPL-3.0\): export one, then run `samgate pull yolov8 --from FILE"):
        pull_detector(YOLOV8)
    with pytest.raises(WeightsError, match=r"(?s)any of its sources.*SHA-256 0000.*samgate pull yolov8 --from FILE"):
        pull_detector(replace(YOLOV8, sources=(UrlSource(closed_url(), "0" * 64, 5),)))


def test_every_truncation_is_an_error(file: Path) -> None:
    content = file.read_bytes()
    ends = {*range(0, min(400, len(content)), 7), *range(400, len(content), 4999), len(content) - 1}
    for end in sorted(ends):
        file.write_bytes(content[:end])
        with pytest.raises(WeightsError):
            pull_detector(YOLOV8, from_file=file)
    assert installed_detector(YOLOV8) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"{}", b"\x00" * 4096])
def test_what_is_no_onnx_is_told(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"best\.onnx is no ONNX file"):
        pull_detector(YOLOV8, from_file=file)


def test_a_file_too_large_is_not_read(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(WeightsError, match=r"has 1,073,741,825 bytes; at most 1,073,741,824 are read"):
        pull_detector(YOLOV8, from_file=file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for path, problem in ((tmp_path / "none.onnx", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(WeightsError, match=problem):
            pull_detector(YOLOV8, from_file=path)


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def external_constant(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["secret"], value=tensor))


def infinite(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((3 * SIDE**2, 1), np.nan, np.float32), "nothing")
    )


def too_few_bytes(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 40


def custom(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def branch(model: onnx.ModelProto) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["always"], ["same"])], "body", [], [])
    node = helper.make_node("If", ["yes"], ["chosen"], then_branch=body, else_branch=body)
    model.graph.node.insert(0, node)


def half(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def dynamic(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Exfiltrate"


def old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 9


def promise(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (external, "refused: nothing lies in another file"),
        (external_constant, "refused: secret lies in another file"),
        (infinite, "nothing holds numbers that are not finite"),
        (too_few_bytes, "damaged: nothing"),
        (custom, "refused: it has operators or tensors of no plain kind: com.example"),
        (branch, "refused: detectors need no If"),
        (half, "images is not of type float32|not a valid ONNX graph"),
        (dynamic, r"one input \[1, 3, S, S\] of fixed sizes, and has images \[-1, 3, 64, 64\]"),
        (unknown_operator, "not a valid ONNX graph: .*Exfiltrate"),
        (old, "opset 9 is not from 11 to"),
        (promise, r"not a valid ONNX graph: .*differ in dimension 1: \(6\) vs \(9\)"),
    ],
)
def test_hostile_and_unfit_graphs_are_refused(
    change: Callable[[onnx.ModelProto], object], problem: str, tmp_path: Path
) -> None:
    path = write(small(change), tmp_path / "bad.onnx")
    with pytest.raises(WeightsError, match=f"(?s)bad.onnx.*({problem})"):
        pull_detector(YOLOV8, from_file=path)
    assert installed_detector(YOLOV8) is None


@pytest.mark.parametrize(
    ("spec", "shape", "side", "problem"),
    [
        (YOLOV8, (1, COUNT, 6), SIDE, r"has an output \[1, 4 \+ classes, 84\]; this has output0 \[1, 84, 6\]"),
        (YOLOV8, (1, 4, COUNT), SIDE, r"this has output0 \[1, 4, 84\]"),
        (YOLOV8, (1, 6, 85), SIDE, r"this has output0 \[1, 6, 85\]"),
        (YOLOV8, (1, 300, 6), SIDE, r"this has output0 \[1, 300, 6\]"),
        (YOLOV8, (1, 6, COUNT), 80, "the side of the input is 80; it has to be a multiple of 32, from 32 to 2048"),
        (YOLOX, (1, COUNT, 5), SIDE, r"has an output \[1, 84, 5 \+ classes\]; this has output0 \[1, 84, 5\]"),
        (YOLOX.sized(416), (1, COUNT, 7), SIDE, "the side of the input is 64; that of yolox-nano is 416"),
    ],
)
def test_wrong_shapes_are_told(
    spec: DetectorSpec, shape: tuple[int, ...], side: int, problem: str, tmp_path: Path
) -> None:
    path = write(network(np.zeros(shape, np.float32), side=side), tmp_path / "bad.onnx")
    with pytest.raises(WeightsError, match=problem):
        pull_detector(spec, from_file=path)


def test_an_input_beyond_all_bounds_is_refused(tmp_path: Path) -> None:
    def huge(model: onnx.ModelProto) -> None:
        for axis in (2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 1 << 20
        model.graph.node[1].CopyFrom(helper.make_node("ReduceMax", ["flat"], ["zero"], axes=[0, 1], keepdims=0))

    with pytest.raises(WeightsError, match="the side of the input is 1048576"):
        pull_detector(YOLOV8, from_file=write(small(huge), tmp_path / "huge.onnx"))


def test_prototypes_of_another_size_are_no_prototypes(tmp_path: Path) -> None:
    def other(model: onnx.ModelProto) -> None:
        model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 16
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        weights["masks"].CopyFrom(numpy_helper.from_array(np.zeros((1, 16, 16, 16), np.float32), "masks"))

    path = write(network(np.zeros((1, 38, COUNT), np.float32), prototypes=True, change=other), tmp_path / "bad.onnx")
    with pytest.raises(WeightsError, match=r"this has output0 \[1, 38, 84\], output1 \[1, 16, 16, 16\]"):
        pull_detector(YOLOV8, from_file=path)
