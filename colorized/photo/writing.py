"""Writing of colored copies: strip by strip, with the original's metadata, atomically."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from colorized import atomic, color
from colorized.photo import jp2, metadata, png, tiff, tones
from colorized.photo.names import (
    CODESTREAM_SUFFIXES,
    WRITE_16,
    WRITE_ALPHA,
    PhotoError,
    failing,
    output_format,
    room,
)
from colorized.photo.page import Metadata, Page, in_order
from colorized.photo.tones import Levels
from colorized.text import printable

# Without loss, JPEG excepted, where full chroma resolution keeps 99.9 % of pixels within 2.5 of
# their L*.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 97, "subsampling": "4:4:4"},
    "JPEG2000": {"irreversible": False},
    # `exact` keeps the colors of pixels that are wholly transparent.
    "WEBP": {"lossless": True, "exact": True},
}

Rows: TypeAlias = Callable[[int, int, NDArray[np.float32]], NDArray[np.floating[Any]]]
"""(start, stop, L* of the rows [start, stop)) → their chroma ab, (stop - start, W, 2)."""


@dataclass(frozen=True)
class Colored:
    """A photograph and its colors.

    `chroma` gives ab of rows, CIELAB units, and is called from several threads, in any order; `xmp`
    is a packet of no more than `names.room` bytes.
    """

    picture: Page
    chroma: Rows
    xmp: bytes = b""


def write_photo(
    photo: Page, ab: NDArray[np.floating[Any]], path: str | Path, xmp: bytes = b""
) -> None:
    """Write the photograph with chroma `ab` (H, W, 2), in CIELAB units, as sRGB.

    The format is that of the suffix, in 16 bits per channel where photograph and format have them,
    else in 8. The file appears whole or not at all; one that exists is replaced. `xmp` is its XMP
    packet, of no more than `names.room` bytes.

    Raises
    ------
    PhotoError
        The suffix is of no format that holds color, or the file cannot be written.
    ValueError
        `ab` is not of the photograph's size, or not finite.
    """
    write_scan([_whole(photo, ab, xmp)], path)


def encode_photo(
    photo: Page, ab: NDArray[np.floating[Any]], name: str | Path, xmp: bytes = b""
) -> bytes:
    """What `write_photo` would write to a file of this name; errors as there."""
    file = io.BytesIO()
    _encoded(file, [_whole(photo, ab, xmp)], Path(name))
    return file.getvalue()


def write_scan(colored: Iterable[Colored], path: str | Path) -> None:
    """Write photographs, one after the other, strip by strip: several only to a TIFF.

    Errors and format as in `write_photo`; what a `chroma` or the iterable raises is passed on.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with failing(path, "written"):
            partial = stack.enter_context(atomic.replacing(path))
            file = stack.enter_context(open(partial, "xb+"))
        _encoded(file, colored, path)
        with failing(path, "written"):
            stack.close()


def left_out(facts: Metadata, path: str | Path) -> list[str]:
    """Notes on the metadata that a file of this name cannot hold."""
    format = output_format(path)
    notes = []
    suffix = Path(path).suffix
    if facts.exif and (format in ("BMP", "PPM") or suffix.lower() in CODESTREAM_SUFFIXES):
        notes.append(f"its EXIF is left out: {suffix} cannot hold it")
    if facts.texts and format != "PNG":
        keywords = ", ".join(dict.fromkeys(map(png.keyword, facts.texts)))
        notes.append(f"its texts ({keywords}) are left out: {suffix} cannot hold them")
    if facts.comments and format not in ("JPEG", "PNG"):
        notes.append(f"its comment is left out: {suffix} cannot hold it")
    if facts.private_tags and format != "TIFF":
        codes = ", ".join(str(code) for code, *_ in facts.private_tags)
        notes.append(f"its tags {codes} are left out: {suffix} cannot hold them")
    if facts.aspect and format not in ("JPEG", "PNG", "TIFF"):
        notes.append(f"its pixels are not square, which {suffix} cannot say")
    return notes


def _whole(photo: Page, ab: NDArray[np.floating[Any]], xmp: bytes) -> Colored:
    shape = (photo.height, photo.width, 2)
    if ab.shape != shape:
        raise ValueError(f"ab must have shape {shape}, got {ab.shape}")
    return Colored(photo, lambda start, stop, L: ab[start:stop], xmp)


def _encoded(file: BinaryIO, colored: Iterable[Colored], path: Path) -> None:
    format = output_format(path)
    if format is None:
        raise PhotoError(f"{printable(path)}: no format that holds color has this suffix")
    if format == "TIFF":
        raised: list[BaseException] = []
        try:
            with failing(path, "written"):
                tiff.write(file, (_output_page(one, raised) for one in _kept(colored, raised)))
        except PhotoError:
            if raised:  # by who gives the colors; it is no fault of the file
                raise raised[0] from None
            raise
        return
    one, *others = colored
    if others:
        raise PhotoError(f"{printable(path)}: cannot hold {1 + len(others)} pages; TIFF can")
    pixels = _pixels(one, format)
    with failing(path, "written"):
        _WRITERS.get(format, _plain)(file, pixels, one, path)


A = TypeVar("A")


def _kept(items: Iterable[A], raised: list[BaseException]) -> Iterator[A]:
    """The items; an exception that they raise is also appended to `raised`."""
    try:
        yield from items
    except Exception as error:
        raised.append(error)
        raise


def _output_page(one: Colored, raised: list[BaseException]) -> tiff.OutputPage:
    picture = one.picture
    first, last = picture.strips()[0]
    return tiff.OutputPage(
        height=picture.height,
        width=picture.width,
        samples=3 + picture.has_alpha,
        dtype=np.dtype(f"u{picture.bits // 8}"),
        rows_per_strip=last - first,
        total=picture.total,
        strips=lambda finish: _kept(_painted(one, "TIFF", finish), raised),
        metadata=picture.metadata,
        xmp=one.xmp,
    )


def _painted(one: Colored, format: str, finish: Callable[[NDArray[Any]], A]) -> Iterator[A]:
    """`finish` of the strips of a photograph, (rows, W, 3) or, with its alpha, (rows, W, 4)."""
    picture = one.picture
    bits = picture.bits if format in WRITE_16 else 8

    def paint(strip: tuple[int, int]) -> A:
        L = picture.rows(*strip)
        rgb = color.recombine(L, one.chroma(*strip, L), bits=bits)
        alpha = picture.opacity(*strip) if format in WRITE_ALPHA else None
        return finish(rgb if alpha is None else np.dstack([rgb, _alpha(alpha, bits)]))

    return in_order(paint, picture.strips())


def _alpha(alpha: Levels, bits: int) -> Levels:
    """Opacity in as many bits as the colors."""
    if alpha.dtype == np.uint8 and bits == 16:
        return alpha * np.uint16(257)
    if alpha.dtype == np.uint16 and bits == 8:
        return (alpha >> 8).astype(np.uint8)
    return alpha


def _pixels(one: Colored, format: str) -> NDArray[Any]:
    pixels: NDArray[Any] | None = None
    at = 0
    for strip in _painted(one, format, lambda strip: strip):
        if pixels is None:
            pixels = np.empty((one.picture.height, *strip.shape[1:]), strip.dtype)
        pixels[at : at + len(strip)] = strip
        at += len(strip)
    assert pixels is not None
    return pixels


def _plain(file: BinaryIO, pixels: NDArray[Any], one: Colored, path: Path) -> None:
    """BMP, JPEG, PPM and WebP."""
    facts, format = one.picture.metadata, str(output_format(path))
    options = _OPTIONS.get(format, {}) | {"icc_profile": tones.srgb_profile()}
    if facts.dpi:
        options["dpi"] = facts.dpi
    if facts.exif:
        options["exif"] = facts.exif
    if one.xmp:
        options["xmp"] = one.xmp
    if format != "JPEG":
        Image.fromarray(pixels).save(file, format=format, **options)
        return
    if 0 < len(facts.iptc) <= room(path, "IPTC"):
        content = metadata.PHOTOSHOP + metadata.resources_of_iptc(facts.iptc)
        options["extra"] = b"\xff\xed" + struct.pack(">H", 2 + len(content)) + content
    comments = (b"\xff\xfe" + struct.pack(">H", 2 + len(c)) + c for c in facts.comments)
    options["extra"] = options.get("extra", b"") + b"".join(comments)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format=format, **options)
    data = bytearray(encoded.getvalue())
    if facts.aspect and data[6:11] == b"JFIF\0" and max(facts.aspect) < 65536:
        data[13:18] = struct.pack(">B2H", 0, *(round(v) for v in facts.aspect))
    file.write(data)


def _png(file: BinaryIO, pixels: NDArray[Any], one: Colored, path: Path) -> None:
    facts = one.picture.metadata
    text = PngImagePlugin.PngInfo()
    if one.xmp:
        text.add_itxt("XML:com.adobe.xmp", one.xmp.decode())
    if facts.iptc:
        # There is no chunk for it; this is what ImageMagick writes, and ExifTool reads.
        profile = metadata.resources_of_iptc(facts.iptc)
        digits = profile.hex()
        lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
        body = f"\nIPTC profile\n{len(profile):8}\n{lines}\n"
        text.add_text("Raw profile type iptc", body, zip=True)
    options: dict[str, Any] = {"icc_profile": tones.srgb_profile(), "pnginfo": text}
    if facts.dpi:
        options["dpi"] = facts.dpi
    if facts.exif:
        options["exif"] = facts.exif
    # Pillow does not write 16 bits in color: then the pixels are libpng's, and the chunks around
    # them are of a picture that Pillow writes.
    around = io.BytesIO()
    eight = pixels.dtype == np.uint8
    image = Image.fromarray(pixels) if eight else Image.new("RGB", (1, 1))
    image.save(around, format="PNG", **options)
    head = 8 + 25  # the signature and IHDR, which is the first chunk
    encoded = memoryview(around.getvalue() if eight else imagecodecs.png_encode(pixels))
    file.write(encoded[:head])
    for kind, whole in png.chunks(b"" if eight else around.getvalue()):
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            file.write(whole)
    for whole in (*facts.texts, *map(png.comment, facts.comments)):
        file.write(whole)
    if facts.aspect and not facts.dpi:
        x, y = (round(v) for v in facts.aspect)
        file.write(png.chunk(b"pHYs", struct.pack(">2IB", x, y, 0)))
    file.write(encoded[head:])


def _jpeg2000(file: BinaryIO, pixels: NDArray[Any], one: Colored, path: Path) -> None:
    bare = path.suffix.lower() in CODESTREAM_SUFFIXES
    if pixels.dtype == np.uint8:
        encoded = io.BytesIO()
        options = _OPTIONS["JPEG2000"] | {"no_jp2": bare}
        Image.fromarray(pixels).save(encoded, format="JPEG2000", **options)
        data = encoded.getvalue()
    else:
        kind = "J2K" if bare else "JP2"
        data = bytes(imagecodecs.jpeg2k_encode(pixels, reversible=True, codecformat=kind))
    if not bare:
        facts = one.picture.metadata
        uuids = {
            jp2.EXIF: facts.exif.removeprefix(b"Exif\0\0"),
            jp2.IPTC: facts.iptc,
            jp2.XMP: one.xmp,
        }
        data = jp2.with_metadata(data, uuids, facts.dpi)
    file.write(data)


_WRITERS = {"JPEG2000": _jpeg2000, "PNG": _png}
