r"""Guided sampling: chroma is known at some pixels.

At every evaluation the denoiser's x̂_0 is corrected by what it lacks at the known pixels, and the
correction spreads along the edges of L: x̂_0 + r, where r minimizes

    μ Σ_p m_p (r_p - (k_p - x̂_p))² + ν Σ_p r_p² + E(r)

with k the known chroma, m the share of a pixel that is known and E of `edges`. Replacing x̂_0 at the
known pixels alone, as in inpainting (Lugmayr et al., *RePaint*, 2022), leaves specks: a few pixels
among noise say little. What is spread to the surface they lie on is seen by the next evaluation,
which then makes the rest of the picture go with it. ν lets it fade with distance. The system of
equations is the same at every step, and factored once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colorized.color.edges import Edges
from colorized.model import sampling

# Found on photographs: docs/colors.md. σ is in units of L*.
_MU, _NU, _SIGMA, _ALPHA, _FLOOR = 100.0, 0.002, 4.0, 3.0, 0.0


class Steering:
    """Known chroma, and the lightness along which it spreads.

    Parameters
    ----------
    share
        m (h, w), 0 … 1.
    known
        k (h, w, 2), of any unit.
    lightness
        L* (h, w), 0 … 100.
    """

    def __init__(
        self,
        share: NDArray[np.float32],
        known: NDArray[np.float32],
        lightness: NDArray[np.float32],
    ) -> None:
        self._strength = _MU * torch.from_numpy(share).double()
        self._known = torch.from_numpy(known).permute(2, 0, 1)
        edges = Edges(torch.from_numpy(lightness), _SIGMA, _ALPHA, _FLOOR)
        self._solve = edges.solver(self._strength + _NU)

    def spread(self, error: Tensor) -> Tensor:
        """r (…, h, w) for k - x̂ (…, h, w); what stands at unknown pixels does not count."""
        return self._solve(self._strength * error.cpu().double()).to(error)

    def correct(self, x: Tensor) -> Tensor:
        """x (B, 2, h, w) with what is known, and what follows from it."""
        return x + self.spread(self._known.to(x) - x)

    def steer(self, denoiser: sampling.Denoiser) -> sampling.Denoiser:
        """The denoiser, its every x̂_0 corrected."""

        def steered(x: Tensor, sigma: Tensor, cond: Any, /) -> Tensor:
            return self.correct(denoiser(x, sigma, cond))

        return steered
