r"""sRGB ↔ CIELAB (D65, 2° observer), 8-bit LAB, and the sRGB gamut at fixed lightness.

With r, g, b the linear-light sRGB values and X, Y, Z relative to the white point,

    (X, Y, Z) = M (r, g, b),    f(t) = t^(1/3) if t > (6/29)³ else t·841/108 + 4/29
    L* = 116 f(Y) - 16,    a* = 500 (f(X) - f(Y)),    b* = 200 (f(Y) - f(Z)).

Each row of M sums to one, since white is (1, 1, 1) on both sides; so does each row of its inverse.
A neutral pixel therefore has a* = b* = 0 exactly, and vice versa.

Functions take arrays, float32 or float64, with the channels last, and return the same dtype; those
that training needs take tensors. Arrays are computed by torch in their own memory, because its
vectorized powers are several times faster than NumPy's.

IEC 61966-2-1:1999 (sRGB); CIE 15:2004 (LAB, with its exact fractions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

A = TypeVar("A", NDArray[Any], Tensor)

# The usual rounding of the sRGB primaries at D65, as in OpenCV, scikit-image and kornia.
_PRIMARIES = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_RGB_TO_XYZ = _PRIMARIES / _PRIMARIES.sum(axis=1, keepdims=True)
_XYZ_TO_RGB = np.linalg.inv(_RGB_TO_XYZ)
LUMINANCE = tuple(_RGB_TO_XYZ[1].tolist())
"""Weights of linear red, green and blue in Y."""

# Linear light may leave [0, 1] by this much and still count as inside: float32 gives the primaries
# themselves back with an error of about 2e-6. It is a thirtieth of an 8-bit step at black.
_GAMUT_TOLERANCE = 1e-5
# No sRGB color has more chroma (blue: 134), so the search for the gamut's edge begins here.
_CHROMA_MAX = 150.0
# At L* > 93 a ray within 2° of yellow's hue leaves the gamut and comes back. The range is therefore
# scanned in steps, and then the last step is halved: the edge is found to 150 / 8 / 2^13 = 0.002
# units of chroma, unless the way back is narrower than a step; then it is the nearer edge.
_STEPS, _HALVINGS = 8, 13
# Pixels worked on at once: so few that temporaries stay in the processor's cache, and so many that
# Python, which the threads that work on strips share, takes little of the time: with a quarter of
# them two threads are no faster than one. Callers with such threads keep torch to one thread each.
_BLOCK = 1 << 16


def _shared(array: NDArray[Any]) -> Tensor:
    """The array as a tensor in the same memory; a copy where torch cannot share it."""
    v = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if v.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"color values must be float32 or float64, got {v.dtype}")
    return v


def _by_pixel(f: Callable[..., list[Tensor]], v: NDArray[Any], count: int = 3) -> NDArray[Any]:
    """f(*channels) of pixels (..., 3) → (..., count), block by block.

    Every channel of a block is made contiguous, since only then torch's powers are vectorized.
    """
    if v.ndim == 0 or v.shape[-1] != 3:
        raise ValueError(f"the last axis must hold 3 channels, got shape {v.shape}")
    flat = _shared(v).reshape(-1, 3)
    out = torch.empty((len(flat), count), dtype=flat.dtype)
    for block, result in zip(flat.split(_BLOCK), out.split(_BLOCK), strict=True):
        for i, channel in enumerate(f(*(c.contiguous() for c in block.unbind(-1)))):
            result[:, i] = channel
    return out.numpy().reshape(*v.shape[:-1], count)


def _mix(matrix: NDArray[Any], p: Tensor, q: Tensor, r: Tensor) -> list[Tensor]:
    """matrix @ (p, q, r) for rows that sum to one: exactly (q, q, q) where p = q = r."""
    dp, dr = p - q, r - q
    return [q.add(dp, alpha=row[0]).add_(dr, alpha=row[2]) for row in matrix.tolist()]


# At the knee the straight part is tangent to the cube root. So it can be added to the root of what
# is above the knee, which takes a fraction of the time of choosing between the two.
_KNEE, _SLOPE = 6 / 29, 108 / 841


def _f(t: Tensor) -> Tensor:
    below = t.clamp(max=_KNEE**3) - _KNEE**3
    # NumPy's cube root takes a tenth of the time of torch's power.
    root = torch.from_numpy(np.cbrt(t.clamp(min=_KNEE**3).numpy()))
    return root.add_(below, alpha=1 / _SLOPE)


def _f_inverse(f: Tensor) -> Tensor:
    below = f.clamp(max=_KNEE).sub_(_KNEE)
    return f.clamp(min=_KNEE).pow_(3).add_(below, alpha=_SLOPE)


def _to_linear(v: Tensor) -> Tensor:
    high = ((v.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4)
    return torch.where(v > 0.04045, high, v / 12.92)


def _from_linear(v: Tensor) -> Tensor:
    high = 1.055 * v.clamp(min=0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(v > 0.0031308, high, v * 12.92)


def _linear_to_lab(r: Tensor, g: Tensor, b: Tensor) -> list[Tensor]:
    fx, fy, fz = (_f(t) for t in _mix(_RGB_TO_XYZ, r, g, b))
    return [116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)]


def lab_planes_to_linear(L: Tensor, a: Tensor, b: Tensor) -> list[Tensor]:
    """Linear-light sRGB planes of L*, a* and b* of one shape, unclipped; gradients pass."""
    fy = L.add(16).mul_(1 / 116)
    x, y, z = (_f_inverse(f) for f in (fy.add(a, alpha=1 / 500), fy, fy.sub(b, alpha=1 / 200)))
    return _mix(_XYZ_TO_RGB, x, y, z)


def _outside(rgb: list[Tensor]) -> Tensor:
    r, g, b = rgb
    low = torch.minimum(torch.minimum(r, g), b)
    high = torch.maximum(torch.maximum(r, g), b)
    # Written so that NaN, from the powers of an enormous chroma, is outside.
    return ~((low >= -_GAMUT_TOLERANCE) & (high <= 1 + _GAMUT_TOLERANCE))


def _is_inside(low: Tensor, high: Tensor) -> bool:
    return bool(low >= -_GAMUT_TOLERANCE and high <= 1 + _GAMUT_TOLERANCE)


def _chroma_scale(L: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The largest s in [0, 1] for which (L, s a, s b) is in the gamut, if s = 1 is not; (N,)."""
    step = (_CHROMA_MAX / torch.hypot(a, b)).clamp(max=1) / _STEPS
    scale = torch.zeros_like(L)
    for k in range(1, _STEPS):
        s = k * step
        scale = torch.where(_outside(lab_planes_to_linear(L, s * a, s * b)), scale, s)
    for _ in range(_HALVINGS):
        step = step / 2
        s = scale + step
        scale = torch.where(_outside(lab_planes_to_linear(L, s * a, s * b)), scale, s)
    return scale


def _fit(L: Tensor, a: Tensor, b: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """L, a, b with their chroma in the gamut, and their linear light; each (N,)."""
    rgb = lab_planes_to_linear(L, a, b)
    outside = _where_outside(rgb, L, a, b)
    if len(outside):
        L_out, a_out, b_out = L[outside], a[outside], b[outside]
        scale = _chroma_scale(L_out, a_out, b_out)
        a_out, b_out = scale * a_out, scale * b_out
        a, b = a.index_copy(0, outside, a_out), b.index_copy(0, outside, b_out)
        for channel, fitted in zip(rgb, lab_planes_to_linear(L_out, a_out, b_out), strict=True):
            channel[outside] = fitted
    return [L, a, b], rgb


def _where_outside(rgb: list[Tensor], L: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Indices of colors outside the gamut, whose L, a and b must be finite."""
    # Most blocks are inside as a whole; NaN is not.
    if all(_is_inside(*v.aminmax()) for v in rgb):
        return torch.empty(0, dtype=torch.int64)
    if not torch.isfinite(L + a + b).all():
        raise ValueError("L, a and b must be finite, got NaN or infinity")
    return _outside(rgb).nonzero().squeeze(1)


def srgb_to_linear(v: NDArray[Any]) -> NDArray[Any]:
    """Linear light of sRGB values, any shape; [0, 1] to [0, 1], beyond it unclipped."""
    return _to_linear(_shared(v)).numpy()


def linear_to_srgb(v: A) -> A:
    """sRGB values of linear light, any shape; [0, 1] to [0, 1], beyond it unclipped."""
    return _from_linear(v) if isinstance(v, Tensor) else _from_linear(_shared(v)).numpy()


def luminance_to_lightness(Y: NDArray[Any]) -> NDArray[Any]:
    """L* of relative luminance Y, any shape; [0, 1] to 0 … 100, beyond it unclipped."""
    return (116 * _f(_shared(Y)) - 16).numpy()


def lightness_to_luminance(L: NDArray[Any]) -> NDArray[Any]:
    """Relative luminance Y of L*, any shape; 0 … 100 to [0, 1], beyond it unclipped."""
    return _f_inverse((_shared(L) + 16) / 116).numpy()


def srgb_to_lab(rgb: NDArray[Any]) -> NDArray[Any]:
    """CIELAB of sRGB (..., 3) in [0, 1]: L* in 0 … 100, a* and b* in about -108 … 98."""
    return _by_pixel(lambda *rgb: _linear_to_lab(*map(_to_linear, rgb)), rgb)


def linear_to_lab8(linear: NDArray[np.float32]) -> NDArray[np.uint8]:
    """OpenCV's 8-bit LAB of linear-light sRGB in [0, 1], float32; both (..., 3).

    Written with NumPy, whose cube root takes a sixth of the time of torch's power.
    """
    knee, slope = np.float32((6 / 29) ** 3), np.float32(841 / 108)

    def f(t: NDArray[np.float32]) -> NDArray[np.float32]:
        # The straight part is tangent to the cube root at the knee.
        root: NDArray[np.float32] = np.cbrt(np.maximum(t, knee))
        root += slope * np.minimum(t - knee, np.float32(0))
        return root

    flat = linear.reshape(-1, 3)
    out = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BLOCK):
        part = slice(start, start + _BLOCK)
        r, g, b = np.ascontiguousarray(flat[part].T)
        dr, db = r - g, b - g
        fx, fy, fz = (
            f(g + np.float32(row[0]) * dr + np.float32(row[2]) * db) for row in _RGB_TO_XYZ
        )
        lab = (fy * (116 * 2.55) - (16 * 2.55), (fx - fy) * 500 + 128, (fy - fz) * 200 + 128)
        for i, channel in enumerate(lab):
            out[part, i] = np.rint(channel).clip(0, 255)
    return out.reshape(linear.shape)


def lab_to_linear(lab: NDArray[Any]) -> NDArray[Any]:
    """Linear-light sRGB of CIELAB (..., 3), unclipped: beyond the gamut it leaves [0, 1]."""
    return _by_pixel(lab_planes_to_linear, lab)


def lab_to_srgb(lab: NDArray[Any]) -> NDArray[Any]:
    """sRGB of CIELAB (..., 3), unclipped: a color outside the gamut leaves [0, 1]."""
    return _by_pixel(lambda *lab: [_from_linear(v) for v in lab_planes_to_linear(*lab)], lab)


def lightness(rgb: NDArray[Any]) -> NDArray[Any]:
    """L* (...) in 0 … 100 of sRGB (..., 3) in [0, 1]."""

    def L(*rgb: Tensor) -> list[Tensor]:
        (y,) = _mix(_RGB_TO_XYZ[1:2], *map(_to_linear, rgb))
        return [116 * _f(y) - 16]

    return _by_pixel(L, rgb, count=1)[..., 0]


def lab8_to_lab(lab8: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIELAB, float32, of OpenCV's 8-bit LAB (..., 3), uint8."""
    if lab8.dtype != np.uint8:
        raise ValueError(f"lab8 must be uint8, got {lab8.dtype}")
    scale = np.array([100 / 255, 1, 1], np.float32)
    return (lab8 - np.array([0, 128, 128], np.float32)) * scale


def unstandardize_ab(ab: Tensor, std: Sequence[float], axis: int = -1) -> Tensor:
    """ab in CIELAB units, from units of the deviations `std` of a* and b*, which are at `axis`."""
    shape = [1] * ab.ndim
    shape[axis] = 2
    return ab * torch.tensor(std, dtype=ab.dtype, device=ab.device).view(shape)


def fit_gamut(lab: NDArray[Any]) -> NDArray[Any]:
    """CIELAB (..., 3) with chroma reduced to the sRGB gamut at fixed L* and hue.

    (a*, b*) is scaled by the largest s in [0, 1] that is inside. Pixels already inside are
    returned untouched. L* beyond 0 … 100 has no color inside, and becomes neutral.
    """
    return _by_pixel(lambda *lab: _fit(*lab)[0], lab)


_TYPES = {8: torch.uint8, 16: torch.uint16}


def recombine(L: NDArray[Any], ab: NDArray[Any], bits: int = 8) -> NDArray[Any]:
    """8-bit or 16-bit sRGB of lightness and chroma: L* is kept, chroma is reduced to the gamut.

    Raises ValueError where the shapes do not go together, or a value is not finite.

    Parameters
    ----------
    L
        L* in 0 … 100, (H, W) or any shape.
    ab
        a*, b* in CIELAB units, the shape of L and two channels: (H, W, 2).
    bits
        8 or 16.

    Returns
    -------
    uint8 or uint16, the shape of L and three channels: (H, W, 3). L* of every pixel is within 0.6
    of L, the rounding to 8 bits included, and where ab = 0 the three channels are equal.
    """
    if bits not in _TYPES:
        raise ValueError(f"bits must be 8 or 16, got {bits}")
    if ab.shape != (*L.shape, 2):
        raise ValueError(f"ab must have two channels and L's shape {L.shape}, got {ab.shape}")
    planes = [_shared(plane).reshape(-1) for plane in (L, ab[..., 0], ab[..., 1])]
    out = torch.empty((len(planes[0]), 3), dtype=_TYPES[bits])
    outside = []
    for start in range(0, len(out), _BLOCK):
        part = slice(start, start + _BLOCK)
        block = [plane[part].contiguous() for plane in planes]
        linear = lab_planes_to_linear(*block)
        if len(found := _where_outside(linear, *block)):
            outside.append(found + start)
            linear = [v.nan_to_num_() for v in linear]
        for i, v in enumerate(linear):
            out[part, i] = _levels(v, bits)
    if outside:  # which are few in a block: together they keep the processor busy
        for found in torch.cat(outside).split(_BLOCK):
            _, linear = _fit(*(plane[found] for plane in planes))
            levels = torch.stack([_levels(v, bits) for v in linear], dim=-1)
            if bits == 16:  # torch has few operations for this type
                out.view(torch.int16)[found] = levels.view(torch.int16)
            else:
                out[found] = levels
    return out.numpy().reshape(*L.shape, 3)


def _levels(linear: Tensor, bits: int) -> Tensor:
    """sRGB levels of linear light, which is clipped."""
    v = linear.clamp(0, 1)
    if bits == 8:
        return _LEVELS.index_select(0, v.mul_(len(_LEVELS) - 1).add_(0.5).int())
    return _from_linear(v).mul_(2**bits - 1).round_().to(_TYPES[bits])


# 8-bit sRGB of linear light in steps so small that no level is missed by more than 1/40. A table
# takes a quarter of the time of a power.
_LEVELS = (_from_linear(torch.linspace(0, 1, 1 << 16, dtype=torch.float64)) * 255).round().byte()
