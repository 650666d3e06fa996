"""What JPEG, PNG and WebP files say before their pixels: size and EXIF orientation; and the pixels without the rest.

Metadata (ICC profiles, XMP, comments, thumbnails, text) never reaches the image library: it has no part in the
pixels, and its parsers are what hostile files aim at. Only these few header fields are read here, with every length
checked.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_MAX_PARTS = 65_536
"""Segments or chunks of a file: an image of the largest message in 4 KiB chunks has 16,384."""
_MAX_SCANS = 100
"""Of one JPEG. Progressive encoders make about 10; each costs a pass over the whole image, however few its bytes."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_JPEG_DROPPED = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
"""Application data and comments, but for APP0 (JFIF) and APP14 (Adobe), which say what the colours are."""
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SOS, _EOI = 0xDA, 0xD9
_ORIENTATION_TAG = 0x0112


class Kind(StrEnum):
    """The supported formats."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"


class ContainerError(ValueError):
    """The bytes aren't a file of a supported format (``kind`` is None), or ``problem`` is wrong with its structure."""

    def __init__(self, kind: Kind | None, problem: str = "") -> None:
        super().__init__(f"is a broken {kind} file: {problem}" if kind else "is not a JPEG, PNG or WebP file")


@dataclass(frozen=True, slots=True)
class Header:
    """``width`` and ``height`` are those of the stored pixels, before ``orientation`` (EXIF's 1 to 8) is applied."""

    kind: Kind
    width: int
    height: int
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) once the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(data: bytes) -> Header:
    """Kind, size and orientation. Broken EXIF counts as none. Raises :class:`ContainerError`."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(data)
    if data.startswith(_PNG_SIGNATURE):
        return _png_header(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_header(data)
    raise ContainerError(None)


def only_pixels(data: bytes, kind: Kind) -> bytes:
    """``data`` without metadata, and for JPEG without what follows the image. Raises :class:`ContainerError`."""
    if kind is Kind.JPEG:
        kept, scan = [b"\xff\xd8"], 0
        for marker, start, end in _jpeg_segments(data):
            if marker == _SOS:
                scan = start
            elif marker not in _JPEG_DROPPED:
                kept.append(data[start:end])
        return b"".join([*kept, data[scan : _jpeg_end(data, scan)]])
    if kind is Kind.PNG:
        chunks = [data[start:end] for name, start, end in _png_chunks(data) if name in _PNG_KEPT]
        return b"".join([_PNG_SIGNATURE, *chunks])
    return data


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment up to and with the first scan's header."""
    position = 2
    for _ in range(_MAX_PARTS):
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data) or data[position + 1] == _EOI:
            raise ContainerError(Kind.JPEG, "it ends before its pixels")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
            if end < position + 4 or end > len(data):
                raise ContainerError(Kind.JPEG, "it has a segment of an impossible length")
            yield marker, position, end
            if marker == _SOS:
                return
            position = end
    raise ContainerError(Kind.JPEG, f"it has more than {_MAX_PARTS} segments")


def _jpeg_end(data: bytes, scan: int) -> int:
    """Where the image ends that has its first scan at ``scan``."""
    position, scans = scan, 0
    for _ in range(_MAX_PARTS):
        found = _NEXT_MARKER.search(data, position)
        if found is None or found.end() + 2 > len(data) or data[found.end() - 1] == _EOI:
            return len(data) if found is None else found.end()
        scans += data[found.end() - 1] == _SOS
        if scans > _MAX_SCANS:
            raise ContainerError(Kind.JPEG, f"it has more than {_MAX_SCANS} scans")
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    raise ContainerError(Kind.JPEG, f"it has more than {_MAX_PARTS} segments")


def _jpeg_header(data: bytes) -> Header:
    size: tuple[int, int] | None = None
    orientation = 0
    for marker, start, end in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if end - start < 9:
                raise ContainerError(Kind.JPEG, "it has a broken frame header")
            height, width = struct.unpack_from(">HH", data, start + 5)
            size = (width, height)
        elif marker == 0xE1 and not orientation and data.startswith(b"Exif\0\0", start + 4):
            orientation = orientation_of(data[start + 4 : end])
    if size is None:
        raise ContainerError(Kind.JPEG, "it has no frame header")
    return Header(Kind.JPEG, *size, orientation or 1)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each chunk; the last may be cut short."""
    position = len(_PNG_SIGNATURE)
    for _ in range(_MAX_PARTS):
        if position + 8 > len(data):
            return
        end = position + 12 + int.from_bytes(data[position : position + 4])
        name = data[position + 4 : position + 8]
        yield name, position, min(end, len(data))
        if name == b"IEND":
            return
        position = end
    raise ContainerError(Kind.PNG, f"it has more than {_MAX_PARTS} chunks")


def _png_header(data: bytes) -> Header:
    if data[8:16] != b"\0\0\0\rIHDR" or len(data) < 33:
        raise ContainerError(Kind.PNG, "it has a broken header")
    width, height = struct.unpack_from(">II", data, 16)
    orientation = 1
    for name, start, end in _png_chunks(data):
        if name == b"eXIf":
            orientation = orientation_of(data[start + 8 : end - 4])
    return Header(Kind.PNG, width, height, orientation)


def _webp_header(data: bytes) -> Header:
    name, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise ContainerError(Kind.WEBP, "it ends before its pixels")
    if name == b"VP8X":
        width, height = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    elif name == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif name == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
    else:
        raise ContainerError(Kind.WEBP, "it has a broken header")
    return Header(Kind.WEBP, width, height, _webp_orientation(data))


def _webp_orientation(data: bytes) -> int:
    position = 12
    for _ in range(_MAX_PARTS):
        if position + 8 > len(data):
            return 1
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data.startswith(b"EXIF", position):
            return orientation_of(data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    raise ContainerError(Kind.WEBP, f"it has more than {_MAX_PARTS} chunks")


def orientation_of(exif: bytes) -> int:
    """EXIF's orientation, 1 to 8, from a TIFF structure with or without its ``Exif`` prefix; 1 when it has none."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
