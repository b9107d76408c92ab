"""Several colorings of one photograph: how they differ, and which to show first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Candidates:
    """Colorings of one photograph, the most typical one first.

    Parameters
    ----------
    ab
        (K, h, w, 2), CIELAB units, at the network's scale; `Colorizer.enlarge` brings one to that
        of the photograph.
    seeds
        `Colorizer.colorize` draws the same coloring with the seed of each.
    distances
        Mean distance of each from all that were drawn, CIELAB units; the first is not the smallest
        by chance: the candidates are sorted by it.
    uncertainty
        (h, w): how far two colorings differ at a pixel, in the mean, CIELAB units.
    """

    ab: NDArray[np.float32]
    seeds: tuple[int, ...]
    distances: tuple[float, ...]
    uncertainty: NDArray[np.float32]


def rank(ab: NDArray[np.float32], seeds: Sequence[int], count: int) -> Candidates:
    """`count` of the drawn colorings (N, h, w, 2), sorted by their distance from all of them."""
    apart = np.linalg.norm(ab[:, None] - ab[None, :], axis=-1)  # (N, N, h, w)
    others = max(len(ab) - 1, 1)
    distances = apart.mean(axis=(2, 3)).sum(axis=1) / others
    order = np.argsort(distances, kind="stable")[:count]
    return Candidates(
        ab=ab[order],
        seeds=tuple(seeds[k] for k in order),
        distances=tuple(float(distances[k]) for k in order),
        uncertainty=(apart.sum(axis=(0, 1)) / (len(ab) * others)).astype(np.float32),
    )
