"""The colors of things are the mean's; what is finer, and the tint of areas, the draw's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor

from colorized.model.composition import (
    AREA_WINDOW,
    CONTRAST,
    CONTRAST_WINDOW,
    DETAIL_WINDOW,
    FINE,
    FINE_WINDOW,
    colors,
    composed,
    in_contrast,
)
from colorized.model.sampling import Step
from colorized.options import DRAWING, SAMPLERS


def blurred(x: np.ndarray, window: int) -> np.ndarray:
    """SciPy's box filter, twice; right where the windows lie inside."""
    for _ in range(2):
        x = uniform_filter(x, (0, 0, window, window), mode="constant")
    return x


def test_scipy_agrees() -> None:
    mean, drawn = torch.randn(2, 1, 2, 90, 100, generator=torch.Generator().manual_seed(0))
    missing = (mean - drawn).numpy()
    expected = drawn.numpy() + blurred(missing, DETAIL_WINDOW) - blurred(missing, AREA_WINDOW)
    inner = (..., *[slice(AREA_WINDOW - 1, 1 - AREA_WINDOW)] * 2)
    found = composed(mean, drawn)
    np.testing.assert_allclose(found.numpy()[inner], expected[inner], atol=1e-5)

    x = drawn.numpy()
    expected = x + CONTRAST * (x - blurred(x, CONTRAST_WINDOW))
    expected += FINE * (x - blurred(x, FINE_WINDOW))
    np.testing.assert_allclose(in_contrast(drawn).numpy()[inner], expected[inner], atol=1e-5)


def waves(period: int) -> Tensor:
    """Stripes of colors (1, 2, 160, 160)."""
    x = torch.arange(160) * (2 * np.pi / period)
    return torch.stack([x.sin(), x.cos()])[None, :, None].expand(1, 2, 160, 160)


@pytest.mark.parametrize(("period", "of_mean"), [(5, 0.0), (24, 0.65), (160, 0.1)])
def test_of_the_mean_is_what_is_as_large_as_things(period: int, of_mean: float) -> None:
    drawn = torch.zeros(1, 2, 160, 160)
    inner = (..., slice(60, 100), slice(60, 100))
    share = composed(waves(period), drawn)[inner].std() / waves(period)[inner].std()
    assert share == pytest.approx(of_mean, abs=0.1)


def test_one_color_stays_the_draws() -> None:
    color = torch.tensor([0.7, -1.2]).view(1, 2, 1, 1).expand(1, 2, 10, 80)
    torch.testing.assert_close(composed(torch.zeros_like(color), color), color)
    torch.testing.assert_close(in_contrast(color), color)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_of_a_sampler_that_draws(sampler: str) -> None:
    """And of no other; a mean alone stays as it is."""
    generator = torch.Generator().manual_seed(0)
    mean, drawn = torch.randn(2, 1, 2, 40, 60, generator=generator)
    first, last = Step(3000.0, drawn, mean), Step(2.0, mean, drawn)
    expected = in_contrast(composed(mean, drawn)) if sampler in DRAWING else drawn
    torch.testing.assert_close(colors(first, last, sampler), expected)
    torch.testing.assert_close(colors(first, first, sampler), mean)
