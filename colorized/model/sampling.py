r"""Samplers: from noise x_T to a draw of P(x_0 | cond), as plain functions of a denoiser.

A denoiser gives x̂_0 = E[x_0 | x_t, cond]. A sampler asks it at the times t_1 = T > t_2 > … > t_N,
one evaluation each, and steps from t = t_i to s = t_{i+1}; from t_N it goes to 0, where the state
is x̂_0 itself. With ε̂ = (x_t - sqrt(ᾱ_t) x̂_0) / sqrt(1 - ᾱ_t) all of them are of the form

    x_s = a x_t + b x̂_0 + c z,        z ~ N(0, I),

and differ in a, b and c, which are computed in float64: near T the signal ᾱ_T is about 1e-9.

Samplers are iterators of `Step`, so a caller can watch x̂_0 come into being; `sample` runs one to
its end. Noise is drawn on the CPU: a seed gives the same picture on any device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from colorized.model.schedule import Schedule

Spacing = Literal["uniform", "log_snr", "karras"]
Variance = Literal["beta_tilde", "beta"]

SIGMA_MAX, SIGMA_MIN = 150.0, 0.15
"""Noise levels σ = sqrt((1 - ᾱ_t) / ᾱ_t) worth a step, in deviations of the data.

One pixel is drowned at a tenth of the first. But a patch of n × n pixels of one color shows it at
an n times higher level: steps that begin lower leap over the choice of colors. The second is about
two CIELAB units of chroma, which the last evaluation takes away.
"""


class Denoiser(Protocol):
    """x̂_0 (B, …) for x_t (B, …), t int64 (B,) in 1 … T and whatever the condition is."""

    def __call__(self, x: Tensor, t: Tensor, cond: Any, /) -> Tensor: ...


class Step(NamedTuple):
    """One evaluation: the time, the state x_t and what the denoiser made of it."""

    t: int
    x_t: Tensor
    x0_hat: Tensor


class Sampler(Protocol):
    """Yields one `Step` per time; the x̂_0 of the last is the sample."""

    def __call__(
        self,
        denoiser: Denoiser,
        cond: Any,
        x_T: Tensor,
        schedule: Schedule,
        times: Sequence[int],
        generator: torch.Generator,
        /,
    ) -> Iterator[Step]: ...


def timesteps(schedule: Schedule, steps: int, spacing: Spacing = "log_snr") -> list[int]:
    """The times T = t_1 > … > t_N ≥ 1 of N = `steps` evaluations.

    Parameters
    ----------
    spacing
        * ``uniform``: t_i = T (N - i + 1) / N, the *trailing* steps of Lin et al., *Common
          Diffusion Noise Schedules and Sample Steps Are Flawed*, 2023.
        * ``log_snr``: T, then equal steps in log(ᾱ_t / (1 - ᾱ_t)) (Lu et al., *DPM-Solver*,
          2022) over the noise levels `SIGMA_MAX` … `SIGMA_MIN`.
        * ``karras``: T, then equal steps in σ^(1/7) over the same levels (Karras et al., *EDM*,
          2022, eq. 5).

        For data that patches of pixels share, at 8 to 15 evaluations, only the last two give the
        right spread of colors, ``log_snr`` for patches of all sizes: see docs/theory.md.

    Raises
    ------
    ValueError
        For an unknown spacing, or `steps` outside 1 … T.
    """
    T = schedule.T
    if not 1 <= steps <= T:
        raise ValueError(f"steps must be from 1 to T = {T}, got {steps}")
    if spacing not in get_args(Spacing):
        raise ValueError(f"spacing must be one of {get_args(Spacing)}, got {spacing!r}")
    if spacing == "uniform":
        return [round(T * (steps - i) / steps) for i in range(steps)]

    log_sigma = -0.5 * schedule.log_snr(torch.arange(1, T + 1))  # rises with t
    u = torch.linspace(0, 1, max(steps - 1, 1), dtype=torch.float64)
    high = log_sigma[-1].clamp(max=math.log(SIGMA_MAX))
    low = log_sigma[0].clamp(min=math.log(SIGMA_MIN))
    if spacing == "log_snr":
        wanted = high + u * (low - high)
    else:
        rho = 7
        wanted = rho * torch.lerp((high / rho).exp(), (low / rho).exp(), u).log()
    nearest = (log_sigma[None, :] - wanted[:, None]).abs().argmin(dim=1) + 1
    times = [T]
    for i, t in enumerate(nearest.tolist()[: steps - 1], start=1):
        # Neighbours may round to one t: keep them apart, and leave room for those to come.
        times.append(max(min(t, times[-1] - 1), steps - i))
    return times


@torch.no_grad()
def ddpm(
    denoiser: Denoiser,
    cond: Any,
    x_T: Tensor,
    schedule: Schedule,
    times: Sequence[int],
    generator: torch.Generator,
    variance: Variance = "beta_tilde",
) -> Iterator[Step]:
    """Ancestral sampling: Ho et al., *Denoising Diffusion Probabilistic Models*, 2020, alg. 2.

    With fewer times than T it is the chain of the re-spaced schedule, β = 1 - ᾱ_t / ᾱ_s
    (Nichol, Dhariwal, *Improved DDPM*, 2021, eq. 19).

    Parameters
    ----------
    variance
        Of p(x_s | x_t): the posterior's β̃, or β.
    """
    if variance not in get_args(Variance):
        raise ValueError(f"variance must be one of {get_args(Variance)}, got {variance!r}")
    x = x_T
    for t, s in _pairs(schedule, times):
        x0_hat = denoiser(x, _batch(t, x), cond)
        yield Step(t, x, x0_hat)
        if s == 0:
            return
        bar_t, bar_s = _alpha_bar(schedule, t), _alpha_bar(schedule, s)
        alpha = bar_t / bar_s
        beta = 1 - alpha
        beta_tilde = (1 - bar_s) / (1 - bar_t) * beta
        sd = math.sqrt(beta_tilde if variance == "beta_tilde" else beta)
        x = (
            math.sqrt(alpha) * (1 - bar_s) / (1 - bar_t) * x
            + math.sqrt(bar_s) * beta / (1 - bar_t) * x0_hat
            + sd * normal(x.shape, generator, x)
        )


@torch.no_grad()
def ddim(
    denoiser: Denoiser,
    cond: Any,
    x_T: Tensor,
    schedule: Schedule,
    times: Sequence[int],
    generator: torch.Generator,
    eta: float = 0.0,
) -> Iterator[Step]:
    """Song et al., *Denoising Diffusion Implicit Models*, 2021, eq. 12.

    Parameters
    ----------
    eta
        0: deterministic, `generator` is not used; 1: the noise of `ddpm`.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be from 0 to 1, got {eta}")
    x = x_T
    for t, s in _pairs(schedule, times):
        x0_hat = denoiser(x, _batch(t, x), cond)
        yield Step(t, x, x0_hat)
        if s == 0:
            return
        bar_t, bar_s = _alpha_bar(schedule, t), _alpha_bar(schedule, s)
        sd = eta * math.sqrt((1 - bar_s) / (1 - bar_t) * (1 - bar_t / bar_s))
        # sqrt(ᾱ_s) x̂_0 + sqrt(1 - ᾱ_s - sd²) ε̂ + sd z
        from_x = math.sqrt((1 - bar_s - sd**2) / (1 - bar_t))
        x = from_x * x + (math.sqrt(bar_s) - from_x * math.sqrt(bar_t)) * x0_hat
        if eta > 0:
            x = x + sd * normal(x.shape, generator, x)


@torch.no_grad()
def dpm_solver_pp_2m(
    denoiser: Denoiser,
    cond: Any,
    x_T: Tensor,
    schedule: Schedule,
    times: Sequence[int],
    generator: torch.Generator,
) -> Iterator[Step]:
    """DPM-Solver++(2M): Lu et al., *DPM-Solver++*, 2022, algorithm 2.

    An exponential integrator of the probability-flow equation in λ = ½ log(ᾱ_t / (1 - ᾱ_t)),
    which extrapolates x̂_0 linearly from the last two evaluations. The first step is of first
    order for want of a second point, and so is the last, to λ = ∞. Deterministic: `generator`
    is not used.
    """
    x = x_T
    previous: tuple[float, Tensor] | None = None  # λ and x̂_0 of the evaluation before
    for t, s in _pairs(schedule, times):
        x0_hat = denoiser(x, _batch(t, x), cond)
        yield Step(t, x, x0_hat)
        if s == 0:
            return
        bar_t, bar_s = _alpha_bar(schedule, t), _alpha_bar(schedule, s)
        lambda_t, lambda_s = _half_log_snr(bar_t), _half_log_snr(bar_s)
        h = lambda_s - lambda_t
        d = x0_hat
        if previous is not None:
            lambda_r, x0_before = previous
            r = (lambda_t - lambda_r) / h
            d = (1 + 1 / (2 * r)) * x0_hat - 1 / (2 * r) * x0_before
        x = math.sqrt((1 - bar_s) / (1 - bar_t)) * x - math.sqrt(bar_s) * math.expm1(-h) * d
        previous = lambda_t, x0_hat


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
}


def sample(
    denoiser: Denoiser,
    cond: Any,
    x_T: Tensor,
    schedule: Schedule,
    steps: int,
    generator: torch.Generator,
    sampler: str = "dpm_solver_pp_2m",
    spacing: Spacing = "log_snr",
) -> Tensor:
    """A draw of x_0, of the shape of x_T, in `steps` evaluations of the denoiser.

    Parameters
    ----------
    x_T
        Standard normal noise (B, …), on the device and of the dtype to work in; see `normal`.
    generator
        On the CPU; the noise of a stochastic sampler comes from it.

    Raises
    ------
    ValueError
        For an unknown sampler or spacing, or `steps` outside 1 … T.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {tuple(SAMPLERS)}, got {sampler!r}")
    times = timesteps(schedule, steps, spacing)
    for step in SAMPLERS[sampler](denoiser, cond, x_T, schedule, times, generator):
        x0_hat = step.x0_hat
    return x0_hat


def normal(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal noise from a CPU generator, brought to the device and dtype of `like`."""
    return torch.randn(tuple(shape), generator=generator).to(like.device, like.dtype)


def _pairs(schedule: Schedule, times: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(t_1, t_2), …, (t_N, 0)."""
    bounds = [schedule.T + 1, *times, 0]
    if not times or any(t <= s for t, s in itertools.pairwise(bounds)):
        raise ValueError(f"times must fall from at most T = {schedule.T} to 1, got {list(times)}")
    return zip(times, bounds[2:], strict=True)


def _batch(t: int, x: Tensor) -> Tensor:
    return torch.full((x.shape[0],), t, dtype=torch.int64, device=x.device)


def _alpha_bar(schedule: Schedule, t: int) -> float:
    return float(schedule.alpha_bar[t])


def _half_log_snr(alpha_bar: float) -> float:
    return 0.5 * (math.log(alpha_bar) - math.log1p(-alpha_bar))
