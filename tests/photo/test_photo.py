"""Photographs in every mode and state that a folder of scans can hold."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.color
from pictures import PHOTOS, encoded, lightness_of
from PIL import ExifTags, Image, ImageCms, PngImagePlugin
from profiles import gray_profile, wide_profile

from colorized import color, photo
from colorized.photo import provenance


@pytest.fixture(scope="module")
def rgb() -> Image.Image:
    """A real photograph with strong colors, not square, 8-bit sRGB."""
    with Image.open(PHOTOS[0]) as image:
        return image.convert("RGB").resize((151, 101))


@pytest.fixture(scope="module")
def chroma() -> np.ndarray:
    """Chroma of another photograph at that size, (101, 151, 2): saturated, partly out of gamut."""
    with Image.open(PHOTOS[1]) as image:
        other = np.asarray(image.convert("RGB").resize((151, 101)))
    return color.srgb_to_lab(other.astype(np.float32) / 255)[..., 1:] * np.float32(1.5)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def gamma_profile(gamma: float) -> bytes:
    return gray_profile(struct.pack(">IH", 1, round(gamma * 256)) + bytes(2))


# ---- Every mode --------------------------------------------------------------------------------

MODES: list[tuple[str, str, float]] = [
    # mode, suffix, tolerance of L* in the mean: that of the mode's own rounding
    ("RGB", ".png", 0.01),
    ("RGB", ".bmp", 0.01),
    ("RGB", ".tif", 0.01),
    ("RGB", ".ppm", 0.01),
    ("RGB", ".jp2", 0.01),
    ("RGB", ".jpg", 1.5),
    ("RGB", ".webp", 1.5),
    ("RGBA", ".png", 0.01),
    ("P", ".gif", 0.01),
    ("P", ".png", 0.01),
    ("P", ".tif", 0.01),
    ("CMYK", ".tif", 0.01),
    ("CMYK", ".jpg", 1.5),
    ("YCbCr", ".jp2", 0.5),
    ("YCbCr", ".jpg", 1.5),
    ("LAB", ".tif", 0.5),
]


@pytest.mark.parametrize(("mode", "suffix", "tolerance"), MODES)
def test_modes_in_color(
    tmp_path: Path, rgb: Image.Image, mode: str, suffix: str, tolerance: float
) -> None:
    if mode == "LAB":
        spaces = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
        image = ImageCms.profileToProfile(rgb, *spaces, outputMode="LAB")
    else:
        image = rgb.convert(mode)
    path = saved(tmp_path / f"scan{suffix}", image)
    with Image.open(path) as stored:
        assert stored.mode == ("RGB" if mode == "YCbCr" else mode)
    read = photo.read_photo(path)
    assert read.lightness.dtype == np.float32
    assert read.lightness.shape == (101, 151)
    # A palette of 256 colors is all that a GIF has; the rest is the photograph itself.
    shown = image.convert("RGB") if mode == "P" else rgb
    assert np.abs(read.lightness - lightness_of(shown)).mean() < tolerance
    colors = np.asarray(shown, float)
    assert np.abs(photo.read_rgb(path) - colors).mean() < max(0.1, 4 * tolerance)


GRAY_MODES: list[tuple[str, str]] = [
    *[(mode, suffix) for mode in ("1", "L") for suffix in (".png", ".tif", ".bmp", ".gif")],
    *[("1", ".pbm"), ("L", ".pgm"), ("L", ".jp2"), ("LA", ".png"), ("LA", ".tif")],
    *[("I;16", suffix) for suffix in (".png", ".tif", ".pgm", ".jp2")],
    *[("I;16B", ".tif"), ("I;16L", ".tif"), ("I", ".tif"), ("F", ".tif"), ("F", ".pfm")],
]


@pytest.mark.parametrize(("mode", "suffix"), GRAY_MODES)
def test_modes_in_gray(tmp_path: Path, rgb: Image.Image, mode: str, suffix: str) -> None:
    gray = rgb.convert("L")
    levels = np.asarray(gray, np.uint16) * 257
    if mode.startswith("I;16"):
        order = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, gray.size, levels.astype(order).tobytes())
    elif mode == "I":
        image = Image.fromarray(levels.astype(np.int32))
    else:
        image = gray.convert(mode)
    path = saved(tmp_path / f"scan{suffix}", image)
    read = photo.read_photo(path)
    expected = lightness_of(image.convert("L") if mode == "1" else gray)
    np.testing.assert_allclose(read.lightness, expected, atol=0.02)
    assert np.ptp(expected) > 50
    # What is written without colors is the gray that was read, level by level.
    target = tmp_path / "out" / photo.output_name(path)
    target.parent.mkdir()
    photo.write_photo(read, np.zeros((101, 151, 2), np.float32), target)
    levels8 = np.asarray(image.convert("L") if mode == "1" else gray)
    assert (photo.read_rgb(target) == levels8[..., None]).all()


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_float_range_is_found_and_told(tmp_path: Path, rgb: Image.Image, white: int) -> None:
    values = np.asarray(rgb.convert("L"), np.float32) * np.float32(white / 255)
    read = photo.read_photo(saved(tmp_path / "scan.tif", Image.fromarray(values)))
    np.testing.assert_allclose(read.lightness, lightness_of(rgb.convert("L")), atol=0.02)
    assert read.notes == [f"its floating-point levels are read as 0 to {white}"]


@pytest.mark.parametrize("value", [-100.0, 1e6, np.nan, np.inf])
def test_float_values_of_no_photograph(tmp_path: Path, value: float) -> None:
    values = np.full((4, 4), 100, np.float32)
    values[1, 2] = value
    with pytest.raises(photo.PhotoError, match=r"scan\.tif: its levels, .* are not those"):
        photo.read_photo(saved(tmp_path / "scan.tif", Image.fromarray(values)))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".jp2"])
def test_16_bits_keep_their_precision(tmp_path: Path, suffix: str) -> None:
    ramp = np.arange(20_000, 20_000 + 64 * 64, dtype=np.uint16).reshape(64, 64)
    read = photo.read_photo(saved(tmp_path / f"scan{suffix}", Image.fromarray(ramp)))
    v = np.repeat((ramp / 65535)[..., None], 3, axis=-1)
    np.testing.assert_allclose(read.lightness, skimage.color.rgb2lab(v)[..., 0], atol=1e-3)
    assert len(np.unique(read.lightness)) == ramp.size


# ---- Alpha, orientation, profiles --------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jp2"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_carried_over(
    tmp_path: Path, rgb: Image.Image, chroma: np.ndarray, mode: str, suffix: str
) -> None:
    alpha = np.add.outer(np.arange(101), np.arange(151)).astype(np.uint8)
    image = rgb.convert("L").convert(mode)
    image.putalpha(Image.fromarray(alpha))
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    read = photo.read_photo(saved(tmp_path / f"scan{suffix}", image, **options))
    assert (read.alpha == alpha).all()
    photo.write_photo(read, chroma, tmp_path / f"out{suffix}")
    again = photo.read_photo(tmp_path / f"out{suffix}")
    assert (again.alpha == alpha).all()
    assert np.abs(again.lightness - read.lightness).max() <= 0.6


def test_transparent_color_becomes_alpha(tmp_path: Path, rgb: Image.Image) -> None:
    palette = rgb.quantize(16)
    read = photo.read_photo(saved(tmp_path / "p.png", palette, transparency=3))
    assert ((read.alpha == 0) == (np.asarray(palette) == 3)).all()
    gray = rgb.convert("L")
    read = photo.read_photo(saved(tmp_path / "l.png", gray, transparency=100))
    assert ((read.alpha == 0) == (np.asarray(gray) == 100)).all()


def test_alpha_that_cannot_be_kept_is_told(tmp_path: Path, rgb: Image.Image) -> None:
    image = rgb.copy()
    image.putalpha(77)
    image.save(tmp_path / "really-a-png.jpg", format="PNG")
    read = photo.read_photo(tmp_path / "really-a-png.jpg")
    assert read.format == "PNG"
    for name, cannot in (("out.png", False), ("out.jpg", True)):
        marks = provenance.Marks("model", "1" * 64, "2" * 64, "", "ddim", 0, 1, 1.0, 1.0)
        provenance.for_copy(marks, read, name)
        told = "its transparency is left out: .jpg cannot hold it" in read.notes
        assert told == cannot
    photo.write_photo(read, np.zeros((101, 151, 2)), tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as written:
        assert (written.format, written.mode) == ("JPEG", "RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation_is_applied_once(
    tmp_path: Path, rgb: Image.Image, orientation: int, suffix: str
) -> None:
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda v: v,
        2: lambda v: v[:, ::-1],
        3: lambda v: v[::-1, ::-1],
        4: lambda v: v[::-1],
        5: lambda v: v.T,
        6: lambda v: np.rot90(v, -1),
        7: lambda v: v[::-1, ::-1].T,
        8: lambda v: np.rot90(v),
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    read = photo.read_photo(saved(tmp_path / f"scan{suffix}", rgb, exif=exif))
    expected = turns[orientation](lightness_of(rgb))
    assert read.lightness.shape == expected.shape
    assert np.abs(read.lightness - expected).mean() < 1.5
    photo.write_photo(read, np.zeros((*expected.shape, 2)), tmp_path / f"out{suffix}")
    again = photo.read_photo(tmp_path / f"out{suffix}")
    assert again.lightness.shape == expected.shape
    assert np.abs(again.lightness - expected).mean() < 1.5
    with Image.open(tmp_path / f"out{suffix}") as written:
        assert ExifTags.Base.Orientation not in written.getexif()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_gray_profile_is_honored(tmp_path: Path, rgb: Image.Image, suffix: str) -> None:
    gray = rgb.convert("L")
    path = saved(tmp_path / f"scan{suffix}", gray, icc_profile=gamma_profile(1.8))
    with Image.open(path) as stored:
        levels = np.asarray(stored) / 255
    expected = color.luminance_to_lightness(levels ** (461 / 256))
    read = photo.read_photo(path)
    assert read.notes == []
    np.testing.assert_allclose(read.lightness, expected, atol=0.02)
    # As sRGB it would be another picture.
    assert np.abs(expected - color.luminance_to_lightness(color.srgb_to_linear(levels))).max() > 4


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_srgb_profile_changes_nothing(tmp_path: Path, rgb: Image.Image, mode: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    read = photo.read_photo(saved(tmp_path / "a.png", rgb.convert(mode), icc_profile=profile))
    assert read.notes == []
    np.testing.assert_allclose(read.lightness, lightness_of(rgb.convert(mode)), atol=0.3)


def test_rgb_profile_is_honored(tmp_path: Path, rgb: Image.Image) -> None:
    path = saved(tmp_path / "scan.png", rgb, icc_profile=wide_profile())
    read = photo.read_photo(path)
    assert read.notes == []
    # Red and green primaries exchanged: the picture with its red and green exchanged.
    r, g, b = rgb.split()
    exchanged = np.asarray(Image.merge("RGB", (g, r, b)))
    assert np.abs(photo.read_rgb(path).astype(int) - exchanged).max() <= 2
    expected = lightness_of(Image.fromarray(exchanged))
    np.testing.assert_allclose(read.lightness, expected, atol=0.6)
    assert np.abs(expected - lightness_of(rgb)).max() > 5


@pytest.mark.parametrize(
    ("mode", "profile", "reason"),
    [
        ("RGB", b"not a profile", "cannot open profile"),
        ("RGB", wide_profile()[:200], "cannot"),
        ("RGB", wide_profile().replace(b"rTRC", b"????"), "cannot build"),
        ("RGB", gamma_profile(1.8), "made for GRAY"),
        ("CMYK", wide_profile(), "made for RGB"),
    ],
)
def test_unusable_profile_is_told(
    tmp_path: Path, rgb: Image.Image, mode: str, profile: bytes, reason: str
) -> None:
    path = saved(tmp_path / "scan.tif", rgb.convert(mode), icc_profile=profile)
    read = photo.read_photo(path)
    assert read.notes[0].startswith("its color profile is not used: ")
    assert reason in read.notes[0]
    np.testing.assert_allclose(read.lightness, lightness_of(rgb), atol=0.02)


# ---- Out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF", ".bmp", ".webp", ".ppm", ".jp2"])
def test_lossless_output_keeps_lightness(
    tmp_path: Path, rgb: Image.Image, chroma: np.ndarray, suffix: str
) -> None:
    read = photo.read_photo(saved(tmp_path / "scan.png", rgb))
    out = tmp_path / f"out{suffix}"
    photo.write_photo(read, chroma, out)
    with Image.open(out) as written:
        pixels = np.asarray(written.convert("RGB"))
        assert written.mode == "RGB"
        if suffix in (".png", ".tif", ".TIFF", ".webp"):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(written.info["icc_profile"]))
            assert "sRGB" in ImageCms.getProfileDescription(profile)
        if suffix in (".tif", ".TIFF"):
            assert written.info["compression"] == "tiff_adobe_deflate"
    assert np.abs(skimage.color.rgb2lab(pixels)[..., 0] - read.lightness).max() <= 0.6
    assert np.hypot(*np.moveaxis(skimage.color.rgb2lab(pixels)[..., 1:], -1, 0)).mean() > 5


def test_jpeg_keeps_lightness(tmp_path: Path, chroma: np.ndarray) -> None:
    for source in PHOTOS[:: max(1, len(PHOTOS) // 6)]:
        read = photo.read_photo(source)
        height, width = read.lightness.shape
        repeats = (-(-height // 101), -(-width // 151), 1)
        ab = np.tile(chroma, repeats)[:height, :width]
        out = tmp_path / source.name
        photo.write_photo(read, ab, out)
        with Image.open(out) as written:
            assert written.format == "JPEG"
            # 4:4:4: one sampling factor for all three components.
            assert [layer[1:3] for layer in written.layer] == [(1, 1)] * 3
            moved = np.abs(lightness_of(written) - read.lightness)
        assert (moved <= 2.5).mean() >= 0.999


def test_same_input_same_bytes(tmp_path: Path, rgb: Image.Image, chroma: np.ndarray) -> None:
    read = photo.read_photo(saved(tmp_path / "scan.png", rgb))
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        for name in ("a", "b"):
            photo.write_photo(read, chroma, tmp_path / f"{name}{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    # LittleCMS stamps the time into a profile that it makes.
    with Image.open(tmp_path / "a.png") as written:
        assert written.info["icc_profile"][24:36] == struct.pack(">6H", 2000, 1, 1, 0, 0, 0)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_dpi_and_exif_are_carried_over(tmp_path: Path, rgb: Image.Image, suffix: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "Анна Ёж".encode()  # UTF-8, as most programs write it
    exif[ExifTags.Base.ImageDescription] = "The old mill"
    exif[ExifTags.Base.XPTitle] = "Mühle".encode("utf-16le")
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "1931:05:01 12:00:00",
        ExifTags.Base.ExifImageWidth: 151,
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    # Given as EXIF, Pillow would write question marks into a TIFF.
    tags = {"tiffinfo": dict(exif)} if suffix == ".tif" else {"exif": exif.tobytes()}
    read = photo.read_photo(saved(tmp_path / f"scan{suffix}", rgb, dpi=(300, 600), **tags))
    assert read.notes == []
    photo.write_photo(read, np.zeros((151, 101, 2)), tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as written:
        kept = written.getexif()
        assert kept[ExifTags.Base.Artist].encode("latin-1").decode() == "Анна Ёж"
        assert kept[ExifTags.Base.ImageDescription] == "The old mill"
        assert kept[ExifTags.Base.XPTitle].decode("utf-16le") == "Mühle"
        assert ExifTags.Base.Orientation not in kept
        ifd = kept.get_ifd(ExifTags.IFD.Exif)
        assert ifd[ExifTags.Base.DateTimeOriginal] == "1931:05:01 12:00:00"
        assert ExifTags.Base.ExifImageWidth not in ifd
        assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert written.size == (101, 151)
        if suffix != ".webp":  # which has no field for it
            assert [round(v) for v in written.info["dpi"]] == [300, 600]


def test_thumbnail_is_not_carried_over(tmp_path: Path, rgb: Image.Image) -> None:
    block = encoded(rgb.resize((32, 24)), "JPEG")
    # Two IFDs: the picture's, with an artist, and the thumbnail's.
    first = struct.pack("<HHHII", 1, ExifTags.Base.Artist, 2, 4, int.from_bytes(b"Ann\0", "little"))
    start = 8 + len(first) + 4
    second = struct.pack("<H", 2)
    for tag, value in ((0x0201, start + 2 + 24 + 4), (0x0202, len(block))):
        second += struct.pack("<HHII", tag, 4, 1, value)
    tiff = b"II*\0" + struct.pack("<I", 8) + first + struct.pack("<I", start) + second + bytes(4)
    path = saved(tmp_path / "scan.jpg", rgb, exif=b"Exif\0\0" + tiff + block)
    with Image.open(path) as stored:
        assert stored.getexif().get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(block)
    read = photo.read_photo(path)
    assert b"Ann" in read.metadata.exif
    assert block not in read.metadata.exif
    assert len(read.metadata.exif) < 100


def test_damaged_exif_is_told(tmp_path: Path, rgb: Image.Image) -> None:
    path = saved(tmp_path / "scan.jpg", rgb, exif=b"Exif\0\0MM\0*nonsense")
    read = photo.read_photo(path)
    assert read.lightness.shape == (101, 151)
    assert read.metadata.exif == b""
    assert len(read.notes) == 1
    assert "EXIF" in read.notes[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("A.JPEG", "A.JPEG"),
        ("b.c.tiff", "b.c.tiff"),
        ("d.png", "d.png"),
        ("e.webp", "e.webp"),
        ("f.bmp", "f.bmp"),
        ("g.ppm", "g.ppm"),
        ("h.jp2", "h.jp2"),
        ("i.PGM", "i.PGM.png"),
        ("i.pbm", "i.pbm.png"),
        ("i.gif", "i.gif.png"),
        ("plate", "plate.colored.png"),
        ("plate.0001", "plate.0001.colored.png"),
        ("некто 3.gif", "некто 3.gif.png"),
        ("i.gif.png", "i.gif.png.png"),
        ("scan.pdf", "scan.pdf.tif"),
        ("scan.pdf.tif", "scan.pdf.tif.tif"),
        ("scan.pdf.png", "scan.pdf.png"),
        ("plate.colored.png", "plate.colored.png.png"),
    ],
)
def test_output_name(name: str, expected: str) -> None:
    assert photo.output_name(Path("folder") / name) == expected


def test_no_two_names_have_one_output() -> None:
    stems = ["a", "a.b", "a.pdf", "a.gif", "a.colored", "x" * 246, "x" * 247, "x" * 248, "é" * 123]
    suffixes = ["", ".gif", ".GIF", ".png", ".tif", ".pdf", ".pgm", ".heic", ".colored", ".png.png"]
    names = {stem + suffix for stem in stems for suffix in suffixes}
    outputs = {photo.output_name(name) for name in names}
    assert len(outputs) == len(names)
    assert all(len(name.encode()) <= 255 for name in outputs - names)


# ---- Bad input ---------------------------------------------------------------------------------


def truncated(path: Path, image: Image.Image) -> None:
    image.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def animated(path: Path, image: Image.Image) -> None:
    image.save(path, save_all=True, append_images=[image.rotate(180)])


BAD: dict[str, tuple[Callable[[Path, Image.Image], object], str]] = {
    "missing.jpg": (lambda path, image: None, "No such file"),
    "folder.jpg": (lambda path, image: path.mkdir(), "a folder"),
    "fifo.jpg": (lambda path, image: os.mkfifo(path), "not a regular file"),
    "empty.jpg": (lambda path, image: path.touch(), "the file is empty"),
    "text.jpg": (lambda path, image: path.write_text("a letter\n" * 99), "no picture of a known"),
    "half.jpg": (truncated, "cannot be read"),
    "half.png": (truncated, "cannot be read"),
    "half.bmp": (truncated, "cannot be read"),
    "half.tif": (truncated, "cannot be read"),
    "half.webp": (truncated, "cannot be read|no picture of a known"),
    "half.ppm": (truncated, "cannot be read"),
    "pages.tif": (animated, "holds 2 pages"),
    "film.gif": (animated, "holds 2 pictures"),
    "film.png": (animated, "holds 2 pictures"),
    "film.webp": (animated, "holds 2 pictures"),
    "two\nlines.jpg": (lambda path, image: path.write_text("?"), r"two\\nlines\.jpg: no picture"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("read", [photo.read_photo, photo.read_rgb])
def test_bad_input_in_one_line(
    tmp_path: Path, rgb: Image.Image, name: str, read: Callable[[Path], object]
) -> None:
    make, message = BAD[name]
    make(tmp_path / name, rgb)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(photo.PhotoError, match=message) as caught:
        read(tmp_path / name)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{tmp_path}/{name}: ".replace("\n", "\\n"))
    assert sorted(tmp_path.iterdir()) == before


def test_first_frame_of_mpo(tmp_path: Path, rgb: Image.Image) -> None:
    path = tmp_path / "stereo.mpo"
    rgb.save(path, save_all=True, append_images=[rgb.rotate(180)])
    read = photo.read_photo(path)
    assert read.format == "MPO"
    assert np.abs(read.lightness - lightness_of(rgb)).mean() < 1.5


def bomb(path: Path, side: int) -> Path:
    """A PNG that says it has side × side pixels, and holds none."""
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0))
        PngImagePlugin.putchunk(file, b"IDAT", b"")
        PngImagePlugin.putchunk(file, b"IEND", b"")
    return path


@pytest.mark.parametrize("side", [101, 12_000, 60_000])
def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    # The message is not that of a decoder, which would find the data missing.
    with pytest.raises(photo.PhotoError) as caught:
        photo.read_photo(bomb(tmp_path / "bomb.png", side), max_pixels=10_000)
    assert str(caught.value) == (
        f"{tmp_path}/bomb.png: {side} × {side} pixels are more than --max-pixels 10000"
    )


def test_max_pixels_is_the_only_limit(tmp_path: Path) -> None:
    # 200 megapixels, beyond Pillow's own limit, of one bit each.
    path = saved(tmp_path / "large.png", Image.new("1", (20_000, 10_000)))
    with Image.open(path) as image:  # no warning, no error
        assert image.size == (20_000, 10_000)
    with pytest.raises(photo.PhotoError, match="--max-pixels 199999999"):
        photo.read_photo(path, max_pixels=199_999_999)


# ---- Failing to write --------------------------------------------------------------------------


def test_places_that_cannot_be_written(tmp_path: Path, rgb: Image.Image) -> None:
    read = photo.read_photo(saved(tmp_path / "scan.png", rgb))
    ab = np.zeros((101, 151, 2))
    (tmp_path / "folder.png").mkdir()
    for target, reason in (
        (tmp_path / "scan.png" / "out.png", "Not a directory"),
        (tmp_path / "missing" / "out.png", "No such file"),
        (tmp_path / "folder.png", "Is a directory"),
        (tmp_path / "out.gif", "no format that holds color"),
        (tmp_path / "out.txt", "no format that holds color"),
    ):
        with pytest.raises(photo.PhotoError, match=reason) as caught:
            photo.write_photo(read, ab, target)
        assert str(caught.value).startswith(f"{target}: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "scan.png"]


def test_limits_of_a_format_are_told(tmp_path: Path) -> None:
    read = photo.read_photo(saved(tmp_path / "long.png", Image.new("L", (16_384, 1), 99)))
    with pytest.raises(photo.PhotoError, match=r"long\.webp: cannot be written: "):
        photo.write_photo(read, np.zeros((1, 16_384, 2)), tmp_path / "long.webp")
    assert [p.name for p in tmp_path.iterdir()] == ["long.png"]


def test_chroma_of_the_wrong_size_is_refused(tmp_path: Path, rgb: Image.Image) -> None:
    read = photo.read_photo(saved(tmp_path / "scan.png", rgb))
    with pytest.raises(ValueError, match=r"got \(151, 101, 2\)"):
        photo.write_photo(read, np.zeros((151, 101, 2)), tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
