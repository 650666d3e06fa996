"""What graphs can be compiled for, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from samgate.errors import InvalidArgument
from samgate.variants.graphs import GRAPHS, GraphName
from samgate.variants.spec import TEXT_GRAPHS, Arithmetic, FloatArithmetic, NetworkSpec, PrecisionPlan

TargetName = Literal["onnx", "openvino", "tensorrt", "tensorrt-rtx"]

_SERVED: tuple[GraphName, ...] = ("encoder", "decoder", "masked_decoder", "scores", *TEXT_GRAPHS)
_ALL: frozenset[Arithmetic] = frozenset({"f32", "bf16", "fp16", "int8"})
_TYPED_BF16: Mapping[Arithmetic, str] = {"bf16": "ONNX Runtime has no bf16 kernels for CPUs"}


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to compile for.

    ``graphs`` are those it can run and ``arithmetics`` those it runs them in; ``low`` stands for a plan's "low", and
    for what isn't int8 in an int8 encoder. ``module`` is TensorRT's Python module where plans are built, one a kind of
    GPU; None where the ONNX files are what is installed. ``typed``: low arithmetic is written into the graph, else the
    runtime is told of it when it loads the graph.
    """

    name: TargetName
    summary: str
    graphs: tuple[GraphName, ...]
    arithmetics: frozenset[Arithmetic]
    low: FloatArithmetic
    default: str
    """The precision plan where none is asked for."""
    typed: bool
    runtime: Literal["openvino", "onnxruntime"] = "onnxruntime"
    """What runs its ONNX files here, where the accuracy gate judges them."""
    module: str | None = None
    refusals: Mapping[Arithmetic, str] = field(default_factory=dict)
    """Why it doesn't run an arithmetic, and what to do."""
    ungated: Mapping[Arithmetic, str] = field(default_factory=dict)
    """Why graphs of an arithmetic can't run here, so that the accuracy gate can't judge them."""

    @property
    def suffix(self) -> str:
        """Of compiled files."""
        return ".onnx" if self.module is None else ".plan"


TARGETS: dict[TargetName, Target] = {
    target.name: target
    for target in (
        Target(
            name="onnx",
            summary="ONNX graphs of any precision, for whatever reads them; checked with ONNX Runtime",
            graphs=GRAPHS,
            arithmetics=_ALL,
            low="f32",
            default="f32",
            typed=True,
            ungated=_TYPED_BF16,
        ),
        Target(
            name="openvino",
            summary="graphs for OpenVINO on CPUs, which takes them to bf16 by itself",
            graphs=GRAPHS,
            arithmetics=_ALL - {"fp16"},
            low="bf16",
            default="bf16",
            typed=False,
            runtime="openvino",
            refusals={"fp16": "OpenVINO's CPU plugin has no fp16 arithmetic; take bf16, int8 or f32"},
        ),
        Target(
            name="tensorrt",
            summary="TensorRT plans for Triton, built on a GPU of the kind that serves",
            graphs=_SERVED,
            arithmetics=_ALL,
            low="fp16",
            default="fp16",
            typed=True,
            ungated=_TYPED_BF16,
            module="tensorrt",
        ),
        Target(
            name="tensorrt-rtx",
            summary="TensorRT-RTX plans, built for any compute capability on any machine",
            graphs=_SERVED,
            arithmetics=_ALL,
            low="fp16",
            default="fp16",
            typed=True,
            ungated=_TYPED_BF16,
            module="tensorrt_rtx",
        ),
    )
}


def get_target(name: str) -> Target:
    """The target called ``name``. Raises InvalidArgument that lists the names there are."""
    for target in TARGETS.values():
        if target.name == name:
            return target
    raise InvalidArgument("target", f"{name!r} is none of {', '.join(TARGETS)}")


def default_plan(spec: NetworkSpec, target: Target) -> str:
    """The precision plan of ``spec`` for ``target`` where none is asked for: the target's, or f32 where ``spec`` hasn't
    that."""
    return target.default if target.default in spec.precisions else "f32"


def resolve_plan(spec: NetworkSpec, target: Target, precision: str) -> PrecisionPlan:
    """The plan of ``spec`` called ``precision`` as ``target`` runs it. Raises InvalidArgument."""
    if precision not in spec.precisions:
        known = ", ".join(spec.precisions)
        raise InvalidArgument("precision", f"{precision!r} is no plan of {spec.name}; plans: {known}")
    plan = spec.precisions[precision].on(target.low)
    for arithmetic in sorted(plan.arithmetics - target.arithmetics):
        reason = target.refusals.get(arithmetic, f"it runs {', '.join(sorted(target.arithmetics))}")
        raise InvalidArgument("precision", f"{target.name} doesn't run {arithmetic}: {reason}")
    return plan
