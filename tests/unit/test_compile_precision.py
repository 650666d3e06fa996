"""Typing graphs: where casts stand, what stays in f32, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from samgate.compile.precision import LowType, float_nodes, typed
from samgate.errors import CompileError
from samgate.variants.islands import SAM_ISLANDS
from samgate.variants.spec import Island

F32, FP16 = TensorProto.FLOAT, TensorProto.FLOAT16
NORM = Island("normalisation", ("LayerNormalization",), "sums of squares")
rng = np.random.default_rng(0)


def graph(nodes: list[NodeProto], weights: dict[str, NDArray[Any]], shape: tuple[int, ...] = (2, 8)) -> ModelProto:
    """From ``x``, f32 of ``shape``, to ``y``, f32 with as many axes."""
    inputs = [helper.make_tensor_value_info("x", F32, shape)]
    outputs = [helper.make_tensor_value_info("y", F32, ["a", "b"][: len(shape)])]
    initializers = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    made = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=f"/{output}", **attributes)


def weight(*shape: int) -> NDArray[np.float32]:
    return rng.normal(size=shape).astype(np.float32)


def transformer() -> ModelProto:
    """A residual stream that a LayerNorm reads, and whose sum is normalised at the end."""
    return graph(
        [
            node("MatMul", "x w0", "stream"),
            node("LayerNormalization", "stream scale bias", "normed"),
            node("MatMul", "normed w1", "first"),
            node("MatMul", "normed w2", "second"),
            node("Add", "first second", "branch"),
            node("Add", "stream branch", "sum"),
            node("LayerNormalization", "sum scale bias", "last"),
            node("Reshape", "last size", "moved"),
            node("Transpose", "moved", "y", perm=[1, 0]),
        ],
        {
            "w0": weight(8, 8),
            "w1": weight(8, 8),
            "w2": weight(8, 8),
            "scale": weight(8),
            "bias": weight(8),
            "size": np.array([8, 2], np.int64),
        },
    )


def types(model: ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in inferred.initializer
    }


def run(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return answer


def test_an_island_of_one_arithmetic_is_none_in_another() -> None:
    sums = Island("sums", ("Add",), "overflow", arithmetic="fp16")
    assert typed(transformer(), "fp16", [sums, NORM])[1].f32_nodes.keys() >= {"sums", "normalisation"}
    assert typed(transformer(), "bf16", [sums, NORM])[1].f32_nodes == typed(transformer(), "bf16", [NORM])[1].f32_nodes


def test_islands_calculate_in_f32_and_everything_else_in_fp16() -> None:
    result, typing = typed(transformer(), "fp16", [NORM])
    kinds = types(result)
    for each in result.graph.node:
        if each.op_type in ("LayerNormalization", "Reshape", "Transpose"):
            assert {kinds[name] for name in (*each.input, *each.output)} <= {F32, TensorProto.INT64}
        elif each.op_type != "Cast":
            assert {kinds[name] for name in (*each.input, *each.output)} == {FP16}
    assert typing.nodes == 9
    assert typing.f32_nodes == {"normalisation": 2, "moves between them": 2}
    assert typing.f32_total == 4


def test_casts_stand_only_where_types_meet_and_once_a_tensor() -> None:
    result, typing = typed(transformer(), "fp16", [NORM])
    casts = [each for each in result.graph.node if each.op_type == "Cast"]
    # x, stream and sum go one way, normed (which two products read) the other.
    assert [each.input[0] for each in casts] == ["x", "stream", "normed", "sum"]
    assert typing.casts == 4
    made_by = {name: each.op_type for each in result.graph.node for name in each.output}
    assert "Cast" not in {made_by.get(each.input[0]) for each in casts}


def test_the_typed_graph_answers_as_the_f32_one_and_keeps_inputs_and_outputs() -> None:
    model = transformer()
    x = rng.normal(size=(2, 8)).astype(np.float32)
    result, _ = typed(model, "fp16", [NORM])
    expected, answer = run(model, x), run(result, x)
    assert answer.dtype == np.float32
    assert answer.shape == expected.shape
    np.testing.assert_allclose(answer, expected, atol=0.02)
    assert not np.array_equal(answer, expected)  # or it would not have been rounded at all


@pytest.mark.parametrize(("low", "kind"), [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_weights_of_low_nodes_are_stored_in_the_low_type(low: LowType, kind: Any) -> None:
    result, _ = typed(transformer(), low, [NORM])
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    assert {name: values.dtype for name, values in weights.items() if name.startswith("w")} == {
        f"{name}_{low}": np.dtype(kind) for name in ("w0", "w1", "w2")
    }
    assert weights["scale"].dtype == np.float32
    assert Counter(each.op_type for each in result.graph.node)["Cast"] == 4


def test_an_output_of_a_low_node_is_cast_and_may_be_read_inside_of_the_graph() -> None:
    model = graph([node("Relu", "x", "y"), node("Neg", "y", "z"), node("Add", "y z", "unused")], {})
    result, _ = typed(model, "fp16", [])
    assert types(result)["y"] == F32
    assert result.graph.node[-1].op_type == "Cast"
    assert [each.input[0] for each in result.graph.node if each.op_type == "Neg"] == ["y_fp16"]
    np.testing.assert_array_equal(run(result, np.array([[-1, 2]], np.float32).repeat(4, 1)[[0, 0]])[0, -1], 2)


def test_what_an_island_is_calculated_from_stays_in_f32_where_it_says_so() -> None:
    model = graph(
        [node("Mul", "x f", "angle"), node("Sin", "angle", "sine"), node("Mul", "sine f", "y")], {"f": weight(8)}
    )
    positions = [island for island in SAM_ISLANDS if island.name == "positions"]
    result, typing = typed(model, "bf16", positions)
    kinds = types(result)
    assert (kinds["angle"], kinds["sine"]) == (F32, F32)
    assert typing.f32_nodes == {"positions": 2}
    # f is read in both types.
    assert {tensor.name for tensor in result.graph.initializer} == {"f", "f_bf16"}


def test_names_narrow_an_island() -> None:
    model = graph(
        [node("Div", "x f", "outer"), node("Div", "outer f", "inner/y"), node("Relu", "inner/y", "y")], {"f": weight(8)}
    )
    pixels = [island for island in SAM_ISLANDS if island.name == "pixels"]
    assert typed(model, "fp16", pixels)[1].f32_nodes == {"pixels": 1}


def test_between_int8_products_runs_what_the_scales_say() -> None:
    zero = np.zeros((), np.int8)
    model = graph(
        [
            node("QuantizeLinear", "x sx zero", "xq"),
            node("DequantizeLinear", "xq sx zero", "xd"),
            node("DequantizeLinear", "wq sw zeros", "wd", axis=1),
            node("MatMul", "xd wd", "y"),
        ],
        {
            "sx": np.array(0.02, np.float32),
            "zero": zero,
            "wq": rng.integers(-127, 127, (8, 8)).astype(np.int8),
            "sw": np.full(8, 0.01, np.float32),
            "zeros": np.zeros(8, np.int8),
        },
    )
    result, _ = typed(model, "fp16", [NORM])
    kinds = types(result)
    assert (kinds["xq"], kinds["xd"], kinds["wd"]) == (TensorProto.INT8, FP16, FP16)
    x = rng.normal(size=(2, 8)).astype(np.float32)
    np.testing.assert_allclose(run(result, x), run(model, x), atol=0.1)


def test_a_weight_that_fp16_cannot_hold_is_refused_and_bf16_takes_it() -> None:
    model = graph([node("Mul", "x big", "y")], {"big": np.full(8, 1e6, np.float32)})
    with pytest.raises(CompileError, match=r"the weight big reaches 1e\+06"):
        typed(model, "fp16", [])
    typed(model, "bf16", [])


def test_a_scale_that_fp16_cannot_hold_is_refused() -> None:
    model = graph(
        [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")],
        {"s": np.array(1e-9, np.float32), "z": np.zeros((), np.int8)},
    )
    with pytest.raises(CompileError, match="a scale of /q is too small"):
        typed(model, "fp16", [])


def test_integers_are_left_alone() -> None:
    model = graph([node("Shape", "x", "size"), node("Cast", "size", "y", to=F32)], {}, (7,))
    assert float_nodes(model) == 1
    result, _ = typed(model, "fp16", [])
    assert [(each.op_type, each.output[0]) for each in result.graph.node] == [
        ("Shape", "size"),
        ("Cast", "y_fp16"),
        ("Cast", "y"),
    ]
    np.testing.assert_array_equal(run(result, np.zeros(7, np.float32)), [7])
