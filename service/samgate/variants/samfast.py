"""SAMfast (PyTorch's "Segment Anything, Fast", 2023): SAM's weights in torch, in bf16, compiled and batched.

What makes it fast is :mod:`samgate.engines.torch_engine`, which runs other variants, too.
"""

from __future__ import annotations

from dataclasses import replace

from samgate.variants import sam
from samgate.variants.spec import PublishedAccuracy, VariantSpec

_COMPARED = "the results file of segment-anything-fast compares other prompts: 0.5809 instead of 0.5842 for ViT-H"


def _fast(spec: VariantSpec) -> VariantSpec:
    return replace(
        spec,
        name=spec.name.replace("sam", "samfast"),
        title=spec.title.replace("SAM", "SAMfast"),
        paper="github.com/pytorch-labs/segment-anything-fast",
        weights=spec.weights_name,
        accuracy=PublishedAccuracy(None, None, _COMPARED),
        engines=("torch",),
    )


SPECS = tuple(_fast(spec) for spec in sam.SPECS)
