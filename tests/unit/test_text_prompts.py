"""Words at the API: what of them is refused, and what ListVariants says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from samgate.api.answers import variant_message
from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.validation import MAX_TEXT, segment_call
from samgate.config import Limits
from samgate.errors import InvalidArgument
from samgate.scheduling.queue import Priority
from samgate.variants import get_variant
from samgate.variants.spec import PromptSupport
from scheduling_support import PAIR

POINT = pb.Prompt(points=[pb.Point(x=3, y=3)])
BOX = pb.Box(x0=0, y0=0, x1=9, y1=9)


@dataclass(frozen=True)
class Call:
    started: float = 0.0
    deadline: float = 9.0
    client: str = ""
    at_best: Priority = Priority.INTERACTIVE


def request(*prompts: pb.Prompt) -> pb.SegmentRequest:
    return pb.SegmentRequest(image=pb.Image(encoded=b"x"), prompts=prompts)


@pytest.mark.parametrize("text", ["a black dog", "ein schwarzer Hund", "黒い犬", " dog\n", "\0", "x" * MAX_TEXT])
def test_words_come_through_as_they_are(text: str) -> None:
    words, point = segment_call(request(pb.Prompt(text=text), POINT), Limits(), Call()).prompts
    assert (words.text, words.points.shape, words.labels.shape) == (text, (0, 2), (0,))
    assert (words.box, words.mask_logits, point.text) == (None, None, "")


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (pb.Prompt(), "prompts[1]: is empty: it needs points, a box, mask_logits or a text"),
        (pb.Prompt(text=""), "prompts[1]: is empty: it needs points, a box, mask_logits or a text"),
        (pb.Prompt(text=" \t\u3000"), "prompts[1].text: is ' \\t\\u3000': it needs words"),
        (pb.Prompt(text="x" * 1001), "prompts[1].text: has 1001 characters; the limit is 1000"),
        (pb.Prompt(text=" " * 1001), "prompts[1].text: has 1001 characters; the limit is 1000"),
        (
            pb.Prompt(text="a dog", points=POINT.points),
            "prompts[1].text: stands alone: points can't be in the same prompt",
        ),
        (pb.Prompt(text="a dog", box=pb.Box()), "prompts[1].text: stands alone: box can't be in the same prompt"),
        (
            pb.Prompt(text="a dog", points=POINT.points, box=BOX, mask_logits=b"1234"),
            "prompts[1].text: stands alone: points and box and mask_logits can't be in the same prompt",
        ),
    ],
)
def test_words_that_cannot_be_are_refused(prompt: pb.Prompt, told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        segment_call(request(POINT, prompt), Limits(), Call())
    assert str(refused.value) == told


@pytest.mark.parametrize("support", [PromptSupport(mask=False, text=True), PromptSupport()])
def test_variants_tell_whether_they_take_words(support: PromptSupport) -> None:
    spec = replace(get_variant("fastsam-s"), prompts=support)
    told = variant_message(spec, [], PAIR).prompts
    assert told == pb.PromptSupport(background_points=True, mask_logits=support.mask, text=support.text)
