"""Which files a runtime on this machine's CPU loads for a variant, and in which arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from samgate.compile.artifacts import installed_artifact
from samgate.compile.graphs import ensure_graphs
from samgate.engines.cpu import has_native_bf16
from samgate.errors import InvalidArgument
from samgate.variants.graphs import GraphName
from samgate.variants.spec import Arithmetic, FloatArithmetic, NetworkSpec

RuntimeName = Literal["openvino", "onnxruntime"]
RUNTIMES: tuple[RuntimeName, ...] = ("openvino", "onnxruntime")
_ARITHMETICS = {
    "openvino": frozenset({"f32", "bf16", "int8", "low"}),
    "onnxruntime": frozenset({"f32", "int8", "low"}),
    "torch": frozenset({"f32", "bf16", "fp16"}),
}
_TARGETS = {"openvino": "openvino", "onnxruntime": "onnx"}


@dataclass(frozen=True, slots=True)
class RuntimeGraphs:
    """``files`` by graph for the precision ``plan``; ``hints`` are what the runtime is told to calculate floats in."""

    plan: str
    files: Mapping[GraphName, Path]
    hints: Mapping[GraphName, FloatArithmetic]


def choose_precision(spec: NetworkSpec, precision: str, runtime: RuntimeName | Literal["torch"]) -> str:
    """The name of the plan to run: ``precision`` itself, or for ``auto`` the spec's first that this CPU and ``runtime``
    run natively without anything having been compiled.

    The spec lists only plans whose accuracy is good enough, fastest first. Raises InvalidArgument for an unknown name
    and for a plan that ``runtime`` doesn't run.
    """
    if precision == "auto":
        native = {"f32", _low(runtime)}
        return next(name for name, plan in spec.precisions.items() if plan.arithmetics <= native)
    runs = [name for name, plan in spec.precisions.items() if plan.arithmetics <= _ARITHMETICS[runtime]]
    if precision not in spec.precisions:
        problem = f"is no plan of {spec.name}"
    elif precision not in runs:
        problem = f"is not for {runtime} here"
    else:
        return precision
    raise InvalidArgument("engine.precision", f"{precision!r} {problem}; plans that run: {', '.join(runs)}")


def runtime_graphs(
    spec: NetworkSpec, precision: str, runtime: RuntimeName, report: Callable[[str], None]
) -> RuntimeGraphs:
    """What ``runtime`` loads for ``spec`` at ``precision`` (``auto`` or a plan's name).

    Raises InvalidArgument as :func:`choose_precision` does, CompileError, and NotInstalled with the command to run:
    int8 has to have been compiled, and to have passed its accuracy gate.
    """
    name = choose_precision(spec, precision, runtime)
    low = _low(runtime)
    plan = spec.precisions[name].on(low)
    if "int8" in plan.arithmetics:
        files = installed_artifact(spec, _TARGETS[runtime], name).files
    else:
        files = ensure_graphs(spec, report)

    def hint(arithmetic: Arithmetic) -> FloatArithmetic:
        # What lies between products of 8-bit integers is calculated in the fastest float.
        return "bf16" if arithmetic == "bf16" or (arithmetic == "int8" and low == "bf16") else "f32"

    hints = {graph: hint(plan.encoder if graph == "encoder" else plan.decoder) for graph in files}
    return RuntimeGraphs(name, files, hints)


def _low(runtime: RuntimeName | Literal["torch"]) -> FloatArithmetic:
    return "bf16" if runtime != "onnxruntime" and has_native_bf16() else "f32"
