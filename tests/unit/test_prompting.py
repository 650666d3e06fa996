"""Prompts as decoder arrays: upstream's tokens, groups that are rectangular calls, and the way back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from samgate.domain import FloatArray, Frame, Prompt, Selection
from samgate.serving.prompting import group_prompts, point_group, select, stack, unsupported
from samgate.variants.mobilesam import SPEC
from samgate.variants.spec import PaddingPoint, PromptSupport, SingleMask

FRAME = Frame(original=(600, 800), resized=(768, 1024), side=1024)
BOX = np.array([100, 50, 300, 200], np.float32)
LOGITS = np.ones((256, 256), np.float32)


def points(*coordinates: tuple[float, float], label: int = 1) -> tuple[FloatArray, np.ndarray]:
    return np.array(coordinates, np.float32).reshape(-1, 2), np.full(len(coordinates), label, np.int32)


@pytest.mark.parametrize(
    ("prompt", "coords", "labels"),
    [
        (Prompt(*points((100, 50))), [(128, 64), (0, 0)], [1, -1]),
        (Prompt(*points((100, 50), label=0)), [(128, 64), (0, 0)], [0, -1]),
        (Prompt(*points(), box=BOX), [(128, 64), (384, 256)], [2, 3]),
        (Prompt(*points((200, 100)), box=BOX), [(256, 128), (128, 64), (384, 256)], [1, 2, 3]),
        (Prompt(*points(), mask_logits=LOGITS), [], []),
    ],
)
def test_tokens_are_upstreams(prompt: Prompt, coords: list[tuple[float, float]], labels: list[int]) -> None:
    (group,) = group_prompts([prompt], FRAME, SPEC, 8)
    assert group.prompts.coords.shape == (1, 1, len(labels), 2)
    np.testing.assert_allclose(group.prompts.coords[0, 0], np.array(coords, np.float32).reshape(-1, 2), rtol=1e-6)
    assert group.prompts.labels[0, 0].tolist() == labels
    assert (group.prompts.masks is None) == (prompt.mask_logits is None)


def test_padding_points_lie_where_the_spec_says() -> None:
    support = PromptSupport(background=False, mask=False, most_points=4)
    spec = replace(SPEC, prompts=support, padding_point=PaddingPoint.TO_MOST, padding_coordinate=-1.0)
    kinds = [Prompt(*points((100, 50))), Prompt(*points(), box=BOX), Prompt(*points((1, 1), (2, 2)), box=BOX)]
    (group,) = group_prompts(kinds, FRAME, spec, 8)
    assert group.prompts.labels[0].tolist() == [[1, -1, -1, -1], [2, 3, -1, -1], [1, 1, 2, 3]]
    assert group.prompts.coords[0, 0].tolist() == [[128, 64], [-1, -1], [-1, -1], [-1, -1]]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(*points((1, 1), (2, 2)), box=BOX), None),
        (Prompt(*points((1, 1), (2, 2), (3, 3), (4, 4))), None),
        (Prompt(*points((1, 1)), mask_logits=LOGITS), "prompts[1].mask_logits: is given; few takes no masks"),
        (
            Prompt(np.ones((3, 2), np.float32), np.array([1, 0, 0], np.int32)),
            "prompts[1].points[1].label: is BACKGROUND; few takes foreground points alone",
        ),
        (Prompt(*points(*[(1, 1)] * 5)), "prompts[1].points: has 5; the limit of few is 4"),
        (
            Prompt(*points(*[(1, 1)] * 3), box=BOX),
            "prompts[1].points: has 3, and the box counts as two; the limit of few is 4",
        ),
    ],
)
def test_what_a_system_was_not_made_for_is_told(prompt: Prompt, message: str | None) -> None:
    few = replace(SPEC, name="few", prompts=PromptSupport(background=False, mask=False, most_points=4))
    problem = unsupported([Prompt(*points((1, 1))), prompt], few)
    assert (problem and str(problem)) == message
    assert unsupported([prompt], SPEC) is None


def test_words_are_for_systems_that_take_them_and_no_decoder_s() -> None:
    words = Prompt(*points(), text="a dog")
    problem = unsupported([Prompt(*points((1, 1))), words], SPEC)
    assert str(problem) == "prompts[1].text: is given; mobilesam takes no words"
    assert unsupported([words], replace(SPEC, prompts=PromptSupport(text=True))) is None
    groups = group_prompts([words, Prompt(*points((1, 1))), words, Prompt(*points((2, 2)))], FRAME, SPEC, 8)
    assert [group.indices for group in groups] == [(1, 3)]
    assert group_prompts([words], FRAME, SPEC, 8) == []


def test_groups_are_rectangular_bounded_and_cover_every_prompt_once() -> None:
    kinds = [
        Prompt(*points((1, 1))),
        Prompt(*points(), box=BOX),
        Prompt(*points((1, 1), (2, 2))),
        Prompt(*points((1, 1)), mask_logits=LOGITS),
    ]
    groups = group_prompts(kinds * 5, FRAME, SPEC, max_prompts=4)
    assert sorted(index for group in groups for index in group.indices) == list(range(20))
    for group in groups:
        _, count, tokens, _ = group.prompts.coords.shape
        assert count == len(group.indices) <= 4
        assert group.key == (count, tokens, group.prompts.masks is not None)
    # A click and a box have two tokens each: they share calls.
    assert len({group.key[1:] for group in groups}) == 3


def test_groups_of_one_key_stack_along_images() -> None:
    first, second = (point_group(np.full((3, 2), value, np.float32), FRAME, SPEC) for value in (10, 20))
    both = stack([first, second])
    assert both.coords.shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(both.coords[1], second.coords[0])


def test_selection_picks_the_tokens_of_the_spec() -> None:
    masks, ious = np.ones((4, 256, 256), np.float32), np.array([0.99, 0.2, 0.9, 0.5], np.float32)
    assert select(masks, ious, Selection.SINGLE, SPEC) == (0,)
    assert select(masks, ious, Selection.MULTI, SPEC) == (1, 2, 3)
    assert select(masks, ious, Selection.BEST, SPEC) == (2,)
    assert select(masks, ious, Selection.BEST, replace(SPEC, best_of=(0, 1, 2, 3))) == (0,)
    assert select(masks, ious, Selection.SINGLE, replace(SPEC, single_mask=SingleMask.BEST)) == (2,)


def test_an_unstable_single_mask_gives_way_to_the_best_where_the_spec_says_so() -> None:
    spec = replace(SPEC, single_mask=SingleMask.STABLE_OR_BEST)
    masks, ious = np.ones((4, 256, 256), np.float32), np.array([0.1, 0.2, 0.9, 0.5], np.float32)
    assert select(masks, ious, Selection.SINGLE, spec) == (0,)
    masks[0, :6] = 0.01  # 2.3% of the mask
    assert select(masks, ious, Selection.SINGLE, spec) == (2,)
    masks[0] = -1
    assert select(masks, ious, Selection.SINGLE, spec) == (0,), "of an empty mask upstream says that it is stable"
