"""Color profiles that several test modules use."""

import struct

from PIL import ImageCms


def wide_profile() -> bytes:
    """sRGB's profile with its red and green tags exchanged: unlike sRGB, and known exactly."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def gray_profile(curve: bytes) -> bytes:
    """A minimal ICC profile of a gray device with this tone curve, by the letter of ICC.1:2001."""
    white = struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    tags = [
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", 5) + b"gray\0" + bytes(79)),
        (b"wtpt", b"XYZ " + bytes(4) + white),
        (b"kTRC", b"curv" + bytes(4) + curve),
        (b"cprt", b"text" + bytes(4) + b"CC0\0"),
    ]
    offset, table, data = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags:
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(">I", offset + len(data)) + bytes(4) + b"\2\x10\0\0mntrGRAYXYZ "
    head += bytes(12) + b"acsp" + bytes(24) + struct.pack(">I", 1) + white
    return head.ljust(128, b"\0") + table + data
