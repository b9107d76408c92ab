"""Choosing among several colorings of one photograph, and measuring where they differ.

K of N draws are picked. The first is the medoid, the draw with the smallest mean distance from the
others. Each next one has the largest distance from the nearest of those already picked (Gonzalez,
*Clustering to Minimize the Maximum Intercluster Distance*, 1985), so that the K span the range of
colors. They are sorted by their mean distance from all N, the most typical first.

The distance of two colorings is the mean over all pixels of sqrt(Δa*² + Δb*²), in CIELAB units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Candidates:
    """Colorings of one photograph, the most typical first.

    Attributes
    ----------
    ab
        (K, h, w, 2), CIELAB units, at the network's scale; see `ChromaSampler.enlarge`.
    seeds
        With each of which `ChromaSampler.colorize` gives the same coloring.
    distances
        Mean distance of each from the other draws, CIELAB units, ascending.
    uncertainty
        (h, w): mean distance of two of all draws at a pixel, CIELAB units; 0 for a single draw.
    """

    ab: NDArray[np.float32]
    seeds: tuple[int, ...]
    distances: tuple[float, ...]
    uncertainty: NDArray[np.float32]


def pick(ab: NDArray[np.float32], seeds: Sequence[int], count: int) -> Candidates:
    """`count` of the N ≥ `count` colorings (N, h, w, 2) that were drawn from these seeds."""
    N = len(ab)
    between = np.zeros((N, N))
    uncertainty = np.zeros(ab.shape[1:3], np.float32)
    for i in range(N):
        for k in range(i):
            apart = np.hypot(*np.moveaxis(ab[i] - ab[k], -1, 0))
            between[i, k] = between[k, i] = apart.mean()
            uncertainty += apart / np.float32(N * (N - 1) / 2)
    distances = between.sum(axis=1) / max(N - 1, 1)
    picked = [int(distances.argmin())]
    while len(picked) < count:
        nearest = between[:, picked].min(axis=1)
        nearest[picked] = -1
        picked.append(int(nearest.argmax()))
    picked.sort(key=lambda k: distances[k])
    return Candidates(
        ab=ab[picked],
        seeds=tuple(seeds[k] for k in picked),
        distances=tuple(float(distances[k]) for k in picked),
        uncertainty=uncertainty,
    )
