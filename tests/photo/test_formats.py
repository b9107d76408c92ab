"""What archives have: TIFFs of every kind, 16 bits, several pages, PDF, and what goes with them."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pypdfium2
import pytest
import skimage.color
import tifffile
from pictures import PHOTOS, encoded, lightness_of
from PIL import ExifTags, Image
from profiles import gray_profile, wide_profile

from colorized import color, photo
from colorized.photo import jp2, page, provenance, tiff, variants

MADE = provenance.Marks(
    model="colorized.safetensors",
    weights_sha256="1" * 64,
    original_sha256="2" * 64,
    data_sha256="",
    sampler="ddim",
    seed=7,
    steps=10,
    guidance=1.5,
    saturation=1.0,
    candidate=2,
    candidates=3,
    hints_sha256="3" * 64,
)


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """A real photograph, uint8 (201, 301, 3): of odd size, so that segments are cut."""
    with Image.open(PHOTOS[0]) as image:
        return np.asarray(image.convert("RGB").resize((301, 201)))


@pytest.fixture(scope="module")
def deep(rgb: np.ndarray) -> np.ndarray:
    """Its gray with 16 bits, of which the lower ones are not empty, (201, 301)."""
    noise = np.random.default_rng(0).integers(0, 257, rgb.shape[:2])
    return (rgb[..., 1].astype(np.uint16) * 256 + noise.astype(np.uint16)).clip(0, 65535)


def colors(start: int, stop: int, L: np.ndarray) -> np.ndarray:
    """Chroma that is in the gamut wherever there is room for it, and goes with the rows."""
    room = np.minimum(L, 100 - L) * 0.2
    rows = np.arange(start, stop)[:, None]
    return np.stack([room * np.cos(rows / 9), room * np.sin(rows / 9)], -1).astype(np.float32)


# ---- TIFF --------------------------------------------------------------------------------------

TIFFS = [
    *[{"compression": c} for c in (None, "lzw", "adobe_deflate", "packbits", "zstd")],
    *[{"compression": c, "predictor": True} for c in ("lzw", "adobe_deflate")],
    {"compression": "adobe_deflate", "tile": (64, 48)},
    {"tile": (64, 48)},
    {"compression": "lzw", "rowsperstrip": 7},
    {"rowsperstrip": 7},
    {"compression": "jpeg2000"},
]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", TIFFS, ids=str)
def test_tiff_of_every_layout(
    tmp_path: Path, rgb: np.ndarray, deep: np.ndarray, options: dict, order: str, big: bool
) -> None:
    if options == {"compression": "jpeg2000"} and order == ">":
        pytest.skip("tifffile encodes them byte by byte in the wrong order")
    rgb16 = np.stack([deep, deep[::-1], deep[:, ::-1]], -1)
    for number, (levels, kind) in enumerate(
        [(rgb[..., 0], "minisblack"), (rgb, "rgb"), (deep, "minisblack"), (rgb16, "rgb")]
    ):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(
            path, levels, photometric=kind, byteorder=order, bigtiff=big, metadata=None, **options
        )
        read = photo.read_photo(path)
        assert read.bits == 8 * levels.dtype.itemsize
        assert read.notes == []
        np.testing.assert_allclose(read.lightness, lightness_of(levels), atol=2e-3)
        shown = levels if levels.dtype == np.uint8 else np.rint(levels / 257)
        if levels.ndim == 3:
            assert np.abs(photo.read_rgb(path).astype(int) - shown).max() <= 1


@pytest.mark.parametrize("compression", [None, "group3", "group4", "tiff_lzw", "packbits"])
def test_tiff_of_one_bit(tmp_path: Path, rgb: np.ndarray, compression: str | None) -> None:
    image = Image.fromarray(rgb).convert("1")
    image.save(tmp_path / "a.tif", compression=compression)
    read = photo.read_photo(tmp_path / "a.tif")
    assert set(np.unique(read.lightness)) == {0, np.float32(100)}
    assert ((read.lightness > 50) == np.asarray(image)).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_tiff_of_jpeg_strips(tmp_path: Path, rgb: np.ndarray, mode: str) -> None:
    image = Image.fromarray(rgb).convert(mode)
    image.save(tmp_path / "a.tif", compression="jpeg", quality=95)
    read = photo.read_photo(tmp_path / "a.tif")
    expected = lightness_of(np.asarray(image.convert("RGB")))
    assert np.abs(read.lightness - expected).mean() < 1.5


def test_tiff_with_planes_apart(tmp_path: Path, rgb: np.ndarray) -> None:
    planes = np.moveaxis(rgb, -1, 0)
    tifffile.imwrite(
        tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", rowsperstrip=16
    )
    read = photo.read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(read.lightness, lightness_of(rgb), atol=2e-3)


def test_every_page_is_colored(tmp_path: Path, rgb: np.ndarray, deep: np.ndarray) -> None:
    path = tmp_path / "album.tif"
    thumbnail = rgb[::4, ::4].copy()
    with tifffile.TiffWriter(path) as tif:
        tif.write(deep, photometric="minisblack", resolution=(300, 300), metadata=None)
        tif.write(thumbnail, photometric="rgb", subfiletype=1, metadata=None)
        tif.write(rgb[:50], photometric="rgb", compression="jpeg", metadata=None)
    with photo.open_scan(path) as scan:
        assert [(p.height, p.width, p.bits) for p in scan.pages] == [(201, 301, 16), (50, 301, 8)]
        before = [p.read().lightness for p in scan.pages]
        target = tmp_path / "out.tif"
        photo.write_scan([photo.Colored(p, colors) for p in scan.pages], target)
        with pytest.raises(photo.PhotoError, match=r"out\.png: cannot hold 2 pages; TIFF can"):
            photo.write_scan([photo.Colored(p, colors) for p in scan.pages], tmp_path / "out.png")
    with pytest.raises(photo.PhotoError, match=r"album\.tif: holds 2 pages, not one"):
        photo.read_photo(path)
    with photo.open_scan(target) as scan:
        for page_, L, limit in zip(scan.pages, before, (0.01, 0.6), strict=True):
            assert np.abs(page_.read().lightness - L).max() < limit
        assert scan.pages[0].metadata.dpi == (300, 300)
    with Image.open(target) as image:  # of another hand
        assert image.n_frames == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["album.tif", "out.tif"]


# ---- 16 bits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jp2"])
def test_16_bits_stay_16_bits(tmp_path: Path, deep: np.ndarray, suffix: str) -> None:
    tifffile.imwrite(tmp_path / "scan.tif", deep, photometric="minisblack")
    read = photo.read_photo(tmp_path / "scan.tif")
    ab = colors(0, 201, read.lightness)
    target = tmp_path / f"out{suffix}"
    photo.write_photo(read, ab, target)
    decoded = imagecodecs.imread(target)
    assert decoded.dtype == np.uint16
    assert decoded.shape == (201, 301, 3)
    # Half a step of 16 bits, at black, where L* is steepest, and what float32 adds to it.
    assert np.abs(lightness_of(decoded) - lightness_of(deep)).max() < 0.003
    again = photo.read_photo(target)
    assert again.bits == 16
    assert np.abs(again.lightness - read.lightness).max() < 0.003
    # With 8 bits it would be a hundred times that.
    with photo.open_scan(tmp_path / "scan.tif") as scan:
        photo.write_scan([photo.Colored(scan.pages[0], colors)], tmp_path / "out.jpg")
    assert np.abs(photo.read_photo(tmp_path / "out.jpg").lightness - read.lightness).max() > 0.1


def test_16_bits_of_strong_colors_keep_lightness(deep: np.ndarray) -> None:
    L = lightness_of(deep).astype(np.float32)
    ab = np.full((*L.shape, 2), (90, -70), np.float32)
    rgb16 = color.recombine(L, ab, bits=16)
    assert np.abs(lightness_of(rgb16) - L).max() < 0.02
    assert np.hypot(*np.moveaxis(skimage.color.rgb2lab(rgb16 / 65535)[..., 1:], -1, 0)).max() > 20


def test_gray_profile_of_dot_gain(tmp_path: Path, deep: np.ndarray) -> None:
    """A sampled curve, as the profiles of printing have: 20 % more ink in the middle."""
    paper = np.linspace(0, 1, 1024)
    ink = 1 - paper
    reflected = 1 - (ink + 0.8 * ink * (1 - ink))
    samples = np.rint(reflected * 65535).astype(">u2").tobytes()
    profile = gray_profile(struct.pack(">I", 1024) + samples)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="minisblack", iccprofile=profile)
    read = photo.read_photo(tmp_path / "a.tif")
    assert read.notes == []
    expected = color.luminance_to_lightness(np.interp(deep / 65535, paper, reflected))
    np.testing.assert_allclose(read.lightness, expected, atol=0.03)
    assert np.abs(expected - lightness_of(deep)).max() > 5


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_rgb_profile_of_16_bits(tmp_path: Path, deep: np.ndarray, suffix: str) -> None:
    levels = np.stack([deep, deep[::-1], deep[:, ::-1]], -1)
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="rgb", iccprofile=wide_profile())
    read = photo.read_photo(tmp_path / "a.tif")
    assert read.notes == []
    expected = lightness_of(levels[..., [1, 0, 2]])
    assert np.abs(read.lightness - expected).max() < 0.05
    assert np.abs(lightness_of(levels) - expected).max() > 5


# ---- Strips ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", TIFFS[::3], ids=str)
def test_strips_are_the_whole(
    tmp_path: Path, deep: np.ndarray, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_STRIP", 3000)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="minisblack", **options)
    with photo.open_scan(tmp_path / "a.tif") as scan:
        one = scan.pages[0]
        assert len(one.strips()) > 5
        parts = [one.rows(*strip) for strip in one.strips()]
        np.testing.assert_array_equal(np.concatenate(parts), one.read().lightness)
        from colorized.color import resample

        whole = one.read().lightness
        for size in ((40, 64), (201, 64), (40, 301), (201, 301), (300, 400)):
            expected = resample.resize_lightness(whole, *size)
            np.testing.assert_allclose(one.small(*size), expected, atol=1e-3)
        photo.write_scan([photo.Colored(one, colors)], tmp_path / "b.tif")
    photo.write_photo(
        photo.read_photo(tmp_path / "a.tif"), colors(0, 201, whole), tmp_path / "c.tif"
    )
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "b.tif"), tifffile.imread(tmp_path / "c.tif")
    )


def test_what_the_colors_raise_is_passed_on_and_leaves_nothing(
    tmp_path: Path, deep: np.ndarray
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="minisblack")

    def stopped(start: int, stop: int, L: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("theirs")

    for name in ("b.tif", "b.png"):
        with (
            photo.open_scan(tmp_path / "a.tif") as scan,
            pytest.raises(ZeroDivisionError, match="theirs"),
        ):
            photo.write_scan([photo.Colored(scan.pages[0], stopped)], tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


# ---- In memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".jp2", ".bmp", ".ppm"])
def test_in_memory_as_in_files(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    Image.fromarray(rgb).save(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    read = photo.read_photo(data, name=f"from the web{suffix}")
    np.testing.assert_array_equal(
        read.lightness, photo.read_photo(tmp_path / f"a{suffix}").lightness
    )
    ab = colors(0, 201, read.lightness)
    photo.write_photo(read, ab, tmp_path / f"b{suffix}")
    assert photo.encode_photo(read, ab, f"b{suffix}") == (tmp_path / f"b{suffix}").read_bytes()
    with pytest.raises(photo.PhotoError, match=r"^from the web: "):
        photo.read_photo(data[: len(data) // 3], name="from the web")


# ---- PDF ---------------------------------------------------------------------------------------


def test_pages_of_a_pdf(tmp_path: Path, rgb: np.ndarray) -> None:
    first, second = Image.fromarray(rgb).convert("L"), Image.fromarray(rgb[:90])
    first.save(tmp_path / "a.pdf", resolution=150, save_all=True, append_images=[second])
    assert photo.output_name("a.PDF") == "a.PDF.tif"
    with photo.open_scan(tmp_path / "a.pdf") as scan:
        assert scan.format == "PDF"
        assert [(p.height, p.width) for p in scan.pages] == [(201, 301), (90, 301)]
        for one, levels in zip(scan.pages, (np.asarray(first), rgb[:90]), strict=True):
            assert one.metadata.dpi == pytest.approx((150, 150), abs=0.01)
            # Pillow puts a JPEG of its usual quality into the PDF.
            assert np.abs(one.read().lightness - lightness_of(levels)).mean() < 2
        photo.write_scan([photo.Colored(p, colors) for p in scan.pages], tmp_path / "a.tif")
        with pytest.raises(photo.PhotoError, match="--max-pixels 1000"):
            photo.read_photo(tmp_path / "a.pdf", max_pixels=1000)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert len(tif.pages) == 2


def test_a_scan_that_lies_on_its_side_in_a_pdf(tmp_path: Path, rgb: np.ndarray) -> None:
    document = pypdfium2.PdfDocument.new()
    drawn = pypdfium2.PdfImage.new(document)
    height, width = rgb.shape[:2]
    drawn.set_bitmap(pypdfium2.PdfBitmap.from_pil(Image.fromarray(rgb)))
    points = width / 2, height / 2  # two pixels a point
    drawn.set_matrix(pypdfium2.PdfMatrix().scale(*points).rotate(90).translate(0, points[0]))
    page = document.new_page(points[1], points[0])
    page.insert_obj(drawn)
    page.gen_content()
    document.save(tmp_path / "a.pdf")
    with photo.open_scan(tmp_path / "a.pdf") as scan:
        assert scan.pages[0].metadata.dpi == pytest.approx((144, 144))
        assert (scan.pages[0].height, scan.pages[0].width) == (width, height)


# ---- What is carried over, by the eyes of ExifTool ---------------------------------------------


def exiftool(path: Path) -> dict[str, object]:
    done = subprocess.run(
        ["exiftool", "-json", "-a", "-G1", "-n", str(path)], capture_output=True, check=True
    )
    return dict(json.loads(done.stdout)[0])


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs ExifTool")
@pytest.mark.parametrize("source", [".jpg", ".tif", ".png", ".jp2"])
@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png", ".jp2", ".webp"])
def test_metadata_and_marks_are_what_exiftool_reads(
    tmp_path: Path, rgb: np.ndarray, source: str, suffix: str
) -> None:
    original = tmp_path / f"scan{source}"
    Image.fromarray(rgb).save(original, dpi=(300, 300))
    subprocess.run(
        ["exiftool", "-q", "-overwrite_original", "-codedcharacterset=utf8", "-IPTC:City=Zürich",
         "-IPTC:Caption-Abstract=The old mill", "-XMP-dc:Creator=Ann", "-EXIF:Artist=Ann",
         "-EXIF:DateTimeOriginal=1931:05:01 12:00:00", str(original)],
        check=True,
    )  # fmt: skip
    read = photo.read_photo(original)
    assert read.notes == []
    target = tmp_path / f"out{suffix}"
    xmp = provenance.for_copy(MADE, read, target)
    photo.write_photo(read, colors(0, 201, read.lightness), target, xmp)
    found = exiftool(target)
    assert found["XMP-iptcExt:DigitalSourceType"] == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    )
    assert found["XMP-dc:Creator"] == "Ann"
    assert found["XMP-colorized:WeightsSha256"] == MADE.weights_sha256
    assert found["XMP-colorized:OriginalSha256"] == MADE.original_sha256
    assert found["XMP-colorized:Seed"] in (7, "7")
    assert found["XMP-colorized:Candidates"] in (3, "3")
    assert found["XMP-colorized:HintsSha256"] == MADE.hints_sha256
    assert found["IFD0:Artist"] == "Ann"
    assert found["ExifIFD:DateTimeOriginal"] == "1931:05:01 12:00:00"
    if suffix == ".webp":
        assert "IPTC:City" not in found
    else:
        assert found["IPTC:City"] == "Zürich"
        assert found["IPTC:Caption-Abstract"] == "The old mill"
    assert not [key for key in found if key.endswith(("Warning", "Error"))]
    again = photo.read_photo(target)
    assert provenance.parse(again.metadata.xmp) == MADE


def test_exif_of_a_big_tiff(
    tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets to its directories are of 64 bits: they lie behind all pixels."""
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "1931:05:01 12:00:00"}
    Image.fromarray(rgb).save(tmp_path / "a.jpg", exif=exif)
    read = photo.read_photo(tmp_path / "a.jpg")
    monkeypatch.setattr(tiff, "_CLASSIC", 0)
    photo.write_photo(read, colors(0, 201, read.lightness), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
        tag = tif.pages[0].tags[int(ExifTags.IFD.Exif)]
        assert tag.dtype == tifffile.DATATYPE.LONG8
        assert tag.value == {"DateTimeOriginal": "1931:05:01 12:00:00"}
    again = photo.read_photo(tmp_path / "a.tif")
    assert again.metadata.exif == read.metadata.exif


@pytest.mark.parametrize(("white", "noted"), [(255, False), (1023, True), (65535, True)])
def test_ppm_of_more_than_8_bits_says_so(tmp_path: Path, white: int, noted: bool) -> None:
    levels = np.linspace(0, white, 3 * 16 * 9).round().astype(">u2" if white > 255 else np.uint8)
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 # made\n16 9\n%d\n" % white + levels.tobytes())
    picture = photo.read_photo(path)
    assert picture.lightness.shape == (9, 16)
    assert np.ptp(picture.lightness) > 95
    assert picture.notes == ["its color is read with 8 of its 16 bits"] * noted


def test_boxes_of_jpeg_2000() -> None:
    inner = jp2.box(b"a   ", b"1") + jp2.box(b"b   ", b"22")
    assert list(jp2.boxes(inner)) == [(b"a   ", b"1"), (b"b   ", b"22")]
    long = (1).to_bytes(4, "big") + b"c   " + (19).to_bytes(8, "big") + b"333"
    last = (0).to_bytes(4, "big") + b"d   " + b"rest"
    assert list(jp2.boxes(long + last)) == [(b"c   ", b"333"), (b"d   ", b"rest")]
    assert list(jp2.boxes(inner[:-1])) == [(b"a   ", b"1")]


# ---- Marks that are seen, layers ---------------------------------------------------------------


@pytest.fixture
def opened(tmp_path: Path, deep: np.ndarray) -> Iterator[photo.Page]:
    tifffile.imwrite(
        tmp_path / "a.tif", np.tile(deep, (2, 2)), photometric="minisblack", metadata=None
    )
    with photo.open_scan(tmp_path / "a.tif") as scan:
        yield scan.pages[0]


@pytest.mark.parametrize("place", ["corner", "margin"])
def test_visible_marks(
    tmp_path: Path, opened: photo.Page, place: photo.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = photo.Colored(opened, colors)
    photo.write_scan([plain], tmp_path / "plain.tif")
    before = tifffile.imread(tmp_path / "plain.tif")
    outputs = []
    for size in (page._STRIP, 3000):  # words that are cut by strips, too
        monkeypatch.setattr(page, "_STRIP", size)
        photo.write_scan([photo.marked(plain, place)], tmp_path / "b.tif")
        outputs.append(tifffile.imread(tmp_path / "b.tif"))
    after = outputs[0]
    # A vectorized power may differ from a single one in the last of 16 bits.
    np.testing.assert_allclose(*outputs, atol=1)
    height, width = before.shape[:2]
    if place == "margin":
        np.testing.assert_array_equal(after[:height], before)
        added = after[height:]
        assert added.shape[1] == width
        assert (added[..., 0] == added[..., 1]).all()
        assert np.ptp(lightness_of(added)) > 80
    else:
        changed = (after != before).any(-1)
        rows, columns = np.nonzero(changed)
        assert after.shape == before.shape
        assert rows.min() > height * 0.8
        assert columns.min() > width * 0.5
        plate = lightness_of(after[rows.min() :, columns.min() :])
        assert plate.max() > 99
        assert np.median(plate) < 40


def test_a_picture_too_small_for_words() -> None:
    tiny = photo.read_photo(encoded(Image.new("L", (20, 20))))
    with pytest.raises(photo.PhotoError, match="20 × 20 pixels are too few for a visible mark"):
        photo.marked(photo.Colored(tiny, colors), "corner")


def test_a_layer_has_the_colors_alone(tmp_path: Path, opened: photo.Page) -> None:
    one = photo.Colored(opened, colors)
    photo.write_scan([photo.layer(one)], tmp_path / "layer.png")
    with Image.open(tmp_path / "layer.png") as image:
        lab = skimage.color.rgb2lab(np.asarray(image.convert("RGB")))
    assert np.abs(lab[..., 0] - variants.LAYER_LIGHTNESS).max() < 0.6
    expected = colors(0, opened.height, opened.read().lightness)
    # Over the scan, in a mode that keeps its lightness and takes hue and chroma from the layer.
    assert np.abs(lab[..., 1:] - expected).max() < 1.5


# ---- Damage ------------------------------------------------------------------------------------


def test_a_jpeg_that_is_larger_than_its_strip(tmp_path: Path, rgb: np.ndarray) -> None:
    """It would be given room for, before anybody sees that it does not fit."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, photometric="rgb", compression="jpeg", metadata=None)
    data = path.read_bytes()
    place = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:place] + b"\xff\xff\xff\xff" + data[place + 4 :])
    with pytest.raises(photo.PhotoError, match="too large for its place"):
        photo.read_photo(path)


def test_what_is_not_supported_is_named(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb[..., 0].astype(np.int16), photometric="minisblack")
    with pytest.raises(photo.PhotoError, match=r"a\.tif: cannot be read: its levels have signs"):
        photo.read_photo(path)
    tifffile.imwrite(path, rgb[..., 0], photometric="minisblack", compression="lerc")
    with pytest.raises(photo.PhotoError, match="its compression LERC is not supported"):
        photo.read_photo(path)


def test_nothing_is_said_on_stderr(
    tmp_path: Path, rgb: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of what decoders think of a file: it is in notes and errors."""
    for name in ("a.tif", "a.jp2", "a.png", "a.jpg"):
        data = encoded(rgb, Image.registered_extensions()[Path(name).suffix])
        for cut in (40, 300, len(data) // 2):
            with pytest.raises(photo.PhotoError):
                photo.read_photo(data[:cut], name=name)
    assert capfd.readouterr() == ("", "")
