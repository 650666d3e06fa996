"""Image files and raw pixels → RGB. Everything here may be called from several threads at once."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from samgate.domain import UInt8Array
from samgate.errors import InvalidArgument
from samgate.imaging.containers import ContainerError, Header, Kind, only_pixels, read_header

MAX_SIDE = 65_535
"""Pixels along one side, which is JPEG's own limit."""

# The classes are called by name: Image.open would also apply Pillow's process-wide limit on pixels, which can warn or
# raise below ours.
_FILES: dict[Kind, type[ImageFile.ImageFile]] = {
    Kind.JPEG: JpegImageFile,
    Kind.PNG: PngImageFile,
    Kind.WEBP: WebPImageFile,
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def probe(encoded: bytes, max_pixels: int, field: str) -> tuple[int, int]:
    """(width, height) of a JPEG, PNG or WebP file with its EXIF orientation applied, from its header alone.

    Raises :class:`InvalidArgument` for ``field``: empty, of another format, a broken header, or a size of zero or
    above ``max_pixels``.
    """
    return _header(encoded, max_pixels, field).upright_size


def decode(encoded: bytes, max_pixels: int, field: str) -> UInt8Array:
    """Pixels uint8 ``[H, W, 3]`` RGB, upright, maybe read-only.

    Alpha is dropped, grey, palette and CMYK become RGB, 16 bits become 8 by dropping the lower byte, and of an
    animation the first frame is taken. Raises as :func:`probe` does, and for pixels that can't be decoded in full.
    """
    header = _header(encoded, max_pixels, field)
    try:
        return _pixels(only_pixels(encoded, header.kind), header)
    except ContainerError as error:
        problem = str(error)
    except OSError as error:
        problem = f"is a broken {header.kind} file: {error}"
    except Exception:  # Pillow raises nearly anything on broken files, with words about its own code
        problem = f"is a broken {header.kind} file: its pixels can't be decoded"
    # Not raised inside of the handler: it would keep the first error, whose frames hold the file and its pixels.
    raise InvalidArgument(field, problem)


def from_raw(width: int, height: int, rgb: bytes, max_pixels: int, field: str) -> UInt8Array:
    """``rgb`` as uint8 ``[height, width, 3]``, read-only and without a copy. Raises :class:`InvalidArgument`."""
    _check_size(width, height, max_pixels, field)
    if len(rgb) != width * height * 3:
        raise InvalidArgument(
            f"{field}.rgb", f"has {len(rgb)} bytes; {width} × {height} pixels × 3 are {width * height * 3}"
        )
    return np.frombuffer(rgb, dtype=np.uint8).reshape(height, width, 3)


def _header(encoded: bytes, max_pixels: int, field: str) -> Header:
    if not encoded:
        raise InvalidArgument(field, "is empty")
    try:
        header = read_header(encoded)
    except ContainerError as error:
        problem = str(error)
    else:
        _check_size(header.width, header.height, max_pixels, field)
        return header
    raise InvalidArgument(field, problem)


def _check_size(width: int, height: int, max_pixels: int, field: str) -> None:
    if width < 1 or height < 1:
        raise InvalidArgument(field, f"is {width}×{height} pixels; both sides must be at least 1")
    if max(width, height) > MAX_SIDE:
        raise InvalidArgument(field, f"is {width}×{height} pixels; no side may be longer than {MAX_SIDE}")
    if width * height > max_pixels:
        raise InvalidArgument(field, f"has {width * height} pixels ({width}×{height}); the limit is {max_pixels}")


def _pixels(encoded: bytes, header: Header) -> UInt8Array:
    # Each step's image is dropped in the next: at most about 11 bytes a pixel are held at once.
    image = _rgb(encoded, header)
    if header.orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[header.orientation])
    return np.asarray(image)


def _rgb(encoded: bytes, header: Header) -> Image.Image:
    with _FILES[header.kind](BytesIO(encoded)) as file:
        if file.size != (header.width, header.height):
            raise ContainerError(header.kind, "its parts disagree on its size")
        file.load()
        # Pillow warns when it converts a palette with transparency to RGB; it is to be dropped.
        file.info.pop("transparency", None)
        if file.mode.startswith("I"):
            return Image.fromarray((np.asarray(file) >> 8).astype(np.uint8)).convert("RGB")
        return file if file.mode == "RGB" else file.convert("RGB")
