from __future__ import annotations

import pytest
import torch
from torch import Tensor

from colorized.model.denoiser import Denoiser, drop_condition
from colorized.model.guidance import SIGMA_GUIDED, asked, evaluations, guided
from colorized.model.sampling import sample
from colorized.model.weights import RELEASED, load_weights
from colorized.options import UNTUNED


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return load_weights(RELEASED).denoiser


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_mixes_with_and_without_the_picture_in_noise(denoiser: Denoiser, weight: float) -> None:
    torch.manual_seed(0)
    sigma = torch.tensor([0.5, SIGMA_GUIDED * 0.9, SIGMA_GUIDED * 1.1, 10.0, 3000.0])
    x = sigma.view(-1, 1, 1, 1) * torch.randn(len(sigma), 2, 32, 32)
    with torch.inference_mode():
        cond = denoiser.encode(100 * torch.rand(len(sigma), 1, 64, 64))
        with_L = denoiser(x, sigma, cond)
        without = denoiser(x, sigma, drop_condition(cond, torch.zeros(len(sigma)).bool()))
        found = guided(denoiser, weight)(x, sigma, cond)
    for i, noisy in enumerate((False, False, True, True, True)):
        w = weight if noisy else 1
        torch.testing.assert_close(
            found[i], without[i] + w * (with_L - without)[i], atol=1e-5, rtol=0
        )
    assert (with_L - without)[3].abs().mean() > 0.01


def test_evaluations_are_counted() -> None:
    found: list[tuple[int, ...]] = []
    cond = (torch.zeros(1, 3, 64, 64), torch.zeros(1, 3))

    class Counting(torch.nn.Module):
        def asked_to_draw(self, cond: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return cond

        def forward(self, x: Tensor, level: Tensor, cond: tuple[Tensor, ...]) -> Tensor:
            assert {len(x), len(level), *map(len, cond)} == {len(x)}
            found.append(tuple(x.shape))
            return x

    denoiser = Denoiser(Counting())
    sigmas = [3000, 100, 10, 2.1, 1.9, 1, 0.2]
    for sampler, guidance, expected in (
        ("ddim", 1.0, 7),
        ("ddim", 2.0, 11),
        ("consistency", 1.0, 7),
        ("consistency", 2.0, 7),
        ("tinted_consistency", 2.0, 7),
    ):
        found.clear()
        options = UNTUNED.override(sampler=sampler, guidance=guidance, steps=7)
        ask = asked(denoiser, options, sigmas)
        sample(ask, cond, sigmas, lambda: torch.zeros(1, 2, 64, 64), sampler)
        whole = sum(count for count, _, *size in found if size == [64, 64])
        assert whole == expected == evaluations(sigmas, options)


def test_a_mean_and_then_draws(denoiser: Denoiser) -> None:
    options = UNTUNED.override(sampler="consistency", guidance=1.5, steps=2)
    ask = asked(denoiser, options, [20291.0, 5.0, 2.0])
    x = torch.randn(1, 2, 48, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        cond = denoiser.encode(torch.rand(1, 1, 96, 160).mul(100))
        high, low = torch.tensor([20291.0]), torch.tensor([5.0])
        mean, draw = ask(20291 * x, high, cond), ask(5 * x, low, cond)
        # Without L the mean is one color, about that of the whole picture.
        with_L = denoiser(20291 * x, high, cond)
        color = (1.5 * with_L - mean) / 0.5
        assert color.std((-2, -1)).max() < 1e-4
        without = denoiser(20291 * x, high, drop_condition(cond, torch.zeros(1).bool()))
        assert (color - without).abs().mean() < 0.1 < (with_L - without).abs().mean()
        as_draw = denoiser(5 * x, low, denoiser.network.asked_to_draw(cond))
        torch.testing.assert_close(draw, as_draw)
        assert not torch.allclose(draw, denoiser(5 * x, low, cond), atol=1e-3)
