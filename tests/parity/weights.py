"""Weights and inputs that anyone can draw again: every array follows from its name alone.

Only the raw bits of a generator are used, which numpy keeps stable across versions, unlike its distributions.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_TOKENS = re.compile(r"(_embed|_token|_tokens|_embeddings|_points|point_embeddings\.\d+)\.weight$")

_POSITIONS = re.compile(r"pos_embed|rel_pos")


def draw_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """A state dict of tensors with these names and shapes, scaled so that activations stay of order 1."""
    return {name: _tensor(name, tuple(shape)) for name, shape in shapes.items()}


def draw(name: str, shape: tuple[int, ...]) -> FloatArray:
    """Uniform numbers of mean 0 and variance 1."""
    unit = (_bits(name, shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((2 * unit - 1) * math.sqrt(3)).astype(np.float32)


def draw_pixels(name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Uniform bytes."""
    return (_bits(name, shape) >> np.uint64(56)).astype(np.uint8)


def _bits(name: str, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")
    return np.random.PCG64(seed).random_raw(math.prod(shape)).reshape(shape)


def _tensor(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("dfl.conv.weight"):
        # The values of bins, which are no weights: boxes of others would have no size.
        return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    values = draw(name, shape)
    if name.endswith("_interval"):
        return np.abs(values) * np.float32(0.01) + np.float32(0.02)
    if name.endswith("running_var"):
        return np.abs(values) + np.float32(0.5)
    if _TOKENS.search(name) or name.endswith(("gaussian_matrix", "attention_biases")):
        return values
    if _POSITIONS.search(name):
        return values * np.float32(0.3)
    if len(shape) > 1:
        # A transposed convolution's weight is [in, out, k, k] and each output sees one k × k position.
        fan_in = shape[0] if "output_upscaling" in name else math.prod(shape[1:])
        return values / np.float32(math.sqrt(fan_in))
    return values * np.float32(0.1) + np.float32(name.endswith("weight"))
