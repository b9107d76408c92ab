"""Reading and writing of TIFF, strip by strip, with tifffile and imagecodecs.

A scan of any size needs memory for a few strips or tiles only; one that is stored as a single
compressed strip must be decoded as a whole. What is written has deflated strips, and is BigTIFF
where it may pass 4 GB.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags

from colorized.photo import metadata, tones
from colorized.photo.names import Check, Damaged, PhotoError, failing, reason
from colorized.photo.page import BandCache, Banded, Metadata, Page, Raster, turned_raster
from colorized.photo.tones import Levels, ToneMapping
from colorized.text import printable

# Warnings of tifffile would go to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_UNCOMPRESSED = 1
# Those of tifffile's that occur in archives.
_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 33003, 33005, 34712, 50000, 50001)
_OLD_JPEG, _JPEG = 6, 7
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB, _ICCLAB = (
    0, 1, 2, 3, 5, 6, 8, 9,
)  # fmt: skip
_COLORS = {_RGB: 3, _CMYK: 4, _YCBCR: 3, _CIELAB: 3, _ICCLAB: 3}
_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
_COLORMAP, _MAX_SAMPLE_VALUE, _YCBCR_SUBSAMPLING = 320, 341, 530
_MAX_SAMPLES = 16
_INCH, _CENTIMETER = 2, 3
_DEFLATE = "adobe_deflate"
# Added to a code, it gives an unused one that sorts the same.
_STAND_IN = -1
# Pixels decoded together, where strips are smaller.
_BAND = 1 << 18
# Bytes of pixels up to which offsets of 32 bits will do.
_CLASSIC = 4_000_000_000
# As many pages as a PageNumber tag can count.
_MAX_PAGES = 65_535
# Bounds on the values of a file's tags, which are read before any pixel.
_MAX_TAG_NUMBERS, _TAG_BYTES = 1 << 22, 1 << 26
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
               16: 8, 17: 8, 18: 8}  # fmt: skip
# Carried over: all private tags but those that are read in other ways or are of the pixels.
_FIRST_PRIVATE, _PRIVATE_BYTES = 32768, 1 << 20
_NOT_CARRIED = {
    *metadata.READ, _IPTC, _PHOTOSHOP, _ICC, 37724, 34118, 50838, 50839, *range(32995, 32999),
    *range(34016, 34034), 33421, 33422,
}  # fmt: skip
_DNG = (50706, 52600)
_NUMPY_TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4",
                10: "i4", 11: "f4", 12: "f8", 16: "u8", 17: "i8"}  # fmt: skip
# Formats of microscopes and scanners, which tifffile would read as such.
_PLAIN: dict[str, Any] = dict.fromkeys(
    ("is_lsm", "is_ndpi", "is_philips", "is_scanimage", "is_stk"), False
)


@dataclass(frozen=True)
class OutputPage:
    """A page to write: sRGB in strips of `rows_per_strip` rows, which `strips` gives in order.

    `strips` applies a function to each of them, by several threads. `total` is the number of
    pixels of all pages.
    """

    height: int
    width: int
    samples: int
    dtype: np.dtype[Any]
    rows_per_strip: int
    total: int
    strips: Callable[[Callable[[NDArray[Any]], bytes]], Iterator[bytes]]
    metadata: Metadata
    xmp: bytes


def read(file: BinaryIO, path: Path, check: Check) -> list[Page]:
    """The photographs of a TIFF; thumbnails and masks are passed over.

    Raises PhotoError: `check` does, or a page is of a kind that is not supported.
    """
    offsets, problem = _directories(file, path)
    file.seek(0)
    tif = tifffile.TiffFile(file, **_PLAIN)
    every = []
    for number, offset in enumerate(offsets):
        tif.filehandle.seek(offset)
        try:
            every.append(tifffile.TiffPage(tif, number))
        except tifffile.TiffFileError as error:
            raise Damaged(f"page {number + 1}: {reason(error)}") from error
    found = [page for page in every if not (page.is_reduced or page.is_mask)]
    if not every:
        raise PhotoError(f"{printable(path)}: cannot be read: {problem or 'it has no pages'}")
    if not found:
        raise PhotoError(f"{printable(path)}: holds no photograph, only thumbnails or masks")
    for page in found:
        check(page.imagelength, page.imagewidth)
    total = sum(page.imagelength * page.imagewidth for page in found)
    caches = _Caches()
    pages = [_page(page, path, check, caches, total) for page in found]
    if problem:
        pages[0].notes.append(f"{problem}; what comes before that is read")
    return pages


def _directories(file: BinaryIO, path: Path) -> tuple[list[int], str]:
    """Offsets of the pages' directories, and the fault that ends their chain early, if any.

    Raises PhotoError: there are too many, or tags claim more than a file of this size can hold.
    """

    def refuse(problem: str) -> NoReturn:
        raise PhotoError(f"{printable(path)}: cannot be read: {problem}")

    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    count_format, tag_size, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    at = 8 if big else 4
    if len(head) < at + struct.calcsize(order + offset_format):
        refuse("the file ends early")
    (offset,) = struct.unpack_from(order + offset_format, head, at)
    budget = _TAG_BYTES + 2 * size
    found: list[int] = []
    seen: set[int] = set()
    while offset:
        number = len(found) + 1
        if offset in seen:
            return found, f"its list of pages leads back to an earlier one after page {number - 1}"
        file.seek(offset)
        data = file.read(struct.calcsize(order + count_format)) if offset < size else b""
        if len(data) < struct.calcsize(order + count_format):
            return found, f"page {number} lies behind the end of the file"
        (tags,) = struct.unpack(order + count_format, data)
        entries = file.read(tags * tag_size) if tags <= 4096 else b""
        if len(entries) < tags * tag_size:
            return found, f"page {number} lies behind the end of the file, or is none"
        for start in range(0, len(entries), tag_size):
            code, kind, count = struct.unpack_from(order + "HH" + offset_format, entries, start)
            width = _TYPE_SIZES.get(kind, 0)
            budget -= count * width
            numbers = width > 1 or kind == 6
            if budget < 0 or (numbers and count > _MAX_TAG_NUMBERS):
                refuse(f"tag {code} of page {number} claims {count} values")
        if number > _MAX_PAGES:
            refuse(f"it has more than {_MAX_PAGES} pages")
        found.append(offset)
        seen.add(offset)
        tail = file.read(struct.calcsize(order + offset_format))
        if len(tail) < struct.calcsize(order + offset_format):
            return found, f"the list of its pages ends in the middle, after page {number}"
        (offset,) = struct.unpack(order + offset_format, tail)
    return found, ""


@dataclass(frozen=True)
class _Caches:
    """What was decoded last, of all pages: bands, whole pages, and those turned upright."""

    bands: BandCache = field(default_factory=BandCache)
    wholes: BandCache = field(default_factory=BandCache)
    upright: BandCache = field(default_factory=BandCache)


def _page(page: Any, path: Path, check: Check, caches: _Caches, total: int) -> Page:
    notes: list[str] = []
    _supported(page, path, check)
    facts, orientation = _metadata(page, notes)
    icc = _bytes(page, _ICC)
    kind, bits = page.photometric, page.bitspersample
    if kind == _BLACK_IS_ZERO and page.samplesperpixel in (3, 4):
        notes.append(
            f"it says BlackIsZero with {page.samplesperpixel} samples for each pixel; it is read "
            "as RGB"
        )
        kind = _RGB
    colors = _COLORS.get(kind, 1)
    extra = [int(value) for value in page.extrasamples][-(page.samplesperpixel - colors) :]
    alpha = page.samplesperpixel > colors and bool(extra) and extra[0] in (1, 2)
    premultiplied = alpha and extra[0] == 1
    if (unused := page.samplesperpixel - colors - alpha) > 0:
        notes.append(f"{unused} further channels, whose meaning it does not say, are left out")
    palette = _palette(page, path) if kind == _PALETTE else None

    def levels(raw: NDArray[Any]) -> Levels:
        """What a segment holds, in the whole range of 8 or 16 bits, alpha last."""
        raw = raw[..., : colors + alpha]
        if palette is not None:
            rgb = palette[raw[..., 0].astype(np.intp)]
            return np.dstack([rgb, tones.eight_bits(raw[..., 1], bits)]) if alpha else rgb
        full = tones.full_range(raw, bits)
        if kind == _WHITE_IS_ZERO:
            full[..., :1] = ~full[..., :1]
        if kind == _YCBCR and page.compression != _JPEG:
            full = np.asarray(Image.fromarray(full, "YCbCr").convert("RGB"))
        if premultiplied:
            full = tones.unpremultiplied(full)
        return full[..., 0] if full.shape[-1] == 1 else full

    height, width = page.imagelength, page.imagewidth
    eight = bits <= 8 or palette is not None
    dtype = np.dtype(np.uint8 if eight else np.uint16)
    raster: Raster
    if alpha and (_needs_libtiff(page) or page.dtype.kind == "f" or bits > 16):
        notes.append("its transparency is left out: its kind of TIFF is read without it")
    if _needs_libtiff(page):
        dtype, alpha, kind = np.dtype(np.uint8), False, _RGB
        decode = functools.partial(_by_libtiff, page, path)
        raster = Banded(height, width, height, dtype, decode, caches.wholes)
    elif page.dtype.kind == "f" or bits > 16:  # where white is can only be known from all of it
        alpha, ends = False, _ends(page)
        raw = _raster(page, path, caches.bands, page.dtype, lambda v: v)

        def whole(_: int) -> Levels:
            values = raw.rows(0, height)[..., :colors]
            found = tones.whole_range(values, printable(path), notes, ends)
            found = ~found if kind == _WHITE_IS_ZERO else found
            return found[..., 0] if colors == 1 else found

        raster = Banded(height, width, height, dtype, whole, caches.wholes)
    else:
        raster = _raster(page, path, caches.bands, dtype, levels)
    if orientation in range(2, 9):
        # A turned copy is read in another order than the file's.
        raster = turned_raster(raster, orientation, caches.upright)
    if kind in (_CIELAB, _ICCLAB):
        meant: ToneMapping = tones.lab(dtype, signed=kind == _CIELAB)
    elif kind in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        meant = tones.gray(256 if dtype == np.uint8 else 65536, icc, notes)
    else:
        meant = tones.in_color("CMYK" if kind == _CMYK else "RGB", dtype, icc, notes)
    return Page(path, "TIFF", raster, meant, facts, notes, alpha, total)


def _supported(page: Any, path: Path, check: Check) -> None:
    problem = ""
    bits, samples = page.bitspersample, page.samplesperpixel
    if page.compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", page.compression)
        problem = f"its compression {name} is not supported"
    elif page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE, *_COLORS):
        name = getattr(page.photometric, "name", page.photometric)
        problem = f"its kind of color {name} is not supported"
    elif not isinstance(bits, int):
        problem = f"samples of different depths {bits} are not supported"
    elif page.imagedepth != 1 or page.dtype is None or page.dtype.kind not in "buif":
        problem = f"{samples} samples of {bits} bits are not supported"
    elif page.dtype.kind == "i" and bits <= 16:
        problem = "its levels have signs"
    elif samples < _COLORS.get(page.photometric, 1) and page.compression != _OLD_JPEG:
        problem = f"has {samples} samples for each pixel, too few"
    elif samples > _MAX_SAMPLES or (
        page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
        and samples > (2 if page.photometric == _WHITE_IS_ZERO else 4)
    ):
        problem = f"{samples} samples for each pixel are no photograph's"
    if problem:
        raise PhotoError(f"{printable(path)}: cannot be read: {problem}")
    if page.is_tiled:
        check(page.tilelength, page.tilewidth)


def _ends(page: Any) -> tuple[float, ...]:
    """Where white is, in levels of more than 16 bits, as far as the file says so."""
    tag = page.tags.get(_MAX_SAMPLE_VALUE)
    value = np.max(tag.value) if tag is not None else 0
    if np.isfinite(value) and value > 0:
        return (float(value),)
    # 32 bits are also what programs write that have 8 or 16, others are what they say.
    return () if page.dtype.kind == "f" or page.bitspersample >= 31 else (
        2.0**page.bitspersample - 1,
    )  # fmt: skip


def _needs_libtiff(page: Any) -> bool:
    """Whether it is of a kind that tifffile does not decode: old-style JPEG, subsampled YCbCr."""
    if page.compression == _OLD_JPEG:
        return True
    if page.photometric != _YCBCR or page.compression == _JPEG:
        return False
    tag = page.tags.get(_YCBCR_SUBSAMPLING)
    return tuple(tag.value if tag is not None else (2, 2)) != (1, 1)


def _by_libtiff(page: Any, path: Path, _: int) -> Levels:
    """RGB of a page, decoded by libtiff as a whole."""
    file = page.parent.filehandle
    with failing(path):
        file.seek(0)
        data = file.read()
        # Directories are counted as they stand in the file, thumbnails among them.
        rgba = imagecodecs.tiff_decode(data, index=page.index, asrgb=True)
        if rgba.shape[:2] != (page.imagelength, page.imagewidth):
            raise Damaged("its pixels are of another size than it says")
        return rgba[..., :3]


def _palette(page: Any, path: Path) -> NDArray[np.uint8]:
    """sRGB of each index, (n, 3)."""
    table = np.asarray(page.tags.valueof(_COLORMAP, ()))
    if table.ndim != 2 or table.shape[1] < 1 << page.bitspersample or page.dtype.kind not in "bu":
        raise PhotoError(f"{printable(path)}: cannot be read: its palette is missing or damaged")
    # Some programs write 8 bits where 16 are meant.
    return (table.T if table.max() < 256 else table.T >> 8).astype(np.uint8)


def _raster(
    page: Any,
    path: Path,
    bands: BandCache,
    dtype: np.dtype[Any],
    levels: Callable[[NDArray[Any]], Levels],
) -> Banded:
    """The rows of a page, with what they mean applied to every band."""
    height, width = page.imagelength, page.imagewidth
    file = page.parent.filehandle
    samples = page.samplesperpixel
    planar = page.planarconfig == 2 and samples > 1

    def bytes_at(offset: int, count: int) -> bytes:
        if not 0 < count <= file.size - offset:  # before there is room made for it
            raise Damaged("the file ends early")
        with bands.file_lock:
            file.seek(offset)
            data: bytes = file.read(count)
        return data

    direct = (
        page.compression == _UNCOMPRESSED
        and page.is_contiguous
        and page.predictor == 1
        and page.fillorder == 1
        and page.bitspersample in (8, 16)
        and not planar
    )
    if direct:
        rows = max(1, _BAND // width)
        stored = np.dtype(page.parent.byteorder + page.dtype.char)
        size = width * samples * stored.itemsize

        def decoded(number: int) -> NDArray[Any]:
            first = number * rows
            count = min(rows, height - first)
            data = bytes_at(page.dataoffsets[0] + first * size, count * size)
            return np.frombuffer(data, stored).reshape(count, width, samples)
    else:
        down = page.tilelength if page.is_tiled else min(page.rowsperstrip, height)
        across = -(-width // page.tilewidth) if page.is_tiled else 1
        many = max(1, _BAND // (width * down))  # rows of segments in a band
        rows = down * many
        plane = -(-height // down) * across
        tables, header = page.jpegtables, page.jpegheader

        def segment(index: int) -> tuple[NDArray[Any], tuple[int, ...]]:
            if index >= min(len(page.dataoffsets), len(page.databytecounts)):
                raise Damaged("it lists fewer strips or tiles than its size needs")
            data = bytes_at(page.dataoffsets[index], page.databytecounts[index])
            if page.compression == _JPEG:
                _check_jpeg(data, page, down)
            more = {"jpegtables": tables, "jpegheader": header} if tables or header else {}
            array, (plane, _, y, x, _), _ = page.decode(data, index, **more)
            return array[0], (plane, y, x)

        def decoded(number: int) -> NDArray[Any]:
            first = number * rows
            count = min(rows, height - first)
            out = np.empty((count, width, samples), page.dtype)
            one = (first // down) * across
            last = -(-(first + count) // down) * across
            for p in range(samples if planar else 1):
                for index in range(p * plane + one, p * plane + last):
                    array, (_, y, x) = segment(index)
                    part = out[y - first : y - first + len(array), x : x + array.shape[1]]
                    part[..., p : p + 1 if planar else None] = array[: len(part), : part.shape[1]]
            return out

    def band(number: int) -> Levels:
        with failing(path):
            return levels(decoded(number))

    return Banded(height, width, rows, dtype, band, bands)


def _check_jpeg(data: bytes, page: Any, down: int) -> None:
    """Check that a segment has the size of its page, before a decoder allocates memory."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            across = page.tilewidth if page.is_tiled else page.imagewidth
            if height > down or width > across:
                raise Damaged(f"a JPEG of {width} × {height} pixels is too large for its place")
            return
        at += 2 + size


def _bytes(page: Any, code: int) -> bytes:
    """The bytes of a tag in the file."""
    tag = page.tags.get(code)
    if tag is None or tag.valuebytecount > 1 << 26:
        return b""
    file = page.parent.filehandle
    file.seek(tag.valueoffset)
    data: bytes = file.read(tag.valuebytecount)
    return data


def _metadata(page: Any, notes: list[str]) -> tuple[Metadata, int]:
    """Metadata of the page, and its orientation."""
    iptc = _bytes(page, _IPTC)
    if not iptc.startswith(metadata.IPTC_START):
        iptc = metadata.iptc_of_resources(_bytes(page, _PHOTOSHOP))
    tags: dict[int, Any] = {}
    exif = b""
    try:
        tags = _tags(page, page.offset)
        offsets = {ifd: tags[ifd] for ifd in metadata.EXIF_IFDS if ifd in tags}
        ifds = {int(ifd): _tags(page, offset, ifd) for ifd, offset in offsets.items()}
        exif = metadata.copied_exif(tags, ifds)
    except Exception as error:  # a damaged tag can make Pillow raise anything
        notes.append(f"its EXIF cannot be read and is left out: {reason(error)}")
    x, y = tags.get(ExifTags.Base.XResolution), tags.get(ExifTags.Base.YResolution)
    inches = {_INCH: 1, _CENTIMETER: 2.54}.get(tags.get(ExifTags.Base.ResolutionUnit, _INCH), 0)
    aspect = None
    if not inches and x and y and x != y:
        aspect = float(x), float(y)
    facts = Metadata(
        metadata.resolution(x, y, inches), exif, iptc, _bytes(page, _XMP),
        private_tags=_private_tags(page), aspect=aspect,
    )  # fmt: skip
    return facts, tags.get(ExifTags.Base.Orientation, 1)


def _private_tags(page: Any) -> tuple[tuple[int, int, int, bytes], ...]:
    """Tags that are not of TIFF itself, GeoTIFF's among them, for the copy."""
    found = []
    for tag in page.tags:
        kind = int(tag.dtype)
        if tag.code < _FIRST_PRIVATE or tag.code in _NOT_CARRIED or kind not in _NUMPY_TYPES:
            continue
        if _DNG[0] <= tag.code <= _DNG[1] or tag.valuebytecount > _PRIVATE_BYTES:
            continue
        dtype = np.dtype(_NUMPY_TYPES[kind])
        raw = np.frombuffer(_bytes(page, tag.code), dtype.newbyteorder(page.parent.byteorder))
        found.append((tag.code, kind, tag.count, raw.astype(dtype.newbyteorder("<")).tobytes()))
    return tuple(found)


def _tags(page: Any, offset: int, group: int | None = None) -> dict[int, Any]:
    """The tags of a directory of the file, as Pillow reads those of EXIF."""
    file = page.parent.filehandle
    head = b"II*\0" if page.parent.byteorder == "<" else b"MM\0*"
    directory = TiffImagePlugin.ImageFileDirectory_v2(head + bytes(4), group=group)
    # Which Pillow does not find out where the highest byte comes first.
    directory._bigtiff = page.parent.is_bigtiff
    file.seek(offset)
    directory.load(file)
    return {code: directory[code] for code in directory if group or code in metadata.READ}


def write(file: BinaryIO, pages: Iterable[OutputPage]) -> None:
    """Write pages, one after the other, with deflated strips."""
    ifds: list[dict[int, Any]] = []
    with contextlib.ExitStack() as stack:
        writer: tifffile.TiffWriter | None = None
        big = False
        for page in pages:
            if writer is None:
                big = page.total * page.samples * page.dtype.itemsize > _CLASSIC
                writer = stack.enter_context(tifffile.TiffWriter(file, bigtiff=big))
            tags, ifd = _extra_tags(page, big)
            ifds.append(ifd)
            writer.write(
                page.strips(_deflated),
                shape=(page.height, page.width, page.samples),
                dtype=page.dtype,
                photometric="rgb",
                planarconfig="contig",
                extrasamples=["unassalpha"] if page.samples == 4 else None,
                rowsperstrip=page.rows_per_strip,
                compression=_DEFLATE,
                predictor=True,
                iccprofile=tones.srgb_profile(),
                resolution=page.metadata.dpi or page.metadata.aspect,
                resolutionunit=(
                    "inch" if page.metadata.dpi else "none" if page.metadata.aspect else None
                ),
                extratags=tags,
                metadata=None,
                software=False,
            )
    if any(ifds):
        _append_ifds(file, ifds)


def _deflated(strip: NDArray[Any]) -> bytes:
    differences = imagecodecs.delta_encode(strip, axis=1)
    return bytes(imagecodecs.zlib_encode(differences.tobytes(), level=6))


def _extra_tags(
    page: OutputPage, big: bool
) -> tuple[list[tuple[int, int, int, Any, bool]], dict[int, Any]]:
    """Tags beside those of the pixels, and the EXIF directories, which tifffile does not write."""
    tags: list[tuple[int, int, int, Any, bool]] = []
    ifds: dict[int, Any] = {}
    exif = Image.Exif()
    exif.load(page.metadata.exif)
    for code, value in exif.items():
        if isinstance(value, str):
            value = value.encode("latin-1")
            tags.append((code, TiffTags.ASCII, len(value) + 1, value + b"\0", True))
        elif isinstance(value, bytes):
            tags.append((code, TiffTags.BYTE, len(value), value, True))
        elif code in metadata.EXIF_IFDS:
            ifds[code] = exif.get_ifd(code)
            # Room for it, under another code, since tifffile does not write this one.
            kind = TiffTags.LONG8 if big else TiffTags.LONG
            tags.append((code + _STAND_IN, kind, 1, 0, True))
        else:
            tags.append((code, TiffTags.SHORT, 1, value, True))
    if page.xmp:
        tags.append((_XMP, TiffTags.BYTE, len(page.xmp), page.xmp, True))
    if page.metadata.iptc:
        tags.append((_IPTC, TiffTags.UNDEFINED, len(page.metadata.iptc), page.metadata.iptc, True))
    tags += [(*tag, True) for tag in page.metadata.private_tags]
    return tags, ifds


def _append_ifds(file: BinaryIO, ifds: list[dict[int, Any]]) -> None:
    """Write EXIF directories behind all pages, and their offsets into the pages' tags."""
    file.seek(0)
    places = []
    with tifffile.TiffFile(file) as tif:
        written: Iterable[Any] = tif.pages
        for page, directories in zip(written, ifds, strict=True):
            places += [(page.tags[c + _STAND_IN], c, d) for c, d in directories.items()]
        big = tif.is_bigtiff
    head = b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4)
    for tag, code, entries in places:
        directory = TiffImagePlugin.ImageFileDirectory_v2(head, group=code)
        directory.update(entries)
        offset = file.seek(0, io.SEEK_END)
        offset += file.write(bytes(offset % 2))
        file.write(directory.tobytes(offset))
        file.seek(tag.offset)
        file.write(struct.pack("<H", code))
        file.seek(tag.valueoffset)
        file.write(struct.pack("<Q" if big else "<I", offset))
