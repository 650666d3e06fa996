"""Upstream's two classes on a client whose server is scripted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samgate.client import (
    AnswerInfo,
    Client,
    Decision,
    EmbeddedImage,
    Everything,
    EverythingMask,
    Handle,
    Mask,
    SamAutomaticMaskGenerator,
    SamPredictor,
    Segmentation,
    Timings,
)
from samgate.domain import BoolArray, Format, Rle
from samgate.errors import InvalidArgument, NotFound
from samgate.imaging import formats

INFO = AnswerInfo("mobilesam", "f32", "e", False, None, Timings(0, 0, 0, 0, 0, 0), Decision("named", 0.7, 1, 2, 0))
SIZE = (60, 90)


class ScriptedClient(Client):
    """Answers three masks (or one) whose logits are positive in the square's top left quarter, and holds an embedding
    until ``forget`` is called. Compares an image with words once it has had its pixels with some."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.embedded: list[np.ndarray] = []
        self.held: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.compared = False
        self.found: tuple[EverythingMask, ...] = ()

    def embed(self, image: Any, **options: Any) -> EmbeddedImage:
        self.embedded.append(np.array(image))
        handle = Handle(f"h{len(self.embedded)}")
        self.held.add(handle.value)
        return EmbeddedImage(handle, SIZE, 60, INFO)

    def forget(self) -> None:
        self.held.clear()

    def segment(self, image: Any, **options: Any) -> Segmentation:
        words, pixels = options["text"] is not None, isinstance(image, np.ndarray)
        if not pixels and (image.handle.value not in self.held or (words and not self.compared)):
            raise NotFound("send the image")
        self.compared |= words
        self.asked.append({"image": image, **options})
        logits = np.full((256, 256), -4, np.float32)
        logits[:128, :128] = 4
        bits = np.packbits(quarter()).tobytes()
        masks = tuple(
            Mask(SIZE, options["format"], bits, (0, 0, 45, 45), 2025, 0.5 + n / 10, 0.9, logits)
            for n in range(3 if options["selection"] == "multi" else 1)
        )
        return Segmentation((masks,), SIZE, INFO)

    def everything(self, image: Any, **options: Any) -> Everything:
        self.asked.append(options)
        return Everything(self.found, SIZE, INFO)


def quarter() -> BoolArray:
    mask = np.zeros(SIZE, np.bool_)
    mask[:45, :45] = True
    return mask


def picture() -> np.ndarray:
    return np.arange(SIZE[0] * SIZE[1] * 3, dtype=np.uint32).astype(np.uint8).reshape(*SIZE, 3)


def test_predict_returns_upstreams_arrays() -> None:
    client = ScriptedClient()
    predictor = SamPredictor(client)
    predictor.set_image(picture())
    assert predictor.original_size == SIZE
    masks, ious, low_res = predictor.predict(np.array([[3, 4]]), np.array([1]), box=np.array([0, 0, 9, 9]))
    assert (masks.shape, masks.dtype) == ((3, *SIZE), np.dtype(np.bool_))
    assert ious.tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert (low_res.shape, low_res.dtype, ious.dtype) == ((3, 256, 256), np.dtype(np.float32), low_res.dtype)
    assert np.array_equal(masks[0], quarter())
    single, _, _ = predictor.predict(mask_input=low_res[:1], multimask_output=False)
    assert single.shape == (1, *SIZE)
    assert client.asked[-1]["mask_logits"].shape == (1, 256, 256)
    assert len(client.embedded) == 1


def test_logits_are_enlarged_to_the_image() -> None:
    predictor = SamPredictor(ScriptedClient())
    predictor.set_image(picture())
    logits, _, _ = predictor.predict(np.array([[3, 4]]), np.array([1]), return_logits=True)
    assert (logits.shape, logits.dtype) == ((3, *SIZE), np.dtype(np.float32))
    # The image fills the square's width, so that its left half is the image's.
    assert np.array_equal(logits[0] > 0, quarter())


def test_channels_are_sent_as_rgb() -> None:
    client = ScriptedClient()
    SamPredictor(client).set_image(picture(), "BGR")
    assert np.array_equal(client.embedded[0], picture()[..., ::-1])
    with pytest.raises(InvalidArgument, match="image_format"):
        SamPredictor(client).set_image(picture(), "HSV")


def test_a_lost_embedding_is_made_again_from_the_pixels_of_set_image() -> None:
    client = ScriptedClient()
    predictor = SamPredictor(client)
    image = picture()
    predictor.set_image(image)
    image[:] = 0
    client.forget()
    for _ in range(2):
        predictor.predict(np.array([[3, 4]]), np.array([1]))
    assert len(client.embedded) == 2
    assert np.array_equal(client.embedded[1], picture())


def test_words_are_compared_with_the_pixels_of_set_image_and_then_by_handle() -> None:
    client = ScriptedClient()
    predictor = SamPredictor(client, variant="fastsam-s")
    predictor.set_image(picture())
    masks, ious, low_res = predictor.predict(text="a black dog")
    assert (masks.shape, ious.shape, low_res.shape) == ((3, *SIZE), (3,), (3, 256, 256))
    predictor.predict(text="a cat", multimask_output=False)
    first, second = client.asked
    assert np.array_equal(first["image"], picture())
    assert isinstance(second["image"], EmbeddedImage)
    assert (first["text"], first["points"], first["variant"]) == ("a black dog", None, "fastsam-s")
    assert second["text"] == "a cat"
    assert len(client.embedded) == 1


def test_a_predictor_without_image_says_so() -> None:
    predictor = SamPredictor(ScriptedClient())
    before = predictor.is_image_set
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(np.array([[3, 4]]), np.array([1]))
    predictor.set_image(picture())
    assert (before, predictor.is_image_set) == (False, True)
    with pytest.raises(InvalidArgument, match="point_labels"):
        predictor.predict(np.array([[3, 4]]))
    with pytest.raises(NotImplementedError, match="stays on the samgate server"):
        predictor.get_image_embedding()
    predictor.reset_image()
    with pytest.raises(RuntimeError, match="set_image"):
        _ = predictor.original_size


def found(mask: BoolArray, box: tuple[int, int, int, int] | None) -> EverythingMask:
    rle = formats.encode(mask.astype(np.uint8), Format.RLE)
    assert isinstance(rle, Rle)
    return EverythingMask(
        Mask(SIZE, Format.RLE, rle, box, int(mask.sum()), 0.9, 0.97, None), (3.5, 4.5), (10, 0, 90, 60)
    )


@pytest.mark.parametrize("mode", ["binary_mask", "uncompressed_rle", "coco_rle"])
def test_records_are_upstreams(mode: str) -> None:
    client = ScriptedClient()
    client.found = (found(quarter(), (0, 0, 45, 45)), found(np.zeros(SIZE, np.bool_), None))
    record, empty = SamAutomaticMaskGenerator(client, output_mode=mode).generate(picture())
    segmentation = record.pop("segmentation")
    match mode:
        case "binary_mask":
            assert segmentation.dtype == np.bool_
            assert np.array_equal(segmentation, quarter())
        case "uncompressed_rle":
            assert segmentation == {"size": [60, 90], "counts": [0, *[45, 15] * 44, 45, 15 + 60 * 45]}
        case _:
            mask = formats.rle_to_mask(Rle((60, 90), segmentation["counts"].encode()))
            assert np.array_equal(mask, quarter())
    assert record == {
        "area": 2025,
        "bbox": [0, 0, 44, 44],
        "predicted_iou": 0.9,
        "point_coords": [[3.5, 4.5]],
        "stability_score": 0.97,
        "crop_box": [10, 0, 80, 60],
    }
    assert (empty["bbox"], empty["area"]) == ([0, 0, 0, 0], 0)


def test_the_generators_arguments_reach_the_call() -> None:
    client = ScriptedClient()
    SamAutomaticMaskGenerator(client, 16, 64, 0.5, min_mask_region_area=9, timeout_s=5).generate(picture())
    (asked,) = client.asked
    expected = {"points_per_side": 16, "pred_iou_thresh": 0.5, "min_mask_region_area": 9, "timeout_s": 5}
    assert expected.items() <= asked.items()
    assert "points_per_batch" not in asked


def test_what_the_service_does_not_offer_is_refused() -> None:
    client = ScriptedClient()
    with pytest.raises(InvalidArgument, match="point_grids"):
        SamAutomaticMaskGenerator(client, points_per_side=None, point_grids=[np.zeros((1, 2))])
    with pytest.raises(InvalidArgument, match="output_mode: must be one of binary_mask"):
        SamAutomaticMaskGenerator(client, output_mode="png")
