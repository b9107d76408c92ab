"""What a sampler asks the network for: a mean, with classifier-free guidance, or a draw.

    x̂_0 = x̂_0(x) + w (x̂_0(x, L) - x̂_0(x))

Ho, Salimans, *Classifier-Free Diffusion Guidance*, 2022, eq. 6, for x̂_0. It asks the network
twice. That is done only where σ is at least `SIGMA_GUIDED`: below, there is little left to choose
(Kynkäänniemi et al., *Applying Guidance in a Limited Interval Improves Sample and Distribution
Quality in Diffusion Models*, 2024).

With the samplers `options.DRAWING` only the first evaluation, of pure noise, is asked for a mean,
and guided. The others are asked for draws, which the adversarial finish taught the network
(`training.finish`). Without L, the mean given pure noise is the mean color of photographs, the same
everywhere, so that a corner of the noise is enough to tell it; docs/model.md has what that saves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from colorized.model import sampling
from colorized.model.denoiser import Denoiser, drop_condition
from colorized.model.encoder import Features
from colorized.options import DRAWING, SamplingOptions

SIGMA_GUIDED = 2.0
"""Lowest noise level that is guided."""
CORNER = 32
"""Side of the corner of pure noise that is asked without L, pixels of chroma."""


def guided(denoiser: sampling.Denoiser, weight: float) -> sampling.Denoiser:
    """The denoiser with guidance of this weight; 1 is the denoiser itself."""
    if weight == 1:
        return denoiser

    def both(x: Tensor, sigma: Tensor, cond: Features, /) -> Tensor:
        asked = denoiser(x, sigma, cond)
        noisy = sigma >= SIGMA_GUIDED
        if not noisy.any():
            return asked
        weights = torch.where(noisy, weight, 1.0).to(asked).view(-1, 1, 1, 1)
        return torch.lerp(denoiser(x, sigma, _without(cond, x)), asked, weights)

    return both


def asked(
    denoiser: Denoiser, options: SamplingOptions, sigmas: Sequence[float]
) -> sampling.Denoiser:
    """The denoiser as the sampler of these options asks it at these levels."""
    if options.sampler not in DRAWING:
        return guided(denoiser, options.guidance)

    def ask(x: Tensor, sigma: Tensor, cond: Features, /) -> Tensor:
        if sigma[0] >= sigmas[0]:
            mean: Tensor = denoiser(x, sigma, cond)
            if options.guidance == 1:
                return mean
            return torch.lerp(_mean_color(denoiser, x, sigma, cond), mean, options.guidance)
        drawn: Tensor = denoiser(x, sigma, denoiser.network.asked_to_draw(cond))
        return drawn

    return ask


def _mean_color(denoiser: Denoiser, x: Tensor, sigma: Tensor, cond: Features) -> Tensor:
    """x̂_0 (B, 2, 1, 1) without L, for x (B, 2, h, w) that is pure noise."""
    h, w = x.shape[-2:]
    corner = tuple(
        c[..., : CORNER * c.shape[-2] // h, : CORNER * c.shape[-1] // w] if c.ndim == 4 else c
        for c in cond
    )
    found: Tensor = denoiser(x[..., :CORNER, :CORNER], sigma, _without(corner, x))
    return found.mean((-2, -1), keepdim=True)


def _without(cond: Features, x: Tensor) -> Features:
    """The condition of a picture of which nothing is known; as many as there are x (B, …)."""
    return drop_condition(cond, torch.zeros(len(x), dtype=torch.bool, device=x.device))


def evaluations(sigmas: Sequence[float], options: SamplingOptions) -> int:
    """How often the network is evaluated, on whole pictures, at these levels."""
    if options.guidance == 1 or options.sampler in DRAWING:
        return len(sigmas)
    return len(sigmas) + sum(sigma >= SIGMA_GUIDED for sigma in sigmas)
