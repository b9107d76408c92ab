"""Files as other programs write them, valid but unusual, and files with one fault that viewers
read all the same: right, or refused by name, and never wrong without a word."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from pictures import PHOTOS, encoded, lightness_of
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from colorized import color, photo
from colorized.photo import jp2, png


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """A real photograph, uint8 (90, 120, 3)."""
    with Image.open(PHOTOS[0]) as image:
        return np.asarray(image.convert("RGB").resize((120, 90)))


@pytest.fixture(scope="module")
def gray(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


Tag = tuple[int, int, Sequence[int]]  # code, type (SHORT, LONG, RATIONAL), values


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
        values, count = {}, {}
        for code, kind, numbers in tags:
            packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
            count[code] = len(numbers) // (2 if kind == 5 else 1)
            if len(packed) > 4:
                values[code] = struct.pack("<I", len(out))
                out += packed
            else:
                values[code] = packed.ljust(4, b"\0")
        struct.pack_into("<I", out, link, len(out))
        first = first or len(out)
        out += struct.pack("<H", len(tags))
        for code, kind, _ in tags:
            out += struct.pack("<HHI", code, kind, count[code]) + values[code]
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
def test_tiff_of_any_depth(gray: np.ndarray, bits: int) -> None:
    top = 2**bits - 1
    levels = np.rint(gray / 255 * top).astype(np.uint64)
    levels[0, :2] = 0, top
    read = photo.read_photo(tiff(page(levels, bits)), name="a.tif")
    assert read.bits == (8 if bits <= 8 else 16)
    assert (read.lightness[0, 0], read.lightness[0, 1]) == (0, 100)
    np.testing.assert_allclose(read.lightness, lightness_of(levels / top), atol=0.25)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_with_zero_for_white(gray: np.ndarray, bits: int) -> None:
    levels = gray.astype(int) * (1 if bits == 8 else 257)
    read = photo.read_photo(tiff(page(levels, bits, 0)), name="a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(1 - gray / 255), atol=2e-3)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_with_reversed_bits(gray: np.ndarray, bits: int) -> None:
    tags, data = page(gray.astype(int) * (1 if bits == 8 else 257), bits)
    reversed_bits = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little")
    read = photo.read_photo(tiff(([*tags, (266, 3, [2])], reversed_bits.tobytes())), name="a.tif")
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


def test_black_is_zero_with_three_samples_is_rgb(rgb: np.ndarray) -> None:
    read = photo.read_photo(tiff(page(rgb, 8, 1)), name="a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(rgb / 255), atol=2e-3)
    assert read.notes == ["it says BlackIsZero with 3 samples for each pixel; it is read as RGB"]


@pytest.mark.parametrize(("samples", "photometric"), [(3, 0), (5, 1), (30, 2)])
def test_samples_of_no_photograph(samples: int, photometric: int) -> None:
    levels = np.full((4, 6, samples), 77)
    with pytest.raises(photo.PhotoError, match=rf"a\.tif: .*{samples} samples for each pixel"):
        photo.read_photo(tiff(page(levels, 8, photometric)), name="a.tif")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("alpha", [False, True])
def test_tiff_palette(gray: np.ndarray, bits: int, alpha: bool) -> None:
    size = 2**bits
    index = gray.astype(int) >> (8 - bits)
    colors = np.random.default_rng(bits).integers(0, 256, (3, size))
    levels = np.dstack([index, np.full_like(index, size - 1)]) if alpha else index
    more: list[Tag] = [(320, 3, (colors * 257).ravel().tolist())]
    if alpha:
        more.append((338, 3, [2]))
    data = tiff(page(levels, bits, 3, more))
    assert (photo.read_rgb(data, name="a.tif") == colors.T[index]).all()
    read = photo.read_photo(data, name="a.tif")
    assert read.has_alpha == alpha
    assert read.alpha is None or (read.alpha == 255).all()


def test_palette_that_is_missing(gray: np.ndarray) -> None:
    with pytest.raises(photo.PhotoError, match=r"its palette is missing or damaged$"):
        photo.read_photo(tiff(page(gray, 8, 3)), name="a.tif")


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
def test_page_behind_the_end_of_the_file(gray: np.ndarray, offset: int) -> None:
    read = photo.read_photo(tiff(page(gray, 8), last=offset), name="a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(gray / 255), atol=2e-3)
    assert read.notes == ["page 2 lies behind the end of the file; what comes before that is read"]


@pytest.mark.parametrize("code", [330, 34665, 34853])
def test_directory_that_holds_itself(gray: np.ndarray, code: int) -> None:
    """SubIFDs, EXIF and GPS that are the page's own directory."""
    tags, data = page(gray, 8)
    itself = 8 + len(data) + len(data) % 2
    read = photo.read_photo(tiff(([*tags, (code, 4, [itself])], data)), name="a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(gray / 255), atol=2e-3)


def test_tag_that_claims_more_than_memory(gray: np.ndarray) -> None:
    whole = bytearray(tiff(page(gray, 8, more=[(700, 4, [1, 2, 3])])))
    at = whole.index(struct.pack("<HHI", 700, 4, 3))
    struct.pack_into("<I", whole, at + 4, 2**31)
    with pytest.raises(photo.PhotoError, match=r"tag 700 of page 1 claims 2147483648 values$"):
        photo.read_photo(bytes(whole), name="a.tif")


def test_strip_that_claims_more_than_the_file(gray: np.ndarray) -> None:
    # In another order of bits it is not read in parts.
    whole = bytearray(tiff(page(gray, 8, more=[(266, 3, [2])])))
    at = whole.index(struct.pack("<HHII", 279, 4, 1, gray.size))
    struct.pack_into("<I", whole, at + 8, 2**32 - 1)
    with pytest.raises(photo.PhotoError, match=r"a\.tif: cannot be read: the file ends early$"):
        photo.read_photo(bytes(whole), name="a.tif")


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


# ---- TIFF: what only libtiff decodes -----------------------------------------------------------


@pytest.mark.parametrize("sub", [(1, 1), (2, 1), (2, 2)])
def test_tiff_with_subsampled_chroma(rgb: np.ndarray, sub: tuple[int, int]) -> None:
    """TIFF 6.0, section 21: blocks of so many Y, then one Cb and one Cr."""
    across, down = sub
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr")).astype(int)
    rows = ycc.reshape(90 // down, down, 120 // across, across, 3).transpose(0, 2, 1, 3, 4)
    Y = rows[..., 0].reshape(90 // down, 120 // across, -1)
    data = np.concatenate([Y, rows[..., 1:].mean((2, 3)).round()], -1).astype(np.uint8).tobytes()
    tags: list[Tag] = [
        (256, 4, [120]), (257, 4, [90]), (258, 3, [8, 8, 8]), (259, 3, [1]), (262, 3, [6]),
        (277, 3, [3]), (278, 4, [90]), (530, 3, [across, down]), (531, 3, [1]),
        (532, 5, [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1]),
    ]  # fmt: skip
    read = photo.read_photo(tiff((tags, data)), name="a.tif")
    assert np.abs(read.lightness - lightness_of(rgb / 255)).mean() < 1


def test_tiff_with_old_style_jpeg(rgb: np.ndarray) -> None:
    """JPEGInterchangeFormat, tag 513: a whole JPEG inside."""
    data = encoded(rgb, "JPEG", quality=95, subsampling="4:2:0")
    tags: list[Tag] = [
        (256, 4, [120]), (257, 4, [90]), (258, 3, [8, 8, 8]), (259, 3, [6]), (262, 3, [6]),
        (277, 3, [3]), (278, 4, [90]), (513, 4, [8]), (514, 4, [len(data)]), (530, 3, [2, 2]),
    ]  # fmt: skip
    read = photo.read_photo(tiff((tags, data)), name="a.tif")
    assert np.abs(read.lightness - lightness_of(rgb / 255)).mean() < 1.5


# ---- JPEG and PNG with a fault -----------------------------------------------------------------


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_without_its_end_marker(rgb: np.ndarray, progressive: bool) -> None:
    whole = encoded(rgb, "JPEG", progressive=progressive)
    read = photo.read_photo(whole[:-2], name="a.jpg")
    assert (read.lightness == photo.read_photo(whole, name="whole.jpg").lightness).all()
    assert read.notes == ["the file lacks its end marker; nothing of the picture is missing"]


def test_jpeg_without_its_last_rows() -> None:
    with Image.open(PHOTOS[0]) as image:
        rgb = np.asarray(image.convert("RGB").resize((320, 240)))
    whole = encoded(rgb, "JPEG", subsampling="4:4:4")
    read = photo.read_photo(whole[: int(0.85 * len(whole))], name="a.jpg")
    same = (read.lightness == photo.read_photo(whole, name="whole.jpg").lightness).all(axis=1)
    kept = int(np.flatnonzero(~same)[0])
    assert 0.6 * 240 < kept < 240
    (note,) = read.notes
    said = float(note.removeprefix("the file ends early: ").partition("%")[0])
    assert abs(said - 100 * (240 - kept) / 240) < 100 * 8 / 240 + 0.1  # a row of blocks
    with pytest.raises(photo.PhotoError, match=r"a\.jpg: .* ends early, \d+% of the picture is"):
        photo.read_photo(whole[: len(whole) // 3], name="a.jpg")


def with_chunks(png_file: bytes, *chunks: bytes) -> bytes:
    """Behind IHDR."""
    return png_file[:33] + b"".join(chunks) + png_file[33:]


def test_png_with_a_damaged_chunk(gray: np.ndarray) -> None:
    good = png.chunk(b"tEXt", b"Title\0Farm")
    read = photo.read_photo(with_chunks(encoded(gray), good[:-1] + b"?", good), name="a.png")
    np.testing.assert_allclose(read.lightness, lightness_of(gray / 255), atol=2e-3)
    assert read.notes == ["its chunk tEXt is damaged and is left out"]
    assert read.metadata.texts == (good,)
    broken = bytearray(encoded(gray))
    broken[29] ^= 1  # of the checksum of IHDR
    with pytest.raises(photo.PhotoError, match=r"a\.png: cannot be read: a damaged PNG \(.*IHDR"):
        photo.read_photo(bytes(broken), name="a.png")


# ---- Depth, gamma, parts and order of channels -------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_than_8_bits(rgb: np.ndarray, bits: int) -> None:
    levels = np.rint(rgb / 255 * (2**bits - 1)).astype(np.uint16)
    levels[0, :2] = 2**bits - 1
    data = imagecodecs.avif_encode(levels, level=100, bitspersample=bits)
    read = photo.read_photo(data, name="a.avif")
    assert read.bits == 16
    assert np.abs(read.lightness - lightness_of(levels / (2**bits - 1))).mean() < 0.5
    assert len(np.unique(read.lightness)) > 3000


@pytest.mark.parametrize("mode", ["RGB;16", "L;16"])
def test_heic_of_more_than_8_bits(tmp_path: Path, rgb: np.ndarray, mode: str) -> None:
    levels = np.ascontiguousarray(rgb if mode == "RGB;16" else rgb[..., 1]).astype(np.uint16) * 257
    levels[:20, :30] = 65535
    heif = pillow_heif.from_bytes(mode=mode, size=(120, 90), data=levels.tobytes())
    heif.save(tmp_path / "a.heic", quality=100)
    read = photo.read_photo(tmp_path / "a.heic")
    assert read.bits == 16
    assert np.abs(read.lightness - lightness_of(levels / 65535)).mean() < 1
    assert abs(read.lightness[5, 5] - 100) < 0.02


def test_heic_of_several_pictures(tmp_path: Path, rgb: np.ndarray) -> None:
    heif = pillow_heif.from_pillow(Image.fromarray(rgb[::-1].copy()))
    heif.add_from_pillow(Image.fromarray(rgb))
    heif.save(tmp_path / "a.heic", quality=95, primary_index=1)
    read = photo.read_photo(tmp_path / "a.heic")
    assert np.abs(read.lightness - lightness_of(rgb / 255)).mean() < 1.5
    assert read.notes == ["holds 2 pictures; the primary one is read"]


def grown(avif: bytes, ipco: bytes = b"", ipma: bytes = b"", more: bytes = b"") -> bytes:
    """An AVIF with content added to its boxes `ipco` and `ipma`, and boxes behind the latter."""
    added = len(ipco) + len(ipma) + len(more)

    def size(kind: bytes, by: int) -> None:
        at = out.index(kind) - 4
        out[at : at + 4] = struct.pack(">I", struct.unpack_from(">I", out, at)[0] + by)

    out = bytearray(avif)
    (offset,) = struct.unpack_from(">I", out, out.index(b"iloc") + 18)
    assert avif[offset - 4 : offset] == b"mdat"
    struct.pack_into(">I", out, out.index(b"iloc") + 18, offset + added)
    for kind, by in (
        (b"meta", added),
        (b"iprp", added),
        (b"ipco", len(ipco)),
        (b"ipma", len(ipma)),
    ):
        size(kind, by)
    end = out.index(b"ipma") - 4 + struct.unpack_from(">I", out, out.index(b"ipma") - 4)[0]
    end -= len(ipma)
    out[end:end] = ipma + more
    out[out.index(b"ipma") - 4 : out.index(b"ipma") - 4] = ipco
    return bytes(out)


def test_avif_with_a_clean_aperture(rgb: np.ndarray) -> None:
    """40 × 30 pixels, of which the middle is 10 right of and 5 above that of the picture."""
    avif = encoded(rgb, "AVIF")
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", 40, 1, 30, 1, 10, 1, -5, 1)
    clapped = bytearray(grown(avif, ipco=clap, ipma=b"\x85"))
    clapped[clapped.index(b"ipma") + 14] += 1
    read = photo.read_photo(bytes(clapped), name="a.avif")
    whole = photo.read_photo(avif, name="whole.avif").lightness
    assert (read.lightness == whole[25:55, 50:90]).all()


def test_avif_with_two_boxes_of_associations(tmp_path: Path, rgb: np.ndarray) -> None:
    avif = encoded(rgb, "AVIF")
    at = avif.index(b"ipma") - 4
    again = avif[at : at + struct.unpack_from(">I", avif, at)[0]]
    double = grown(avif, more=again)
    (tmp_path / "a.avif").write_bytes(double)
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / "a.avif")
    read = photo.read_photo(tmp_path / "a.avif")
    assert (read.lightness == photo.read_photo(avif, name="whole.avif").lightness).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_jpeg_2000_with_permuted_channels(rgb: np.ndarray, dtype: type) -> None:
    levels = rgb.astype(dtype) * (257 if dtype == np.uint16 else 1)
    data = bytes(
        imagecodecs.jpeg2k_encode(levels[..., [2, 0, 1]], reversible=True, codecformat="JP2")
    )
    definition = struct.pack(">H9H", 3, 0, 0, 3, 1, 0, 1, 2, 0, 2)
    out = b""
    for kind, content in jp2.boxes(data):
        out += jp2.box(kind, content + jp2.box(b"cdef", definition) * (kind == b"jp2h"))
    assert np.abs(photo.read_rgb(out, name="a.jp2").astype(int) - rgb).max() <= 1


def test_bmp_of_4_bits_with_run_lengths_is_refused() -> None:
    rows = (b"\x05\x12\0\0" * 4) + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 5, 4, 1, 4, 2, len(rows), 0, 0, 16, 0)
    start = 14 + 40 + 64
    file = b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head
    with pytest.raises(photo.PhotoError, match=r"a\.bmp: .* compression RLE4 is not supported$"):
        photo.read_photo(file + bytes(range(64)) + rows, name="a.bmp")


@pytest.mark.parametrize("mode", ["gray", "rgb"])
@pytest.mark.parametrize("gamma", [1.0, 0.55556, 0.45455])
def test_png_gamma(rgb: np.ndarray, mode: str, gamma: float) -> None:
    levels = rgb if mode == "rgb" else rgb[..., 1]
    chunk = png.chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))
    linear = (levels / 255) ** (1 / gamma)
    expected = lightness_of(color.linear_to_srgb(linear))
    close = 0.8 if gamma == 0.45455 else 0.3  # which is read as sRGB, as viewers do
    read = photo.read_photo(with_chunks(encoded(levels), chunk), name="a.png")
    assert np.abs(read.lightness - expected).mean() < close
    # What says sRGB, too, is sRGB.
    chunk += png.chunk(b"sRGB", b"\0")
    read = photo.read_photo(with_chunks(encoded(levels), chunk), name="a.png")
    np.testing.assert_allclose(read.lightness, lightness_of(levels / 255), atol=2e-3)


def test_png_with_cicp(rgb: np.ndarray) -> None:
    """A photograph in BT.2020 and PQ, made by the letter of ST 2084, and in Display P3."""
    linear = color.srgb_to_linear(rgb / 255)
    wide = (
        linear
        @ np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]).T
    )
    y = (wide * 203 / 10_000) ** (2610 / 16384)
    pq = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    levels = np.rint(pq * 65535).astype(np.uint16)
    chunk = png.chunk(b"cICP", bytes([9, 16, 0, 1]))
    data = bytes(imagecodecs.png_encode(levels))
    read = photo.read_photo(with_chunks(data, chunk), name="a.png")
    assert np.abs(read.lightness - lightness_of(rgb / 255)).mean() < 0.5
    p3 = linear @ np.array([[0.8225, 0.1774, 0], [0.0332, 0.9669, 0], [0.0171, 0.0724, 0.9108]]).T
    levels8 = np.rint(255 * color.linear_to_srgb(p3)).astype(np.uint8)
    chunk = png.chunk(b"cICP", bytes([12, 13, 0, 1]))
    found = photo.read_rgb(with_chunks(encoded(levels8), chunk), name="a.png")
    assert np.abs(found.astype(int) - rgb).mean() < 1.5


# ---- Words that are carried over ---------------------------------------------------------------


def copied(source: Path, target: Path) -> list[str]:
    """Write a colored copy, and say what its notes are."""
    read = photo.read_photo(source)
    notes = [*read.notes, *photo.left_out(read.metadata, target)]
    photo.write_photo(read, np.zeros((*read.lightness.shape, 2), np.float32), target)
    return notes


@pytest.mark.parametrize("deep", [False, True])
def test_texts_of_png(tmp_path: Path, gray: np.ndarray, deep: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Farm")
    info.add_text("Author", "Lange", zip=True)
    info.add_itxt("Description", "Zürich", lang="de")
    levels = gray.astype(np.uint16) * 257 if deep else gray
    Image.fromarray(levels).save(tmp_path / "a.png", pnginfo=info)
    assert copied(tmp_path / "a.png", tmp_path / "b.png") == []
    with Image.open(tmp_path / "b.png") as image:
        assert image.text == {"Title": "Farm", "Author": "Lange", "Description": "Zürich"}
    assert copied(tmp_path / "a.png", tmp_path / "b.jpg") == [
        "its texts (Title, Author, Description) are left out: .jpg cannot hold them"
    ]


def test_comments_of_jpeg_and_gif(tmp_path: Path, gray: np.ndarray) -> None:
    Image.fromarray(gray).save(tmp_path / "a.jpg", comment="Zürich, 1900".encode())
    assert copied(tmp_path / "a.jpg", tmp_path / "b.jpg") == []
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["comment"] == "Zürich, 1900".encode()
    assert copied(tmp_path / "a.jpg", tmp_path / "b.webp") == [
        "its comment is left out: .webp cannot hold it"
    ]
    Image.fromarray(gray).save(tmp_path / "a.gif", comment=b"Farm")
    assert copied(tmp_path / "a.gif", tmp_path / "a.gif.png") == []
    with Image.open(tmp_path / "a.gif.png") as image:
        assert image.text == {"Comment": "Farm"}


@pytest.mark.parametrize("order", ["<", ">"])
def test_private_tags_of_tiff(tmp_path: Path, gray: np.ndarray, order: str) -> None:
    tags = [
        (33550, 12, 3, (0.5, 0.25, 0.0), True),  # GeoTIFF: ModelPixelScale
        (34735, 3, 4, (1, 1, 0, 7), True),  # GeoKeyDirectory
        (42113, 2, 6, "-9999", True),  # of GDAL
        (65000, 4, 1, 123456, True),
    ]
    tifffile.imwrite(
        tmp_path / "a.tif", gray, photometric="minisblack", byteorder=order, extratags=tags,
        metadata=None,
    )  # fmt: skip
    assert copied(tmp_path / "a.tif", tmp_path / "b.tif") == []
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        found = tif.pages[0].tags
        assert found[33550].value == (0.5, 0.25, 0.0)
        assert found[34735].value == (1, 1, 0, 7)
        assert found[42113].value == "-9999"
        assert found[65000].value == 123456
    (note,) = copied(tmp_path / "a.tif", tmp_path / "b.png")
    assert note == "its tags 33550, 34735, 42113, 65000 are left out: .png cannot hold them"


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_pixels_that_are_not_square(tmp_path: Path, gray: np.ndarray, suffix: str) -> None:
    sources = {
        ".tif": tmp_path / "a.tif", ".png": tmp_path / "a.png", ".jpg": tmp_path / "a.jpg"
    }  # fmt: skip
    tifffile.imwrite(
        sources[".tif"], gray, photometric="minisblack", resolution=(2, 1), resolutionunit="none",
        metadata=None,
    )  # fmt: skip
    chunk = png.chunk(b"pHYs", struct.pack(">2IB", 2, 1, 0))
    sources[".png"].write_bytes(with_chunks(encoded(gray), chunk))
    data = bytearray(encoded(gray, "JPEG"))
    data[13:18] = struct.pack(">B2H", 0, 2, 1)
    sources[".jpg"].write_bytes(data)
    target = tmp_path / f"out{suffix}"
    for source in sources.values():
        assert copied(source, target) == []
        with photo.open_scan(target) as scan:
            x, y = scan.pages[0].metadata.aspect or (1, 1)
        assert x / y == 2
    assert copied(sources[suffix], tmp_path / "b.webp") == [
        "its pixels are not square, which .webp cannot say"
    ]
