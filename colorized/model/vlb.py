r"""The variational bound of the denoiser, in bits per value of chroma.

It tells how good the model is in bits; see docs/theory.md:

    -log p_θ(x_0 | L) ≤ L_T + Σ_{t=2}^T L_{t-1} + L_0,
    L_T     = KL( q(x_T | x_0) ‖ N(0, I) )
    L_{t-1} = E KL( q(x_{t-1} | x_t, x_0) ‖ N(μ̃_t(x_t, x̂_0), β̃_t I) )
            = E ½ (SNR(t-1) - SNR(t)) ‖x_0 - x̂_0‖²,         SNR(t) = ᾱ_t / (1 - ᾱ_t)
    L_0     = E -log P(x_0 | x_1),   N(x̂_0, β_1 I) summed over the bin of each 8-bit value.

Ho et al., 2020, eqs. 5, 8, 13; in terms of the SNR: Kingma et al., *Variational Diffusion Models*,
2021, eq. 13.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from colorized.model.denoiser import add_noise
from colorized.model.encoder import Features
from colorized.model.sampling import Denoiser
from colorized.model.weights import ModelConfig


@torch.no_grad()
def vlb_per_picture(
    denoiser: Denoiser,
    config: ModelConfig,
    ab8: Tensor,
    cond: Features,
    generator: torch.Generator,
    strata: int,
) -> Tensor:
    """An unbiased estimate of the variational bound for each picture, bits per value of chroma.

    L_T is exact. L_0 takes one draw of x_1. The sum over t = 2 … T takes `strata` draws of t from
    p_t ∝ log((1 - ᾱ_t) / (1 - ᾱ_{t-1})), each weighted by 1 / p_t: one draw from each of `strata`
    equal parts of the distribution function. For data of unit variance and Gaussian, p_t is the
    share of the term in the sum, and the draw of t adds no variance at all.

    Parameters
    ----------
    ab8
        a* + 128 and b* + 128 at the resolution of the model, uint8 (B, 2, h, w).
    cond
        From `Denoiser.encode`, for the same B.
    generator
        On the CPU.
    strata
        Evaluations of the network per picture, less the one at t = 1.

    Returns
    -------
    Tensor
        float64 (B,), on the CPU.

    Raises
    ------
    ValueError
        When `ab8` is not uint8, or `strata` is less than 1.
    """
    if ab8.dtype != torch.uint8:
        raise ValueError(f"ab8 must be uint8, got {ab8.dtype}")
    if strata < 1:
        raise ValueError(f"strata must be at least 1, got {strata}")
    schedule, B = config.noise(), len(ab8)

    def term(t: Tensor) -> Tensor:
        noise = torch.randn(ab8.shape, generator=generator).to(ab8.device)
        return vlb_term(denoiser, config, ab8, cond, t.to(ab8.device), noise).cpu()

    nats = vlb_prior(config, ab8).cpu() + term(torch.ones(B, dtype=torch.int64))
    cumulative = torch.log1p(-schedule.alpha_bar[1:])  # of t = 1 … T
    cumulative = (cumulative - cumulative[0]) / (cumulative[-1] - cumulative[0])
    p = cumulative.diff()  # of t = 2 … T
    for k in range(strata):
        u = (k + torch.rand(B, generator=generator, dtype=torch.float64)) / strata
        t = torch.searchsorted(cumulative[1:], u, right=True).clamp(max=schedule.T - 2) + 2
        nats += term(t) / (strata * p[t - 2])
    return nats / math.log(2)


def vlb_prior(config: ModelConfig, ab8: Tensor) -> Tensor:
    """L_T in nats per value of chroma: float64 (B,) for uint8 (B, 2, h, w)."""
    alpha_bar = config.noise().alpha_bar[-1].item()
    x_0 = _standardized(config, ab8)
    return 0.5 * (alpha_bar * x_0.square() - alpha_bar - math.log1p(-alpha_bar)).flatten(1).mean(1)


def vlb_term(
    denoiser: Denoiser,
    config: ModelConfig,
    ab8: Tensor,
    cond: Features,
    t: Tensor,
    noise: Tensor,
) -> Tensor:
    """L_{t-1} for one draw of x_t, in nats per value of chroma: float64 (B,) for t (B,) in 1 … T.

    At t = 1 it is L_0. Its decoder cannot have the posterior's variance, which is 0 there: x_1
    and x_0 determine x_0. It has β_1, about the variance of x_0 given x_1 for data that spread
    more widely than the noise of the first step.
    """
    schedule = config.noise()
    x_0 = _standardized(config, ab8)
    sigma = schedule.sigma.to(t.device)[t]
    x = add_noise(x_0, sigma, noise.double()).to(noise.dtype)
    x0_hat = denoiser(x, sigma, cond).double()
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)  # infinite at t = 0
    weight = schedule.at(0.5 * (snr[:-1] - snr[1:]), t - 1, x_0)
    kl = weight * (x_0 - x0_hat).square()
    decoder = -decoder_log_prob(config, ab8, x0_hat)
    first = (t == 1).view(-1, 1, 1, 1)
    return torch.where(first, decoder, kl).flatten(1).mean(1)


def decoder_log_prob(config: ModelConfig, ab8: Tensor, mean: Tensor) -> Tensor:
    """log P of each 8-bit value under N(mean, β_1), float64, natural logarithm.

    A value stands for the bin one CIELAB unit wide around it; the bins of 0 and 255 reach to
    infinity, so that the 256 probabilities sum to 1 (Ho et al., 2020, eq. 13).

    Parameters
    ----------
    ab8
        uint8 (B, 2, h, w).
    mean
        In the units of x_0, float64 (B, 2, h, w).
    """
    std = _scale(config, mean)
    center, sd = mean * std + 128, config.noise().beta[1].sqrt().item() * std
    value = ab8.to(mean.dtype)
    low = torch.where(ab8 == 0, -torch.inf, (value - 0.5 - center) / sd)
    high = torch.where(ab8 == 255, torch.inf, (value + 0.5 - center) / sd)
    # Φ(high) - Φ(low) in the lower tail, where the difference keeps its digits.
    upper = low + high > 0
    low, high = torch.where(upper, -high, low), torch.where(upper, -low, high)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    log_p: Tensor = log_high + torch.log(-torch.expm1(log_low - log_high))
    return log_p


def _scale(config: ModelConfig, like: Tensor) -> Tensor:
    return torch.tensor(config.ab_std, dtype=torch.float64, device=like.device).view(1, 2, 1, 1)


def _standardized(config: ModelConfig, ab8: Tensor) -> Tensor:
    """x_0, float64."""
    return (ab8.double() - 128) / _scale(config, ab8)
