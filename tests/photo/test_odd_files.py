"""Files as other programs write them, valid but unusual, and files with one fault that viewers
read all the same: right, or refused by name, and never wrong without a word."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import skimage.color
import tifffile
from PIL import Image

from colorized import photo

PHOTOS = sorted((Path(__file__).parents[2] / "data" / "sample" / "photos").glob("*.jpg"))


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """A real photograph, uint8 (90, 120, 3)."""
    with Image.open(PHOTOS[0]) as image:
        return np.asarray(image.convert("RGB").resize((120, 90)))


@pytest.fixture(scope="module")
def gray(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def lightness_of(levels: np.ndarray) -> np.ndarray:
    """L* by scikit-image of gray levels or RGB, 0 … 1."""
    return skimage.color.rgb2lab(levels if levels.ndim == 3 else np.dstack([levels] * 3))[..., 0]


Tag = tuple[int, int, Sequence[int]]  # code, type (3 SHORT, 4 LONG), values


def tiff(*pages: tuple[list[Tag], bytes], last: int | None = 0) -> bytes:
    """A TIFF of pages (tags, pixels), little-endian.

    `last` is the offset of a page behind the last one: 0 for none, None for the first again.
    """
    out = bytearray(b"II*\0" + bytes(4))
    link, first = 4, None
    for tags, pixels in pages:
        place = len(out)
        out += pixels + bytes(len(pixels) % 2)
        tags = sorted([*tags, (273, 4, [place]), (279, 4, [len(pixels)])])
        values = {}
        for code, kind, numbers in tags:
            packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
            if len(packed) > 4:
                values[code] = struct.pack("<I", len(out))
                out += packed
            else:
                values[code] = packed.ljust(4, b"\0")
        struct.pack_into("<I", out, link, len(out))
        first = first or len(out)
        out += struct.pack("<H", len(tags))
        for code, kind, numbers in tags:
            out += struct.pack("<HHI", code, kind, len(numbers)) + values[code]
        link = len(out)
        out += bytes(4)
    struct.pack_into("<I", out, link, (first or 0) if last is None else last)
    return bytes(out)


def page(
    levels: np.ndarray, bits: int, photometric: int = 1, more: Sequence[Tag] = ()
) -> tuple[list[Tag], bytes]:
    """Tags and pixels of an uncompressed page, packed to `bits` each."""
    height, width = levels.shape[:2]
    samples = 1 if levels.ndim == 2 else levels.shape[2]
    rows = levels.reshape(height, -1).astype(np.uint32)
    digits = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    data = np.packbits(digits.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    if bits in (16, 24, 32):  # whole bytes are in the order of the file
        data = rows.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    tags: list[Tag] = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * samples), (259, 3, [1]),
        (262, 3, [photometric]), (277, 3, [samples]), (278, 4, [height]), *more,
    ]  # fmt: skip
    return tags, data


# ---- TIFF: depth and order of bits -------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 10, 12, 14, 24, 32])
def test_tiff_of_any_depth(tmp_path: Path, gray: np.ndarray, bits: int) -> None:
    top = 2**bits - 1
    levels = np.rint(gray / 255 * top).astype(np.uint64)
    levels[0, :2] = 0, top
    (tmp_path / "a.tif").write_bytes(tiff(page(levels, bits)))
    read = photo.read_photo(tmp_path / "a.tif")
    assert read.bits == (8 if bits <= 8 else 16)
    assert (read.lightness[0, 0], read.lightness[0, 1]) == (0, 100)
    np.testing.assert_allclose(read.lightness, lightness_of(levels / top), atol=0.25)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_with_reversed_bits(tmp_path: Path, gray: np.ndarray, bits: int) -> None:
    tags, data = page(gray.astype(int) * (1 if bits == 8 else 257), bits)
    reversed_bits = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little")
    (tmp_path / "a.tif").write_bytes(tiff(([*tags, (266, 3, [2])], reversed_bits.tobytes())))
    read = photo.read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(gray / 255), atol=2e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("white", "beyond"), [(1, 1.02), (1, 12.5), (255, 255.8), (65535, 70_000), (1, np.inf)]
)
def test_a_few_levels_beyond_white(
    tmp_path: Path, gray: np.ndarray, dtype: type, white: int, beyond: float
) -> None:
    if dtype == np.float16 and white == 65535:
        pytest.skip("it ends at 65504")
    levels = (gray / 255 * white).astype(dtype)
    levels[3:5, 3:9] = beyond
    levels[7, 7:9] = -0.01 * white
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="minisblack", metadata=None)
    read = photo.read_photo(tmp_path / "a.tif")
    assert read.bits == 16
    expected = lightness_of(np.clip(levels.astype(float) / white, 0, 1))
    np.testing.assert_allclose(read.lightness, expected, atol=0.3 if dtype == np.float16 else 2e-3)
    assert read.notes == [
        f"its floating-point levels are read as 0 to {white}; 0.13 % beyond are cut off"
    ]


def test_highlights_of_hdr_are_white(tmp_path: Path, gray: np.ndarray) -> None:
    levels = gray.astype(np.float32) / 255 * 3.5  # an eighth of it and more is beyond 1
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="minisblack", metadata=None)
    read = photo.read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(np.minimum(levels, 1)), atol=2e-3)
    assert "beyond are cut off" in read.notes[0]


def test_white_that_the_file_names(tmp_path: Path, gray: np.ndarray) -> None:
    """SMaxSampleValue, TIFF 6.0, page 80."""
    tifffile.imwrite(
        tmp_path / "a.tif", gray.astype(np.float32) / 255 * 1023, photometric="minisblack",
        metadata=None, extratags=[(341, 11, 1, 1023.0, True)],
    )  # fmt: skip
    read = photo.read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(gray / 255), atol=2e-3)


# ---- TIFF: samples -----------------------------------------------------------------------------


def test_black_is_zero_with_three_samples_is_rgb(tmp_path: Path, rgb: np.ndarray) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(page(rgb, 8, 1)))
    read = photo.read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(rgb / 255), atol=2e-3)
    assert read.notes == ["it says BlackIsZero with 3 samples for each pixel; it is read as RGB"]


@pytest.mark.parametrize(("samples", "photometric"), [(3, 0), (5, 1), (30, 2)])
def test_samples_of_no_photograph(tmp_path: Path, samples: int, photometric: int) -> None:
    levels = np.full((4, 6, samples), 77)
    (tmp_path / "a.tif").write_bytes(tiff(page(levels, 8, photometric)))
    with pytest.raises(photo.PhotoError, match=rf"a\.tif: .*{samples} samples for each pixel"):
        photo.read_photo(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("alpha", [False, True])
def test_tiff_palette(tmp_path: Path, gray: np.ndarray, bits: int, alpha: bool) -> None:
    size = 2**bits
    index = gray.astype(int) >> (8 - bits)
    colors = np.random.default_rng(bits).integers(0, 256, (3, size))
    levels = np.dstack([index, np.full_like(index, size - 1)]) if alpha else index
    more: list[Tag] = [(320, 3, (colors * 257).ravel().tolist())]
    if alpha:
        more.append((338, 3, [2]))
    (tmp_path / "a.tif").write_bytes(tiff(page(levels, bits, 3, more)))
    assert (photo.read_rgb(tmp_path / "a.tif") == colors.T[index]).all()
    read = photo.read_photo(tmp_path / "a.tif")
    assert read.has_alpha == alpha
    assert read.alpha is None or (read.alpha == 255).all()


def test_palette_that_is_missing(tmp_path: Path, gray: np.ndarray) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(page(gray, 8, 3)))
    with pytest.raises(photo.PhotoError, match=r"its palette is missing or damaged$"):
        photo.read_photo(tmp_path / "a.tif")


# ---- TIFF: chains of pages ---------------------------------------------------------------------


@pytest.mark.parametrize("pages", [1, 3])
def test_pages_in_a_circle(tmp_path: Path, gray: np.ndarray, pages: int) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(*[page(gray, 8)] * pages, last=None))
    with photo.open_scan(tmp_path / "a.tif") as scan:
        assert len(scan.pages) == pages
        np.testing.assert_allclose(
            scan.pages[-1].read().lightness, lightness_of(gray / 255), atol=2e-3
        )
        assert scan.pages[0].notes == [
            f"its list of pages leads back to an earlier one after page {pages}; what comes before "
            "that is read"
        ]


@pytest.mark.parametrize("offset", [2**32 - 1, 50_000])
def test_page_behind_the_end_of_the_file(tmp_path: Path, gray: np.ndarray, offset: int) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(page(gray, 8), last=offset))
    read = photo.read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(gray / 255), atol=2e-3)
    assert read.notes == ["page 2 lies behind the end of the file; what comes before that is read"]


@pytest.mark.parametrize("code", [330, 34665, 34853])
def test_directory_that_holds_itself(tmp_path: Path, gray: np.ndarray, code: int) -> None:
    """SubIFDs, EXIF and GPS that are the page's own directory."""
    tags, data = page(gray, 8)
    itself = 8 + len(data) + len(data) % 2
    (tmp_path / "a.tif").write_bytes(tiff(([*tags, (code, 4, [itself])], data)))
    read = photo.read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(gray / 255), atol=2e-3)


def test_tag_that_claims_more_than_memory(tmp_path: Path, gray: np.ndarray) -> None:
    whole = bytearray(tiff(page(gray, 8, more=[(700, 4, [1, 2, 3])])))
    at = whole.index(struct.pack("<HHI", 700, 4, 3))
    struct.pack_into("<I", whole, at + 4, 2**31)
    (tmp_path / "a.tif").write_bytes(whole)
    with pytest.raises(photo.PhotoError, match=r"tag 700 of page 1 claims 2147483648 values$"):
        photo.read_photo(tmp_path / "a.tif")


# ---- What shows nothing ------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["black", "white"])
def test_picture_that_comes_out_all_black_or_white_says_so(tmp_path: Path, color: str) -> None:
    levels = np.full((40, 60), 0 if color == "black" else 255, np.uint8)
    Image.fromarray(levels).save(tmp_path / "blank.png")
    levels[20:, 30:] = 1 if color == "black" else 254
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert photo.read_photo(tmp_path / "blank.png").notes == []
    note = f"it comes out all {color}, though its levels are not all the same"
    assert photo.read_photo(tmp_path / "a.png").notes == [note]
    with photo.open_scan(tmp_path / "a.png") as scan:
        for size in ((10, 15), (80, 120)):
            scan.pages[0].small(*size)
        assert scan.pages[0].notes == [note]
