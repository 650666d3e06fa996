"""The operating points that benchmarks of deadlines serve."""

from __future__ import annotations

from dataclasses import replace

from samgate.bench.context import Context
from samgate.compile.artifacts import installed_artifact
from samgate.errors import NotInstalled
from samgate.variants import get_variant

_POINTS = ("mobilesam", "mobilesam-768", "mobilesam-512")


def with_points(context: Context) -> Context:
    """``context`` with everything that can be told apart by its accuracy, int8 where it is installed. Not f32: it takes
    twice the time of bf16 for less than what the accuracy of either is uncertain by."""
    points = list(_POINTS)
    try:
        installed_artifact(get_variant("mobilesam"), "openvino", "int8")
        points.insert(1, "mobilesam:int8")
    except NotInstalled:
        context.console.print("mobilesam:int8 is not installed here, so it isn't served: see docs/int8.md")
    return replace(context, variant=",".join(points))
