"""The schedule, the preconditioning, the loss and the variational bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from colorized.model import sampling
from colorized.model.denoiser import (
    Denoiser,
    add_noise,
    drop_condition,
    simple_loss,
    stratified_sigmas,
    velocity_target,
)
from colorized.model.schedule import Schedule
from colorized.model.vlb import (
    decoder_log_prob,
    vlb_per_picture,
    vlb_prior,
    vlb_term,
)
from colorized.model.weights import ModelConfig


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSchedule:
    def test_linear_ends(self) -> None:
        s = Schedule("linear", T=1000)
        assert s.beta[0] == 0
        assert s.alpha_bar[0] == 1
        assert s.beta[1].item() == pytest.approx(1e-4)
        assert s.beta[1000].item() == pytest.approx(0.02)
        # Ho et al., 2020: D_KL(q(x_T | x_0) ‖ N(0, I)) ≈ 1e-5 bits per dimension.
        assert s.alpha_bar[1000].item() == pytest.approx(4.0358e-5, rel=1e-4)

    def test_cosine_ends(self) -> None:
        s = Schedule("cosine", T=1000)
        # cos²((0.5 + 0.008) / 1.008 · 90°) / cos²(0.008 / 1.008 · 90°)
        # = cos²(45.357°) / cos²(0.714°)
        assert s.alpha_bar[500].item() == pytest.approx(0.49384, abs=2e-5)
        assert s.beta[1].item() == pytest.approx(4.13e-5, rel=1e-3)
        assert s.beta[1000] == 0.999

    @pytest.mark.parametrize(
        ("name", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")]
    )
    def test_is_that_of_diffusers(self, name: Any, theirs: str) -> None:
        expected = DDPMScheduler(num_train_timesteps=1000, beta_schedule=theirs).betas
        torch.testing.assert_close(
            Schedule(name, T=1000).beta[1:].float(), expected, atol=1e-6, rtol=0
        )

    @pytest.mark.parametrize("name", ["linear", "cosine"])
    def test_posterior_is_gaussian_conditioning(self, name: Any) -> None:
        """(x_{t-1}, x_t) given x_0 is Gaussian; condition its covariance on x_t by hand."""
        s = Schedule(name, T=50)
        x_0, x_t = torch.tensor([0.8, -1.7], dtype=torch.float64)
        for t in range(1, 51):
            a, before, now = s.alpha[t], s.alpha_bar[t - 1], s.alpha_bar[t]
            mean = torch.stack([before.sqrt(), now.sqrt()]) * x_0
            cross = a.sqrt() * (1 - before)
            gain = cross / (1 - now)
            mu = s.posterior_mean(x_0.view(1, 1), x_t.view(1, 1), torch.tensor([t])).squeeze()
            assert mu.item() == pytest.approx((mean[0] + gain * (x_t - mean[1])).item(), abs=1e-12)
            variance = (1 - before) - gain * cross
            assert s.beta_tilde[t].item() == pytest.approx(variance.item(), abs=1e-12)

    @pytest.mark.parametrize("name", ["linear", "cosine"])
    def test_one_jump_is_many_steps(self, name: Any) -> None:
        s, n, t, x_0 = Schedule(name, T=20), 200_000, 12, 1.3
        generator = seeded(0)
        steps = torch.full((n, 1), x_0)
        for i in range(1, t + 1):
            noise = torch.randn(n, 1, generator=generator)
            steps = s.alpha[i].sqrt().float() * steps + s.beta[i].sqrt().float() * noise
        jump = s.q_sample(
            torch.full((n, 1), x_0), torch.full((n,), t), torch.randn(n, 1, generator=generator)
        )
        sd = (1 - s.alpha_bar[t]).sqrt().item()
        for x in (steps, jump):
            assert x.mean().item() == pytest.approx(
                s.alpha_bar[t].sqrt().item() * x_0, abs=4 * sd / math.sqrt(n)
            )
            assert x.std().item() == pytest.approx(sd, rel=4 / math.sqrt(2 * n))

    def test_names_the_bad_argument(self) -> None:
        with pytest.raises(ValueError, match="schedule must be 'linear' or 'cosine', got 'square'"):
            Schedule("square")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="T must be at least 2, got 1"):
            Schedule("cosine", T=1)


class Fixed(nn.Module):
    """A network that returns one tensor and keeps what it was given."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, noise_level: Tensor, cond: Any) -> Tensor:
        self.given = (x, noise_level, cond)
        return self.output


class TestPreconditioning:
    s = Schedule("cosine", T=1000)
    t = torch.tensor([1, 100, 500, 999, 1000])
    sigma = s.sigma[t]
    x_0 = torch.randn(5, 2, 64, 64, generator=seeded(0), dtype=torch.float64)
    noise = torch.randn(5, 2, 64, 64, generator=seeded(1), dtype=torch.float64)

    def test_it_is_the_velocity_of_the_discrete_chain(self) -> None:
        """Salimans & Ho: v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x_0, for x_t of unit variance."""
        x_t = self.s.q_sample(self.x_0, self.t, self.noise)
        a = self.s.at(self.s.alpha_bar, self.t, x_t).sqrt()
        b = (1 - self.s.at(self.s.alpha_bar, self.t, x_t)).sqrt()
        v = velocity_target(self.x_0, self.sigma, self.noise)
        torch.testing.assert_close(v, a * self.noise - b * self.x_0, atol=1e-12, rtol=0)
        network = Fixed(torch.randn(self.x_0.shape, generator=seeded(2), dtype=torch.float64))
        x = add_noise(self.x_0, self.sigma, self.noise)
        found = Denoiser(network)(x, self.sigma, ())
        torch.testing.assert_close(found, a * x_t - b * network.output, atol=1e-12, rtol=0)
        scaled, noise_level, _ = network.given
        torch.testing.assert_close(scaled, x_t, atol=1e-12, rtol=0)
        log_snr = (self.s.alpha_bar / (1 - self.s.alpha_bar)).log()[self.t]
        torch.testing.assert_close(noise_level, -0.25 * log_snr.float())
        assert noise_level.abs().max() < 5.1

    def test_right_velocity_gives_right_data(self) -> None:
        network = Fixed(velocity_target(self.x_0, self.sigma, self.noise))
        x = add_noise(self.x_0, self.sigma, self.noise)
        cond = (torch.ones(1),)
        found = Denoiser(network)(x, self.sigma, cond)
        torch.testing.assert_close(found, self.x_0, atol=1e-11, rtol=0)
        assert network.given[2] is cond

    def test_input_and_target_have_unit_variance_at_every_level(self) -> None:
        network = Fixed(self.x_0)
        Denoiser(network)(add_noise(self.x_0, self.sigma, self.noise), self.sigma, ())
        for x in (network.given[0], velocity_target(self.x_0, self.sigma, self.noise)):
            torch.testing.assert_close(
                x.flatten(1).var(1), torch.ones(5, dtype=torch.float64), atol=0.06, rtol=0
            )


CONFIG = ModelConfig((32, 32, 32), 32, 32, 1, "cosine", 1000, (18.0, 18.0), 32)


def tiny_denoiser(seed: int = 0) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CONFIG.build()


def pictures() -> tuple[Tensor, Tensor]:
    """Lightness (4, 1, 32, 32) and smooth standardized chroma (4, 2, 16, 16)."""
    coarse = torch.randn(4, 3, 4, 4, generator=seeded(5))
    lightness = 50 + 20 * F.interpolate(coarse[:, :1], size=32, mode="bilinear")
    x_0 = F.interpolate(coarse[:, 1:], size=16, mode="bilinear")
    return lightness, x_0 / x_0.std()


def loss_of(
    denoiser: Denoiser, sigma: Tensor, generator: torch.Generator, independent: bool
) -> Tensor:
    """Loss on the four pictures in turn; `independent`: for noise that did not make x_t."""
    lightness, x_0 = pictures()
    repeats = len(sigma) // len(x_0)
    x_0 = x_0.repeat(repeats, 1, 1, 1)
    cond = tuple(c.repeat(repeats, *[1] * (c.ndim - 1)) for c in denoiser.encode(lightness))
    noise = torch.randn(x_0.shape, generator=generator)
    if not independent:
        return simple_loss(denoiser, x_0, cond, sigma, noise)
    x = add_noise(x_0, sigma, noise)
    other = torch.randn(x_0.shape, generator=generator)
    target = velocity_target(x_0, sigma, other)
    return (denoiser.velocity(x, sigma, cond) - target).square().flatten(1).mean(1)


def train(independent: bool) -> Denoiser:
    denoiser, generator = tiny_denoiser(), seeded(6)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=2e-3, weight_decay=0)
    for _ in range(250):
        sigma = stratified_sigmas(CONFIG.noise(), 8, generator)
        optimizer.zero_grad()
        loss_of(denoiser, sigma, generator, independent).mean().backward()
        optimizer.step()
    return denoiser


@torch.no_grad()
def loss_at(denoiser: Denoiser, share: float, independent: bool) -> float:
    sigma = CONFIG.noise().sigma[torch.full((32,), round(share * CONFIG.T))]
    return loss_of(denoiser, sigma, seeded(7), independent).mean().item()


class TestLearning:
    def test_predicting_zero_scores_one(self) -> None:
        """A fresh network predicts 0. Its L1 error, √(2/π), is where a broken loss is stuck."""
        denoiser = tiny_denoiser()
        x_0 = torch.randn(8, 2, 32, 32, generator=seeded(0))
        noise = torch.randn(8, 2, 32, 32, generator=seeded(1))
        sigma = stratified_sigmas(CONFIG.noise(), 8, seeded(2))
        cond = denoiser.encode(torch.full((8, 1, 64, 64), 50.0))
        loss = simple_loss(denoiser, x_0, cond, sigma, noise)
        assert loss.shape == (8,)
        assert loss.mean().item() == pytest.approx(1, abs=0.03)
        absolute = velocity_target(x_0, sigma, noise).abs().mean().item()
        assert absolute == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)

    def test_overfits_one_batch_but_not_independent_noise(self) -> None:
        sound, broken = train(independent=False), train(independent=True)
        # Little noise: v is in x_t. Nothing but noise, at T: the colors must come from L.
        for share, bound in {0.1: 0.65, 0.3: 0.35, 0.5: 0.35, 0.7: 0.35, 1.0: 0.65}.items():
            assert loss_at(sound, share, independent=False) < bound
        # At T / 10 the target is all but the noise, and nothing tells of another draw of it.
        assert loss_at(broken, 0.1, independent=True) > 0.9
        assert loss_at(sound, 0.1, independent=True) > 1.1

    @pytest.mark.parametrize("name", ["linear", "cosine"])
    def test_noise_levels_are_those_of_even_steps(self, name: Any) -> None:
        s = Schedule(name, T=1000)
        sigma = stratified_sigmas(s, 10, seeded(0))
        t = torch.searchsorted(s.sigma, sigma)
        assert sorted((t - 1).div(100, rounding_mode="floor").tolist()) == list(range(10))
        assert t.tolist() != sorted(t.tolist())
        many = torch.cat([stratified_sigmas(s, 3, seeded(i)) for i in range(4000)])
        assert s.sigma[1] <= many.min() and many.max() <= s.sigma[-1]
        for share in (0.25, 0.5, 0.75):
            below = (many < s.sigma[round(share * 1000)]).double().mean().item()
            assert below == pytest.approx(share, abs=0.02)

    @pytest.mark.parametrize("name", ["linear", "cosine"])
    def test_shift_multiplies_the_noise_level(self, name: Any) -> None:
        """Whatever the schedule, and within its ends."""
        s = Schedule(name, T=1000)
        plain, shifted = (stratified_sigmas(s, 500, seeded(0), k) for k in (1.0, 8.0))
        expected = (8 * plain).clamp(max=s.sigma[-1].item())
        torch.testing.assert_close(shifted, expected)
        assert shifted.median() == pytest.approx(8 * plain.median().item())

    def test_levels_between_steps(self) -> None:
        s = Schedule("cosine", T=10)
        t = torch.tensor([0.0, 1.0, 4.0, 4.5, 10.0], dtype=torch.float64)
        between = (s.sigma[4] * s.sigma[5]).sqrt()
        expected = torch.stack([s.sigma[1], s.sigma[1], s.sigma[4], between, s.sigma[10]])
        torch.testing.assert_close(s.sigma_at(t), expected)

    def test_drop_condition(self) -> None:
        cond = (torch.ones(3, 2, 4, 4), torch.ones(3, 5, 2, 2))
        dropped = drop_condition(cond, torch.tensor([True, False, True]))
        for before, after in zip(cond, dropped, strict=True):
            assert torch.equal(after[[0, 2]], before[[0, 2]])
            assert (after[1] == 0).all()


def config_of(name: str, T: int, std: float = 18.0) -> ModelConfig:
    return ModelConfig((8, 16, 32), 16, 32, 1, name, T, (std, std), 32)


def known(config: ModelConfig, function: Callable[[Tensor, Tensor], Tensor]) -> sampling.Denoiser:
    """A denoiser given by a function of x_t and t, for tests of the bound."""
    levels = config.noise().sigma

    def denoiser(x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        t = torch.searchsorted(levels, sigma * (1 - 1e-9))
        scale = (1 + sigma.square()).rsqrt().view(-1, *[1] * (x.ndim - 1))
        return function((scale * x).to(x.dtype), t)

    return denoiser


def gaussian_data(s: Schedule, variance: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    def x0_hat(x_t: Tensor, t: Tensor) -> Tensor:
        bar = s.at(s.alpha_bar, t, x_t.double())
        return bar.sqrt() * variance / (bar * variance + 1 - bar) * x_t

    return x0_hat


def mean_and_error(bits: Tensor) -> tuple[float, float]:
    return bits.mean().item(), bits.std().item() / math.sqrt(len(bits))


def random_ab8(B: int, seed: int = 0, sd: float = 18.0) -> Tensor:
    values = 128 + sd * torch.randn(B, 2, 3, 5, generator=seeded(seed))
    return values.round().clamp(0, 255).to(torch.uint8)


class TestVLB:
    @pytest.mark.parametrize("name", ["linear", "cosine"])
    def test_terms_are_kl_divergences(self, name: Any) -> None:
        config = config_of(name, 1000, std=15.0)
        s = config.noise()
        denoiser = known(config, gaussian_data(s, 0.7))
        t = torch.tensor([2, 3, 50, 400, 990, 1000])
        ab8, noise = random_ab8(6), torch.randn(6, 2, 3, 5, generator=seeded(1)).double()
        x_0 = (ab8.double() - 128) / 15
        x_t = s.q_sample(x_0, t, noise)
        sd = s.at(s.beta_tilde, t, x_0).sqrt()
        expected = kl_divergence(
            Normal(s.posterior_mean(x_0, x_t, t), sd),
            Normal(s.posterior_mean(gaussian_data(s, 0.7)(x_t, t), x_t, t), sd),
        )
        found = vlb_term(denoiser, config, ab8, (), t, noise)
        torch.testing.assert_close(found, expected.flatten(1).mean(1), rtol=1e-6, atol=0)

        end = Normal(s.alpha_bar[-1].sqrt() * x_0, (1 - s.alpha_bar[-1]).sqrt())
        expected = kl_divergence(end, Normal(torch.zeros_like(x_0), torch.ones_like(x_0)))
        torch.testing.assert_close(
            vlb_prior(config, ab8), expected.flatten(1).mean(1), rtol=1e-6, atol=1e-15
        )

    def test_decoder_probabilities(self) -> None:
        config = config_of("cosine", 50)
        sd = config.noise().beta[1].sqrt().item() * 18
        values = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 2, 1, 1)
        for mean in (-30.0, -128 / 18, 0.0, 0.013, 3.7, 127 / 18, 30.0):
            log_p = decoder_log_prob(
                config, values, torch.full((256, 2, 1, 1), mean, dtype=torch.float64)
            )
            assert log_p.exp().sum(0).flatten().tolist() == pytest.approx([1, 1], abs=1e-12)
            center = mean * 18 + 128
            # An independent value, by scipy, each in the tail where it has its digits.
            k = np.arange(1, 255)
            lower = scipy.stats.norm(center, sd).logcdf
            upper = scipy.stats.norm(center, sd).logsf
            high = np.where(k < center, lower(k + 0.5), upper(k - 0.5))
            low = np.where(k < center, lower(k - 0.5), upper(k + 0.5))
            expected = high + np.log1p(-np.exp(low - high))
            np.testing.assert_allclose(log_p[1:255, 0, 0, 0], expected, rtol=1e-9)
            edges = [float(lower(0.5)), float(upper(254.5))]
            np.testing.assert_allclose(log_p[[0, 255], 0, 0, 0], edges, rtol=1e-9, atol=1e-15)

    def test_first_term_is_the_decoder(self) -> None:
        config = config_of("cosine", 50)
        denoiser = known(config, lambda x, t: torch.zeros_like(x))
        ab8 = random_ab8(2, sd=1.0)
        t = torch.ones(2, dtype=torch.int64)
        found = vlb_term(denoiser, config, ab8, (), t, torch.zeros(2, 2, 3, 5))
        expected = -decoder_log_prob(config, ab8, torch.zeros(2, 2, 3, 5).double())
        torch.testing.assert_close(found, expected.flatten(1).mean(1))

    @pytest.mark.parametrize("variance", [1.0, 0.3])
    def test_estimate_is_the_sum_over_all_t(self, variance: float) -> None:
        """And the standard error is the spread of repeated estimates."""
        config, B = config_of("cosine", 12), 4000
        s = config.noise()
        denoiser = known(config, gaussian_data(s, variance))
        ab8 = random_ab8(1).expand(B, 2, 3, 5)
        terms = [vlb_prior(config, ab8)]
        for t in range(1, s.T + 1):
            noise = torch.randn(B, 2, 3, 5, generator=seeded(t))
            terms.append(vlb_term(denoiser, config, ab8, (), torch.full((B,), t), noise))
        exact = torch.stack(terms).sum(0) / math.log(2)
        for strata in (1, 4):
            mean, error = mean_and_error(
                vlb_per_picture(denoiser, config, ab8, (), seeded(99), strata)
            )
            combined = math.hypot(error, exact.std().item() / math.sqrt(B))
            assert abs(mean - exact.mean().item()) < 4 * combined
            assert error < 0.02 * mean
            again = vlb_per_picture(denoiser, config, ab8, (), seeded(98), strata)
            groups = again.view(200, 20).mean(1)
            assert groups.std().item() == pytest.approx(error * math.sqrt(200), rel=0.25)

    def test_bounds_the_entropy_and_comes_near(self) -> None:
        """Gaussian chroma in 8 bits, with its optimal denoiser: a sum over the 256 values."""
        edges = torch.arange(257, dtype=torch.float64) - 0.5
        cdf = Normal(128.0, 12.0).cdf(edges)
        cdf[0], cdf[-1] = 0, 1
        probability = cdf.diff()
        entropy = -torch.special.xlogy(probability, probability).sum().item() / math.log(2)
        ab8 = torch.multinomial(probability, 6000, replacement=True, generator=seeded(0))
        ab8 = ab8.view(1000, 2, 1, 3).to(torch.uint8)
        values = (torch.arange(256, dtype=torch.float64) - 128) / 18

        def bound(T: int, whole: bool) -> tuple[float, float]:
            """`whole`: the denoiser knows that chroma is in whole numbers."""
            config = config_of("cosine", T)
            s = config.noise()

            def optimal(x_t: Tensor, t: Tensor) -> Tensor:
                bar = s.at(s.alpha_bar, t, x_t.double()).unsqueeze(-1)
                off = x_t.double().unsqueeze(-1) - bar.sqrt() * values
                posterior = (probability.log() - off.square() / (2 * (1 - bar))).softmax(-1)
                return (posterior * values).sum(-1)

            denoiser = known(config, optimal if whole else gaussian_data(s, (12 / 18) ** 2))
            return mean_and_error(vlb_per_picture(denoiser, config, ab8, (), seeded(1), 24))

        fine, error = bound(16_000, whole=True)
        assert error < 0.05
        assert abs(fine - entropy) < 4 * error
        # The figures of docs/theory.md: what T = 1000 costs, and what not knowing of bins does.
        assert entropy == pytest.approx(5.63, abs=0.01)
        for whole, expected in ((True, 6.02), (False, 7.29)):
            found, error = bound(1000, whole)
            assert found - 4 * error > entropy
            assert found == pytest.approx(expected, abs=4 * error)

        # A denoiser that is far from optimal costs bits.
        config = config_of("cosine", 1000)
        ignorant = known(config, lambda x, t: torch.zeros_like(x))
        worse, error = mean_and_error(vlb_per_picture(ignorant, config, ab8, (), seeded(1), 8))
        assert worse - 4 * error > 8

    def test_of_the_network(self) -> None:
        denoiser, config = tiny_denoiser(), CONFIG
        cond = denoiser.encode(torch.full((3, 1, 32, 32), 50.0))
        ab8 = (128 + 18 * torch.randn(3, 2, 16, 16, generator=seeded(0))).to(torch.uint8)
        first = vlb_per_picture(denoiser, config, ab8, cond, seeded(1), 2)
        assert first.shape == (3,)
        assert first.dtype == torch.float64
        assert not first.requires_grad
        assert torch.equal(first, vlb_per_picture(denoiser, config, ab8, cond, seeded(1), 2))
        assert not torch.equal(first, vlb_per_picture(denoiser, config, ab8, cond, seeded(2), 2))

    def test_names_the_bad_argument(self) -> None:
        config = config_of("cosine", 12)
        denoiser = known(config, gaussian_data(config.noise()))
        with pytest.raises(ValueError, match=r"ab8 must be uint8, got torch.float32"):
            vlb_per_picture(denoiser, config, random_ab8(2).float(), (), seeded(0), 4)
        with pytest.raises(ValueError, match="strata must be at least 1, got 0"):
            vlb_per_picture(denoiser, config, random_ab8(2), (), seeded(0), 0)
