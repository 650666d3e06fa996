"""docs/variants.md is what specs and measurements say, and what it says holds."""

from __future__ import annotations

import pytest

from parity.measure import CAPABILITIES, own, stored, timed_graphs
from parity.page import PAGE, page
from samgate.variants.spec import VariantSpec
from variants_support import STEPS

BOUND = 1e-4
OWN = own()


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(stored()), "run: PYTHONPATH=service:tests python tests/parity/page.py"


@pytest.mark.parametrize("spec", OWN, ids=lambda spec: spec.name)
def test_every_variant_was_measured_and_is_within_bounds(spec: VariantSpec) -> None:
    record = stored()[spec.name]
    assert abs(record["parameters"] - spec.parameters) <= 0.01 * spec.parameters
    for error in ("parity", "onnxruntime", "openvino"):
        assert record[error] <= (STEPS if spec.rounds and error != "parity" else BOUND)
    assert record["tensorrt"].keys() == set(CAPABILITIES)
    for capability, plans in record["tensorrt"].items():
        assert plans.keys() == set(timed_graphs(spec))
        for built in plans.values():
            refused = built.get("refused")
            assert refused is None or (capability == "7.5" and "FP32 GEMM is not supported" in refused)


@pytest.mark.parametrize("spec", OWN, ids=lambda spec: spec.name)
def test_the_parameters_are_as_many_as_published(spec: VariantSpec) -> None:
    import torch

    from samgate.variants.spec import resolve

    with torch.device("meta"):
        network = resolve(spec.network)(spec)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == stored()[spec.name]["parameters"]
    assert abs(count - spec.parameters) <= 0.01 * spec.parameters
