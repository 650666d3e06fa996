"""Whatever a caller has of an image → the contract's ``Image``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from samgate.api.v1 import segmentation_pb2 as pb
from samgate.client.results import EmbeddedImage, Handle
from samgate.domain import UInt8Array
from samgate.errors import InvalidArgument

ImageLike = str | os.PathLike[str] | bytes | UInt8Array | EmbeddedImage | Handle
"""A file's path, a file's bytes, RGB pixels uint8 ``[H, W, 3]`` or greyscale ``[H, W]``, or an embedded image."""

RAW_MAX_BYTES = 48 * 2**20
"""Pixels beyond this are sent as PNG, to stay below the server's default message limit of 64 MiB."""


def image_message(image: ImageLike) -> pb.Image:
    """``image`` as the contract has it. Files are sent as they are, pixels raw: both leave decoding to the server.

    Raises :class:`~samgate.errors.InvalidArgument` if a file can't be read or an array is not an image.
    """
    match image:
        case EmbeddedImage(handle=handle) | (Handle() as handle):
            return pb.Image(handle=handle.value)
        case bytes():
            return pb.Image(encoded=image)
        case str() | os.PathLike():
            return pb.Image(encoded=_read(Path(image)))
        case np.ndarray():
            return _pixels(image)
    raise InvalidArgument("image", f"must be a path, bytes, a uint8 array or an embedded image, is {type(image)!r}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument("image", f"{str(path)!r} can't be read: {error.strerror}") from error


def _pixels(array: UInt8Array) -> pb.Image:
    shape = array.shape
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] != 3) or array.size == 0:
        problem = f"must be uint8 [H, W, 3] (RGB) or [H, W] (greyscale), is {array.dtype} {list(shape)}"
        raise InvalidArgument("image", problem)
    rgb = np.ascontiguousarray(array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2))
    if rgb.nbytes > RAW_MAX_BYTES:
        return pb.Image(encoded=_png(rgb))
    return pb.Image(raw=pb.RawImage(width=shape[1], height=shape[0], rgb=rgb.tobytes()))


def _png(rgb: UInt8Array) -> bytes:
    import cv2  # here, because only the largest images need it

    done, data = cv2.imencode(".png", rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise InvalidArgument("image", f"{rgb.shape[1]} × {rgb.shape[0]} pixels can't be compressed as PNG")
    return data.tobytes()
