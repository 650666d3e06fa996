"""Drop-in for ``segment_anything.SamPredictor`` that runs on a samgate server."""

from __future__ import annotations

import numpy as np

from samgate.client.results import EmbeddedImage, Segmentation
from samgate.client.sync import Client
from samgate.domain import BoolArray, FloatArray, Format, Selection, UInt8Array
from samgate.errors import InvalidArgument, NotFound, SamgateError


class SamPredictor:
    """Upstream's interface: ``set_image`` once, ``predict`` many times.

    What works on torch tensors or on the embedding itself (``set_torch_image``, ``predict_torch``,
    ``get_image_embedding``) stays on the server and is not offered.

    Args:
        sam_model: a :class:`~samgate.client.Client`, or the target of a server to make one for.
        variant: which one to use; empty lets the server choose.
    """

    def __init__(self, sam_model: Client | str, *, variant: str = "") -> None:
        self.model = Client(sam_model) if isinstance(sam_model, str) else sam_model
        self.variant = variant
        self._embedded: EmbeddedImage | None = None
        self._pixels: UInt8Array | None = None

    def set_image(self, image: UInt8Array, image_format: str = "RGB") -> None:
        """Embed ``image`` uint8 ``[H, W, 3]``, whose channels are in the order of ``image_format``, RGB or BGR.

        Raises what :meth:`samgate.client.Client.embed` does.
        """
        if image_format not in ("RGB", "BGR"):
            raise InvalidArgument("image_format", f"must be 'RGB' or 'BGR', is {image_format!r}")
        self.reset_image()
        # Kept to embed it again when the server has dropped it; a copy, because callers reuse their buffers.
        pixels = np.array(image if image_format == "RGB" else image[..., ::-1], order="C")
        self._embedded = self.model.embed(pixels, variant=self.variant)
        self._pixels = pixels

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        *,
        text: str | None = None,
    ) -> tuple[BoolArray | FloatArray, FloatArray, FloatArray]:
        """Masks for one prompt on the image that is set.

        Args:
            point_coords: ``[N, 2]``, (x, y) in pixels.
            point_labels: ``[N]``, 1 foreground, 0 background.
            box: ``[4]``, XYXY in pixels.
            mask_input: ``[1, 256, 256]``, low-res logits of an earlier prediction.
            multimask_output: three masks instead of one.
            return_logits: logits at the image's size instead of masks; they are enlarged here, by upstream's rule.
            text: words instead of all that (not upstream's), see :meth:`samgate.client.Client.segment`.

        Returns masks bool (or logits float32) ``[C, H, W]``, predicted IoUs float32 ``[C]`` and low-res logits float32
        ``[C, 256, 256]``. Raises RuntimeError, as upstream does, if no image is set, and what
        :meth:`samgate.client.Client.segment` does. If the server has dropped the embedding, or hasn't compared the
        image with words yet, the image is sent again.
        """
        if point_coords is not None and point_labels is None:
            raise InvalidArgument("point_labels", "must be given with point_coords")

        def ask(image: EmbeddedImage | UInt8Array) -> Segmentation:
            return self.model.segment(
                image,
                points=point_coords,
                labels=point_labels if point_coords is not None else None,
                box=box,
                mask_logits=mask_input,
                text=text,
                selection=Selection.MULTI if multimask_output else Selection.SINGLE,
                format=Format.LOW_RES_LOGITS if return_logits else Format.PACKED_BITS,
                return_logits=True,
                variant=self.variant,
            )

        embedded, pixels = self._set()
        try:
            answer = ask(embedded)
        except NotFound:
            if text is not None:
                # An embedding alone won't do: words are compared with the pixels of what was found.
                answer = ask(pixels)
            else:
                self._embedded = self.model.embed(pixels, variant=self.variant)
                answer = ask(self._embedded)
        low_res = np.stack([_low_res(mask.low_res_logits) for mask in answer.masks])
        ious = np.array([mask.predicted_iou for mask in answer.masks], np.float32)
        if return_logits:
            return _enlarged(low_res, answer), ious, low_res
        return np.stack([mask.to_numpy() for mask in answer.masks]), ious, low_res

    @property
    def is_image_set(self) -> bool:
        """Whether ``predict`` can be called."""
        return self._embedded is not None

    @property
    def original_size(self) -> tuple[int, int]:
        """(height, width) of the image that is set. Raises RuntimeError if none is."""
        return self._set()[0].size

    def reset_image(self) -> None:
        """Forget the image."""
        self._embedded = None
        self._pixels = None

    def get_image_embedding(self) -> None:
        """Not offered: raises NotImplementedError."""
        raise NotImplementedError("the embedding stays on the samgate server; predict() uses it there")

    def _set(self) -> tuple[EmbeddedImage, UInt8Array]:
        if self._embedded is None or self._pixels is None:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        return self._embedded, self._pixels


def _low_res(logits: FloatArray | None) -> FloatArray:
    if logits is None:
        raise SamgateError("the server answered without the logits that were asked for")
    return logits


def _enlarged(low_res: FloatArray, answer: Segmentation) -> FloatArray:
    # Imported here so that only those who want logits need OpenCV.
    from samgate.imaging.masks import full_logits
    from samgate.imaging.preprocess import frame_of
    from samgate.variants import get_variant

    frame = frame_of(*answer.size, get_variant(answer.info.variant))
    return np.stack([full_logits(logits, frame) for logits in low_res])
