"""Layers whose inputs are brought to 256 levels and back, in float arithmetic: "fake quantisation".

What a linear layer gets has steps of one size above 0 and of another below, since what comes out of a GELU ends at
−0.17 there; what a convolution gets has steps of one size around an offset (TinySAM's 8 bits, arXiv 2312.13789, after
PTQ4ViT, arXiv 2111.12293). Steps belong to channels, which may all have the same. Weights are at their levels already.

Rounding turns a difference in the last digit into one of a whole step now and then, and layers after it make that
more: two correct runtimes agree on a network of such layers to a few hundredths, not to f32's precision.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

LOWEST, HIGHEST = -128, 127

Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


class _EvenLevels(torch.autograd.Function):
    """ONNX's QuantizeLinear and DequantizeLinear with one step for all of ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:  # noqa: ARG004
        return (x / step).round().clamp(LOWEST, HIGHEST) * step

    @staticmethod
    def symbolic(g: Any, x: Any, step: Any) -> Any:
        zero = g.op("Constant", value_t=torch.tensor(0, dtype=torch.int8))
        return g.op("DequantizeLinear", g.op("QuantizeLinear", x, step, zero), step, zero)


def with_levels(module: nn.Module, name: str = "") -> None:
    """Gives a layer the steps of its inputs, all 0 (which leaves them as they are) until others are loaded.

    Args:
        module: whose inputs come to their levels.
        name: of the layer in it, where that isn't called itself; ``module`` is the layer otherwise.
    """
    layer = cast("Layer", getattr(module, name) if name else module)
    linear = isinstance(layer, nn.Linear)
    channels = cast("int", layer.in_features if linear else layer.in_channels)
    layer.register_buffer("a_interval", torch.zeros(channels))
    layer.register_buffer("a_neg_interval" if linear else "a_bias", torch.zeros(channels))
    layer.form = ""  # type: ignore[assignment]
    layer.register_load_state_dict_post_hook(_find_form)  # type: ignore[no-untyped-call]

    def bring(called: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        levelled = getattr(called, name) if name else called
        return to_levels(levelled, inputs[0], -1 if linear else 1), *inputs[1:]

    module.register_forward_pre_hook(bring)


def _find_form(layer: nn.Module, _: object) -> None:
    """Which of the formulas the loaded steps need."""
    steps = cast("Tensor", layer.a_interval)
    below = getattr(layer, "a_neg_interval", steps)
    offset = getattr(layer, "a_bias", torch.zeros(1))
    if steps.is_meta or not steps.any():
        layer.form = ""  # type: ignore[assignment]
    elif not torch.equal(steps, below):
        layer.form = "split"  # type: ignore[assignment]
    else:
        same = bool((steps == steps[0]).all() and (offset == offset[0]).all())
        layer.form = "same" if same else "even"  # type: ignore[assignment]


def to_levels(layer: nn.Module, x: Tensor, axis: int = -1, pixels: int = 1) -> Tensor:
    """``x`` at the levels of ``layer``'s inputs. Its channels are on ``axis``, ``pixels`` times one after the other."""

    def along(values: Tensor) -> Tensor:
        return values.repeat(pixels) if axis == -1 else values[:, None, None]

    steps = cast("Tensor", layer.a_interval)
    if not layer.form:
        return x
    if layer.form == "split":
        below = along(cast("Tensor", layer.a_neg_interval))
        above = along(steps)
        return (x / above).round().clamp(0, HIGHEST) * above + (x / below).round().clamp(LOWEST, 0) * below
    offset = cast("Tensor | None", getattr(layer, "a_bias", None))
    if layer.form == "same":
        if offset is None:
            return _EvenLevels.apply(x, steps[0])  # type: ignore[no-any-return, no-untyped-call]
        return _EvenLevels.apply(x - offset[0], steps[0]) + offset[0]  # type: ignore[no-any-return, no-untyped-call]
    step = along(steps)
    if offset is None:
        return (x / step).round().clamp(LOWEST, HIGHEST) * step
    return ((x - along(offset)) / step).round().clamp(LOWEST, HIGHEST) * step + along(offset)
