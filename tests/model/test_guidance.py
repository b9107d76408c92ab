from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from colorized.model.denoiser import Denoiser, drop_condition
from colorized.model.guidance import SIGMA_GUIDED, evaluations, guided
from colorized.model.weights import RELEASED, load_weights


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return load_weights(RELEASED).denoiser


def time_at(denoiser: Denoiser, sigma: float) -> int:
    log_snr = denoiser.schedule.log_snr(torch.arange(1, denoiser.schedule.T + 1))
    return int((log_snr + 2 * math.log(sigma)).abs().argmin()) + 1


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_mixes_with_and_without_the_picture_in_noise(denoiser: Denoiser, weight: float) -> None:
    torch.manual_seed(0)
    sigmas = (0.5, SIGMA_GUIDED * 0.9, SIGMA_GUIDED * 1.1, 10.0, 3000.0)
    t = torch.tensor([time_at(denoiser, sigma) for sigma in sigmas])
    x_t = torch.randn(len(t), 2, 32, 32)
    with torch.inference_mode():
        cond = denoiser.encode(100 * torch.rand(len(t), 1, 64, 64))
        with_L = denoiser(x_t, t, cond)
        without = denoiser(x_t, t, drop_condition(cond, torch.zeros(len(t), dtype=torch.bool)))
        found = guided(denoiser, weight)(x_t, t, cond)
    for i, noisy in enumerate((False, False, True, True, True)):
        w = weight if noisy else 1
        torch.testing.assert_close(
            found[i], without[i] + w * (with_L - without)[i], atol=1e-5, rtol=0
        )
    assert (with_L - without)[3].abs().mean() > 0.01


def test_evaluations_are_counted(denoiser: Denoiser) -> None:
    asked: list[int] = []

    class Counting(Denoiser):
        def forward(self, x_t: Tensor, t: Tensor, cond: tuple[Tensor, ...]) -> Tensor:
            asked.append(int(t[0]))
            return super().forward(x_t, t, cond)

    counting = Counting(denoiser.network, denoiser.schedule, denoiser.ab_std)
    times = [time_at(denoiser, sigma) for sigma in (3000, 100, 10, 2.1, 1.9, 1, 0.2)]
    for weight, expected in ((1.0, 7), (2.0, 11)):
        asked.clear()
        with torch.inference_mode():
            cond = counting.encode(torch.full((1, 1, 32, 32), 50.0))
            for t in times:
                guided(counting, weight)(torch.zeros(1, 2, 16, 16), torch.tensor([t]), cond)
        assert len(asked) == expected
        assert evaluations(denoiser.schedule, times, weight) == expected
