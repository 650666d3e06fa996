"""Q-TinySAM: github.com/xinghaochen/TinySAM at 11589bc, with torch 2.13.0, timm 0.9.16 and torchvision: upstream's
network with its layers replaced by upstream's own quantised ones, as in its published file, and drawn steps.

In f64, where nothing ends at another step because sums were added in another order: in f32, upstream's embeddings
differ by 3 % from its own when another library makes the products."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from parity.cases import Case
from parity.recording import Shapes, Upstream
from parity.upstream import tinysam
from parity.upstream.sam_like import SamLike
from parity.weights import FloatArray
from samgate.variants.spec import VariantSpec

VARIANTS = ("q-tinysam",)
_WEIGHT_BITS, _WEIGHT_STEP = 64, 2.0**-60
"""So fine that drawn weights stay as they are: their levels are tested apart."""


def load(checkout: str, spec: VariantSpec) -> Upstream:
    """Upstream's network; TinySAM's builder makes it."""
    return QTinySam(tinysam.network(spec))


class QTinySam(SamLike):
    """Takes a state dict of TinySAM's names, with steps as samgate has them."""

    def shapes(self) -> Shapes:
        steps: Shapes = {}
        for name, layer in _layers(self.sam):
            linear = isinstance(layer, nn.Linear)
            channels = layer.in_features if linear else layer.in_channels
            steps |= {
                f"{name}.a_interval": (channels,),
                f"{name}.{'a_neg_interval' if linear else 'a_bias'}": (channels,),
            }
        return super().shapes() | steps

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        kinds = importlib.import_module("tinysam.quantization_layer")
        super().load({name: value for name, value in state.items() if name in super(QTinySam, self).shapes()})
        for name, layer in list(_layers(self.sam)):
            steps = {
                kind: torch.tensor(state[f"{name}.{kind}"])
                for kind in ("a_interval", "a_neg_interval", "a_bias")
                if f"{name}.{kind}" in state
            }
            self.sam.set_submodule(name, quantised(kinds, layer, _WEIGHT_BITS, torch.tensor(_WEIGHT_STEP), **steps))
        self.sam.double().eval()

    def encode(self, pixels: NDArray[np.uint8], valid: tuple[int, int]) -> FloatArray:
        return super().encode(pixels, valid).astype(np.float32)

    def decode(self, case: Case, index: int) -> tuple[FloatArray, FloatArray]:
        # Upstream names the type of its positions, and makes prompts of it.
        with patch.object(torch, "float", torch.float64), patch.object(torch, "float32", torch.float64):
            masks, ious = super().decode(cast("Case", _Doubled(case)), index)
        return masks.astype(np.float32), ious.astype(np.float32)


class _Doubled:
    """A case in f64."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._case, name)
        return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


def quantised(
    kinds: Any, layer: Any, weight_bits: int, step: torch.Tensor, a_interval: torch.Tensor, **steps: torch.Tensor
) -> nn.Module:
    """Upstream's quantised layer in place of ``layer``, with steps for each channel."""
    bits: dict[str, Any] = {"mode": "quant_forward", "w_bit": weight_bits, "a_bit": 8}
    if isinstance(layer, nn.Linear):
        outs, ins = layer.weight.shape
        made = kinds.InferQuantLinearPost(ins, outs, layer.bias is not None, **bits)
        made.get_parameter(1, 1, ins, a_interval[:, None], step.reshape(1, 1, 1, 1), outs, ins, 1)
        made.a_neg_interval = steps["a_neg_interval"][:, None]
    else:
        kind: Callable[..., Any] = kinds.InferQuantConv2d
        if isinstance(layer, nn.ConvTranspose2d):
            kind = kinds.InferQuantConvTranspose2d
        made = kind(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            groups=layer.groups,
            bias=layer.bias is not None,
            **bits,
        )
        made.get_parameter(1, 1, a_interval[:, None, None], steps["a_bias"][:, None, None], step)
    made.weight, made.bias = layer.weight, layer.bias
    return made  # type: ignore[no-any-return]


def _layers(sam: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, layer in sam.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and name != "image_encoder.head":
            yield name, layer
