"""f32 graphs → the ONNX graphs that a target compiles, or runs as they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from samgate.compile.external import copy_graph, data_file
from samgate.compile.precision import Typing, float_nodes, typed
from samgate.compile.targets import Target
from samgate.errors import CompileError
from samgate.variants.graphs import GraphName
from samgate.variants.spec import NetworkSpec, PrecisionPlan, VariantSpec


@dataclass(frozen=True, slots=True)
class Prepared:
    """The ONNX file ``path``, what is known of its types, and how many ``seconds`` it took; ``in_graph`` is False
    where not the graph says which nodes run in which type, but the runtime. ``int8_products`` are those of 8-bit
    integers."""

    path: Path
    typing: Typing
    in_graph: bool
    seconds: float
    int8_products: int


def prepare(
    spec: NetworkSpec,
    target: Target,
    plan: PrecisionPlan,
    name: GraphName,
    source: Path,
    folder: Path,
    calibration: Sequence[Path],
    report: Callable[[str], None],
) -> Prepared:
    """Writes the graph ``name`` of ``spec``, which is ``source`` in f32, into ``folder`` as ``plan`` wants it.

    Args:
        calibration: images, for int8.

    Raises CompileError.
    """
    began = time.monotonic()
    arithmetic = plan.encoder if name == "encoder" else plan.decoder
    path, int8_products = folder / f"{name}.onnx", 0
    if arithmetic == "int8":
        if not isinstance(spec, VariantSpec):
            raise CompileError(f"{spec.name} has no encoder that could be calibrated")
        from samgate.compile.quantize import quantize_encoder

        int8_products = quantize_encoder(spec, source, path, calibration, report).int8_products
    else:
        copy_graph(source, path)
    model = onnx.load(path, load_external_data=False)
    low = target.low if arithmetic == "int8" else arithmetic
    if target.typed and (low == "fp16" or low == "bf16"):
        report(f"typing {name} in {low}")
        model, typing = typed(model, low, spec.islands, folder)
        data_file(path).unlink(missing_ok=True)
        onnx.save(model, path)
    else:
        nodes = float_nodes(model)
        typing = Typing(nodes, {"the plan": nodes}, 0)
    return Prepared(path, typing, target.typed or low == "f32", time.monotonic() - began, int8_products)
