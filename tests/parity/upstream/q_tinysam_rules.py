"""Records what Q-TinySAM's layers answer one by one, with weights and activations at 256 levels (upstream and commit as
in q_tinysam.py):

    PYTHONPATH=service:tests python tests/parity/upstream/q_tinysam_rules.py CHECKOUT
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch

from parity.levels import LEVELLED, Levelled
from parity.rules import write


def answer(kinds: Any, layer: Levelled) -> torch.Tensor:
    """Upstream's answer to the drawn input."""
    arrays = {name: torch.tensor(value) for name, value in layer.arrays().items()}
    made = getattr(kinds, layer.kind)(*layer.arguments, **layer.options, mode="quant_forward", w_bit=8, a_bit=8)
    made.weight.data, made.bias.data = arrays["weight"], arrays["bias"]
    rows, columns, groups = layer.counts
    if layer.a_bias is None:
        outs, ins = layer.weight
        sizes = (outs // rows, ins // columns, ins // groups)
        made.get_parameter(rows, columns, groups, arrays["a_interval"], arrays["w_interval"], *sizes)
    else:
        made.get_parameter(rows, columns, arrays["a_interval"], arrays["a_bias"], arrays["w_interval"])
    return made(arrays["x"])  # type: ignore[no-any-return]


def main() -> int:
    sys.path.insert(0, sys.argv[1])
    kinds = importlib.import_module("tinysam.quantization_layer")
    with torch.inference_mode():
        write("q_tinysam", {layer.name: answer(kinds, layer).numpy() for layer in LEVELLED})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
