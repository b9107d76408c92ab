"""Samplers against diffusers' schedulers and against data whose denoiser is known exactly."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from colorized.model import sampling
from colorized.model.sampling import (
    SAMPLERS,
    Denoiser,
    ddim,
    ddpm,
    dpm_solver_pp_2m,
    sample,
    timesteps,
)
from colorized.model.schedule import Schedule

SCHEDULE = Schedule("cosine", T=1000)
SPACINGS = ("uniform", "log_snr", "karras")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_velocity(seed: int) -> Denoiser:
    """A smooth random network v(x, t)."""
    weight = 0.3 * torch.randn(2, 2, 3, 3, generator=seeded(seed))

    def velocity(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        level = torch.cos(t.to(x.dtype) / 300).view(-1, 1, 1, 1)
        return torch.tanh(torch.nn.functional.conv2d(x, weight, padding=1) + level) + cond

    return velocity


def x0_from(velocity: Denoiser, schedule: Schedule) -> Denoiser:
    def denoiser(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        alpha_bar = schedule.at(schedule.alpha_bar, t, x)
        return alpha_bar.sqrt() * x - (1 - alpha_bar).sqrt() * velocity(x, t, cond)

    return denoiser


def gaussian(m: float, s: float, schedule: Schedule = SCHEDULE) -> Denoiser:
    """E[x_0 | x_t] for x_0 ~ N(m, s²)."""

    def denoiser(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        alpha_bar = schedule.at(schedule.alpha_bar, t, x)
        gain = alpha_bar.sqrt() * s**2 / (alpha_bar * s**2 + 1 - alpha_bar)
        return m + gain * (x - alpha_bar.sqrt() * m)

    return denoiser


def last(steps: Any) -> Any:
    return list(steps)[-1]


def run_diffusers(
    scheduler: Any, velocity: Denoiser, schedule: Schedule, x_T: Tensor, cond: Any, **step: Any
) -> Tensor:
    """Drive a diffusers scheduler; its step k is our t = k + 1."""
    x = x_T
    denoiser = x0_from(velocity, schedule)
    network = velocity if scheduler.config.prediction_type == "v_prediction" else denoiser
    for k in scheduler.timesteps.tolist():
        output = network(x, torch.full((len(x),), k + 1), cond)
        x = scheduler.step(output, k, x, return_dict=False, **step)[0]
    return x


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
    x_T = torch.randn(2, 2, 8, 8, generator=seeded(1))
    cond = 0.2 * torch.randn(2, 2, 8, 8, generator=seeded(2))
    velocity = staticmethod(random_velocity(3))

    @pytest.mark.parametrize(
        ("ours", "theirs"), [("beta_tilde", "fixed_small"), ("beta", "fixed_large")]
    )
    @pytest.mark.parametrize("steps", [7, 40])
    def test_ddpm(
        self, schedule: Schedule, config: dict[str, Any], ours: Any, theirs: str, steps: int
    ) -> None:
        # Both end at t = 1, since diffusers adds noise after any other last step.
        times = torch.linspace(schedule.T, 1, steps).round().long().tolist()
        scheduler = DDPMScheduler(**config, variance_type=theirs, clip_sample=False)
        scheduler.set_timesteps(timesteps=[t - 1 for t in times])
        expected = run_diffusers(
            scheduler, self.velocity, schedule, self.x_T, self.cond, generator=seeded(4)
        )
        denoiser = x0_from(self.velocity, schedule)
        found = last(
            ddpm(denoiser, self.cond, self.x_T, schedule, times, seeded(4), variance=ours)
        ).x0_hat
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    def test_ddim(self, schedule: Schedule, config: dict[str, Any], eta: float) -> None:
        scheduler = DDIMScheduler(**config, clip_sample=False, timestep_spacing="trailing")
        scheduler.set_timesteps(20)
        times = timesteps(schedule, 20, "uniform")
        assert times == [k + 1 for k in scheduler.timesteps.tolist()]
        denoiser = x0_from(self.velocity, schedule)
        x, generator = self.x_T, seeded(4)
        for step, k in zip(
            ddim(denoiser, self.cond, self.x_T, schedule, times, seeded(4), eta=eta),
            scheduler.timesteps.tolist(),
            strict=True,
        ):
            torch.testing.assert_close(step.x_t, x, atol=1e-4, rtol=0)
            is_v = scheduler.config.prediction_type == "v_prediction"
            output = (self.velocity if is_v else denoiser)(x, torch.tensor([k + 1]), self.cond)
            x, x0_hat = scheduler.step(
                output, k, x, eta=eta, generator=generator, return_dict=False
            )
            torch.testing.assert_close(step.x0_hat, x0_hat, atol=1e-4, rtol=0)

    # diffusers calls np.array on a tensor.
    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("steps", [1, 2, 10, 30])
    def test_dpm_solver_pp_2m(
        self, schedule: Schedule, config: dict[str, Any], spacing: Any, steps: int
    ) -> None:
        times = timesteps(schedule, steps, spacing)
        scheduler = DPMSolverMultistepScheduler(
            **config,
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            lower_order_final=True,
        )
        scheduler.set_timesteps(timesteps=[t - 1 for t in times])
        expected = run_diffusers(scheduler, self.velocity, schedule, self.x_T, self.cond)
        denoiser = x0_from(self.velocity, schedule)
        found = last(
            dpm_solver_pp_2m(denoiser, self.cond, self.x_T, schedule, times, seeded(4))
        ).x0_hat
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


class TestGaussian:
    """Data N(m, s²), whose denoiser is exact."""

    m, s = 0.7, 0.4

    @pytest.mark.parametrize("name", SAMPLERS)
    @pytest.mark.parametrize("schedule_name", ["cosine", "linear"])
    def test_right_mean_and_variance(self, name: str, schedule_name: Any) -> None:
        schedule = Schedule(schedule_name, T=1000)
        n = 20_000
        x_T = sampling.normal((n, 1), seeded(5), torch.empty(0, dtype=torch.float64))
        x_0 = sample(
            gaussian(self.m, self.s, schedule), None, x_T, schedule, 500, seeded(6), name, "uniform"
        )
        # Four standard errors, and 1 % of s for the finite number of steps.
        assert x_0.mean().item() == pytest.approx(self.m, abs=self.s * (4 / n**0.5 + 0.01))
        assert x_0.std().item() == pytest.approx(self.s, abs=self.s * (4 / (2 * n) ** 0.5 + 0.01))

    @pytest.mark.parametrize("name", ["ddim", "dpm_solver_pp_2m"])
    def test_noise_at_another_temperature_is_data_at_it(self, name: str) -> None:
        n, temperature = 20_000, 0.6
        x_T = temperature * sampling.normal((n, 1), seeded(5), torch.empty(0, dtype=torch.float64))
        x_0 = sample(gaussian(self.m, self.s), None, x_T, SCHEDULE, 500, seeded(6), name, "uniform")
        expected = temperature * self.s
        assert x_0.mean().item() == pytest.approx(self.m, abs=self.s * (4 / n**0.5 + 0.01))
        assert x_0.std().item() == pytest.approx(expected, abs=self.s * (4 / (2 * n) ** 0.5 + 0.01))

    def error(self, sampler: Any, steps: int) -> float:
        """From t = 900 to t = 100, against the exact solution of the probability-flow equation."""
        times = torch.linspace(900, 100, steps + 1).round().long().tolist()
        bar = SCHEDULE.alpha_bar
        spread = (bar * self.s**2 + 1 - bar).sqrt()
        x = torch.tensor([[-1.3], [0.4], [2.0]], dtype=torch.float64)
        exact = bar[100].sqrt() * self.m + spread[100] / spread[900] * (
            x - bar[900].sqrt() * self.m
        )
        steps_taken = sampler(gaussian(self.m, self.s), None, x, SCHEDULE, times, seeded(0))
        return (last(steps_taken).x_t - exact).abs().max().item()

    def test_order_of_convergence(self) -> None:
        """Twice the steps: half the error at first order, a quarter at second."""
        assert self.error(ddim, 40) / self.error(ddim, 80) == pytest.approx(2, rel=0.1)
        ratio = self.error(dpm_solver_pp_2m, 40) / self.error(dpm_solver_pp_2m, 80)
        assert ratio == pytest.approx(4, rel=0.15)

    @pytest.mark.parametrize("steps", [8, 12, 15, 25])
    def test_higher_order_is_better_at_equal_steps(self, steps: int) -> None:
        assert self.error(dpm_solver_pp_2m, steps) < 0.5 * self.error(ddim, steps)

    @pytest.mark.parametrize(
        ("name", "spacing", "n", "spread"),
        [
            ("ddim", "uniform", 1, 0.90),
            ("ddim", "log_snr", 1, 0.84),
            ("ddim", "uniform", 32, 0.23),
            ("ddim", "log_snr", 32, 0.83),
            ("dpm_solver_pp_2m", "uniform", 1, 0.99),
            ("dpm_solver_pp_2m", "log_snr", 1, 1.00),
            ("dpm_solver_pp_2m", "uniform", 32, 0.24),
            ("dpm_solver_pp_2m", "log_snr", 32, 1.00),
        ],
    )
    def test_spread_of_twelve_evaluations(
        self, name: str, spacing: Any, n: int, spread: float
    ) -> None:
        """The table of docs/theory.md: deviation of N(0, 1) shared by patches of n × n pixels.

        Their mean is what is sampled here: its noise is n times less.
        """

        def denoiser(x: Tensor, t: Tensor, cond: Any) -> Tensor:
            bar = SCHEDULE.at(SCHEDULE.alpha_bar, t, x)
            return bar.sqrt() * x / (bar + (1 - bar) / n**2)

        x_T = torch.randn(100_000, 1, generator=seeded(8), dtype=torch.float64)
        x_0 = sample(denoiser, None, x_T / n, SCHEDULE, 12, seeded(9), name, spacing)
        assert (x_0.std() / x_T.std()).item() == pytest.approx(spread, abs=0.01)


class TestSpacing:
    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("name", ["cosine", "linear"])
    @pytest.mark.parametrize(("T", "steps"), [(2, 1), (2, 2), (10, 9), (1000, 12), (1000, 1000)])
    def test_falls_from_T_to_at_least_1(self, spacing: Any, name: Any, T: int, steps: int) -> None:
        times = timesteps(Schedule(name, T=T), steps, spacing)
        assert len(times) == steps
        assert times[0] == T
        assert times[-1] >= 1
        assert all(t > s for t, s in itertools.pairwise(times))

    def test_equal_steps(self) -> None:
        assert timesteps(SCHEDULE, 4, "uniform") == [1000, 750, 500, 250]
        log_snr = SCHEDULE.log_snr(torch.tensor(timesteps(SCHEDULE, 9, "log_snr")[1:]))
        step = log_snr.diff()
        torch.testing.assert_close(step, step.mean().expand(7), atol=0.1, rtol=0)

    @pytest.mark.parametrize("n", [8, 16, 32])
    @pytest.mark.parametrize("steps", [8, 12, 15])
    def test_default_suits_the_default_sampler(self, steps: int, n: int) -> None:
        """Wasserstein distance to a mixture of three colors of patches of n × n pixels."""
        w = torch.tensor([0.6, 0.25, 0.15], dtype=torch.float64)
        m = torch.tensor([-0.5, 0.4, 2.0], dtype=torch.float64)
        s = torch.tensor([0.25, 0.15, 0.2], dtype=torch.float64)

        def denoiser(x: Tensor, t: Tensor, cond: Any) -> Tensor:
            bar = SCHEDULE.at(SCHEDULE.alpha_bar, t, x)
            variance = bar * s**2 + (1 - bar) / n**2
            off = x - bar.sqrt() * m
            posterior = (w.log() - variance.log() / 2 - off**2 / (2 * variance)).softmax(-1)
            return (posterior * (m + bar.sqrt() * s**2 / variance * off)).sum(-1, keepdim=True)

        normal = torch.distributions.Normal(0.0, 1.0)
        levels = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
        grid = torch.linspace(-3, 5, 20001, dtype=torch.float64)
        cdf = (w * normal.cdf((grid[:, None] - m) / s)).sum(-1)
        true = grid[torch.searchsorted(cdf, levels)]
        x_T = normal.icdf(levels)[:, None] / n

        def distance(*options: Any) -> float:
            x_0 = sample(denoiser, None, x_T, SCHEDULE, steps, seeded(0), *options)
            return (x_0[:, 0].sort().values - true).abs().mean().item()

        assert distance() < 0.4 * distance("dpm_solver_pp_2m", "uniform")
        assert distance() < 0.5 * distance("ddim", "uniform")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_one_evaluation_per_step_and_the_last_is_the_sample(name: str, steps: int) -> None:
    calls = []
    velocity = random_velocity(3)
    inner = x0_from(velocity, SCHEDULE)

    def denoiser(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        assert t.dtype == torch.int64
        assert t.shape == (3,)
        calls.append(int(t[0]))
        return inner(x, t, cond)

    x_T = torch.randn(3, 2, 4, 6, generator=seeded(1))
    times = timesteps(SCHEDULE, steps)
    found = list(SAMPLERS[name](denoiser, 0.0, x_T, SCHEDULE, times, seeded(2)))
    assert calls == times == [step.t for step in found]
    assert torch.equal(found[0].x_t, x_T)
    assert torch.equal(found[-1].x0_hat, sample(inner, 0.0, x_T, SCHEDULE, steps, seeded(2), name))


@pytest.mark.parametrize("name", SAMPLERS)
def test_seed(name: str) -> None:
    denoiser = x0_from(random_velocity(3), SCHEDULE)
    x_T = torch.randn(1, 2, 4, 4, generator=seeded(1))

    def draw(seed: int) -> Tensor:
        return sample(denoiser, 0.0, x_T, SCHEDULE, 6, seeded(seed), name)

    assert torch.equal(draw(7), draw(7))
    stochastic = name == "ddpm"
    assert torch.equal(draw(7), draw(8)) is not stochastic


def test_finite_and_without_gradient_from_pure_noise_to_data() -> None:
    """At t = T of the cosine schedule the signal is 2.4e-9: no overflow, no NaN in float32."""
    gain = torch.nn.Parameter(torch.ones(()))

    def denoiser(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return gain * gaussian(0.3, 1.0)(x, t, cond)

    x_T = torch.randn(2, 2, 4, 4, generator=seeded(1))
    for name in SAMPLERS:
        x_0 = sample(denoiser, None, x_T, SCHEDULE, 1000, seeded(2), name)
        assert x_0.isfinite().all()
        assert not x_0.requires_grad


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"steps": 0}, "steps must be from 1 to T = 1000, got 0"),
        ({"steps": 1001}, "steps must be from 1 to T = 1000, got 1001"),
        ({"spacing": "cubic"}, "spacing must be one of .* got 'cubic'"),
        ({"sampler": "euler"}, "sampler must be one of .* got 'euler'"),
    ],
)
def test_sample_names_the_bad_argument(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(
            gaussian(0, 1),
            None,
            torch.zeros(1, 1),
            SCHEDULE,
            **{"steps": 5, "generator": seeded(0), **kwargs},
        )


def test_samplers_name_the_bad_argument() -> None:
    arguments = (gaussian(0, 1), None, torch.zeros(1, 1), SCHEDULE)
    with pytest.raises(ValueError, match="variance must be one of .* got 'gamma'"):
        last(ddpm(*arguments, [5, 2], seeded(0), variance="gamma"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eta must be from 0 to 1, got 2"):
        last(ddim(*arguments, [5, 2], seeded(0), eta=2))
    for times in ([], [2, 5], [5, 5], [1001], [5, 0]):
        with pytest.raises(ValueError, match="times must fall from at most T = 1000 to 1, got"):
            last(dpm_solver_pp_2m(*arguments, times, seeded(0)))
