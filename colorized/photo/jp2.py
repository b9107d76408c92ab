"""Metadata in the boxes of a JPEG 2000 file, which OpenJPEG neither reads nor writes.

ISO/IEC 15444-1, annex I. XMP: Adobe, *XMP specification part 3*, 2020, section 1.1.4. EXIF and
IPTC have no standard box; these are the ones that Photoshop and ExifTool read and write.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from uuid import UUID

XMP = UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
EXIF = b"JpgTiffExif->JP2"
IPTC = UUID("33c7a4d2-b81d-4723-a0ba-f1a3e097ad38").bytes

_INCH = 0.0254  # meters


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of each box; what follows a damaged one is left out."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = at + size if size else len(data)
        if not start <= end <= len(data):
            return
        yield kind, data[start:end]
        at = end


def box(kind: bytes, content: bytes) -> bytes:
    size = 8 + len(content)
    if size < 1 << 32:
        return struct.pack(">I4s", size, kind) + content
    return struct.pack(">I4sQ", 1, kind, size + 8) + content


def metadata(data: bytes) -> dict[bytes, bytes]:
    """Contents of the UUID boxes of a file, by UUID."""
    if data[4:8] != b"jP  ":
        return {}
    return {c[:16]: c[16:] for kind, c in boxes(data) if kind == b"uuid"}


def precision(data: bytes) -> int:
    """Bits per component of a file or codestream; 8 where it cannot be found."""
    codestream = data
    if data[4:8] == b"jP  ":
        codestream = next((c for kind, c in boxes(data) if kind == b"jp2c"), b"")
    # SOC, then SIZ, whose 39th byte is the precision of the first component, less one.
    if codestream[:4] != b"\xff\x4f\xff\x51" or len(codestream) < 43:
        return 8
    return (codestream[42] & 0x7F) + 1


def channel_order(data: bytes) -> list[int] | None:
    """Which stored channel is red, green and blue, where a `cdef` box permutes them."""
    head = next((content for kind, content in boxes(data) if kind == b"jp2h"), b"")
    definition = next((content for kind, content in boxes(head) if kind == b"cdef"), b"")
    color: dict[int, int] = {}
    for at in range(2, len(definition) - 5, 6):
        channel, kind, association = struct.unpack_from(">3H", definition, at)
        if kind == 0 and 1 <= association <= 3:
            color[association - 1] = channel
    if sorted(color) != [0, 1, 2] or sorted(color.values()) != [0, 1, 2]:
        return None
    order = [color[i] for i in range(3)]
    return None if order == [0, 1, 2] else order


def with_metadata(data: bytes, uuids: dict[bytes, bytes], dpi: tuple[float, float] | None) -> bytes:
    """The file with UUID boxes behind its pixels, and with a resolution."""
    out = []
    for kind, content in boxes(data):
        if kind == b"jp2h" and dpi is not None:
            content += box(b"res ", box(b"resc", _resolution(*dpi)))
        out.append(box(kind, content))
    out += [box(b"uuid", uuid + content) for uuid, content in uuids.items() if content]
    return b"".join(out)


def _resolution(x: float, y: float) -> bytes:
    """Pixels per meter, vertical first, each as numerator, denominator and power of ten."""
    vertical, horizontal = y / _INCH, x / _INCH
    power = max(0, math.ceil(math.log10(max(vertical, horizontal) / 65535)))
    v, h = (round(n / 10**power) for n in (vertical, horizontal))
    return struct.pack(">4H2B", v, 1, h, 1, power, power)
