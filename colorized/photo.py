"""Scans in and out: a photograph's lightness, and all that its colored copy must carry over.

Pillow decodes and encodes, libheif decodes HEIC for it; LittleCMS, through Pillow's ImageCms,
applies embedded profiles. Whatever a file holds (gray, sepia, a palette, CMYK, 16 bits) is reduced
to L*; what is written is 8-bit sRGB.

Importing this module switches off Pillow's own limit on the size of a picture: `read_photo` has
one that the user sets, and it too comes before decoding.
"""

from __future__ import annotations

import functools
import io
import math
import os
import stat
import struct
import uuid
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from colorized import color

Image.MAX_IMAGE_PIXELS = None
pillow_heif.register_heif_opener(thumbnails=False)

MAX_PIXELS = 100_000_000

_READ = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# Formats that hold color, and how they are written: without loss, JPEG excepted, where full chroma
# resolution keeps 99.9 % of pixels within 2.5 of their L*.
_WRITE: dict[str, dict[str, Any]] = {
    "BMP": {},
    "JPEG": {"quality": 97, "subsampling": "4:4:4"},
    "JPEG2000": {"irreversible": False},
    "PNG": {},
    "PPM": {},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    # `exact` keeps the colors of pixels that are wholly transparent.
    "WEBP": {"lossless": True, "exact": True},
}
_WRITE_ALPHA = ("JPEG2000", "PNG", "TIFF", "WEBP")
# Bytes of XMP that a format holds: one segment of JPEG, more than anybody needs in the others.
_XMP_ROOM = {"JPEG": 65_000, "PNG": 1 << 24, "TIFF": 1 << 24, "WEBP": 1 << 24}
_XMP_TAG = 700
# Of one family with PPM for Pillow, but their names promise grey or 1 bit.
_GREY_SUFFIXES = (".pbm", ".pfm", ".pgm")

# What is said of the photograph, and nothing of the old file's layout, of its orientation, which
# is applied when reading, or of its grey thumbnail.
_EXIF_KEPT = (
    ExifTags.Base.DocumentName,
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.PageName,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.HostComputer,
    ExifTags.Base.Copyright,
    ExifTags.Base.Rating,
    ExifTags.Base.XPTitle,
    ExifTags.Base.XPComment,
    ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords,
    ExifTags.Base.XPSubject,
)
_EXIF_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_EXIF_OF_THE_OLD_FILE = (
    ExifTags.Base.ColorSpace,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
)

# Pixels converted to floating point at once.
_BLOCK = 1 << 20

Profile: TypeAlias = ImageCms.ImageCmsProfile


class PhotoError(ValueError):
    """A photograph cannot be read or written; one line that names the file."""


@dataclass
class Photo:
    """A photograph without its colors.

    Attributes
    ----------
    path
        The file it was read from.
    lightness
        L* in 0 … 100, float32 (H, W), upright.
    alpha
        Opacity, uint8 (H, W), or None where the file has none.
    format
        Pillow's name of the file's format, such as "JPEG".
    dpi
        Resolution of the scan, horizontal and vertical, or None.
    exif
        An EXIF block for the copy, without orientation and thumbnail; empty where there is none.
    xmp
        The file's XMP packet; empty where there is none.
    notes
        What a user should know, one line each: a profile that could not be used, for instance.
    """

    path: Path
    lightness: NDArray[np.float32]
    alpha: NDArray[np.uint8] | None
    format: str
    dpi: tuple[float, float] | None = None
    exif: bytes = b""
    xmp: bytes = b""
    notes: list[str] = field(default_factory=list)


def is_picture_name(path: str | Path) -> bool:
    """Whether the suffix is that of a format which can be read."""
    return _format_of_suffix(path) in _READ


def output_name(path: str | Path) -> str:
    """The file name of the colored copy of `path`, judged by its name alone.

    The name itself where its format holds color. Another picture's suffix becomes `.png`, and to
    a name without one `.png` is added.
    """
    path = Path(path)
    if _output_format(path) is not None:
        return path.name
    return f"{path.stem if is_picture_name(path) else path.name}.png"


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photograph and reduce it to lightness, upright and with its profile applied.

    Raises
    ------
    PhotoError
        The file is missing, damaged, no picture, more than one picture (an animation, several
        pages), or larger than `max_pixels`, which is found before anything is decoded.
    """
    path = Path(path)
    image, alpha, exif, notes = _decode(path, max_pixels)
    lightness = _grey(image, path, notes) if _is_grey(image) else _lightness(_rgb(image, notes))
    if alpha is not None and _output_format(output_name(path)) not in _WRITE_ALPHA:
        notes.append(f"its transparency is left out: {path.suffix} cannot hold it")
    xmp = _xmp(image)
    return Photo(path, lightness, alpha, str(image.format), _dpi(image), exif, xmp, notes)


def read_rgb(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a photograph in color: sRGB, uint8 (H, W, 3), upright; errors as in `read_photo`."""
    path = Path(path)
    image, _, _, notes = _decode(path, max_pixels)
    if not _is_grey(image):
        return _rgb(image, notes)
    lightness = _grey(image, path, notes)
    return color.recombine(lightness, np.zeros((*lightness.shape, 2), np.float32))


def read_xmp(path: str | Path) -> bytes:
    """The XMP packet of a picture; empty where there is none.

    Raises
    ------
    PhotoError
        The file is missing or no picture.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(), Image.open(path, formats=_READ) as image:
            warnings.simplefilter("ignore")
            if image.format == "PNG":  # may have it behind the pixels
                image.load()
            return _xmp(image)
    except UnidentifiedImageError as error:
        raise PhotoError(f"{printable(path)}: no picture of a known format") from error
    except Exception as error:  # damaged data makes a decoder raise anything
        raise PhotoError(f"{printable(path)}: cannot be read: {_reason(error)}") from error


def xmp_room(path: str | Path) -> int:
    """How many bytes of XMP can be written to a file of this name; 0 where its format has none."""
    return _XMP_ROOM.get(_output_format(path) or "", 0)


def write_photo(
    photo: Photo, ab: NDArray[np.floating[Any]], path: str | Path, xmp: bytes = b""
) -> None:
    """Write the photograph with chroma `ab` (H, W, 2), in CIELAB units, as 8-bit sRGB.

    The format is that of the suffix. The file appears whole or not at all; one that exists is
    replaced. `xmp` is its XMP packet, of no more than `xmp_room(path)` bytes.

    Raises
    ------
    PhotoError
        The suffix is of no format that holds color, or the file cannot be written.
    ValueError
        `ab` is not of the photograph's size, or not finite.
    """
    path = Path(path)
    format = _output_format(path)
    if format is None:
        raise PhotoError(f"{printable(path)}: no format that holds color has this suffix")
    image = Image.fromarray(color.recombine(photo.lightness, ab))
    if photo.alpha is not None and format in _WRITE_ALPHA:
        image.putalpha(Image.fromarray(photo.alpha))
    options = {**_WRITE[format], "icc_profile": _srgb_profile()}
    if format == "JPEG2000":
        options["no_jp2"] = path.suffix.lower() in (".j2c", ".j2k", ".jpc")
    if photo.dpi is not None:
        options["dpi"] = photo.dpi
    if photo.exif:
        options["exif"] = photo.exif
        if format == "TIFF":
            stored = Image.Exif()
            stored.load(photo.exif)
            options["tiffinfo"] = tags = dict(_copied(stored))
            if any(ifd in tags for ifd in _EXIF_IFDS):
                # libtiff, which compresses, cannot write these for Pillow.
                options["compression"] = "raw"
    if xmp and format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif xmp and format == "TIFF":
        options["tiffinfo"] = {**options.get("tiffinfo", {}), _XMP_TAG: xmp}
    elif xmp:
        options["xmp"] = xmp
    _save(image, path, format, options)


def _format_of_suffix(path: str | Path) -> str | None:
    format = Image.registered_extensions().get(Path(path).suffix.lower())
    # To read and to write, MPO is a JPEG with more views behind it.
    return "JPEG" if format == "MPO" else format


def _output_format(path: str | Path) -> str | None:
    """Pillow's name of the format to write, or None where the suffix is of none with color."""
    if Path(path).suffix.lower() in _GREY_SUFFIXES:
        return None
    format = _format_of_suffix(path)
    return format if format in _WRITE else None


def printable(path: str | Path) -> str:
    """The path in one line, whatever its name holds."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _save(image: Image.Image, path: Path, format: str, options: dict[str, Any]) -> None:
    # A name of its own, since one derived from the file's could be too long.
    temporary = path.parent / f".{uuid.uuid4().hex}.part"
    try:
        try:
            with open(temporary, "xb") as file:
                image.save(file, format=format, **options)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except Exception as error:  # an encoder has more ways to refuse than OSError
        raise PhotoError(f"{printable(path)}: cannot be written: {_reason(error)}") from error


def _decode(
    path: Path, max_pixels: int
) -> tuple[Image.Image, NDArray[np.uint8] | None, bytes, list[str]]:
    """The picture, decoded and upright, its alpha, the EXIF for its copy, and notes."""
    name = printable(path)
    notes: list[str] = []
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise PhotoError(
                f"{name}: {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}"
            )
        if status.st_size == 0:
            raise PhotoError(f"{name}: the file is empty")
        # What Pillow would print about a doubtful file belongs in the notes.
        with warnings.catch_warnings(record=True) as caught, open(path, "rb") as file:
            warnings.simplefilter("always")
            image = Image.open(file, formats=_READ)
            # Further frames of an MPO are other views of the one photograph.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if frames > 1:
                raise PhotoError(f"{name}: holds {frames} pictures, not one; split it first")
            if image.width * image.height > max_pixels:
                raise PhotoError(
                    f"{name}: {image.width} × {image.height} pixels are more than "
                    f"--max-pixels {max_pixels}"
                )
            image.load()
            exif = _upright(image, notes)
            alpha = _alpha(image, notes)
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(f"{name}: no picture of a known format ({', '.join(_READ)})") from error
    except Exception as error:  # damaged data makes a decoder raise anything
        raise PhotoError(f"{name}: cannot be read: {_reason(error)}") from error
    notes += dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)
    return image, alpha, exif, notes


def _upright(image: Image.Image, notes: list[str]) -> bytes:
    """Turn the picture as its EXIF says, and give back the EXIF that its copy shall have."""
    try:
        exif = _copied(image.getexif())
        ImageOps.exif_transpose(image, in_place=True)
        return exif.tobytes() if len(exif) else b""
    except Exception as error:  # a damaged tag can make Pillow raise anything
        notes.append(f"its EXIF cannot be read and is left out: {_reason(error)}")
        return b""


def _copied(old: Image.Exif) -> Image.Exif:
    """What the colored copy's EXIF holds of the original's."""

    def stored(value: Any) -> Any:
        # Pillow reads text as Latin-1 and writes it as ASCII; its bytes it writes as they were.
        ascii = not isinstance(value, str) or value.isascii()
        return value if ascii else value.encode("latin-1")

    new = Image.Exif()
    new.update({k: stored(v) for k, v in old.items() if k in _EXIF_KEPT})
    for ifd in _EXIF_IFDS:
        entries = old.get_ifd(ifd).items()
        kept = {k: stored(v) for k, v in entries if k not in _EXIF_OF_THE_OLD_FILE}
        if kept:
            new[ifd] = kept
    return new


def _xmp(image: Image.Image) -> bytes:
    found = image.info.get("xmp", b"")
    return found if isinstance(found, bytes) else str(found).encode()


def _alpha(image: Image.Image, notes: list[str]) -> NDArray[np.uint8] | None:
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):
        notes.append("its transparent color is left out: not supported beyond 8 bits")
        return None
    has_band = image.mode in ("LA", "PA", "RGBA")
    return np.asarray((image if has_band else image.convert("RGBA")).getchannel("A"))


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        x, y = (float(v) for v in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    # 0 and 1 stand for "unknown" in many files; JPEG has 16 bits for it.
    return (x, y) if all(math.isfinite(v) and 1 < v < 65535 for v in (x, y)) else None


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")


def _grey(image: Image.Image, path: Path, notes: list[str]) -> NDArray[np.float32]:
    """L* of a grey picture, (H, W)."""
    levels = _grey_levels(image, path, notes)
    size = 256 if levels.dtype == np.uint8 else 65536
    lightness: NDArray[np.float32] = _grey_table(size, _profile(image, notes, "GRAY", "RGB"))[
        levels
    ]
    return lightness


def _rgb(image: Image.Image, notes: list[str]) -> NDArray[np.uint8]:
    """sRGB of a picture in color, (H, W, 3)."""
    if image.mode == "LAB":
        profile: Profile | None = _as_profile("LAB")
    else:
        image = image if image.mode in ("RGB", "CMYK") else image.convert("RGB")
        profile = _profile(image, notes, image.mode)
    if profile is not None:
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        return np.asarray(_transform(image, profile, _as_profile("sRGB"), "RGB", flags))
    if image.mode == "CMYK":
        notes.append("its CMYK has no color profile: its tones are approximate")
    return np.asarray(image.convert("RGB"))


def _profile(image: Image.Image, notes: list[str], *spaces: str) -> Profile | None:
    """The embedded profile, if it is whole and made for one of the color spaces."""
    icc = image.info.get("icc_profile")
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        if space in spaces:
            pixel = Image.new("L" if space == "GRAY" else space, (1, 1))
            _transform(pixel, profile, _as_profile("sRGB"), "RGB", ImageCms.Flags.NONE)
            return profile
        reason = f"it is made for {space}"
    except (OSError, ValueError, ImageCms.PyCMSError) as error:
        reason = _reason(error)
    notes.append(f"its color profile is not used: {reason}")
    return None


def _transform(
    image: Image.Image, source: Profile, target: Profile, mode: str, flags: ImageCms.Flags
) -> Image.Image:
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.buildTransform(source, target, image.mode, mode, intent, flags).apply(image)


def _grey_levels(image: Image.Image, path: Path, notes: list[str]) -> NDArray[np.uint8 | np.uint16]:
    """Levels of a grey picture, (H, W), of the whole range of uint8 or uint16."""
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        levels = values.astype(np.uint16)
        # Pillow leaves the levels of a 16-bit TIFF as they are where zero is white.
        inverted = getattr(image, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0
        return ~levels if inverted else levels
    low, high = values.min(), values.max()
    # Files with 32 bits do not say where white is; those in use end at one of these.
    ends: tuple[int, ...] = (1, 255, 65535) if image.mode == "F" else (255, 65535, 2**31 - 1)
    if image.mode == "I" and image.format == "PPM":
        ends = (65535,)
    white = next((end for end in ends if high <= end), None)
    if white is None or not low >= 0:
        raise PhotoError(
            f"{printable(path)}: its levels, {low:g} to {high:g}, are not those of a photograph"
        )
    notes.append(f"its 32-bit levels are read as 0 to {white}")
    return np.rint(values * (65535 / white)).astype(np.uint16)


def _grey_table(size: int, profile: Profile | None) -> NDArray[np.float32]:
    """L* of the levels 0 … size - 1, evenly spaced from black to white, float32 (size,)."""
    levels = np.linspace(0, 1, size)
    if profile is None:
        return np.asarray(color.luminance_to_lightness(color.srgb_to_linear(levels)), np.float32)
    # 256 knots, in 16 bits, and between them a straight line: far within 0.01 of L*.
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if profile.profile.xcolor_space == "RGB ":
        ramp = ramp.convert("RGB")
    target = ImageCms.ImageCmsProfile(io.BytesIO(_lightness_profile()))
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOOPTIMIZE
    knots = np.asarray(_transform(ramp, profile, target, "I;16", flags))[0] * (100 / 65535)
    return np.asarray(np.interp(levels, np.linspace(0, 1, 256), knots), np.float32)


def _lightness(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    lightness = np.empty(rgb.shape[:2], np.float32)
    rows = max(1, _BLOCK // rgb.shape[1])
    for start in range(0, len(rgb), rows):
        part = slice(start, start + rows)
        lightness[part] = color.lightness(rgb[part] / np.float32(255))
    return lightness


def _as_profile(name: str) -> Profile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name))  # type: ignore[arg-type]


@functools.cache
def _srgb_profile() -> bytes:
    """The sRGB profile to embed. Its date, else today's, is fixed: outputs do not depend on it."""
    made = _as_profile("sRGB").tobytes()
    return made[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + made[36:]


@functools.cache
def _lightness_profile() -> bytes:
    """An ICC profile of a device whose grey levels are L* itself (ICC.1:2001-04, section 6.3.1).

    With it LittleCMS gives L* in 16 bits, where sRGB would be rounded to 8.
    """
    D50 = struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 3) + b"L*\0" + bytes(79),
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": b"XYZ " + bytes(4) + D50,
        b"kTRC": b"curv" + bytes(8),  # no entries: the identity
    }
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        offset = 128 + 4 + 12 * len(tags) + len(data)
        table += name + struct.pack(">II", offset, len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4xI4s4s4s6H4s24xI12s48x",
        128 + len(table) + len(data), 0x02100000, b"mntr", b"GRAY", b"Lab ",
        2000, 1, 1, 0, 0, 0, b"acsp", 1, D50,
    )  # fmt: skip
    return header + table + data
