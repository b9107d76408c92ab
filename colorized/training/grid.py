"""A grid of validation pictures colored by the averaged weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from colorized import color, plots
from colorized.color import resample
from colorized.data.dataset import Shard

Draw = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""L* (B, H, W) → ab at the network's own scale, (B, h, w, 2)."""


def validation_grid(draw: Draw, shard: Shard, count: int = 4) -> plots.Picture:
    """Evenly spaced pictures of a shard in gray, colored by `draw`, and in their true colors."""
    rows = np.linspace(0, len(shard) - 1, min(count, len(shard))).astype(np.int64)
    batch = shard.batch(rows)
    L = batch.lightness[:, 0].numpy()
    small = draw(L)
    size = L.shape[-1]
    cells = []
    for i in range(len(rows)):
        ab = np.stack([resample.resize(small[i, ..., c], size, size) for c in range(2)], -1)
        true = batch.ab[i].permute(1, 2, 0).numpy()
        cells.append([color.recombine(L[i], c) for c in (np.zeros_like(ab), ab, true)])
    return plots.grid(cells, ["monochrome", "model", "true"])
