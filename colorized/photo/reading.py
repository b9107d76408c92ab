"""Reading of files: Pillow, with libheif for HEIC; tifffile and imagecodecs for TIFF and 16-bit
color; PDFium for PDF.

Importing this module switches off Pillow's own limit on the size of a picture: `open_scan` has one
that the user sets, which also is checked before decoding.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import imagecodecs
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from colorized.photo import bmff, jp2, metadata, pdf, png, tiff, tones
from colorized.photo.names import (
    MAX_PIXELS,
    READ,
    Check,
    PhotoError,
    TooManyPixels,
    failing,
    reason,
)
from colorized.photo.page import Metadata, Page, Whole, in_order, turned
from colorized.photo.tones import Levels, ToneMapping
from colorized.text import printable

Image.MAX_IMAGE_PIXELS = None

Source: TypeAlias = str | Path | bytes

# Classic TIFF and BigTIFF, in both byte orders.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BOXED = ("AVIF", "HEIF")
_RLE4 = 2  # of a BMP
# Of (primaries, transfer) by H.273, those that viewers take for sRGB.
_SRGB_LIKE = {(1, 13), (1, 1), (1, 2), (2, 2), (1, 6), (2, 13)}
_PILLOW = tuple(format for format in READ if format not in ("PDF", "TIFF"))


@dataclass(frozen=True)
class Scan:
    """A file of one or more photographs; `format` is Pillow's name, such as "JPEG"."""

    path: Path
    format: str
    pages: Sequence[Page]


@contextlib.contextmanager
def open_scan(
    source: Source, max_pixels: int = MAX_PIXELS, name: str | Path | None = None
) -> Iterator[Scan]:
    """Open a photograph, or a TIFF of several; pages are decoded while it is open.

    Raises PhotoError: the file is missing, damaged, no picture, an animation, or above
    `max_pixels`.

    Parameters
    ----------
    source
        A path, or the content of a file.
    max_pixels
        Limit of a page, checked before anything is decoded.
    name
        The file in messages, whose suffix its copy has; by default the path.
    """
    path = Path(name if name is not None else "picture" if isinstance(source, bytes) else source)
    with failing(path), contextlib.ExitStack() as stack:
        file = stack.enter_context(_opened(source))
        head = file.read(1024)
        file.seek(0)
        if not head:
            raise PhotoError(f"{printable(path)}: the file is empty")
        check = _checker(path, max_pixels)
        pages = _decode(file, head, path, check, stack.callback)
        # To be closed in any case, but what a caller raises is not a fault of the file.
        kept = stack.pop_all()
    with kept:
        yield Scan(path, pages[0].format, pages)


def read_photo(
    source: Source, max_pixels: int = MAX_PIXELS, name: str | Path | None = None
) -> Page:
    """Read one photograph and reduce it to lightness, upright and with its profile applied.

    Parameters as in `open_scan`. Raises PhotoError as `open_scan`, or the file has several pages.
    """
    with open_scan(source, max_pixels, name) as scan:
        return _only(scan).read()


def read_rgb(
    source: Source, max_pixels: int = MAX_PIXELS, name: str | Path | None = None
) -> NDArray[np.uint8]:
    """Read one photograph in color: sRGB, uint8 (H, W, 3), upright; errors as in `read_photo`."""
    with open_scan(source, max_pixels, name) as scan:
        page = _only(scan)
        return np.concatenate(list(in_order(lambda s: page.rgb8(*s), page.strips())))


def read_xmp(source: Source, name: str | Path | None = None) -> bytes:
    """The XMP packet of a picture, of the first page of several; empty where there is none.

    Raises PhotoError: the file is missing or no picture.
    """
    with open_scan(source, 1 << 62, name) as scan:
        return scan.pages[0].metadata.xmp


def _only(scan: Scan) -> Page:
    if len(scan.pages) > 1:
        raise PhotoError(f"{printable(scan.path)}: holds {len(scan.pages)} pages, not one")
    return scan.pages[0]


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    mode = os.stat(source).st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise PhotoError(f"{printable(source)}: {what}")
    with open(source, "rb") as file:
        yield file


def _checker(path: Path, max_pixels: int) -> Check:
    def check(height: int, width: int) -> None:
        if height < 1 or width < 1:
            raise PhotoError(f"{printable(path)}: has no pixels")
        if height * width > max_pixels:
            raise TooManyPixels(
                f"{printable(path)}: {width} × {height} pixels are more than "
                f"--max-pixels {max_pixels}",
                width,
                height,
                max_pixels,
            )

    return check


def _decode(
    file: BinaryIO, head: bytes, path: Path, check: Check, close: Callable[[Any], Any]
) -> list[Page]:
    notes: list[str] = []
    # What Pillow would print about a doubtful file belongs in the notes.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # of somebody else, collected now
        if head.startswith(_TIFF):
            pages = tiff.read(file, path, check)
        elif head.lstrip().startswith(b"%PDF-"):
            pages = pdf.read(file, path, check, close)
        else:
            pages = [_with_pillow(file, path, check, notes)]
    pages[0].notes += dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)
    return pages


def _with_pillow(file: BinaryIO, path: Path, check: Check, notes: list[str]) -> Page:
    content = b""
    head = file.read(16)
    file.seek(0)
    if head.startswith(png.SIGNATURE):
        content, damaged = png.without_damaged(_content(file))
        notes += [f"its chunk {kind} is damaged and is left out" for kind in damaged]
        file = io.BytesIO(content)
    elif head[4:8] == b"ftyp":
        content = bmff.with_one_ipma(_content(file))
        file = io.BytesIO(content)
    image = _opened_image(file, path)
    format = str(image.format)
    # Further frames of an MPO are other views of the one photograph; of a HEIC, other pictures,
    # of which one is the primary one.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and format == "HEIF":
        notes.append(f"holds {frames} pictures; the primary one is read")
    elif frames > 1 and format != "MPO":
        raise PhotoError(f"{printable(path)}: holds {frames} pictures, not one; split it first")
    check(image.height, image.width)
    if format == "BMP" and image.info.get("compression") == _RLE4:
        raise PhotoError(
            f"{printable(path)}: cannot be read: its compression RLE4 is not supported"
        )
    content = content or _content(file) if format in ("JPEG2000", "PPM", *_BOXED) else content
    found = bmff.properties(content) if format in _BOXED else []
    try:
        image.load()
    except OSError:
        if format not in ("JPEG", "MPO"):
            raise
        image = _cut_jpeg(_content(file), path, notes)
    uuids = jp2.metadata(content) if format == "JPEG2000" else {}
    if jp2.EXIF in uuids:
        image.info["exif"] = uuids[jp2.EXIF]
    exif, orientation = _exif(image, notes)
    facts = Metadata(
        dpi=metadata.resolution(*image.info.get("dpi", (0, 0))),
        exif=exif,
        iptc=uuids.get(jp2.IPTC, b"") or _iptc(image),
        xmp=uuids.get(jp2.XMP, b"") or _xmp(image),
        comments=_comments(image),
        texts=png.texts(content) if format == "PNG" else (),
        aspect=png.aspect(content) if format == "PNG" else _jfif_aspect(image),
    )
    icc = image.info.get("icc_profile") or b""
    if format == "PNG":
        icc = png.profile(content) or icc
    if (cicp := bmff.cicp(found)) is not None and not icc and cicp not in _SRGB_LIKE:
        icc = png.profile_of_cicp(*cicp, gray=_is_gray(image))
        if cicp[1] in (16, 18):  # PQ, HLG
            notes.append("its HDR is read up to diffuse white; highlights beyond are white")
    levels, meant, alpha = _levels(image, path, content, found, icc, notes)
    if format == "AVIF" and (edges := bmff.crop(found, *levels.shape[:2])) is not None:
        top, bottom, left, right = edges
        levels = levels[top:bottom, left:right]
    raster = Whole(turned(levels, orientation))
    return Page(path, format, raster, meant, facts, notes, alpha)


def _opened_image(file: BinaryIO, path: Path) -> Image.Image:
    """The picture, by Pillow, before it is decoded.

    Raises PhotoError: it is of no known format, or of a known one but damaged.
    """
    try:
        return Image.open(file, formats=_PILLOW)
    except UnidentifiedImageError as error:
        file.seek(0)
        head = file.read(16)
        for format in _PILLOW:
            factory, accept = Image.OPEN[format]
            if accept is None or not accept(head):
                continue
            file.seek(0)
            try:
                factory(file, "")
            except Exception as why:  # a decoder can raise anything
                what = "AVIF or HEIC" if format in _BOXED else format
                said = reason(why, "")
                said = f" ({said})" if said else ""
                raise PhotoError(
                    f"{printable(path)}: cannot be read: a damaged {what}{said}"
                ) from error
        raise PhotoError(
            f"{printable(path)}: no picture of a known format ({', '.join(READ)})"
        ) from error


def _cut_jpeg(content: bytes, path: Path, notes: list[str]) -> Image.Image:
    """A JPEG that ends early, with gray where rows are missing.

    It is decoded with two different ends: rows that depend on them are missing. Raises PhotoError:
    more than half of it is missing.
    """
    content = content.rstrip(b"\xff")
    pair = []
    for filling in (b"", b"\x55" * 64, b"\xaa" * 64):
        image = Image.open(io.BytesIO(content + filling + b"\xff\xd9"), formats=("JPEG",))
        image.load()
        pair.append(image)
    first, *others = (np.asarray(image) for image in pair)
    differing = [
        np.flatnonzero((first != other).reshape(len(first), -1).any(axis=1)) for other in others
    ]
    whole = min((int(rows[0]) for rows in differing if len(rows)), default=len(first))
    missing = 1 - whole / len(first)
    if missing > 0.5:
        raise PhotoError(
            f"{printable(path)}: cannot be read: the file ends early, {missing:.0%} of the picture "
            "is missing"
        )
    if pair[0].info.get("progressive") and missing:
        notes.append("the file ends early: the picture is less sharp than it was")
    elif missing:
        notes.append(f"the file ends early: {missing:.1%} of the picture is missing, at its bottom")
    else:
        notes.append("the file lacks its end marker; nothing of the picture is missing")
    return pair[0]


def _comments(image: Image.Image) -> tuple[bytes, ...]:
    found = [c for name, c in getattr(image, "applist", []) if name == "COM"]
    if not found and image.format == "GIF" and (comment := image.info.get("comment")):
        found = [comment]
    return tuple(found)


def _jfif_aspect(image: Image.Image) -> tuple[float, float] | None:
    x, y = image.info.get("jfif_density", (1, 1))
    return (x, y) if image.info.get("jfif_unit") == 0 and x != y and x and y else None


def _content(file: BinaryIO) -> bytes:
    at = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(at)
    return content


def _levels(
    image: Image.Image,
    path: Path,
    content: bytes,
    properties: list[tuple[bytes, bytes]],
    icc: bytes,
    notes: list[str],
) -> tuple[Levels, ToneMapping, bool]:
    """Levels of a decoded picture, (H, W[, C]), their meaning, and whether alpha is last."""
    deep = _deep(image, content, properties)
    if deep is not None:
        alpha = deep.shape[-1] in (2, 4)
        if deep.shape[-1] <= 2:
            return deep if alpha else deep[..., 0], tones.gray(65536, icc, notes), alpha
        return deep, tones.in_color("RGB", deep.dtype, icc, notes), alpha
    alpha = image.has_transparency_data
    if alpha and image.mode.startswith("I"):
        notes.append("its transparent color is left out: not supported beyond 8 bits")
        alpha = False
    if _is_gray(image):
        levels = _gray_levels(image, path, notes)
        size = 256 if levels.dtype == np.uint8 else 65536
        if alpha:
            levels = np.dstack([levels, np.asarray(image.convert("RGBA").getchannel("A"))])
        return levels, tones.gray(size, icc, notes), alpha
    mode = image.mode if image.mode in ("CMYK", "LAB") else "RGBA" if alpha else "RGB"
    levels = np.asarray(image if image.mode == mode else image.convert(mode))
    if image.format == "JPEG2000" and (order := jp2.channel_order(content)) is not None:
        levels = levels[..., [*order, *range(len(order), levels.shape[-1])]]
    if image.format == "PPM" and _ppm_white(content) > 255:
        notes.append("its color is read with 8 of its 16 bits")
    return levels, tones.in_color(mode.removesuffix("A"), levels.dtype, icc, notes), alpha


def _deep(
    image: Image.Image, content: bytes, properties: list[tuple[bytes, bytes]]
) -> Levels | None:
    """Levels of more than 8 bits, (H, W, C), of what Pillow would reduce to 8."""
    if image.format == "HEIF" and image.info.get("bit_depth", 8) > 8:
        heif = pillow_heif.open_heif(content, convert_hdr_to_8bit=False, reload_size=True)
        bits = image.info["bit_depth"]
        levels = np.atleast_3d(np.asarray(heif[heif.primary_index]))
        # It puts them into the upper bits of 16.
        return tones.full_range(levels >> (16 - bits), bits)
    if image.format == "AVIF" and 8 < (bits := bmff.bits(properties)) <= 16:
        return tones.full_range(np.atleast_3d(imagecodecs.avif_decode(content)), bits)
    if image.mode.startswith("I"):
        return None
    if image.format == "PNG" and content[24] == 16:
        return np.atleast_3d(imagecodecs.png_decode(content))
    if image.format == "JPEG2000" and 8 < (bits := jp2.precision(content)) <= 16:
        levels = np.atleast_3d(imagecodecs.jpeg2k_decode(content))
        if levels.dtype == np.uint16:
            return tones.full_range(levels, bits)
    return None


def _ppm_white(content: bytes) -> int:
    """The highest level of a PPM in color, the third number of its head."""
    head = re.match(rb"P[36]\s+\d+\s+\d+\s+(\d+)\s", re.sub(rb"#[^\n]*", b"", content[:1000]))
    return int(head[1]) if head else 255


def _exif(image: Image.Image, notes: list[str]) -> tuple[bytes, int]:
    """The EXIF that the picture's copy shall have, and its orientation."""
    try:
        exif = image.getexif()
        ifds = {int(ifd): exif.get_ifd(ifd) for ifd in metadata.EXIF_IFDS}
        return metadata.copied_exif(exif, ifds), exif.get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # a damaged tag can make Pillow raise anything
        notes.append(f"its EXIF cannot be read and is left out: {reason(error)}")
        return b"", 1


def _iptc(image: Image.Image) -> bytes:
    """The IPTC-IIM record of a JPEG or PNG."""
    blocks = [c for name, c in getattr(image, "applist", []) if name == "APP13"]
    data = b"".join(c.removeprefix(metadata.PHOTOSHOP) for c in blocks)
    if not data and (text := image.info.get("Raw profile type iptc")):
        # As ImageMagick writes it: lines of a name, a length, then hexadecimal digits.
        with contextlib.suppress(ValueError, AttributeError):
            data = bytes.fromhex("".join(text.strip().split("\n")[2:]))
    return data if data.startswith(metadata.IPTC_START) else metadata.iptc_of_resources(data)


def _xmp(image: Image.Image) -> bytes:
    found = image.info.get("xmp", b"")
    return found if isinstance(found, bytes) else str(found).encode()


def _is_gray(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")


def _gray_levels(image: Image.Image, path: Path, notes: list[str]) -> Levels:
    """Levels of a gray picture, (H, W), of the whole range of uint8 or uint16."""
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return values.astype(np.uint16)
    # A PGM of 16 bits, which Pillow reads into 32, and a PFM.
    ends = (65535,) if image.mode == "I" and image.format == "PPM" else ()
    return tones.whole_range(values, printable(path), notes, ends)
