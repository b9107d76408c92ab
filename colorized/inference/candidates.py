"""Several colorings of one photograph: which to show, in which order, and where they disagree.

Of N that were drawn, K are picked. The first is the medoid, the one with the smallest mean distance
from the others: of draws from P(ab | L) it is nearest to what most of them agree on. Each next one
is that with the largest distance from the nearest of those picked before (Gonzalez, *Clustering to
Minimize the Maximum Intercluster Distance*, 1985), so that K pictures show how far colors can go.
Picked, they are sorted by their mean distance from all N, the most typical ones first.

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
        (K, h, w, 2), CIELAB units, at the network's scale; `ChromaSampler.enlarge` brings one to
        that of the photograph.
    seeds
        `ChromaSampler.colorize` draws the same coloring from the seed of each.
    distances
        Mean distance of each from the others that were drawn, CIELAB units; rising.
    uncertainty
        (h, w): the mean distance of two colorings at a pixel, of all that were drawn, CIELAB
        units; 0 where there was but one.
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
