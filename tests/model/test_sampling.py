"""Samplers against diffusers' schedulers and against data whose denoiser is known exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from colorized.model.sampling import (
    SAMPLERS,
    SIGMA_LOW,
    SIGMA_MAX,
    TINT,
    Denoiser,
    Noise,
    noise_levels,
    noise_source,
    sample,
    steps,
)
from colorized.model.schedule import Schedule
from colorized.options import DRAWING, UNTUNED
from colorized.options import SAMPLERS as NAMES

FEW = (80.0, 3.0)
# Evaluations, n, and the spread with DDIM and with DPM-Solver++(2M).
SPREADS = [(6, 1, 0.70, 0.92), (6, 32, 0.72, 1.04), (12, 1, 0.86, 1.00), (12, 32, 0.82, 0.92)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levels(sampler: str, count: int) -> list[float]:
    count = min(count, len(FEW)) if sampler in DRAWING else count
    return noise_levels(UNTUNED.override(sampler=sampler, steps=count), FEW)


def spread_out(count: int) -> list[float]:
    """Many levels, for samplers that come near to continuous time."""
    return torch.logspace(3, -3, count, dtype=torch.float64).tolist()


def noise_of(first: Tensor, generator: torch.Generator) -> Noise:
    """`first`, then new noise like it."""
    waiting = [first]
    return lambda: (
        waiting.pop() if waiting else torch.randn(first.shape, generator=generator).to(first)
    )


def column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).view(-1, *[1] * (like.ndim - 1))


def random_velocity(seed: int) -> Any:
    """A smooth random network v(x_t, ln σ)."""
    weight = 0.3 * torch.randn(2, 2, 3, 3, generator=seeded(seed))

    def velocity(x_t: Tensor, log_sigma: Tensor, cond: Any) -> Tensor:
        level = torch.cos(column(log_sigma, x_t))
        return torch.tanh(torch.nn.functional.conv2d(x_t, weight, padding=1) + level) + cond

    return velocity


def x0_from(velocity: Any) -> Denoiser:
    def denoiser(x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        scale = column((1 + sigma.square()).rsqrt(), x)
        x_t = scale * x
        return scale * x_t - column(sigma, x) * scale * velocity(x_t, sigma.log(), cond)

    return denoiser


def gaussian(m: float, s: float) -> Denoiser:
    """E[x_0 | x] for x_0 ~ N(m, s²)."""

    def denoiser(x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        return m + s**2 / (s**2 + column(sigma, x).square()) * (x - m)

    return denoiser


@pytest.fixture(params=["cosine", "linear"])
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return Schedule(request.param, T=1000)


@pytest.fixture(params=["sample", "v_prediction"])
def config(request: pytest.FixtureRequest, schedule: Schedule) -> dict[str, Any]:
    return {
        "num_train_timesteps": schedule.T,
        "trained_betas": schedule.beta[1:].numpy(),
        "prediction_type": request.param,
    }


class TestAgreesWithDiffusers:
    """Whose step k is our t = k + 1, and whose state x_t is x / sqrt(1 + σ²)."""

    first = torch.randn(2, 2, 8, 8, generator=seeded(1))
    cond = 0.2 * torch.randn(2, 2, 8, 8, generator=seeded(2))
    velocity = staticmethod(random_velocity(3))

    def compare(
        self, sampler: str, scheduler: Any, schedule: Schedule, times: Sequence[int], **step: Any
    ) -> None:
        sigmas = schedule.sigma[list(times)]
        # x_T is noise of variance 1 there; here its variance is that of noise alone.
        x_t = self.first * (sigmas[0] / (1 + sigmas[0] ** 2).sqrt()).float()
        noise = noise_of(self.first, seeded(4))
        ours = list(steps(x0_from(self.velocity), self.cond, sigmas.tolist(), noise, sampler))
        denoiser = x0_from(self.velocity)
        for now, k in zip(ours, scheduler.timesteps.tolist(), strict=True):
            scaled = now.x / math.sqrt(1 + now.sigma**2)
            torch.testing.assert_close(scaled, x_t, atol=1e-4, rtol=0)
            level = schedule.sigma[k + 1].repeat(len(x_t))
            if scheduler.config.prediction_type == "v_prediction":
                output = self.velocity(x_t, level.log(), self.cond)
            else:
                x = x_t * (1 + level[0] ** 2).sqrt().float()
                output = denoiser(x, level, self.cond)
            x_t = scheduler.step(output, k, x_t, return_dict=False, **step)[0]
        torch.testing.assert_close(ours[-1].x0_hat, x_t, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("count", [7, 40])
    def test_ddpm(self, schedule: Schedule, config: dict[str, Any], count: int) -> None:
        # Both end at t = 1, since diffusers adds noise after any other last step.
        times = torch.linspace(schedule.T, 1, count).round().long().tolist()
        scheduler = DDPMScheduler(**config, variance_type="fixed_small", clip_sample=False)
        scheduler.set_timesteps(timesteps=[t - 1 for t in times])
        self.compare("ddpm", scheduler, schedule, times, generator=seeded(4))

    def test_ddim(self, schedule: Schedule, config: dict[str, Any]) -> None:
        scheduler = DDIMScheduler(
            **config, clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True
        )
        scheduler.set_timesteps(20)
        times = [k + 1 for k in scheduler.timesteps.tolist()]
        self.compare("ddim", scheduler, schedule, times)

    # diffusers calls np.array on a tensor.
    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    @pytest.mark.parametrize(
        "times", [[1000], [1000, 400], [1000, 950, 900, 700, 400, 150, 60], range(1000, 10, -33)]
    )
    def test_dpm_solver_pp_2m(
        self, schedule: Schedule, config: dict[str, Any], times: Sequence[int]
    ) -> None:
        scheduler = DPMSolverMultistepScheduler(
            **config,
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            lower_order_final=True,
        )
        scheduler.set_timesteps(timesteps=[t - 1 for t in times])
        self.compare("dpm_solver_pp_2m", scheduler, schedule, times)


class TestGaussian:
    """Data N(m, s²), whose denoiser is exact."""

    m, s = 0.7, 0.4

    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    @pytest.mark.parametrize("name", ["dpm_solver_pp_2m", "ddim", "ddpm"])
    def test_right_mean_and_variance(self, name: str, temperature: float) -> None:
        """Noise at another temperature gives data at it, with every sampler."""
        n = 20_000
        noise = noise_source((n, 1), [seeded(5)], temperature)
        x_0 = sample(gaussian(self.m, self.s), None, spread_out(600), noise, name)
        s = temperature * self.s
        # Four standard errors, and 1 % of s for the finite number of steps.
        assert x_0.mean().item() == pytest.approx(self.m, abs=s * (4 / n**0.5 + 0.01))
        assert x_0.std().item() == pytest.approx(s, abs=s * (4 / (2 * n) ** 0.5 + 0.01))

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    def test_consistency_function(self, count: int, temperature: float) -> None:
        """A network that names the end of the way, exactly, gives draws in any number of steps.

        For N(m, s²) the probability-flow equation ends at m + s (x - m) / sqrt(s² + σ²).
        """
        n = 20_000

        def end(x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
            return self.m + self.s * (x - self.m) / (self.s**2 + column(sigma, x) ** 2).sqrt()

        noise = noise_source((n, 1), [seeded(5)], temperature)
        x_0 = sample(end, None, levels("consistency", count), noise, "consistency")
        assert x_0.mean().item() == pytest.approx(self.m, abs=0.02)
        assert x_0.std().item() == pytest.approx(temperature * self.s, rel=0.03)

    def error(self, name: str, count: int) -> float:
        """From σ = 6 to σ = 0.1, against the exact solution of the probability-flow equation."""
        sigmas = torch.logspace(math.log10(6), -1, count + 1, dtype=torch.float64)
        n = torch.tensor([[-1.3], [0.4], [2.0]], dtype=torch.float64)
        exact = self.m + ((self.s**2 + 0.1**2) / (self.s**2 + 36)) ** 0.5 * (6 * n - self.m)
        *_, last = steps(
            gaussian(self.m, self.s), None, sigmas.tolist(), noise_of(n, seeded(0)), name
        )
        return (last.x - exact).abs().max().item()

    def test_order_of_convergence(self) -> None:
        """Twice the steps: half the error at first order, a quarter at second."""
        assert self.error("ddim", 40) / self.error("ddim", 80) == pytest.approx(2, rel=0.1)
        ratio = self.error("dpm_solver_pp_2m", 40) / self.error("dpm_solver_pp_2m", 80)
        assert ratio == pytest.approx(4, rel=0.15)

    @pytest.mark.parametrize("count", [8, 12, 15, 25])
    def test_higher_order_is_better_at_equal_steps(self, count: int) -> None:
        assert self.error("dpm_solver_pp_2m", count) < 0.5 * self.error("ddim", count)

    @pytest.mark.parametrize(("count", "n", "first_order", "second_order"), SPREADS)
    def test_spread_of_few_evaluations(
        self, count: int, n: int, first_order: float, second_order: float
    ) -> None:
        """The table of docs/theory.md: deviation of N(0, 1) shared by patches of n × n pixels.

        Their mean is what is sampled here: its noise is n times less.
        """

        def denoiser(x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
            return x / (1 + column(sigma, x) ** 2 / n**2)

        first = torch.ones(1, 1, dtype=torch.float64)  # the way is linear in it
        for name, spread in (("ddim", first_order), ("dpm_solver_pp_2m", second_order)):
            noise = noise_of(first / n, seeded(9))
            x_0 = sample(denoiser, None, levels(name, count), noise, name)
            assert x_0.item() == pytest.approx(spread, abs=0.005)


class TestLevels:
    @pytest.mark.parametrize("name", SAMPLERS)
    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    def test_fall_from_pure_noise(self, name: str, count: int) -> None:
        sigmas = levels(name, count)
        assert len(sigmas) == (min(count, len(FEW)) if name in DRAWING else count)
        assert sigmas[0] == SIGMA_MAX == FEW[0]
        assert all(a > b > 0 for a, b in itertools.pairwise(sigmas))

    def test_equal_steps(self) -> None:
        sigmas = torch.tensor(levels("ddim", 9), dtype=torch.float64)
        step = sigmas[1:].log().diff()
        torch.testing.assert_close(step, step.mean().expand(7))
        assert sigmas[-1].item() == pytest.approx(SIGMA_LOW)

    def test_those_of_weights_finished_for_few_steps(self) -> None:
        assert [levels("consistency", n) for n in (1, 2)] == [[80], list(FEW)]

    def test_consistency_is_not_for_other_weights(self) -> None:
        two = UNTUNED.override(sampler="consistency", steps=2)
        with pytest.raises(ValueError, match="takes at most 1 steps with these weights, got 2"):
            noise_levels(two, FEW[:1])
        with pytest.raises(ValueError, match="not for these weights, which name no levels for it"):
            noise_levels(UNTUNED.override(sampler="consistency", steps=1))


def test_every_sampler_may_be_named() -> None:
    assert tuple(SAMPLERS) == NAMES


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_evaluations_of_each_level_and_the_last_is_the_sample(name: str, count: int) -> None:
    calls = []
    inner = x0_from(random_velocity(3))

    def denoiser(x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        assert sigma.dtype == torch.float64
        assert sigma.shape == (len(x),)
        calls.append(sigma[0].item())
        return inner(x, sigma, cond)

    first = torch.randn(3, 2, 4, 6, generator=seeded(1))
    sigmas = levels(name, count)
    found = list(steps(denoiser, 0.0, sigmas, noise_of(first, seeded(2)), name))
    assert calls == sigmas == [step.sigma for step in found]
    assert torch.equal(found[0].x, SIGMA_MAX * first)
    expected = sample(inner, 0.0, sigmas, noise_of(first, seeded(2)), name)
    assert torch.equal(found[-1].x0_hat, expected)


@pytest.mark.parametrize("name", SAMPLERS)
def test_noise_decides(name: str) -> None:
    denoiser = x0_from(random_velocity(3))
    first = torch.randn(1, 2, 4, 4, generator=seeded(1))

    def draw(seed: int) -> Tensor:
        return sample(denoiser, 0.0, levels(name, 4), noise_of(first, seeded(seed)), name)

    assert torch.equal(draw(7), draw(7))
    assert torch.equal(draw(7), draw(8)) is (name in ("ddim", "dpm_solver_pp_2m"))


def test_tint_of_the_first_draw() -> None:
    first, *others = (torch.randn(1, 2, 4, 6, generator=seeded(i)) for i in range(3))
    found = []
    for name in ("consistency", "tinted_consistency"):
        noise = iter([first, *others])
        run = steps(gaussian(0.0, 1.0), None, [80.0, 4.0, 2.0], lambda n=noise: next(n), name)
        found.append(list(run))
    (_, plain, plain_last), (_, tinted, tinted_last) = found
    tint = (TINT - 1) * 4 * others[0].mean((-2, -1), keepdim=True)
    torch.testing.assert_close(tinted.x - plain.x, tint.expand(plain.x.shape))
    # New noise of the last draw has no more of it: what is left is what x̂_0 keeps of x.
    kept = tint.expand(plain.x.shape) / (1 + 4**2)
    torch.testing.assert_close(tinted_last.x - plain_last.x, kept)


def test_mean_of_noise_is_that_of_the_seed_at_any_size() -> None:
    sizes = (80, 120), (40, 64), (16, 240)
    sources = [noise_source((1, 2, *size), [seeded(7)]) for size in sizes]
    for _ in range(3):
        means = [
            source().mean((-2, -1)) * math.sqrt(h * w)
            for source, (h, w) in zip(sources, sizes, strict=True)
        ]
        torch.testing.assert_close(means[1], means[0], atol=1e-3, rtol=0)
        torch.testing.assert_close(means[2], means[0], atol=1e-3, rtol=0)


def test_noise_is_white() -> None:
    """Its means, too, are no more and no less than those of independent values."""
    noise = noise_source((2, 2, 6, 10), [seeded(seed) for seed in range(5000)])()
    n = len(noise) * 2
    assert noise.std().item() == pytest.approx(1, abs=4 / (2 * 60 * n) ** 0.5)
    means = noise.mean((-2, -1)) * 60**0.5
    assert means.mean().item() == pytest.approx(0, abs=4 / n**0.5)
    assert means.std().item() == pytest.approx(1, abs=4 / (2 * n) ** 0.5)
    beside = (noise[..., 1:] * noise[..., :-1]).mean().item()
    assert beside == pytest.approx(0, abs=4 / (54 * n) ** 0.5)
    # The mean has nothing of the place that the other generator draws first.
    first = (noise[:, 0, 0, 0] - noise[:, 0].mean((-2, -1))) * means[:, 0]
    assert first.mean().item() == pytest.approx(0, abs=4 / len(noise) ** 0.5)


def test_noise_of_each_generator() -> None:
    both = noise_source((1, 2, 3), [seeded(1), seeded(2)], temperature=0.5)
    alone = noise_source((1, 2, 3), [seeded(2)])
    assert torch.equal(both()[1:], 0.5 * alone())
    assert torch.equal(both()[1:], 0.5 * alone())


def test_finite_and_without_gradient_from_pure_noise_to_data() -> None:
    gain = torch.nn.Parameter(torch.ones(()))

    def denoiser(x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        return gain * gaussian(0.3, 1.0)(x, sigma, cond)

    sigmas = Schedule("cosine", 1000).sigma.flip(0)[:-1].tolist()  # from 20 000
    for name in SAMPLERS:
        x_0 = sample(denoiser, None, sigmas, noise_source((2, 2, 4, 4), [seeded(1)]), name)
        assert x_0.isfinite().all()
        assert not x_0.requires_grad


@pytest.mark.parametrize(
    ("sigmas", "sampler", "message"),
    [
        ([1.0], "euler", "sampler must be one of .* got 'euler'"),
        ([], "ddim", r"sigmas must fall and be above 0, got \[\]"),
        ([1.0, 1.0], "ddim", r"sigmas must fall and be above 0, got \[1.0, 1.0\]"),
        ([1.0, 0.0], "ddim", r"sigmas must fall and be above 0, got \[1.0, 0.0\]"),
    ],
)
def test_names_the_bad_argument(sigmas: list[float], sampler: str, message: str) -> None:
    noise = noise_source((1, 1), [seeded(0)])
    with pytest.raises(ValueError, match=message):
        sample(gaussian(0, 1), None, sigmas, noise, sampler)
