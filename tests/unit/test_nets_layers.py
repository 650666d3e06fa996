"""Layers on their own: what parity with one network doesn't show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from samgate.compile.export import load_network
from samgate.errors import WeightsError
from samgate.variants.mobilesam import SPEC
from samgate.variants.nets.layers import ConvNorm, LayerNorm2d, repeat, reshape, to_map, to_tokens
from samgate.variants.nets.mobilesam import build
from samgate.variants.nets.tiny_vit import TinyViT, TinyVitConfig, WindowAttention


def test_reshape_keeps_sizes_marked_zero() -> None:
    assert reshape(torch.zeros(2, 3, 4, 10), 0, 0, -1, 5).shape == (2, 3, 8, 5)


def test_repeat_copies_for_every_prompt() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    repeated = repeat(x, torch.zeros(4, 5, 7))
    assert repeated.shape == (4, 5, 2, 3)
    assert torch.equal(repeated[3, 4], x)


def test_conv_norm_is_a_convolution_and_its_batch_normalisation() -> None:
    layer = ConvNorm(4, 6, 3, stride=2, padding=1, groups=2).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    torch.testing.assert_close(layer(x), layer.bn(layer.c(x)))


def test_layer_norm_2d_normalises_over_channels() -> None:
    x = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))
    norm = LayerNorm2d(5)
    nn.init.constant_(norm.bias, 2.0)
    y = norm(x)
    torch.testing.assert_close(y.mean(-1), torch.full((2, 12), 2.0))
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(2, 12), rtol=1e-3, atol=1e-3)


def test_a_map_survives_as_tokens() -> None:
    x = torch.arange(2.0 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    tokens = to_tokens(x, 4, 3)
    assert torch.equal(tokens[1, 6], x[1, :, 1, 2])
    assert torch.equal(to_map(tokens, 4, 3), x)


def test_attention_biases_loaded_after_eval_are_used() -> None:
    attention = WindowAttention(dim=8, heads=2, window=3).eval()
    x = torch.randn(1, 9, 8, generator=torch.Generator().manual_seed(0))
    before = attention(x)
    attention.attention_biases.data.copy_(torch.randn(2, 9, generator=torch.Generator().manual_seed(1)))
    assert not torch.allclose(before, attention(x))


@pytest.mark.parametrize(("size", "out_size"), [(64, None), (96, None), (96, 6), (96, 11)])
def test_tiny_vit_of_other_sizes(size: int, out_size: int | None) -> None:
    config = TinyVitConfig(
        image_size=size,
        out_size=out_size,
        dims=(8, 16, 24),
        depths=(1, 2, 1),
        heads=(1, 2, 3),
        windows=(3, 3, 4),
        strides=(2, 2),
        classes=5,
    )
    expected = out_size or size // 16
    assert TinyViT(config).eval()(torch.zeros(2, 3, size, size)).shape == (2, 256, expected, expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("mask_decoder.iou_token.weight"), "1 missing: mask_decoder.iou_token.weight"),
        (lambda state: state.update({"extra": np.zeros(1)}), "1 unexpected: extra"),
        (
            lambda state: state.update({"mask_decoder.iou_token.weight": np.zeros((1, 8))}),
            "1 of another shape: mask_decoder.iou_token.weight",
        ),
    ],
)
def test_other_weights_are_refused(change: object, told: str) -> None:
    state = {name: value.numpy() for name, value in build(SPEC).state_dict().items()}
    assert callable(change)
    change(state)
    with pytest.raises(WeightsError, match=told):
        load_network(SPEC, state)


def test_weights_are_taken_and_not_copied() -> None:
    state = {name: value.numpy().copy() for name, value in build(SPEC).state_dict().items()}
    loaded = load_network(SPEC, state).state_dict()
    assert all(np.shares_memory(loaded[name].numpy(), value) for name, value in state.items())
    state["mask_decoder.iou_token.weight"].flags.writeable = False
    copied = load_network(SPEC, state).state_dict()["mask_decoder.iou_token.weight"].numpy()
    assert not np.shares_memory(copied, state["mask_decoder.iou_token.weight"])
    assert np.array_equal(copied, state["mask_decoder.iou_token.weight"])
