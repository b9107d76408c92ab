"""Chunks of a PNG: those that Pillow does not read, or refuses a file for.

PNG specification, third edition, 2025; ITU-T H.273 for the numbers of cICP.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from colorized import color

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Texts that hold metadata, which is carried over as such.
_METADATA = (b"XML:com.adobe.xmp\0", b"Raw profile type ")
_ROOM = 1 << 24
_D65 = (0.3127, 0.3290)
_BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
# Of H.273, those that pictures have: BT.709 and sRGB, BT.2020, DCI-P3 with D65.
_PRIMARIES = {
    1: _BT709,
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_SRGB_GAMMA = 0.45455
_WHITE_NITS = 203.0
"""Of diffuse white in HDR pictures, ITU-R BT.2408."""


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, whole chunk) of each, up to one that is cut off."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if at + 12 + size > len(data):
            return
        yield data[at + 4 : at + 8], data[at : at + 12 + size]
        at += 12 + size


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def without_damaged(data: bytes) -> tuple[bytes, list[str]]:
    """The file without ancillary chunks that are damaged, and their types."""
    damaged = [
        (kind, whole)
        for kind, whole in chunks(data)
        if kind[:1].islower() and whole[-4:] != struct.pack(">I", zlib.crc32(whole[4:-4]))
    ]
    for _, whole in damaged:
        data = data.replace(whole, b"", 1)
    return data, [kind.decode("ascii", "replace") for kind, _ in damaged]


def texts(data: bytes) -> tuple[bytes, ...]:
    """Whole chunks of text, but for those that hold metadata."""
    found = [whole for kind, whole in chunks(data) if kind in _TEXTS]
    kept = [whole for whole in found if not whole[8:].startswith(_METADATA)]
    return tuple(kept) if sum(map(len, kept)) <= _ROOM else ()


def comment(text: bytes) -> bytes:
    """A chunk of text with the keyword Comment, of bytes that are UTF-8 or else Latin-1."""
    try:
        text.decode()
        return chunk(b"iTXt", b"Comment\0\0\0\0\0" + text)
    except UnicodeDecodeError:
        return chunk(b"tEXt", b"Comment\0" + text.replace(b"\0", b""))


def keyword(whole: bytes) -> str:
    return whole[8:-4].partition(b"\0")[0].decode("latin-1")


def aspect(data: bytes) -> tuple[int, int] | None:
    """Pixels per unit, horizontal and vertical, where they differ and the unit is not named."""
    for kind, whole in chunks(data):
        if kind == b"pHYs" and len(whole) == 21:
            x, y, unit = struct.unpack_from(">IIB", whole, 8)
            return (x, y) if unit == 0 and x != y and x and y else None
    return None


def profile(data: bytes) -> bytes:
    """An ICC profile by cICP, or else by gAMA and cHRM; empty where it is sRGB.

    A profile in the file, which Pillow reads, has precedence over gAMA, but not over cICP.
    """
    found = dict(chunks(data))
    gray = data[25] in (0, 4)
    if b"cICP" in found:
        primaries, transfer = found[b"cICP"][8:10]
        return profile_of_cicp(primaries, transfer, gray)
    if b"iCCP" in found or b"sRGB" in found or len(found.get(b"gAMA", b"")) != 16:
        return b""
    (value,) = struct.unpack_from(">I", found[b"gAMA"], 8)
    gamma = value / 100_000
    corners, white = _BT709, _D65
    if len(found.get(b"cHRM", b"")) == 44:
        n = [v / 100_000 for v in struct.unpack_from(">8I", found[b"cHRM"], 8)]
        white, corners = (n[0], n[1]), ((n[2], n[3]), (n[4], n[5]), (n[6], n[7]))
    usual = np.allclose([white, *corners], [_D65, *_BT709], atol=0.002)
    if not 0.01 < gamma < 10 or (abs(gamma - _SRGB_GAMMA) < 0.005 and (usual or gray)):
        return b""
    return _profile(corners, white, np.linspace(0, 1, 4096) ** (1 / gamma), gray)


def profile_of_cicp(primaries: int, transfer: int, gray: bool) -> bytes:
    """An ICC profile of H.273's numbers; empty where they are sRGB's, or unknown."""
    corners, curve = _PRIMARIES.get(primaries), _curve(transfer)
    if corners is None and curve is None:
        return b""
    if curve is None and (gray or corners is _BT709):
        return b""
    if curve is None:
        curve = color.srgb_to_linear(np.linspace(0, 1, 4096))
    return _profile(corners or _BT709, _D65, curve, gray)


def _curve(transfer: int) -> NDArray[np.float64] | None:
    """Linear light of evenly spaced levels; None for sRGB, and for what is unknown."""
    v = np.linspace(0, 1, 4096)
    if transfer in (1, 6, 14, 15):  # BT.709 and equal curves
        return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))
    if transfer in (4, 5, 8):
        return v ** {4: 2.2, 5: 2.8, 8: 1.0}[transfer]
    if transfer == 16:  # PQ, SMPTE ST 2084; diffuse white is white
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        p = v ** (1 / m2)
        nits = 10_000 * (np.maximum(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1)
        return np.minimum(nits / _WHITE_NITS, 1)
    if transfer == 18:  # HLG, BT.2100; white is at 75 % of the signal
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(v <= 0.5, v**2 / 3, (np.exp((v - c) / a) + b) / 12)
        white = (np.exp((0.75 - c) / a) + b) / 12
        return np.minimum((scene / white) ** 1.2, 1)
    return None


def _profile(
    corners: tuple[tuple[float, float], ...],
    white: tuple[float, float],
    curve: NDArray[np.float64],
    gray: bool,
) -> bytes:
    table = np.rint(curve * 65535).astype(np.uint16)
    profile = functools.partial(imagecodecs.cms_profile, whitepoint=(*white, 1.0))
    if gray:
        return bytes(profile("gray", transferfunction=table))
    primaries = [value for x, y in corners for value in (x, y, 1.0)]
    return bytes(profile("rgb", primaries=primaries, transferfunction=np.stack([table] * 3)))
