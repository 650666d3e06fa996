"""Q-TinySAM's published file, a network pickled whole, as the state dict of :mod:`samgate.variants.nets.q_tinysam`.

Upstream's quantised layers may have steps for groups of rows and columns of their weights, and for groups of the
channels of their inputs. Here weights are brought to their levels once and for all, and every channel has its step.
What upstream's code never calls, such as steps of products of two activations, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgate.errors import WeightsError
from samgate.weights.modules_file import read_module

if TYPE_CHECKING:
    from torch import Tensor

_BITS = 8
_FORWARD = "quant_forward"
_STEPS = ("a_interval", "a_neg_interval", "a_bias", "w_interval")
_COUNTS = ("n_V", "n_H", "n_a", "crb_rows", "crb_cols", "crb_acts")
_CLASSIFIER = "image_encoder.head"
_EPSILON = 1e-5
"""Of BatchNorm."""


def read(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """The state dict in the one file.

    Raises:
        WeightsError: there are more files, or the one is damaged, or no network with quantised layers.
    """
    if len(files) != 1:
        raise WeightsError("Q-TinySAM is one file: give this alone")
    ((name, path),) = files.items()
    found = read_module(path)
    layers = {
        key.rpartition(".")[0]: key.endswith(".in_features")
        for key in found
        if key.endswith((".in_features", ".in_channels"))
    }
    if not any(found.get(f"{layer}.mode") == _FORWARD for layer in layers):
        raise WeightsError(f"{name} has no quantised layers: Q-TinySAM's are a network pickled whole")
    state = {key: value for key, value in found.items() if _is_state(key, value)}
    for layer, linear in layers.items():
        if layer == _CLASSIFIER:
            continue
        try:
            state |= _linear(layer, found) if linear else _convolution(layer, found)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"{name}: the steps of {layer} aren't as upstream has them: {error}") from error
    return _with_norms(state)


def _is_state(key: str, value: Any) -> bool:
    last = key.rpartition(".")[2]
    # Steps of products have names in capitals, and sizes of their groups.
    bookkeeping = (*_STEPS, *_COUNTS, "A_interval", "B_interval", "split")
    return hasattr(value, "shape") and last not in bookkeeping and not last.startswith(("n_", "crb_", "pad_"))


def _quantised(layer: str, found: Mapping[str, Any]) -> bool:
    """Whether upstream rounds what ``layer`` gets."""
    if found.get(f"{layer}.mode") != _FORWARD:
        return False
    bits = (found.get(f"{layer}.w_bit"), found.get(f"{layer}.a_bit"))
    if bits != (_BITS, _BITS):
        raise ValueError(f"{bits[0]} and {bits[1]} bits instead of {_BITS}")
    return True


def _linear(layer: str, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights and steps of a linear layer."""
    import torch

    weight = found[f"{layer}.weight"]
    columns = weight.shape[1]
    if not _quantised(layer, found):
        return {f"{layer}.{kind}": torch.zeros(columns) for kind in ("a_interval", "a_neg_interval")}
    rows, blocks, groups = (int(found[f"{layer}.{kind}"]) for kind in ("n_V", "n_H", "n_a"))
    step = found[f"{layer}.w_interval"]
    blocked = weight.reshape(rows, weight.shape[0] // rows, blocks, columns // blocks)
    above = _by_channel(found[f"{layer}.a_interval"], columns, groups)
    below = found.get(f"{layer}.a_neg_interval")
    return {
        f"{layer}.weight": _at_levels(blocked, step).view_as(weight),
        f"{layer}.a_interval": above,
        f"{layer}.a_neg_interval": above if below is None else _by_channel(below, columns, groups),
    }


def _convolution(layer: str, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights and steps of a convolution, transposed or not."""
    import torch

    weight, channels = found[f"{layer}.weight"], int(found[f"{layer}.in_channels"])
    if not _quantised(layer, found):
        return {f"{layer}.{kind}": torch.zeros(channels) for kind in ("a_interval", "a_bias")}
    steps = {kind: found[f"{layer}.{kind}"] for kind in ("a_interval", "a_bias")}
    for kind, value in steps.items():
        # On any other axis a step would belong to a place in the map.
        if value.numel() > 1 and tuple(value.shape)[-3:] != (channels, 1, 1):
            raise ValueError(f"{kind} of shape {list(value.shape)}")
    return {
        f"{layer}.weight": _at_levels(weight, found[f"{layer}.w_interval"]).view_as(weight),
        **{f"{layer}.{kind}": _by_channel(value, channels, value.numel()) for kind, value in steps.items()},
    }


def _at_levels(weight: Tensor, step: Tensor) -> Tensor:
    highest = 1 << (_BITS - 1)
    return (weight / step).round().clamp(-highest, highest - 1) * step


def _by_channel(values: Tensor, channels: int, groups: int) -> Tensor:
    """``[channels]``: values of one group, or of ``groups`` of as many neighbours each."""
    if values.numel() not in (1, groups) or channels % groups:
        raise ValueError(f"{values.numel()} steps for {channels} channels in {groups} groups")
    return values.reshape(-1).repeat_interleave(channels // values.numel())


def _with_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` as with normalisations, where they became part of convolutions: what is left of them is the bias."""
    import torch

    made = {}
    for key, value in state.items():
        layer, _, last = key.rpartition(".")
        place = layer.removesuffix(".c")
        if not _is_normalised(place) or f"{place}.bn.weight" in state:
            made[key] = value
        elif last == "bias":
            made |= {
                f"{place}.bn.weight": torch.ones_like(value),
                f"{place}.bn.bias": value,
                f"{place}.bn.running_mean": torch.zeros_like(value),
                f"{place}.bn.running_var": torch.full_like(value, 1 - _EPSILON),
                f"{place}.bn.num_batches_tracked": torch.tensor(0),
            }
        else:
            made[f"{place}.c.{last}"] = value
    return made


def _is_normalised(layer: str) -> bool:
    """Whether the network has a normalisation behind the convolution ``layer``."""
    if not layer.startswith("image_encoder."):
        return False
    parent, _, last = layer.rpartition(".")
    return parent == "image_encoder.patch_embed.seq" or last in ("conv1", "conv2", "conv3", "local_conv")
