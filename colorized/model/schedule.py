r"""The noise schedule, in the symbols of docs/theory.md.

The forward process adds Gaussian noise in T steps,

    q(x_t | x_{t-1}) = N(x_t; sqrt(1 - β_t) x_{t-1}, β_t I),      t = 1 … T,

and with α_t = 1 - β_t and ᾱ_t = α_1 ⋯ α_t any step is reached at once:

    q(x_t | x_0) = N(x_t; sqrt(ᾱ_t) x_0, (1 - ᾱ_t) I).

The noise level of step t is σ_t = sqrt((1 - ᾱ_t) / ᾱ_t): x_t is (x_0 + σ_t n) / sqrt(1 + σ_t²).
Networks and samplers know σ alone; the steps are for the variational bound and for which noise
levels training sees. Given x_0, one step back is Gaussian too:

    q(x_{t-1} | x_t, x_0) = N(x_{t-1}; μ̃_t, β̃_t I)
    μ̃_t = sqrt(ᾱ_{t-1}) β_t / (1 - ᾱ_t) x_0 + sqrt(α_t) (1 - ᾱ_{t-1}) / (1 - ᾱ_t) x_t
    β̃_t = (1 - ᾱ_{t-1}) / (1 - ᾱ_t) β_t

Ho, Jain, Abbeel, *Denoising Diffusion Probabilistic Models*, 2020 (linear β_t);
Nichol, Dhariwal, *Improved DDPM*, 2021 (cosine ᾱ_t).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["linear", "cosine"]


class Schedule:
    """β_t, α_t, ᾱ_t, β̃_t and σ_t for t = 0 … T, as float64 tensors of length T + 1.

    Index t is the step's own number: entry 0 is clean data (β_0 = 0, ᾱ_0 = 1).

    Raises
    ------
    ValueError
        For an unknown name, or T < 2.
    """

    def __init__(self, name: ScheduleName = "cosine", T: int = 1000) -> None:
        if T < 2:
            raise ValueError(f"T must be at least 2, got {T}")
        if name == "linear":
            # Ho et al. give β from 1e-4 to 0.02 for T = 1000; the ends scale with 1/T so that
            # ᾱ_T, the signal left at the end, does not depend on T.
            beta = torch.linspace(0.1 / T, min(20.0 / T, 0.999), T, dtype=torch.float64)
        elif name == "cosine":
            s = 0.008
            t = torch.arange(T + 1, dtype=torch.float64) / T
            f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
            beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
        else:
            raise ValueError(f"schedule must be 'linear' or 'cosine', got {name!r}")
        self.name = name
        self.T = T
        self.beta = torch.cat([torch.zeros(1, dtype=torch.float64), beta])
        self.alpha = 1 - self.beta
        self.alpha_bar = torch.cumprod(self.alpha, dim=0)
        self.sigma = ((1 - self.alpha_bar) / self.alpha_bar).sqrt()
        self.beta_tilde = torch.zeros_like(self.beta)
        self.beta_tilde[1:] = (1 - self.alpha_bar[:-1]) / (1 - self.alpha_bar[1:]) * self.beta[1:]

    def at(self, values: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """values[t] as (B, 1, …), ready to scale `like` (B, …): its dtype, device and rank."""
        picked = values.to(t.device)[t].to(like.device, like.dtype)
        return picked.view(-1, *([1] * (like.ndim - 1)))

    def sigma_at(self, t: Tensor) -> Tensor:
        """σ (B,) for any t (B,), float64: between whole ones ln σ is linear, up to 1 it is σ_1."""
        t = t.clamp(1, self.T)
        below = t.long().clamp(max=self.T - 1)
        log_sigma = self.sigma.to(t.device)[1:].log()
        return torch.lerp(log_sigma[below - 1], log_sigma[below], t - below).exp()

    def q_sample(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of q(x_t | x_0) for the standard normal `noise`; x_0, noise (B, …), t (B,)."""
        alpha_bar = self.at(self.alpha_bar, t, x_0)
        return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise

    def posterior_mean(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """μ̃_t(x_t, x_0), the mean of q(x_{t-1} | x_t, x_0); t (B,) in 1 … T."""
        alpha_bar, previous = self.alpha_bar[1:], self.alpha_bar[:-1]
        from_x_0 = previous.sqrt() * self.beta[1:] / (1 - alpha_bar)
        from_x_t = self.alpha[1:].sqrt() * (1 - previous) / (1 - alpha_bar)
        return self.at(from_x_0, t - 1, x_t) * x_0 + self.at(from_x_t, t - 1, x_t) * x_t
