"""Classifier-free guidance, at the noise levels where it pays.

    x̂_0 = x̂_0(x_t) + w (x̂_0(x_t, L) - x̂_0(x_t))

Ho, Salimans, *Classifier-Free Diffusion Guidance*, 2022, eq. 6, for x̂_0. It asks the network
twice. That is done only where σ_t is at least `SIGMA_GUIDED`: below, there is little left to choose
(Kynkäänniemi et al., *Applying Guidance in a Limited Interval Improves Sample and Distribution
Quality in Diffusion Models*, 2024). docs/model.md has what it saves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from colorized.model import sampling
from colorized.model.denoiser import Denoiser, drop_condition
from colorized.model.encoder import Features
from colorized.model.schedule import Schedule

SIGMA_GUIDED = 2.0
"""Lowest noise level σ_t = sqrt((1 - ᾱ_t) / ᾱ_t) that is guided."""


def guided(denoiser: Denoiser, weight: float) -> sampling.Denoiser:
    """The denoiser with guidance of this weight; 1 is the denoiser itself."""
    if weight == 1:
        return denoiser

    def both(x_t: Tensor, t: Tensor, cond: Features, /) -> Tensor:
        asked = denoiser(x_t, t, cond)
        noisy = _noisy(denoiser.schedule, t)
        if not noisy.any():
            return asked
        dropped = drop_condition(cond, torch.zeros_like(t, dtype=torch.bool))
        weights = torch.where(noisy, weight, 1.0).to(asked).view(-1, 1, 1, 1)
        return torch.lerp(denoiser(x_t, t, dropped), asked, weights)

    return both


def evaluations(schedule: Schedule, times: Sequence[int], weight: float) -> int:
    """How often a sampler that asks the guided denoiser at these times asks the network."""
    twice = 0 if weight == 1 else int(_noisy(schedule, torch.tensor(list(times))).sum())
    return len(times) + twice


def _noisy(schedule: Schedule, t: Tensor) -> Tensor:
    """Whether each of t (B,) is a step that is guided."""
    return torch.exp(-0.5 * schedule.log_snr(t)) >= SIGMA_GUIDED
