"""Sharpening: edges steeper, and no color that was not there."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from colorized.model.draw import sharpened


def test_a_blurred_edge_comes_nearer_to_the_sharp_one() -> None:
    true = torch.zeros(1, 2, 9, 12)
    true[..., 6:] = 1
    soft = true
    for _ in range(2):
        soft = F.avg_pool2d(soft, 3, 1, 1, count_include_pad=False)
    found = sharpened(soft)
    assert (found - true).abs().sum() < 0.95 * (soft - true).abs().sum()
    beside = (soft == 0) | (soft == 1)
    assert torch.equal(found[beside], soft[beside])


def test_stays_in_the_range_of_the_neighbors() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 10, 17)).astype(np.float32))
    found, size = sharpened(x).numpy(), (1, 1, 3, 3)
    assert (found <= ndimage.maximum_filter(x.numpy(), size, mode="nearest")).all()
    assert (found >= ndimage.minimum_filter(x.numpy(), size, mode="nearest")).all()
    assert np.abs(found - x.numpy()).mean() > 0.1


def test_even_areas_and_ramps_stay() -> None:
    ramp = torch.arange(12.0).expand(1, 2, 8, 12)
    torch.testing.assert_close(sharpened(ramp)[..., 1:-1], ramp[..., 1:-1])
    assert torch.equal(sharpened(torch.full((1, 2, 1, 1), 3.0)), torch.full((1, 2, 1, 1), 3.0))
