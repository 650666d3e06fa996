"""docs/variants.md is what specs and measurements say, and what it says holds."""

from __future__ import annotations

import pytest

from parity.measure import CAPABILITIES, own, stored, timed_graphs
from parity.page import PAGE, page
from samgate.variants.clip import TEXT_MODELS
from samgate.variants.spec import NetworkSpec, VariantSpec
from variants_support import STEPS

BOUND = 1e-4
MEASURED: list[NetworkSpec] = [*own(), *TEXT_MODELS.values()]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(stored()), "run: PYTHONPATH=service:tests python tests/parity/page.py"


@pytest.mark.parametrize("spec", MEASURED, ids=lambda spec: spec.name)
def test_every_network_was_measured_and_is_within_bounds(spec: NetworkSpec) -> None:
    record = stored()[spec.name]
    assert abs(record["parameters"] - spec.parameters) <= 0.01 * spec.parameters
    for error in ("parity", "onnxruntime", "openvino"):
        assert record[error] <= (
            STEPS if isinstance(spec, VariantSpec) and spec.rounds and error != "parity" else BOUND
        )
    assert record["tensorrt"].keys() == set(CAPABILITIES)
    for capability, plans in record["tensorrt"].items():
        assert plans.keys() == set(timed_graphs(spec))
        for built in plans.values():
            refused = built.get("refused")
            assert refused is None or (capability == "7.5" and "FP32 GEMM is not supported" in refused)


@pytest.mark.parametrize("spec", MEASURED, ids=lambda spec: spec.name)
def test_the_parameters_are_as_many_as_published(spec: NetworkSpec) -> None:
    import torch

    from samgate.variants.spec import resolve

    with torch.device("meta"):
        network = resolve(spec.network)(spec)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == stored()[spec.name]["parameters"]
    assert abs(count - spec.parameters) <= 0.01 * spec.parameters
