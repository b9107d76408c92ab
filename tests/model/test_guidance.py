from __future__ import annotations

import pytest
import torch
from torch import Tensor

from colorized.model.denoiser import Denoiser, drop_condition
from colorized.model.guidance import SIGMA_GUIDED, evaluations, guided
from colorized.model.weights import RELEASED, load_weights


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
    asked: list[float] = []

    def counting(x: Tensor, sigma: Tensor, cond: tuple[Tensor, ...]) -> Tensor:
        asked.append(sigma[0].item())
        return x

    sigmas = [3000, 100, 10, 2.1, 1.9, 1, 0.2]
    for weight, expected in ((1.0, 7), (2.0, 11)):
        asked.clear()
        for sigma in sigmas:
            guided(counting, weight)(torch.zeros(1, 2, 4, 4), torch.tensor([sigma]), ())
        assert len(asked) == expected == evaluations(sigmas, weight)
