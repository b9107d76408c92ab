"""Names of formats, files and their copies, and errors that name a file in one line."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import pillow_heif
from PIL import Image

from colorized.text import printable

pillow_heif.register_heif_opener(thumbnails=False)

Check: TypeAlias = Callable[[int, int], None]
"""Raises a `PhotoError` where a picture of (height, width) is refused."""

READ = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PDF", "PNG", "PPM", "TIFF", "WEBP")
# Formats that hold color.
WRITE = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
WRITE_ALPHA = ("JPEG2000", "PNG", "TIFF", "WEBP")
WRITE_16 = ("JPEG2000", "PNG", "TIFF")
# Bytes that a format holds: one segment of JPEG, more than anybody needs in the others.
_ROOM = {
    "XMP": {"JPEG": 65_000, **dict.fromkeys(("JPEG2000", "PNG", "TIFF", "WEBP"), 1 << 24)},
    "IPTC": {"JPEG": 65_500, **dict.fromkeys(("JPEG2000", "PNG", "TIFF"), 1 << 24)},
}
MAX_PIXELS = 300_000_000
# Bytes of a name, on nearly all file systems.
_LONGEST_NAME = 255
# PPM for Pillow, but gray or 1 bit by their names.
_GRAY_SUFFIXES = (".pbm", ".pfm", ".pgm")
# JPEG 2000 without the boxes of a file around it.
CODESTREAM_SUFFIXES = (".j2c", ".j2k", ".jpc")

# Messages of decoders that are about their own code.
_OF_PROGRAMMERS = re.compile(
    r"reshape|literal|'\w+' object|__|argument|dtype|ndarray|unpack|buffer size|@|<\w+ "
)
_DECODERS = ("PIL", "imagecodecs", "pillow_heif", "pypdfium2", "tifffile")


class PhotoError(ValueError):
    """A photograph cannot be read or written; one line that names the file."""


class TooManyPixels(PhotoError):
    """A photograph is larger than `most` pixels, by its header."""

    def __init__(self, message: str, width: int, height: int, most: int) -> None:
        super().__init__(message)
        self.width, self.height, self.most = width, height, most


class Damaged(ValueError):
    """The reason why a file cannot be read, as a message for users."""


# Pillow raises OSError and SyntaxError for broken files.
_SPEAKING = (Damaged, OSError, PhotoError, SyntaxError)


def reason(error: BaseException, otherwise: str = "the file is damaged") -> str:
    """The message of an exception in one line; `otherwise` where it is not about the file."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(text.split())
    if isinstance(error, EOFError):
        return "the file ends early"
    if _OF_PROGRAMMERS.search(text):
        return otherwise
    if not text or not (isinstance(error, _SPEAKING) or _from_decoder(error)):
        return otherwise
    return text


def _from_decoder(error: BaseException) -> bool:
    """Whether a decoder raised an exception, of its own type or of a built-in one."""
    if type(error).__module__.startswith(_DECODERS):
        return True
    trace = error.__traceback__
    if trace is None or not isinstance(error, ValueError | RuntimeError):
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")).startswith(("PIL", "pillow_heif"))


@contextlib.contextmanager
def failing(path: str | Path, verb: Literal["read", "written"] = "read") -> Iterator[None]:
    """Turn what a decoder or encoder raises into a `PhotoError`; it can raise anything."""
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Exception as error:
        encoder = f"the encoder failed with {type(error).__name__}"
        why = reason(error, "the file is damaged" if verb == "read" else encoder)
        raise PhotoError(f"{printable(path)}: cannot be {verb}: {why}") from error


def is_picture_name(path: str | Path) -> bool:
    """Whether the suffix is that of a format which can be read."""
    return _format_of_suffix(path) in READ


def output_name(path: str | Path) -> str:
    """The file name of the colored copy of `path`, judged by its name alone.

    The name itself where its format holds color. Where it does not, the name with another suffix
    behind its own: `scan.pdf.tif` of a PDF, `plate.gif.png` of other pictures; a name that is no
    picture's becomes `plate.colored.png`. No two names have the same one: a name that already ends
    like those gets the suffix once more (`scan.pdf.tif` → `scan.pdf.tif.tif`). A name that would be
    longer than file systems allow is cut, and keeps a digest of what it was.
    """
    name = Path(path).name
    if output_format(name) is None:
        added = ".tif" if _format_of_suffix(name) == "PDF" else ".png"
        return fitting(name if is_picture_name(name) else f"{name}.colored", added)
    inner = name
    for suffix in (".png", ".tif"):
        while inner.endswith(suffix):
            inner = inner.removesuffix(suffix)
        changed = Path(inner).suffix == ".colored" or (
            is_picture_name(inner) and output_format(inner) is None
        )
        pdf = _format_of_suffix(inner) == "PDF"
        if inner != name and changed and pdf == (suffix == ".tif"):
            return fitting(name, suffix)
        inner = name
    return name


def fitting(name: str, suffix: str) -> str:
    """The name with a suffix; one that is too long for file systems is cut before it.

    It keeps eight digits of its SHA-256, so that other long names stay others.
    """
    if len(os.fsencode(name + suffix)) <= _LONGEST_NAME:
        return name + suffix
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    kept = name
    while len(os.fsencode(f"{kept}~{digest}{suffix}")) > _LONGEST_NAME:
        kept = kept[:-1]
    return f"{kept}~{digest}{suffix}"


def output_format(path: str | Path) -> str | None:
    """Pillow's name of the format to write, or None where the suffix is of none with color."""
    if Path(path).suffix.lower() in _GRAY_SUFFIXES:
        return None
    format = _format_of_suffix(path)
    return format if format in WRITE else None


def room(path: str | Path, kind: Literal["XMP", "IPTC"]) -> int:
    """How many bytes of metadata can be written to a file of this name; 0 where it holds none."""
    if Path(path).suffix.lower() in CODESTREAM_SUFFIXES:
        return 0
    return _ROOM[kind].get(output_format(path) or "", 0)


def _format_of_suffix(path: str | Path) -> str | None:
    format = Image.registered_extensions().get(Path(path).suffix.lower())
    # To read and to write, MPO is a JPEG with more views behind it.
    return "JPEG" if format == "MPO" else format
