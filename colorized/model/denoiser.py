r"""The denoiser P(ab | L) and the loss it is trained with.

The data x_0 is chroma in units of its deviation, so Var x_0 ≈ 1. The network F predicts the
velocity of Salimans & Ho, *Progressive Distillation*, 2022,

    v = sqrt(ᾱ_t) ε - sqrt(1 - ᾱ_t) x_0,        x̂_0 = sqrt(ᾱ_t) x_t - sqrt(1 - ᾱ_t) F(x_t, t, L),

which is the preconditioning of Karras et al., *EDM*, 2022, for σ_data = 1: input and target have
unit variance at every t, and at t = T, where x_t holds no signal, the network is asked for -x_0.

How good the model is in bits: see `vlb`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from colorized.model.encoder import Features
from colorized.model.schedule import Schedule
from colorized.model.unet import ChromaUNet


class Denoiser(nn.Module):
    """x̂_0 = E[x_0 | x_t, L]: a network, a schedule and the scale of chroma.

    Parameters
    ----------
    network
        Predicts v; see `ChromaUNet`.
    schedule
        Defines ᾱ_t.
    ab_std
        Deviation of a* and b* in the training data, CIELAB units; x_0 = ab / ab_std.
    """

    def __init__(self, network: ChromaUNet, schedule: Schedule, ab_std: Sequence[float]) -> None:
        super().__init__()
        if len(ab_std) != 2 or min(ab_std) <= 0:
            raise ValueError(f"ab_std must be two positive numbers, got {list(ab_std)}")
        self.network = network
        self.schedule = schedule
        self.ab_std = (float(ab_std[0]), float(ab_std[1]))

    def encode(self, lightness: Tensor) -> Features:
        """Condition for L* (B, 1, H, W) in 0 … 100; once per photograph."""
        features: Features = self.network.encode(lightness)
        return features

    def velocity(self, x_t: Tensor, t: Tensor, cond: Features) -> Tensor:
        """F(x_t, t, L), the prediction of v: (B, 2, h, w) for t (B,) in 1 … T."""
        # A quarter of the log-SNR, as EDM's c_noise = ¼ ln σ² up to sign: within ±5 for T = 1000.
        noise_level = -0.25 * self.schedule.log_snr(t).to(x_t.device, torch.float32)
        v: Tensor = self.network(x_t, noise_level, cond)
        return v

    def forward(self, x_t: Tensor, t: Tensor, cond: Features) -> Tensor:
        """x̂_0 (B, 2, h, w) for x_t (B, 2, h, w), t (B,) in 1 … T."""
        alpha_bar = self.schedule.at(self.schedule.alpha_bar, t, x_t)
        return alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * self.velocity(x_t, t, cond)


def velocity_target(schedule: Schedule, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """v = sqrt(ᾱ_t) ε - sqrt(1 - ᾱ_t) x_0 for the very ε that made x_t."""
    alpha_bar = schedule.at(schedule.alpha_bar, t, x_0)
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x_0


def simple_loss(
    denoiser: Denoiser, x_0: Tensor, cond: Features, t: Tensor, noise: Tensor
) -> Tensor:
    """‖F(x_t, t, L) - v‖², mean per picture: (B,). A network that predicts 0 scores about 1."""
    x_t = denoiser.schedule.q_sample(x_0, t, noise)
    error = denoiser.velocity(x_t, t, cond) - velocity_target(denoiser.schedule, x_0, t, noise)
    return error.float().square().flatten(1).mean(1)


def stratified_times(T: int, count: int, generator: torch.Generator, shift: float = 1.0) -> Tensor:
    """`count` steps t in 1 … T, one draw from each of `count` equal strata, shuffled.

    Parameters
    ----------
    shift
        1: uniform in t. Otherwise the noise level σ = tan(π t / 2T), which is that of the cosine
        schedule, is multiplied by this. Chroma is smooth: a patch of n × n pixels shows its color
        at an n times higher noise level than one pixel does, so that the choice of colors is made
        at levels uniform draws seldom visit (Hoogeboom et al., *Simple Diffusion*, 2023, sec. 3.1).

    Returns
    -------
    Tensor
        int64 (count,).
    """
    strata = torch.randperm(count, generator=generator)
    u = (strata + torch.rand(count, generator=generator)) / count
    u = torch.atan(shift * torch.tan(u * (math.pi / 2))) * (2 / math.pi)
    return (u * T).long().clamp(min=0, max=T - 1) + 1


def drop_condition(cond: Features, keep: Tensor) -> Features:
    """The condition set to 0 where keep (B,) is False: the unconditional model of guidance."""
    return tuple(
        torch.where(keep.view(-1, *[1] * (c.ndim - 1)), c, torch.zeros_like(c)) for c in cond
    )
