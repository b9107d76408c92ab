r"""Samplers: from noise to a draw of P(x_0 | cond), as single steps under one loop.

The state at noise level σ, in deviations of the data, is x = x_0 + σ n with n ~ N(0, I); a denoiser
gives x̂_0 = E[x_0 | x, cond]. `steps` begins with x = σ_1 n, asks the denoiser once at each of the
levels σ_1 > … > σ_N, and between two of them calls the sampler, a function that steps from σ to the
next level. After σ_N it goes to 0, where the state is x̂_0 itself.

This is the notation of Karras et al., *EDM*, 2022. The state x_t of Ho et al. at the same noise
level is x / sqrt(1 + σ²), with ᾱ_t = 1 / (1 + σ²).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from colorized.options import DRAWING, SamplingOptions

SIGMA_MAX = 80.0
"""Noise level that counts as pure noise."""
SIGMA_HIGH, SIGMA_LOW = 40.0, 0.15
"""Noise levels worth the other evaluations.

One pixel is drowned far below the first. But a patch of n × n pixels of one color shows it at an n
times higher level: steps that begin lower leap over the choice of colors. The second is about two
CIELAB units of chroma, which the last evaluation takes away.
"""

TINT = 1.4
"""Factor of `tinted_consistency` on the mean over the picture of the noise of the first draw."""

Noise: TypeAlias = Callable[[], Tensor]
"""Gives new noise, of the shape of the state, each time."""


class Denoiser(Protocol):
    """x̂_0 (B, …) for x (B, …), σ (B,) in float64 and whatever the condition is."""

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, /) -> Tensor: ...


class Step(NamedTuple):
    """One evaluation: the noise level, the state and what the denoiser made of it."""

    sigma: float
    x: Tensor
    x0_hat: Tensor


class Sampler(Protocol):
    """The state at noise level `sigma`, after the evaluation `now` and the one before it."""

    def __call__(self, now: Step, sigma: float, before: Step | None, noise: Noise, /) -> Tensor: ...


def ddim(now: Step, sigma: float, before: Step | None, noise: Noise) -> Tensor:
    """Euler's step of the probability-flow equation: Song et al., *DDIM*, 2021, eq. 12, η = 0."""
    return now.x0_hat + sigma / now.sigma * (now.x - now.x0_hat)


def ddpm(now: Step, sigma: float, before: Step | None, noise: Noise) -> Tensor:
    """Ancestral sampling, a draw of q(x_σ | x, x̂_0): Ho et al., *DDPM*, 2020, algorithm 2.

    Between levels that are not neighbors of a schedule it is the chain of the re-spaced schedule
    (Nichol, Dhariwal, *Improved DDPM*, 2021, eq. 19), with the posterior's variance.
    """
    ratio = (sigma / now.sigma) ** 2
    return now.x0_hat + ratio * (now.x - now.x0_hat) + sigma * math.sqrt(1 - ratio) * noise()


def dpm_solver_pp_2m(now: Step, sigma: float, before: Step | None, noise: Noise) -> Tensor:
    """DPM-Solver++(2M): Lu et al., *DPM-Solver++*, 2022, algorithm 2.

    An exponential integrator of the probability-flow equation in λ = -ln σ, which extrapolates x̂_0
    linearly from the last two evaluations. The first step is of first order for want of a second
    point.
    """
    d = now.x0_hat
    if before is not None:
        r = math.log(before.sigma / now.sigma) / math.log(now.sigma / sigma)
        d = d + (now.x0_hat - before.x0_hat) / (2 * r)
    return d + sigma / now.sigma * (now.x - d)


def consistency(now: Step, sigma: float, before: Step | None, noise: Noise) -> Tensor:
    """New noise on x̂_0: Song et al., *Consistency Models*, 2023, algorithm 1.

    For a network whose x̂_0 is a draw, not a mean: see `guidance.asked`.
    """
    return now.x0_hat + sigma * noise()


def tinted_consistency(now: Step, sigma: float, before: Step | None, noise: Noise) -> Tensor:
    """`consistency`, with more of the first noise where it is the same all over the picture.

    At a low temperature draws differ less than the photograph leaves open. Of that, a tint of the
    whole is what does not make patches.
    """
    n = noise()
    if before is None:
        n = n + (TINT - 1) * n.mean((-2, -1), keepdim=True)
    return now.x0_hat + sigma * n


SAMPLERS: dict[str, Sampler] = {
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
    "ddim": ddim,
    "ddpm": ddpm,
    "consistency": consistency,
    "tinted_consistency": tinted_consistency,
}


def noise_levels(options: SamplingOptions, few: Sequence[float] = ()) -> list[float]:
    """The noise levels of the evaluations, falling.

    `SIGMA_MAX`, then equal steps in ln σ from `SIGMA_HIGH` to `SIGMA_LOW`; a second and last one
    is their geometric mean. For the samplers `options.DRAWING`, as many as are asked for of the
    levels `few`, falling, of weights that were finished.

    Raises
    ------
    ValueError
        For one of `options.DRAWING` with more steps than levels.
    """
    steps = options.steps
    if options.sampler in DRAWING:
        if steps > len(few):
            name = f"the sampler {options.sampler}"
            raise ValueError(
                f"{name} takes at most {len(few)} steps with these weights, got {steps}"
                if few
                else f"{name} is not for these weights, which name no levels for it"
            )
        return [few[i * len(few) // steps] for i in range(steps)]
    if steps == 2:
        return [SIGMA_MAX, math.sqrt(SIGMA_HIGH * SIGMA_LOW)]
    ends = torch.tensor([SIGMA_HIGH, SIGMA_LOW], dtype=torch.float64).log()
    u = torch.linspace(0, 1, steps - 1, dtype=torch.float64)
    return [SIGMA_MAX, *torch.lerp(ends[0], ends[1], u).exp().tolist()]


@torch.no_grad()
def steps(
    denoiser: Denoiser, cond: Any, sigmas: Sequence[float], noise: Noise, sampler: str
) -> Iterator[Step]:
    """Yield one `Step` for each noise level; the x̂_0 of the last is the sample.

    Parameters
    ----------
    sigmas
        Falling, above 0.
    noise
        Standard normal, or at another temperature; on the device and of the dtype to work in.
    sampler
        A key of `SAMPLERS`.

    Raises
    ------
    ValueError
        For an unknown sampler, or levels that do not fall.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    if not sigmas or any(a <= b for a, b in itertools.pairwise([*sigmas, 0.0])):
        raise ValueError(f"sigmas must fall and be above 0, got {list(sigmas)}")
    x = sigmas[0] * noise()
    before = None
    for sigma, following in itertools.zip_longest(sigmas, sigmas[1:]):
        level = torch.full((len(x),), sigma, dtype=torch.float64)
        now = Step(sigma, x, denoiser(x, level, cond))
        yield now
        if following is not None:
            x = SAMPLERS[sampler](now, following, before, noise)
        before = now


def sample(
    denoiser: Denoiser, cond: Any, sigmas: Sequence[float], noise: Noise, sampler: str
) -> Tensor:
    """A draw of x_0, of the shape of the noise: the last x̂_0 of `steps`."""
    for step in steps(denoiser, cond, sigmas, noise, sampler):
        x0_hat = step.x0_hat
    return x0_hat


def noise_source(
    shape: Sequence[int],
    generators: Sequence[torch.Generator],
    temperature: float = 1.0,
    device: torch.device | str = "cpu",
) -> Noise:
    """Noise (B, …) of this deviation, from one generator or, one after the other, several.

    It is white, but its means over a picture come from a generator of their own, so that a seed
    gives a crop the tint that it gives the whole.

    Parameters
    ----------
    shape
        What each generator, on the CPU, draws, its last two axes a picture's; a seed gives the same
        noise on any device.
    """
    # Of a seed, PyTorch's generator on the CPU uses 32 bits.
    seeds = [2**32 - 1 - generator.initial_seed() % 2**32 for generator in generators]
    of_means = [torch.Generator().manual_seed(seed) for seed in seeds]
    pixels = math.prod(shape[-2:])

    def drawn(generator: torch.Generator, of_mean: torch.Generator) -> Tensor:
        n = torch.randn(tuple(shape), generator=generator)
        mean = torch.randn((*shape[:-2], 1, 1), generator=of_mean) / math.sqrt(pixels)
        return n - n.mean((-2, -1), keepdim=True) + mean

    def noise() -> Tensor:
        pairs = zip(generators, of_means, strict=True)
        return (temperature * torch.cat([drawn(*pair) for pair in pairs])).to(device)

    return noise
