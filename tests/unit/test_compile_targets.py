"""Targets and precision plans as data."""

from __future__ import annotations

from typing import Any

import pytest

from samgate.compile.targets import TARGETS, TargetName, default_plan, get_target, resolve_plan
from samgate.compile.tensorrt import sm
from samgate.compile.toolchain import find_toolchain
from samgate.engines import graphs
from samgate.engines.graphs import choose_precision
from samgate.errors import InvalidArgument
from samgate.repository.profiles import PROFILES
from samgate.variants import VARIANTS
from samgate.variants.mobilesam import SPEC
from samgate.variants.spec import VariantSpec


@pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_target_has_a_default_plan_that_it_runs(spec: VariantSpec, target: Any) -> None:
    assert resolve_plan(spec, target, default_plan(spec, target)).arithmetics <= target.arithmetics


@pytest.mark.parametrize(
    ("target", "decoder"), [("onnx", "f32"), ("openvino", "bf16"), ("tensorrt", "fp16"), ("tensorrt-rtx", "fp16")]
)
def test_beside_int8_each_target_calculates_in_what_it_does_fastest(target: TargetName, decoder: str) -> None:
    plan = resolve_plan(SPEC, TARGETS[target], "int8")
    assert (plan.encoder, plan.decoder) == ("int8", decoder)


def test_fp16_is_refused_for_openvino_with_a_way_out() -> None:
    with pytest.raises(InvalidArgument, match=r"no fp16 arithmetic; take bf16, int8 or f32"):
        resolve_plan(SPEC, TARGETS["openvino"], "fp16")


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="onnx, openvino, tensorrt, tensorrt-rtx"):
        get_target("cuda")
    with pytest.raises(InvalidArgument, match=r"fp8.*bf16, bf16-encoder, f32, fp16, int8"):
        resolve_plan(SPEC, TARGETS["onnx"], "fp8")


def test_triton_serves_the_graphs_that_are_compiled_for_it() -> None:
    assert TARGETS["tensorrt"].graphs == TARGETS["tensorrt-rtx"].graphs == PROFILES["tensorrt"].graphs


@pytest.mark.parametrize(("native", "best"), [(True, "bf16"), (False, "f32")])
def test_auto_takes_what_the_cpu_runs_natively(monkeypatch: pytest.MonkeyPatch, native: bool, best: str) -> None:
    monkeypatch.setattr(graphs, "has_native_bf16", lambda: native)
    assert choose_precision(SPEC, "auto", "openvino") == best
    assert choose_precision(SPEC, "auto", "onnxruntime") == "f32"


def test_a_precision_that_a_cpu_has_not_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"'fp16' is not for openvino.*run: bf16, bf16-encoder, f32, int8"):
        choose_precision(SPEC, "fp16", "openvino")
    with pytest.raises(InvalidArgument, match=r"'bf16' is not for onnxruntime.*run: f32, int8"):
        choose_precision(SPEC, "bf16", "onnxruntime")
    with pytest.raises(InvalidArgument, match=r"'fp8' is no plan of mobilesam"):
        choose_precision(SPEC, "fp8", "openvino")


def test_capabilities_are_written_with_a_dot() -> None:
    assert (sm("8.9"), sm("12.0")) == ("sm89", "sm120")
    with pytest.raises(InvalidArgument, match="'sm89' is not of the form"):
        sm("sm89")


def test_only_plans_are_for_a_gpu() -> None:
    with pytest.raises(InvalidArgument, match="openvino has none"):
        find_toolchain(SPEC, TARGETS["openvino"], "bf16", ["8.9"])
