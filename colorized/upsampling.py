"""Chroma of a few thousand pixels → chroma of a scan, along the edges of the scan's lightness.

First version: the fast guided filter (He, Sun, 2015).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colorized import resample

GUIDE_SIZE = 512
"""Shorter side of the lightness that `Enlarger` is given to look at as a whole."""


def guide_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the guide for a picture of this size: `GUIDE_SIZE`, or the picture's."""
    scale = min(1.0, GUIDE_SIZE / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class Enlarger:
    """Chroma at any rows of a large picture, from small chroma and the lightness of these rows.

    Every pixel follows from the small pictures and its own lightness alone, so that strips give
    the same result as the whole.

    Parameters
    ----------
    guide
        L* of the whole picture, small: of `guide_size`, or of any size not below that of `ab`.
    ab
        (h, w, 2), CIELAB units.
    height, width
        Of the large picture.
    """

    def __init__(
        self, guide: NDArray[np.float32], ab: NDArray[np.float32], height: int, width: int
    ) -> None:
        self.height, self.width = height, width
        h, w, _ = ab.shape
        L = torch.from_numpy(resample.resize_lightness(guide, h, w) / 100)[None, None]
        x = torch.from_numpy(np.ascontiguousarray(ab)).permute(2, 0, 1)[:, None]
        mean_L, mean_x = _box(L), _box(x)
        slope = (_box(L * x) - mean_L * mean_x) / (_box(L * L) - mean_L**2 + 1e-3)
        level = mean_x - slope * mean_L
        planes = torch.cat([_box(slope), _box(level)]).squeeze(1)  # (4, h, w)
        self._columns = planes @ _linear(w, width).T  # (4, h, W)
        self._rows = _linear(h, height)

    def rows(self, y0: int, y1: int, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """ab (y1 - y0, W, 2) of the rows y0 … y1 - 1, whose L* is (y1 - y0, W)."""
        if lightness.shape != (y1 - y0, self.width) or not 0 <= y0 < y1 <= self.height:
            raise ValueError(
                f"rows {y0} to {y1} of {self.height} × {self.width} need lightness "
                f"({y1 - y0}, {self.width}), got {lightness.shape}"
            )
        slope_a, slope_b, level_a, level_b = self._rows[y0:y1] @ self._columns
        L = torch.from_numpy(np.ascontiguousarray(lightness)) / 100
        ab = torch.stack([slope_a * L + level_a, slope_b * L + level_b], dim=-1)
        return ab.numpy()


def enlarge(
    guide: NDArray[np.float32], ab: NDArray[np.float32], lightness: NDArray[np.float32]
) -> NDArray[np.float32]:
    """ab (H, W, 2) of a picture in memory as a whole, whose L* is (H, W); see `Enlarger`."""
    height, width = lightness.shape
    return Enlarger(guide, ab, height, width).rows(0, height, lightness)


def _box(x: Tensor, radius: int = 1) -> Tensor:
    """Mean over (2 radius + 1)² pixels, fewer at the border."""
    size = 2 * radius + 1
    return torch.nn.functional.avg_pool2d(x, size, 1, radius, count_include_pad=False)


def _linear(small: int, large: int) -> Tensor:
    """(large, small): linear interpolation between the centers of pixels; rows sum to 1."""
    at = ((torch.arange(large) + 0.5) * (small / large) - 0.5).clamp(0, small - 1)
    left = at.floor().long().clamp(max=max(small - 2, 0))
    t = at - left
    matrix = torch.zeros(large, small)
    matrix.scatter_(1, left[:, None], (1 - t)[:, None])
    matrix.scatter_add_(1, (left + 1).clamp(max=small - 1)[:, None], t[:, None])
    return matrix
