"""What the accuracy gate asks of systems without a mask for prompts that mean one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samgate.compile.questions import Graphs, PromptKind, ask
from samgate.domain import Frame, Prompt
from samgate.engines.base import Images
from samgate.variants.mobilesam import SPEC
from samgate.variants.spec import SingleMask, VariantSpec

FRAME = Frame(original=(1024, 1024), resized=(1024, 1024), side=1024)
"""Of a square image."""


def decoder(_: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Masks that hold their own number; the second of the alternatives is the best, the first of all better still."""
    masks = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None], (1, 1, 4, 256, 256))
    return [masks, np.array([[[0.9, 0.1, 0.8, 0.2]]], np.float32)]


GRAPHS: Graphs = {
    "encoder": lambda _: [np.zeros((1, 256, 64, 64), np.float32)],
    "decoder": decoder,
    "masked_decoder": decoder,
}


@pytest.mark.parametrize(("spec", "token"), [(SPEC, 0), (replace(SPEC, single_mask=SingleMask.BEST), 2)])
def test_boxes_and_second_rounds_are_answered_as_clients_are(spec: VariantSpec, token: int) -> None:
    nothing, no_labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    prompts: dict[PromptKind, list[Prompt]] = {
        "box": [Prompt(nothing, no_labels, np.array([1, 2, 30, 40], np.float32))],
        "point": [Prompt(np.array([[5, 5]], np.float32), np.ones(1, np.int32))],
    }
    image = Images(np.zeros((1, 1024, 1024, 3), np.uint8), np.array([[1024, 1024]], np.int32))
    answers = ask(spec, GRAPHS, image, FRAME, prompts, {})
    assert {question: float(masks.max()) for question, masks in answers.items()} == {
        ("decoder", "box"): token,
        ("decoder", "point"): 2,
        ("masked_decoder", "point"): token,
    }
