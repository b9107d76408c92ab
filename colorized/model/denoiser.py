r"""The denoiser: any network F, preconditioned, and the loss it is trained with.

The data x_0 has a variance of about 1, and x = x_0 + σ n. The network predicts the velocity of
Salimans & Ho, *Progressive Distillation*, 2022,

    v = (n - σ x_0) / sqrt(1 + σ²),        x̂_0 = x / (1 + σ²) - σ / sqrt(1 + σ²) F,

from x / sqrt(1 + σ²) and ½ ln σ: the preconditioning of Karras et al., *EDM*, 2022, for
σ_data = 1, but for the sign of F and the scale of its noise input. Input and target have unit
variance at every σ, and where σ is so large that x holds no signal, F is asked for -x_0.

How good a denoiser is in bits: see `vlb`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from colorized.model.encoder import Features
from colorized.model.schedule import Schedule


class Denoiser(nn.Module):
    """x̂_0 = E[x_0 | x, cond].

    Parameters
    ----------
    network
        F(x / sqrt(1 + σ²), ½ ln σ, cond), of the shape of x; see `ChromaUNet`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def encode(self, lightness: Tensor) -> Features:
        """Condition for L* (B, 1, H, W) in 0 … 100; once per photograph."""
        features: Features = self.network.encode(lightness)
        return features

    def velocity(self, x: Tensor, sigma: Tensor, cond: Features) -> Tensor:
        """F, the prediction of v: of the shape of x (B, …) for σ (B,) above 0."""
        noise_level = (0.5 * sigma.log()).to(x.device, torch.float32)
        v: Tensor = self.network(_scale(sigma, x) * x, noise_level, cond)
        return v

    def forward(self, x: Tensor, sigma: Tensor, cond: Features) -> Tensor:
        """x̂_0, of the shape of x (B, …) for σ (B,) above 0."""
        scale = _scale(sigma, x)
        return scale * (scale * x - _level(sigma, x) * self.velocity(x, sigma, cond))


def velocity_target(x_0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """v = (n - σ x_0) / sqrt(1 + σ²) for the very n that made x; x_0, noise (B, …), σ (B,)."""
    return _scale(sigma, x_0) * (noise - _level(sigma, x_0) * x_0)


def add_noise(x_0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """x = x_0 + σ n; x_0, noise (B, …), σ (B,)."""
    return x_0 + _level(sigma, x_0) * noise


def simple_loss(
    denoiser: Denoiser, x_0: Tensor, cond: Features, sigma: Tensor, noise: Tensor
) -> Tensor:
    """‖F - v‖², mean per picture: (B,). A network that predicts 0 scores about 1."""
    found = denoiser.velocity(add_noise(x_0, sigma, noise), sigma, cond)
    error = found - velocity_target(x_0, sigma, noise)
    return error.float().square().flatten(1).mean(1)


def stratified_sigmas(
    schedule: Schedule, count: int, generator: torch.Generator, shift: float = 1.0
) -> Tensor:
    """`count` noise levels, one draw from each of `count` equal strata of (0, T), shuffled.

    Parameters
    ----------
    shift
        The level of t is multiplied by this, within those of the schedule. Chroma is smooth: a
        patch of n × n pixels shows its color at an n times higher noise level than one pixel does,
        so that the choice of colors is made at levels uniform draws seldom visit (Hoogeboom et
        al., *Simple Diffusion*, 2023, sec. 3.1).

    Returns
    -------
    Tensor
        float64 (count,).
    """
    strata = torch.randperm(count, generator=generator)
    u = (strata + torch.rand(count, generator=generator, dtype=torch.float64)) / count
    sigma = shift * schedule.sigma_at(u * schedule.T)
    return sigma.clamp(min=schedule.sigma[1].item(), max=schedule.sigma[-1].item())


def drop_condition(cond: Features, keep: Tensor) -> Features:
    """The condition set to 0 where keep (B,) is False: the unconditional model of guidance."""
    return tuple(
        torch.where(keep.view(-1, *[1] * (c.ndim - 1)), c, torch.zeros_like(c)) for c in cond
    )


def _level(sigma: Tensor, like: Tensor) -> Tensor:
    """σ as (B, 1, …), ready to scale `like` (B, …)."""
    return sigma.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


def _scale(sigma: Tensor, like: Tensor) -> Tensor:
    """1 / sqrt(1 + σ²), computed in the precision of σ."""
    return _level((1 + sigma.square()).rsqrt(), like)
