"""From lightness to chroma: any size, repeatable, and independent of what else is colored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from colorized import color
from colorized.inference import colorizer as module
from colorized.inference.colorizer import MAX_ASPECT, ChromaSampler, working_size
from colorized.model.sampling import SIGMA_MAX, noise_source
from colorized.model.unet import STRIDE
from colorized.options import UNTUNED

QUICK = UNTUNED.override(steps=2)
PHOTOS = sorted((Path(__file__).parents[2] / "data" / "sample" / "photos").glob("*.jpg"))


@pytest.fixture(scope="module")
def lightness() -> np.ndarray:
    """A real photograph's, (101, 151)."""
    with Image.open(PHOTOS[0]) as image:
        rgb = np.asarray(image.convert("RGB").resize((151, 101)))
    return color.lightness(rgb.astype(np.float32) / 255)


class TestWorkingSize:
    @pytest.mark.parametrize(
        ("height", "width", "expected"),
        [
            (1, 1, (64, 64)),
            (3000, 3000, (64, 64)),
            (2000, 3000, (64, 96)),
            (3000, 2000, (96, 64)),
            (100, 112, (64, 64)),  # 71.7: nearer to 64 than to 80
            (100, 113, (64, 80)),
            (1, 500, (64, 64 * MAX_ASPECT)),
            (500, 1, (64 * MAX_ASPECT, 64)),
        ],
    )
    def test_by_hand(self, height: int, width: int, expected: tuple[int, int]) -> None:
        assert working_size(height, width, 64) == expected

    @pytest.mark.parametrize("work_size", [64, 96, 256])
    def test_aspect_is_kept_to_half_a_stride(self, work_size: int) -> None:
        for width in range(100, 100 * MAX_ASPECT, 7):
            h, w = working_size(100, width, work_size)
            assert h == work_size
            assert w % STRIDE == 0
            assert abs(w - work_size * width / 100) <= STRIDE / 2


class TestColorize:
    @pytest.mark.parametrize("level", [0, 100])
    def test_black_and_white(self, colorizer: ChromaSampler, level: float) -> None:
        L = np.full((40, 40), level, np.float32)
        ab = colorizer.colorize(L, QUICK)
        np.testing.assert_array_equal(color.recombine(L, ab), round(level * 2.55))

    def test_seed_decides(self, colorizer: ChromaSampler, lightness: np.ndarray) -> None:
        first = colorizer.colorize(lightness, QUICK.override(seed=1))
        # Something else in between.
        colorizer.colorize(lightness[:50, :40], UNTUNED.override(steps=3, seed=9))
        again = colorizer.colorize(lightness, QUICK.override(seed=1))
        other = colorizer.colorize(lightness, QUICK.override(seed=2))
        np.testing.assert_array_equal(again, first)
        assert np.abs(other - first).mean() > 0.1

    def test_global_random_state_is_neither_read_nor_changed(
        self, colorizer: ChromaSampler, lightness: np.ndarray
    ) -> None:
        state = torch.get_rng_state()
        how = QUICK.override(seed=1, sampler="ddpm")
        first = colorizer.colorize(lightness, how)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(1)
        again = colorizer.colorize(lightness, how)
        np.testing.assert_array_equal(again, first)

    def test_colors_follow_the_picture(
        self, colorizer: ChromaSampler, lightness: np.ndarray
    ) -> None:
        """A negative does not get the colors of its positive."""
        first = colorizer.colorize(lightness, QUICK)
        assert np.abs(first).mean() > 1
        assert np.abs(colorizer.colorize(100 - lightness, QUICK) - first).mean() > 0.1

    def test_saturation_scales_chroma(
        self, colorizer: ChromaSampler, lightness: np.ndarray
    ) -> None:
        ab = colorizer.colorize(lightness, QUICK)
        half = colorizer.colorize(lightness, QUICK.override(saturation=0.5))
        none = colorizer.colorize(lightness, QUICK.override(saturation=0))
        np.testing.assert_allclose(half, ab / 2, atol=1e-4)
        assert not none.any()


class TestDraw:
    @pytest.mark.parametrize(
        ("sampler", "temperature"),
        [("dpm_solver_pp_2m", 1.0), ("ddim", 1.0), ("ddpm", 1.0), ("ddim", 0.5)],
    )
    def test_one_step_is_the_denoiser_in_pure_noise(
        self, colorizer: ChromaSampler, lightness: np.ndarray, sampler: str, temperature: float
    ) -> None:
        L = lightness[None, :64, :96]
        seeded = torch.Generator().manual_seed(5)
        noise = noise_source((1, 2, 32, 48), [seeded], temperature)()
        denoiser = colorizer.denoiser
        cond = denoiser.encode(torch.from_numpy(L)[:, None])
        x_0 = denoiser(SIGMA_MAX * noise, torch.tensor([SIGMA_MAX]), cond)
        expected = x_0[0].permute(1, 2, 0).numpy() * np.array(colorizer.config.ab_std)
        how = UNTUNED.override(steps=1, seed=5, sampler=sampler, temperature=temperature)
        ab = colorizer.draw(L, how)
        assert ab.shape == (1, 32, 48, 2)
        np.testing.assert_allclose(ab[0], expected, atol=1e-3)

    def test_pictures_of_a_batch_differ_in_noise(
        self, colorizer: ChromaSampler, lightness: np.ndarray
    ) -> None:
        twice = np.stack([lightness[:64, :64]] * 2)
        first, second = colorizer.draw(twice, QUICK)
        assert np.abs(first - second).mean() > 0.1

    def test_temperature_scales_the_noise(
        self, colorizer: ChromaSampler, lightness: np.ndarray
    ) -> None:
        L = lightness[:64, :64]
        far, near, nearest = (
            [
                colorizer.colorize(L, UNTUNED.override(steps=4, seed=s, temperature=t))
                for s in (0, 1)
            ]
            for t in (1.0, 0.5, 0.0)
        )
        apart = [float(np.abs(a - b).mean()) for a, b in (far, near, nearest)]
        assert apart[0] > 1.2 * apart[1] > 0
        assert apart[2] == 0

    def test_estimates_are_fetched_from_the_device_for_who_watches(
        self, colorizer: ChromaSampler, lightness: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched = []
        fetch = module.chroma_of
        monkeypatch.setattr(module, "chroma_of", lambda *a: fetched.append(a) or fetch(*a))
        colorizer.colorize(lightness, UNTUNED.override(steps=3))
        assert len(fetched) == 1  # the result
        colorizer.colorize(lightness, UNTUNED.override(steps=3), on_step=lambda *_: None)
        assert len(fetched) == 1 + 3 + 1

    def test_size_that_is_no_multiple_of_the_stride(self, colorizer: ChromaSampler) -> None:
        with pytest.raises(ValueError, match=r"multiples of 16, got \(64, 70\)"):
            colorizer.draw(np.zeros((1, 64, 70), np.float32), UNTUNED.override(steps=1))
