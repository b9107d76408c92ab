"""Boxes of HEIC and AVIF files that their decoders ignore, or refuse a file for.

ISO/IEC 14496-12 (boxes), 23008-12 (items and their properties), 23000-22 (AVIF).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from colorized.photo.jp2 import boxes

_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # bytes before the boxes in them


def properties(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, content) of the properties of the primary picture, in the order they apply in."""
    primary = next((content for kind, content in _inside(data, b"meta") if kind == b"pitm"), b"")
    if len(primary) < 6:
        return []
    item = int.from_bytes(primary[4:8] if primary[0] else primary[4:6], "big")
    every = list(_inside(data, b"meta", b"iprp", b"ipco"))
    for kind, content in _inside(data, b"meta", b"iprp"):
        if kind == b"ipma":
            for number, indices in _associations(content):
                if number == item:
                    return [every[i - 1] for i in indices if 0 < i <= len(every)]
    return []


def crop(found: list[tuple[bytes, bytes]], height: int, width: int) -> tuple[int, ...] | None:
    """(top, bottom, left, right) of a clean aperture; None where there is none that fits."""
    content = dict(found).get(b"clap", b"")
    if len(content) != 32:
        return None
    # Offsets have a sign.
    wn, wd, hn, hd, xn, xd, yn, yd = struct.unpack(">IIIIiIiI", content)
    if not (wd and hd and xd and yd):
        return None
    w, h = wn / wd, hn / hd
    left, top = round(xn / xd + (width - w) / 2), round(yn / yd + (height - h) / 2)
    right, bottom = left + round(w), top + round(h)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        return None
    return top, bottom, left, right


def bits(found: list[tuple[bytes, bytes]]) -> int:
    """Bits of a channel of an AVIF, by its `pixi`, or else by the configuration of AV1."""
    known = dict(found)
    if len(pixi := known.get(b"pixi", b"")) > 5:
        return max(pixi[5:])
    configuration = known.get(b"av1C", b"")
    if len(configuration) > 2 and configuration[2] & 0x40:
        return 12 if configuration[2] & 0x20 else 10
    return 8


def cicp(found: list[tuple[bytes, bytes]]) -> tuple[int, int] | None:
    """Primaries and transfer function by H.273, where the file says them."""
    for kind, content in found:
        if kind == b"colr" and content[:4] == b"nclx" and len(content) >= 10:
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            return primaries, transfer
    return None


def with_one_ipma(data: bytes) -> bytes:
    """The file with all associations of properties in one box, as decoders want them.

    Its size, and with it all offsets, stay the same. Of an item that is named twice the first
    associations are kept.
    """
    place = _place(data, b"meta", b"iprp")
    if place is None:
        return data
    start, end = place
    found = [(kind, content) for kind, content in boxes(data[start:end]) if kind == b"ipma"]
    if len(found) < 2 or len({content[:4] for _, content in found}) > 1:
        return data
    flags, entries, seen = found[0][1][:4], [], set()
    for _, content in found:
        for number, raw in _raw_associations(content):
            if number not in seen:
                seen.add(number)
                entries.append(raw)
    rest = b"".join(
        struct.pack(">I4s", 8 + len(content), kind) + content
        for kind, content in boxes(data[start:end])
        if kind != b"ipma"
    )
    content = flags + struct.pack(">I", len(entries)) + b"".join(entries)
    size = end - start - len(rest)
    merged = struct.pack(">I4s", size, b"ipma") + content
    return data[:start] + rest + merged.ljust(size, b"\0") + data[end:]


def _inside(data: bytes, *path: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes inside of the first boxes of these types."""
    for kind in path:
        content = next((c for k, c in boxes(data) if k == kind), b"")
        data = content[_CONTAINERS[kind] :]
    return boxes(data)


def _place(data: bytes, *path: bytes) -> tuple[int, int] | None:
    """Where in the file the content of the box is."""
    start, end = 0, len(data)
    for kind in path:
        at = start
        for found, content in boxes(data[start:end]):
            (size,) = struct.unpack_from(">I", data, at)
            if size < 8:
                return None  # of 64 bits, or to the end of the file: no such boxes in one of these
            if found == kind:
                start, end = at + 8 + _CONTAINERS[kind], at + 8 + len(content)
                break
            at += 8 + len(content)
        else:
            return None
    return start, end


def _associations(content: bytes) -> Iterator[tuple[int, list[int]]]:
    wide = bool(content[3:4] and content[3] & 1)
    for number, raw in _raw_associations(content):
        head = 5 if content[0] else 3
        body = raw[head:]
        step = 2 if wide else 1
        mask = 0x7FFF if wide else 0x7F
        yield (
            number,
            [int.from_bytes(body[i : i + step], "big") & mask for i in range(0, len(body), step)],
        )


def _raw_associations(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(item, entry as it is stored) of an `ipma` box; what is cut off is left out."""
    if len(content) < 8:
        return
    item_size, step = (4 if content[0] else 2), (2 if content[3] & 1 else 1)
    (count,) = struct.unpack_from(">I", content, 4)
    at = 8
    for _ in range(count):
        if at + item_size + 1 > len(content):
            return
        end = at + item_size + 1 + step * content[at + item_size]
        if end > len(content):
            return
        yield int.from_bytes(content[at : at + item_size], "big"), content[at:end]
        at = end
