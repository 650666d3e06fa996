"""Arrivals of a workload → requests on the wire."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.simulation.arrival import Arrival


@dataclass(frozen=True, slots=True)
class Photo:
    """An encoded image and its (width, height)."""

    data: bytes
    size: tuple[int, int]


class Requests:
    """Makes the request of each arrival, the same for the same seed.

    Image n of the workload is a photo with a few bytes after its end, which decoders don't read: to the server it is
    an image that it has never seen.
    """

    def __init__(self, photos: Sequence[Photo], seed: int, salt: bytes = b"") -> None:
        self._photos = photos
        self._random = Random(f"{seed} prompts")
        self._salt = salt

    def segment(self, arrival: Arrival) -> pb.SegmentRequest:
        """A Segment request: random points, each the best of three masks, or random boxes."""
        photo, image = self._image(arrival.image)
        box = arrival.kind == "box"
        prompts = [self._box(photo) if box else self._point(photo) for _ in range(arrival.prompts)]
        return pb.SegmentRequest(
            image=image,
            prompts=prompts,
            selection=pb.MASK_SELECTION_SINGLE if box else pb.MASK_SELECTION_BEST,
            variant=arrival.points[0] if arrival.points else "",
            min_accuracy=arrival.min_accuracy,
        )

    def everything(self, arrival: Arrival) -> pb.SegmentEverythingRequest:
        """A SegmentEverything request of about as many points as the arrival has prompts."""
        _, image = self._image(arrival.image)
        side = max(1, round(math.sqrt(arrival.prompts)))
        return pb.SegmentEverythingRequest(
            image=image,
            grid=pb.GridParameters(points_per_side=side),
            variant=arrival.points[0] if arrival.points else "",
            min_accuracy=arrival.min_accuracy,
        )

    def _image(self, number: int) -> tuple[Photo, pb.Image]:
        photo = self._photos[number % len(self._photos)]
        return photo, pb.Image(encoded=photo.data + self._salt + number.to_bytes(8, "big"))

    def _point(self, photo: Photo) -> pb.Prompt:
        width, height = photo.size
        x, y = self._random.uniform(0, width), self._random.uniform(0, height)
        return pb.Prompt(points=[pb.Point(x=x, y=y, label=pb.POINT_LABEL_FOREGROUND)])

    def _box(self, photo: Photo) -> pb.Prompt:
        width, height = photo.size
        x, y = self._random.uniform(0, 0.6 * width), self._random.uniform(0, 0.6 * height)
        across, down = self._random.uniform(0.1, 0.4), self._random.uniform(0.1, 0.4)
        return pb.Prompt(box=pb.Box(x0=x, y0=y, x1=x + across * width, y1=y + down * height))
