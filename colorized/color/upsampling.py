r"""Enlarging the network's chroma to a scan, along the edges of the scan's lightness.

The network gives ab of a picture some 88 pixels on its shorter side. Interpolated to a scan it
would bleed over every edge. Since colors mostly change where lightness changes, the chroma x of
the *guide*, a picture of at most `GUIDE_SIZE` pixels whose lightness is known, is the minimum of

    μ ‖U D x - U y‖² + E(x)

with y the network's chroma, D the mean over the area of one of its pixels, U the copy of such a
mean to every pixel of the area, and E of `edges`, which penalizes changes of color where lightness
is even. The first term keeps x close to y at the network's scale. The sum is minimized on a
pyramid, where each level starts from the solution of the previous one and needs few iterations.

From the guide to the scan, chroma follows the scan's own lightness:

    ab = x + s (L - L_guide),      s = Cov(L, x) / (Var L + ε) over 3 × 3 pixels of the guide,

with s and x - s L_guide interpolated linearly: the local linear model of He, Sun, Tang, *Guided
Image Filtering*, 2013, without its smoothing, which would blur the edges of x. A pixel of the scan
depends only on its own lightness and on small pictures, so a scan can be colored in strips.

docs/colors.md measures this against interpolation and against other filters.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from colorized.color import resample
from colorized.color.edges import Edges, conjugate_gradients

Image = NDArray[np.float32]

GUIDE_SIZE = 512
"""The guide's shorter side, at most."""

# Found on photographs: docs/colors.md. σ is in units of L*, ε in units of (L* / 100)².
_MU, _SIGMA, _ALPHA, _FLOOR, _EPSILON = 4.0, 1.5, 1.5, 0.01, 0.01
_ITERATIONS = 8
# Rows worked on at once, so that temporaries stay in the processor's cache.
_ROWS = 16


def guide_size(h: int, w: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of the guide, for chroma of (h, w) and a picture of (height, width).

    The chroma's, times a power of two from 2 on: the one that comes nearest to the picture, if the
    guide's shorter side does not exceed `GUIDE_SIZE` by it.
    """
    scale = 2
    room = min(math.sqrt(2) * height / h, math.sqrt(2) * width / w, GUIDE_SIZE / min(h, w))
    while 2 * scale <= room:
        scale *= 2
    return h * scale, w * scale


class Enlarger:
    """Chroma at any rows of a large picture, from small chroma and the lightness of these rows.

    Raises ValueError where the guide's size is no power of two times that of `ab`.

    Parameters
    ----------
    guide
        L* of the whole picture, 0 … 100, brought to `guide_size` by `resample.resize_lightness`.
    ab
        The network's chroma (h, w, 2), CIELAB units.
    height, width
        Of the large picture.
    """

    def __init__(self, guide: Image, ab: Image, height: int, width: int) -> None:
        self.height, self.width = height, width
        h, w, _ = ab.shape
        scale = guide.shape[0] // h
        if scale < 1 or guide.shape != (h * scale, w * scale) or scale & (scale - 1):
            raise ValueError(f"the guide must be a power of two times {h} × {w}, got {guide.shape}")
        y = torch.from_numpy(np.ascontiguousarray(ab)).permute(2, 0, 1)[:, None]
        x = _along_edges(guide, y, scale)
        L = _tensor(guide)[None, None] / 100
        mean_L, mean_x = _box(L), _box(x)
        slope = (_box(L * x) - mean_L * mean_x) / (_box(L * L) - mean_L**2 + _EPSILON)
        self._planes = torch.cat([slope, x - slope * L]).squeeze(1)  # slope and level of a, b

    def rows(self, y0: int, y1: int, lightness: Image) -> Image:
        """ab (y1 - y0, W, 2) of the rows y0 … y1 - 1, whose L* is (y1 - y0, W).

        Raises ValueError where the rows are not in the picture, or lightness has another shape.
        """
        if lightness.shape != (y1 - y0, self.width) or not 0 <= y0 < y1 <= self.height:
            raise ValueError(
                f"rows {y0} … {y1 - 1} of {self.height} × {self.width} need lightness "
                f"({y1 - y0}, {self.width}), got {lightness.shape}"
            )
        L = _tensor(lightness)
        ab = torch.empty(y1 - y0, self.width, 2)
        for start in range(y0, y1, _ROWS):
            stop = min(start + _ROWS, y1)
            part = slice(start - y0, stop - y0)
            slope_a, slope_b, level_a, level_b = self._enlarged(start, stop)
            scaled = L[part] / 100
            torch.addcmul(level_a, slope_a, scaled, out=ab[part, :, 0])
            torch.addcmul(level_b, slope_b, scaled, out=ab[part, :, 1])
        return ab.numpy()

    def _enlarged(self, y0: int, y1: int) -> Tensor:
        """The planes (4, y1 - y0, W), interpolated linearly between the centers of pixels."""
        planes, last = self._planes, self._planes.shape[1] - 1
        at = (torch.arange(y0, y1, dtype=torch.float64) + 0.5) * ((last + 1) / self.height) - 0.5
        at = at.clamp(0, last)
        top = at.floor().long()
        t = (at - top).float()[None, :, None]
        rows = torch.lerp(planes[:, top], planes[:, (top + 1).clamp(max=last)], t)
        return F.interpolate(rows, size=self.width, mode="linear")


def _along_edges(guide: Image, y: Tensor, scale: int) -> Tensor:
    """x (2, 1, h · scale, w · scale) of the module's docstring for y (2, 1, h, w)."""
    h, w = y.shape[-2:]
    x, s = y, 1
    while s < scale:
        s *= 2
        L = _tensor(resample.resize_lightness(guide, h * s, w * s))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        x = _solve(x, y, Edges(L, _SIGMA, _ALPHA, _FLOOR), s)
    return x


def _solve(x: Tensor, y: Tensor, edges: Edges, scale: int) -> Tensor:
    def apply(v: Tensor) -> Tensor:
        return _MU * _repeat(F.avg_pool2d(v, scale), scale) + edges.flow(v)

    return conjugate_gradients(apply, _MU * _repeat(y, scale), x, _ITERATIONS)


def _repeat(x: Tensor, scale: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(scale), mode="nearest")


def _box(x: Tensor) -> Tensor:
    """Mean over 3 × 3 pixels, fewer at the border."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _tensor(array: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
