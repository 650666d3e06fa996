"""Image files → RGB: every kind of pixel, orientation, limits, and hostile bytes."""

from __future__ import annotations

import contextlib
import gc
import io
import random
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from samgate.domain import UInt8Array
from samgate.errors import InvalidArgument
from samgate.imaging import containers, decode
from samgate.imaging.decode import from_raw, probe

LIMIT = 1_000_000
FIELD = "image.encoded"


def photo(width: int = 56, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(7).integers(0, 255, (8, 10, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    made[0x010F] = "camera"
    return made


def pixels(encoded: bytes) -> UInt8Array:
    return decode.decode(encoded, LIMIT, FIELD)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


SEEDS = {
    "jpeg": saved(photo(), "JPEG", exif=exif(6)),
    "progressive": saved(photo(), "JPEG", progressive=True, icc_profile=b"x" * 300, comment=b"hello"),
    "cmyk": saved(photo().convert("CMYK"), "JPEG"),
    "png": saved(photo(), exif=exif(3)),
    "rgba": saved(photo().convert("RGBA")),
    "palette": saved(photo().convert("P"), transparency=b"\0\x80"),
    "deep": saved(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30))),
    "webp": saved(photo(), "WEBP", exif=exif(5)),
    "lossless": saved(photo().convert("RGBA"), "WEBP", lossless=True),
    "animated": saved(photo(), "WEBP", save_all=True, append_images=[photo().rotate(90)]),
}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_png_modes_become_rgb(mode: str) -> None:
    image = photo().convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(pixels(saved(image)), expected)


@pytest.mark.parametrize("transparency", [3, b"\0\x80\xff"])
def test_palette_with_transparency_keeps_its_colours(transparency: int | bytes) -> None:
    image = photo().convert("P")
    assert np.array_equal(pixels(saved(image, transparency=transparency)), np.asarray(image.convert("RGB")))


def test_16_bit_grey_keeps_its_upper_byte() -> None:
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    decoded = pixels(saved(Image.fromarray(values)))
    assert decoded.dtype == np.uint8
    assert decoded[..., 0].tolist() == [[0, 0, 1], [128, 255, 255]]
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_cmyk_jpeg_becomes_rgb() -> None:
    difference = pixels(SEEDS["cmyk"]).astype(int) - np.asarray(photo()).astype(int)
    assert np.abs(difference).mean() < 4


def test_first_frame_of_animations() -> None:
    still = saved(photo(), "WEBP", lossless=True)
    frames = [photo().transpose(Image.Transpose.ROTATE_180)]
    for kind, options in (("WEBP", {"lossless": True}), ("PNG", {})):
        animated = saved(photo(), kind, save_all=True, append_images=frames, **options)
        assert np.array_equal(pixels(animated), pixels(still))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    encoded = saved(photo(), kind, exif=exif(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
    assert np.array_equal(pixels(encoded), np.asarray(upright))
    assert probe(encoded, LIMIT, FIELD) == upright.size


def test_big_endian_exif() -> None:
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    assert containers.orientation_of(b"Exif\0\0" + tiff) == 6


@pytest.mark.parametrize("cut", range(0, 37, 3))
def test_broken_exif_is_ignored(cut: int) -> None:
    broken = exif(6).tobytes()[:cut] + b"\xff" * 20
    assert pixels(saved(photo(), "JPEG", exif=broken)).shape == (40, 56, 3)


def test_orientation_out_of_range_is_ignored() -> None:
    assert pixels(saved(photo(), exif=exif(9))).shape == (40, 56, 3)


def test_metadata_bombs_are_not_unpacked() -> None:
    plain = saved(photo())
    bomb = zlib.compress(bytes(50_000_000), 9)
    chunks = chunk(b"iCCP", b"p\0\0" + bomb) + chunk(b"zTXt", b"k\0\0" + bomb) + chunk(b"tEXt", b"k\0" + bytes(100_000))
    assert np.array_equal(pixels(plain[:33] + chunks + plain[33:]), pixels(plain))


def test_metadata_has_no_part_in_jpeg_pixels() -> None:
    plain = saved(photo(), "JPEG")
    rich = saved(photo(), "JPEG", icc_profile=bytes(200_000), comment=b"c" * 60_000, exif=exif(1), xmp=b"<x/>")
    assert np.array_equal(pixels(rich + b"a film after the image" * 1000), pixels(plain))


@pytest.mark.parametrize("name", SEEDS)
def test_probe_agrees_with_decode(name: str) -> None:
    height, width = pixels(SEEDS[name]).shape[:2]
    assert probe(SEEDS[name], LIMIT, FIELD) == (width, height)


@pytest.mark.parametrize("function", [probe, decode.decode])
@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        (b"", "image.encoded: is empty"),
        (b"x", "image.encoded: is not a JPEG, PNG or WebP file"),
        (saved(photo(), "GIF"), "image.encoded: is not a JPEG, PNG or WebP file"),
        (saved(photo(), "TIFF"), "image.encoded: is not a JPEG, PNG or WebP file"),
        (b"\xff\xd8\xff", "image.encoded: is a broken JPEG file: it ends before its pixels"),
        (SEEDS["png"][:20], "image.encoded: is a broken PNG file: it has a broken header"),
        (SEEDS["webp"][:18], "image.encoded: is a broken WebP file: it ends before its pixels"),
        (
            SEEDS["png"][:16] + struct.pack(">II", 0, 5) + SEEDS["png"][24:],
            "image.encoded: is 0×5 pixels; both sides must be at least 1",
        ),
        (
            SEEDS["png"][:16] + struct.pack(">II", 70_000, 1) + SEEDS["png"][24:],
            "image.encoded: is 70000×1 pixels; no side may be longer than 65535",
        ),
        (
            SEEDS["png"][:16] + struct.pack(">II", 50_000, 40_000) + SEEDS["png"][24:],
            "image.encoded: has 2000000000 pixels (50000×40000); the limit is 1000000",
        ),
    ],
)
def test_unusable_bytes_are_named(function: object, encoded: bytes, problem: str) -> None:
    assert callable(function)
    with pytest.raises(InvalidArgument) as raised:
        function(encoded, LIMIT, FIELD)
    assert str(raised.value) == problem
    assert raised.value.field == FIELD


def test_our_limit_rules_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert pixels(SEEDS["png"]).shape == (40, 56, 3)
    with pytest.raises(InvalidArgument, match="limit is 2239"):
        decode.decode(SEEDS["png"], 40 * 56 - 1, FIELD)


@pytest.mark.parametrize("name", SEEDS)
def test_truncated_files_are_errors(name: str) -> None:
    encoded = SEEDS[name]
    for length in {1, 5, 11, 30, len(encoded) // 3, len(encoded) // 2, len(encoded) - 30}:
        with pytest.raises(InvalidArgument):
            pixels(encoded[:length])


def test_a_jpeg_of_too_many_scans_is_refused() -> None:
    encoded = saved(photo(), "JPEG", progressive=True)
    last = encoded[encoded.rfind(b"\xff\xda") : -2]
    with pytest.raises(InvalidArgument, match="more than 100 scans"):
        pixels(encoded[:-2] + last * 100 + b"\xff\xd9")


@pytest.mark.parametrize(
    "encoded",
    [
        b"\xff\xd8" + b"\xff\xe1\0\2" * 70_000,
        b"\xff\xd8" + b"\xff\x01" * 70_000,
        SEEDS["png"][:33] + chunk(b"tEXt", b"") * 70_000,
        SEEDS["webp"][:30] + b"JUNK\0\0\0\0" * 70_000,
    ],
)
def test_endless_parts_are_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidArgument):
        probe(encoded, LIMIT, FIELD)


def test_nothing_is_kept_after_a_failure() -> None:
    encoded = SEEDS["png"][: len(SEEDS["png"]) // 2]
    references = sys.getrefcount(encoded)
    with pytest.raises(InvalidArgument) as raised:
        pixels(encoded)
    assert raised.value.__context__ is None
    raised.value.__traceback__ = None
    del raised
    gc.collect()
    assert sys.getrefcount(encoded) == references
    assert not [found for found in gc.get_objects() if issubclass(type(found), ImageFile.ImageFile)]


def test_threads_do_not_disturb_each_other() -> None:
    expected = {name: pixels(encoded) for name, encoded in SEEDS.items()}
    with ThreadPoolExecutor(8) as pool:
        for name, decoded in zip(list(SEEDS) * 20, pool.map(pixels, list(SEEDS.values()) * 20), strict=True):
            assert np.array_equal(decoded, expected[name])


def check_hostile(encoded: bytes) -> None:
    for function in (probe, decode.decode):
        with contextlib.suppress(InvalidArgument):
            function(encoded, LIMIT, FIELD)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_mutations_raise_invalid_argument_only(name: str, data: st.DataObject) -> None:
    mutated = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        if not mutated:
            break
    check_hostile(bytes(mutated))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"RIFF\0\0\0\0WEBPVP8"]), st.binary(max_size=80)
)
def test_noise_after_a_signature_raises_invalid_argument_only(start: bytes, rest: bytes) -> None:
    check_hostile(start + rest)


def test_png_chunks_of_noise_with_right_checksums() -> None:
    draw = random.Random(1)
    encoded = SEEDS["palette"]
    for _ in range(300):
        name = draw.choice([b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"gAMA", b"IEND"])
        at = draw.choice([33, encoded.index(b"IDAT") - 4, len(encoded) - 12])
        check_hostile(encoded[:at] + chunk(name, draw.randbytes(draw.randrange(40))) + encoded[at:])


def test_raw_pixels() -> None:
    rgb = bytes(range(2 * 3 * 3))
    decoded = from_raw(3, 2, rgb, LIMIT, "image.raw")
    assert decoded.shape == (2, 3, 3)
    assert decoded.tobytes() == rgb


@pytest.mark.parametrize(
    ("width", "height", "size", "problem"),
    [
        (0, 4, 0, "image.raw: is 0×4 pixels; both sides must be at least 1"),
        (3, 2, 17, "image.raw.rgb: has 17 bytes; 3 × 2 pixels × 3 are 18"),
        (2000, 1000, 0, "image.raw: has 2000000 pixels (2000×1000); the limit is 1000000"),
        (70_000, 2, 0, "image.raw: is 70000×2 pixels; no side may be longer than 65535"),
    ],
)
def test_unusable_raw_pixels(width: int, height: int, size: int, problem: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        from_raw(width, height, bytes(size), LIMIT, "image.raw")
    assert str(raised.value) == problem


def test_real_images_are_as_pillow_has_them(shared_data: Path) -> None:
    paths = sorted((shared_data / "eval" / "images").rglob("*.*"))[::12]
    assert paths
    for path in paths:
        encoded = path.read_bytes()
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
        decoded = decode.decode(encoded, 50_000_000, FIELD)
        assert np.array_equal(decoded, np.asarray(upright.convert("RGB"))), path.name
        assert probe(encoded, 50_000_000, FIELD) == upright.size
