"""Single layers of Q-TinySAM with drawn weights and steps, in all groupings that upstream's layers know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.weights import FloatArray, draw


@dataclass(frozen=True)
class Levelled:
    """A layer: ``kind`` of upstream's classes, what that is built with, and the shapes of its steps. ``counts`` are the
    numbers of groups: rows and columns of weights, and inputs."""

    name: str
    kind: str
    arguments: tuple[int, ...]
    weight: tuple[int, ...]
    x: tuple[int, ...]
    w_interval: tuple[int, ...]
    a_interval: tuple[int, ...]
    a_bias: tuple[int, ...] | None = None
    counts: tuple[int, int, int] = (1, 1, 1)
    options: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Parameters and steps by upstream's names, and the input ``x``. Some inputs lie beyond the last level."""
        outs = self.arguments[1]
        found: dict[str, NDArray[Any]] = {
            "weight": self._draw("weight", self.weight),
            "bias": self._draw("bias", (outs,)),
            "x": self._draw("x", self.x) * np.float32(2),
            "w_interval": np.abs(self._draw("w_interval", self.w_interval)) * np.float32(0.004) + np.float32(0.01),
            "a_interval": np.abs(self._draw("a_interval", self.a_interval)) * np.float32(0.01) + np.float32(0.015),
        }
        if self.a_bias is not None:
            found["a_bias"] = self._draw("a_bias", self.a_bias)
        return found

    def _draw(self, part: str, shape: tuple[int, ...]) -> FloatArray:
        return draw(f"levels/{self.name}/{part}", shape)


LEVELLED = (
    Levelled("even", "InferQuantLinear", (12, 24), (24, 12), (2, 5, 12), (1, 1, 1, 1), (1, 1)),
    Levelled("grouped", "InferQuantLinear", (12, 24), (24, 12), (2, 5, 12), (3, 1, 2, 1), (4, 1), counts=(3, 2, 4)),
    Levelled("after GELU", "InferQuantLinearPost", (12, 24), (24, 12), (2, 5, 12), (1, 1, 1, 1), (1, 1)),
    Levelled(
        "grouped after GELU",
        "InferQuantLinearPost",
        (12, 8),
        (8, 12),
        (2, 5, 12),
        (2, 1, 1, 1),
        (3, 1),
        counts=(2, 1, 3),
    ),
    Levelled(
        "convolution",
        "InferQuantConv2d",
        (6, 8, 3),
        (8, 6, 3, 3),
        (2, 6, 7, 7),
        (1,),
        (1,),
        (1,),
        options={"stride": 2, "padding": 1},
    ),
    Levelled(
        "depthwise",
        "InferQuantConv2d",
        (6, 6, 3),
        (6, 1, 3, 3),
        (2, 6, 7, 7),
        (6, 1, 1, 1),
        (1, 6, 1, 1),
        (1, 6, 1, 1),
        options={"padding": 1, "groups": 6},
    ),
    Levelled(
        "transposed",
        "InferQuantConvTranspose2d",
        (6, 8, 2),
        (6, 8, 2, 2),
        (2, 6, 7, 7),
        (1,),
        (1,),
        (1,),
        options={"stride": 2},
    ),
)
