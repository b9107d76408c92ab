"""Classifier-free guidance, at the noise levels where it pays.

    x̂_0 = x̂_0(x) + w (x̂_0(x, L) - x̂_0(x))

Ho, Salimans, *Classifier-Free Diffusion Guidance*, 2022, eq. 6, for x̂_0. It asks the network
twice. That is done only where σ is at least `SIGMA_GUIDED`: below, there is little left to choose
(Kynkäänniemi et al., *Applying Guidance in a Limited Interval Improves Sample and Distribution
Quality in Diffusion Models*, 2024). docs/model.md has what it saves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from colorized.model import sampling
from colorized.model.denoiser import drop_condition
from colorized.model.encoder import Features

SIGMA_GUIDED = 2.0
"""Lowest noise level that is guided."""


def guided(denoiser: sampling.Denoiser, weight: float) -> sampling.Denoiser:
    """The denoiser with guidance of this weight; 1 is the denoiser itself."""
    if weight == 1:
        return denoiser

    def both(x: Tensor, sigma: Tensor, cond: Features, /) -> Tensor:
        asked = denoiser(x, sigma, cond)
        noisy = sigma >= SIGMA_GUIDED
        if not noisy.any():
            return asked
        dropped = drop_condition(cond, torch.zeros(len(x), dtype=torch.bool, device=x.device))
        weights = torch.where(noisy, weight, 1.0).to(asked).view(-1, 1, 1, 1)
        return torch.lerp(denoiser(x, sigma, dropped), asked, weights)

    return both


def evaluations(sigmas: Sequence[float], weight: float) -> int:
    """How often a sampler that asks the guided denoiser at these levels asks the network."""
    twice = 0 if weight == 1 else sum(sigma >= SIGMA_GUIDED for sigma in sigmas)
    return len(sigmas) + twice
