"""Variants with small networks and drawn weights, installed in a home of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from parity.weights import draw_state
from samgate.profiles import device, measure
from samgate.variants import VARIANTS, get_variant
from samgate.variants.clip import TEXT_MODELS, VIT_B_32, ClipSpec
from samgate.variants.spec import VariantSpec
from samgate.weights.formats import network_shapes
from samgate.weights.store import Origin, save

OWN = tuple(spec.name for spec in VARIANTS.values() if not spec.weights)
"""Variants with weights of their own."""
NETWORKS = tuple({(VARIANTS[name].network, VARIANTS[name].graph_module): name for name in reversed(OWN)}.values())
"""One of every network: others differ from it in numbers alone, which parity's tests look at."""
DECODERS = tuple(
    {VARIANTS[name].graph_module: name for name in reversed(OWN) if "decoder" in VARIANTS[name].graphs}.values()
)
"""One of every kind of graphs."""
STEPS = 0.15
"""|Δ| / |torch's| of a runtime's answer where the network rounds: torch differs by 0.03 from itself when another
library makes its products, and by 0.06 after the decoder. That graphs round as networks do is shown layer by layer, in
test_files_q_tinysam.py."""


def drawn(spec: VariantSpec) -> dict[str, NDArray[Any]]:
    """Weights for ``spec``, which anyone can draw again."""
    state = draw_state(network_shapes(spec))
    for name, value in state.items():
        # Coefficients of the prototypes' sign: of others no mask would have a pixel, nearly the same as all are.
        if spec.finds_everything and ".cv4." in name and name.endswith(".2.bias"):
            value -= 1
    return state


def install_drawn(spec: VariantSpec) -> None:
    """Its drawn weights in the home that is set."""
    save(spec, drawn(spec), Origin(spec.weights_name, "drawn", {}))


@contextmanager
def reduced(names: Sequence[str], home: Path) -> Iterator[list[VariantSpec]]:
    """The variants ``names``, reduced and installed in ``home``, known by their names inside the block; engines are
    measured in no time there, and no better."""
    specs = [get_variant(name).reduced() for name in names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMGATE_HOME", str(home))
        patch.setattr(device, "QUICK", replace(measure.QUICK, encodes=1, calls=1, warm_up=0, megapixels=(0.3,)))
        for spec in specs:
            patch.setitem(VARIANTS, spec.name, spec)
            install_drawn(spec)
        yield specs


@contextmanager
def reduced_text_model(home: Path) -> Iterator[ClipSpec]:
    """CLIP, reduced and installed in ``home``, known by its name inside the block."""
    spec = VIT_B_32.reduced()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMGATE_HOME", str(home))
        patch.setitem(TEXT_MODELS, spec.name, spec)
        save(spec, draw_state(network_shapes(spec)), Origin(spec.weights_name, "drawn", {}))
        yield spec


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Noise in blocks, as images have it."""
    random = np.random.default_rng(height * width)
    small = random.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return np.ascontiguousarray(small.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])
