"""What our networks answer, to be compared with what upstream's did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from samgate.compile.export import graph_module
from samgate.variants.spec import GraphName, VariantSpec


@torch.inference_mode()
def answer(spec: VariantSpec, network: Any, name: GraphName, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The outputs of the graph ``name``, in f32, or in f64 as upstream's were where the network rounds."""
    tensors, module = [torch.tensor(value) for value in inputs], graph_module(spec, network, name)
    if spec.rounds:
        tensors = [value.double() if value.is_floating_point() else value for value in tensors]
        module.double()
    found = module(*tensors)
    if spec.rounds:
        module.float()
    return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]
