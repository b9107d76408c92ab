"""Conversion of a file's levels to sRGB and L*: profiles, ranges, and other color spaces.

LittleCMS applies embedded profiles: through Pillow's ImageCms for 8 bits in color, through
imagecodecs for 16 bits and for the L* of gray levels, which Pillow does not have.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from colorized import color
from colorized.photo.names import PhotoError, reason

Levels: TypeAlias = NDArray[np.unsignedinteger[Any]]
Profile: TypeAlias = ImageCms.ImageCmsProfile

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


class ToneMapping:
    """Maps levels of a photograph, (H, W) for a gray one, (H, W, C) for others, to L* and sRGB.

    Parameters
    ----------
    lightness
        L* of each level of a gray photograph, (256,) or (65536,).
    to_srgb
        Of a photograph in color: its levels to sRGB, in 8 or 16 bits, (H, W, 3).
    channel
        The channel that `lightness` is of, in a color space that has one for it.
    """

    def __init__(
        self,
        lightness: NDArray[np.float32] | None = None,
        to_srgb: Callable[[Levels], Levels] | None = None,
        channel: int | None = None,
    ) -> None:
        self._channel = channel
        self._lightness = lightness
        self._luminance = None if lightness is None else color.lightness_to_luminance(lightness)
        self._to_srgb = to_srgb

    @property
    def is_gray(self) -> bool:
        """Whether there are no colors in it at all."""
        return self._lightness is not None and self._channel is None

    def lightness(self, levels: Levels) -> NDArray[np.float32]:
        """L* (H, W), 0 … 100."""
        if self._lightness is not None:
            return self._lightness.take(self._gray(levels))
        return color.luminance_to_lightness(self.luminance(levels))

    def luminance(self, levels: Levels) -> NDArray[np.float32]:
        """Relative luminance Y (H, W), 0 … 1."""
        if self._luminance is not None:
            return self._luminance.take(self._gray(levels))
        srgb = self.srgb(levels)
        r, g, b = np.moveaxis(srgb, -1, 0)
        red, green, blue = _luminance_tables(srgb.dtype)
        if _equal(r, g) and _equal(g, b):  # a gray picture in a format for color
            return (red + green + blue).take(g)
        luminance = red.take(r)
        luminance += green.take(g)
        luminance += blue.take(b)
        return luminance

    def rgb8(self, levels: Levels) -> NDArray[np.uint8]:
        """8-bit sRGB (H, W, 3)."""
        if self._lightness is not None and self.is_gray:
            flat = np.zeros((*levels.shape, 2), np.float32)
            return color.recombine(self._lightness[levels], flat)
        srgb = self.srgb(levels)
        if srgb.dtype != np.uint8:
            srgb = (srgb + np.uint32(128)) // 257
        return srgb.astype(np.uint8, copy=False)

    def _gray(self, levels: Levels) -> Levels:
        return levels if self._channel is None else levels[..., self._channel]

    def srgb(self, levels: Levels) -> Levels:
        """sRGB (H, W, 3) of a photograph in color, in 8 or 16 bits."""
        return levels if self._to_srgb is None else self._to_srgb(levels)


def gray(size: int, icc: bytes, notes: list[str]) -> ToneMapping:
    """Of a gray photograph with `size` levels, evenly spaced from black to white."""
    levels = np.linspace(0, 1, size)
    profile = _profile(icc, notes, "GRAY", "RGB")
    if profile is None:
        L = color.luminance_to_lightness(color.srgb_to_linear(levels))
    else:
        # 256 knots, and between them a straight line: far within 0.01 of L*.
        ramp = np.arange(256, dtype=np.uint8)[None]
        space = profile.profile.xcolor_space.strip().lower()
        lab = _cms(
            np.dstack([ramp] * 3) if space == "rgb" else ramp, icc, space,
            imagecodecs.cms_profile("lab4"), "lab", "f8",
        )  # fmt: skip
        L = np.interp(levels, np.linspace(0, 1, 256), lab[0, :, 0])
    return ToneMapping(np.asarray(L, np.float32))


def in_color(mode: str, dtype: np.dtype[Any], icc: bytes, notes: list[str]) -> ToneMapping:
    """Of a photograph in the mode RGB, CMYK or LAB, with 8 or 16 bits (CMYK and LAB: 8)."""
    profile = _as_profile("LAB") if mode == "LAB" else _profile(icc, notes, mode)
    if mode == "CMYK" and dtype == np.uint16:
        notes.append("its CMYK is read with 8 of its 16 bits")
        eight = in_color(mode, np.dtype(np.uint8), icc, notes)
        return ToneMapping(to_srgb=lambda v: eight.srgb((v >> 8).astype(np.uint8)))
    if profile is None:
        if mode == "CMYK":
            notes.append("its CMYK has no color profile: its tones are approximate")
            return ToneMapping(to_srgb=lambda v: np.asarray(_image(v, "CMYK").convert("RGB")))
        return ToneMapping()
    if dtype == np.uint8:
        apply = _transform(mode, profile, _as_profile("sRGB"), "RGB")
        return ToneMapping(to_srgb=lambda v: np.asarray(apply(_image(v, mode))))

    return ToneMapping(to_srgb=lambda v: _cms(v, icc, "rgb", srgb_profile(), "rgb", "u2"))


def lab(dtype: np.dtype[Any], signed: bool) -> ToneMapping:
    """Of CIELAB: L* from 0 up, a* and b* with a sign or an offset (TIFF 6.0; ICCLAB)."""
    top, half = np.iinfo(dtype).max, 1 << (8 * dtype.itemsize - 1)
    # Of 16 bits, ICC's L* ends at 65280.
    white = 65280 if dtype == np.uint16 and not signed else top
    scale = np.float32(256 ** (dtype.itemsize - 1))

    def to_srgb(levels: Levels) -> Levels:
        L = levels[..., :1] * np.float32(100 / white)
        ab = levels[..., 1:].astype(np.int32)
        ab = np.where(ab >= half, ab - 2 * half, ab) if signed else ab - half
        return color.recombine(L[..., 0], ab / scale)

    lightness = np.minimum(np.arange(top + 1) * (100 / white), 100).astype(np.float32)
    return ToneMapping(lightness, to_srgb, channel=0)


def full_range(raw: NDArray[Any], bits: int) -> Levels:
    """Levels of up to 16 bits, unsigned or bilevel, in the whole range of 8 or 16 bits."""
    if bits < 8:
        return eight_bits(raw, bits)
    if bits in (8, 16):
        return raw.astype(f"u{bits // 8}")
    top = 2**bits - 1
    return np.rint(np.minimum(raw, top) * np.float32(65535 / top)).astype(np.uint16)


def eight_bits(raw: NDArray[Any], bits: int) -> Levels:
    """Levels of up to 16 bits, unsigned or bilevel, in the whole range of 8."""
    if bits == 8:
        return raw.astype(np.uint8)
    return np.rint(raw * np.float32(255 / (2**bits - 1))).astype(np.uint8)


def whole_range(
    values: NDArray[Any], name: str, notes: list[str], ends: tuple[float, ...] = ()
) -> NDArray[np.uint16]:
    """Levels of more than 16 bits, or of floating point, as 16-bit ones.

    Where white is, files seldom say. Floating point is read as 0 to 1, unless a hundredth of the
    pixels is four stops above 1, or what is above it are whole numbers: then as 0 to 255 or to
    65535. A few pixels beyond white (highlights of HDR pictures, sharpened edges) are white, a few
    below 0 black. `ends` are what white may be, the lowest first; empty where the file does not
    say. Raises PhotoError: they are not numbers, or many are below 0 or beyond white.
    """
    floating = values.dtype.kind == "f"
    # Without a copy of all of it: a percentile of one pixel in some is as good.
    some = values.reshape(-1, values.shape[-1])[:: max(1, values.size >> 22)]
    if floating and np.isnan(values).any():
        raise PhotoError(f"{name}: its levels, some no numbers, are not those of a photograph")
    low, high = (float(v) for v in np.quantile(some, (0.01, 0.99), method="nearest"))
    told = bool(ends)
    if not told:
        ends = (1, 255, 65535) if floating else (255, 65535, 2**31 - 1, 2**32 - 1)
        finite = some[np.isfinite(some)]
        if floating and 1 < high <= 16 and (finite != np.rint(finite)).any():
            high = 1.0
    white = next((end for end in ends if high <= end * 1.05), None)
    if white is None or low < -0.05 * white:
        raise PhotoError(f"{name}: its levels, {low:g} to {high:g}, are not those of a photograph")
    what = "floating-point" if floating else f"{8 * values.dtype.itemsize}-bit"
    outside = 100 * float(np.mean((values < 0) | (values > white)))
    clipped = f"; {outside:.2g} % beyond are cut off" if outside else ""
    if clipped or not told:
        notes.append(f"its {what} levels are read as 0 to {round(white)}{clipped}")
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    return np.rint(np.clip(values / white, 0, 1) * 65535).astype(np.uint16)


def unpremultiplied(levels: Levels) -> Levels:
    """Colors that were multiplied by the alpha in the last channel, as they were before."""
    top = np.iinfo(levels.dtype).max
    alpha = levels[..., -1:]
    colors = levels[..., :-1] * (np.float32(top) / np.maximum(alpha, 1))
    return np.concatenate([np.rint(np.minimum(colors, top)).astype(levels.dtype), alpha], -1)


@functools.cache
def srgb_profile() -> bytes:
    """The sRGB profile to embed. Its date, else today's, is fixed: outputs do not depend on it."""
    made = _as_profile("sRGB").tobytes()
    return made[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + made[36:]


def _equal(u: Levels, v: Levels) -> bool:
    return bool((u[0] == v[0]).all() and (u == v).all())  # most often, one row tells


@functools.cache
def _luminance_tables(dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """What each level of red, green and blue adds to Y, (3, 256) or (3, 65536)."""
    top = np.iinfo(dtype).max
    linear = color.srgb_to_linear(np.arange(top + 1) / top)
    return (np.array(color.LUMINANCE)[:, None] * linear).astype(np.float32)


def _image(levels: Levels, mode: str) -> Image.Image:
    return Image.frombytes(mode, levels.shape[1::-1], np.ascontiguousarray(levels).tobytes())


def _profile(icc: bytes, notes: list[str], *spaces: str) -> Profile | None:
    """The profile, if it is whole and made for one of the color spaces."""
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        if space in spaces:
            pixel = Image.new("L" if space == "GRAY" else space, (1, 1))
            _transform(pixel.mode, profile, _as_profile("sRGB"), "RGB")(pixel)
            return profile
        why = f"it is made for {space}"
    except (OSError, ValueError, ImageCms.PyCMSError) as error:
        why = reason(error)
    notes.append(f"its color profile is not used: {why}")
    return None


def _transform(
    mode: str, source: Profile, target: Profile, out: str
) -> Callable[[Image.Image], Image.Image]:
    return ImageCms.buildTransform(source, target, mode, out, _INTENT, _FLAGS).apply


def _cms(
    levels: NDArray[Any], icc: bytes, space: str, out_icc: bytes, out_space: str, dtype: str
) -> NDArray[Any]:
    return imagecodecs.cms_transform(
        np.ascontiguousarray(levels), icc, out_icc, colorspace=space, outcolorspace=out_space,
        outdtype=dtype, intent=int(_INTENT), flags=int(_FLAGS),
    )  # fmt: skip


def _as_profile(name: str) -> Profile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name))  # type: ignore[arg-type]
