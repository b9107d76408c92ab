"""EXIF, IPTC and resolution that are copied to the colored photograph."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image

# About the photograph; not about the layout of the file, its thumbnail, or its orientation, which
# is applied when reading.
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
EXIF_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# Of a TIFF's own tags, those that are read as EXIF.
READ = (
    *_EXIF_KEPT,
    *EXIF_IFDS,
    ExifTags.Base.Orientation,
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
)
_EXIF_OF_THE_OLD_FILE = (
    ExifTags.Base.ColorSpace,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
)
# Adobe, Photoshop File Formats Specification: image resources; 0x0404 is the IPTC-IIM record.
_RESOURCE, _IPTC_RESOURCE = b"8BIM", 0x0404
PHOTOSHOP = b"Photoshop 3.0\0"
IPTC_START = b"\x1c"


def copied_exif(tags: Mapping[int, Any], ifds: Mapping[int, Mapping[int, Any]]) -> bytes:
    """The EXIF of the colored copy, of the original's tags and directories; empty without any."""

    def stored(value: Any) -> Any:
        # Pillow reads text as Latin-1 and writes it as ASCII; its bytes it writes as they were.
        ascii = not isinstance(value, str) or value.isascii()
        return value if ascii else value.encode("latin-1")

    new = Image.Exif()
    new.update({k: stored(v) for k, v in tags.items() if k in _EXIF_KEPT})
    for ifd, entries in ifds.items():
        kept = {k: stored(v) for k, v in entries.items() if k not in _EXIF_OF_THE_OLD_FILE}
        if kept:
            new[ifd] = kept
    return new.tobytes() if len(new) else b""


def resolution(x: Any, y: Any, unit: float = 1) -> tuple[float, float] | None:
    """Pixels per inch of numbers with that factor, or None where they are not a resolution."""
    try:
        x, y = float(x) * unit, float(y) * unit
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # 0 and 1 stand for "unknown" in many files; JPEG has 16 bits for it.
    return (x, y) if all(math.isfinite(v) and 1 < v < 65535 for v in (x, y)) else None


def iptc_of_resources(data: bytes) -> bytes:
    """The IPTC-IIM record in Photoshop's image resources; empty where there is none."""
    at = 0
    while data[at : at + 4] == _RESOURCE and at + 12 <= len(data):
        number, name = struct.unpack_from(">HB", data, at + 4)
        start = at + 7 + name + (name + 1) % 2  # the name is padded to an even length
        if start + 4 > len(data):
            break
        (size,) = struct.unpack_from(">I", data, start)
        if number == _IPTC_RESOURCE:
            return data[start + 4 : start + 4 + size]
        at = start + 4 + size + size % 2
    return b""


def resources_of_iptc(iptc: bytes) -> bytes:
    """Photoshop's image resources with an IPTC-IIM record and nothing else."""
    head = _RESOURCE + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc))
    return head + iptc + bytes(len(iptc) % 2)
