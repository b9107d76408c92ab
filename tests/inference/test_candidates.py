"""Several colorings of one photograph: what is picked, in which order, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from colorized import color
from colorized.inference import contact_sheet
from colorized.inference.candidates import Candidates, pick
from colorized.inference.colorizer import MAX_BATCH, ChromaSampler
from colorized.options import UNTUNED

QUICK = UNTUNED.override(steps=2)
PHOTO = Path(__file__).parents[2] / "data" / "sample" / "photos" / "macaw.jpg"


class TestPick:
    """Colorings of one pixel of one color each, so that distances are those of points."""

    @staticmethod
    def of(points: list[tuple[float, float]], count: int) -> Candidates:
        ab = np.array(points, np.float32)[:, None, None, :]
        return pick(ab, range(100, 100 + len(points)), count)

    def test_the_most_typical_first_then_the_most_different(self) -> None:
        """Three reds, a green and a blue: a red, then the two others, by distance from all."""
        picked = self.of([(40, 0), (42, 0), (41, 3), (-30, 0), (0, -60)], 3)
        assert picked.seeds == (100, 103, 104)
        np.testing.assert_array_equal(picked.ab[:, 0, 0], [(40, 0), (-30, 0), (0, -60)])

    def test_equal_ones_are_not_picked_twice(self) -> None:
        picked = self.of([(1, 1)] * 4, 4)
        assert sorted(picked.seeds) == [100, 101, 102, 103]
        assert not picked.uncertainty.any()

    def test_one(self) -> None:
        picked = self.of([(7, 7)], 1)
        assert (picked.seeds, picked.distances) == ((100,), (0,))
        assert not picked.uncertainty.any()

    def test_scipy_agrees(self) -> None:
        from scipy.spatial.distance import pdist, squareform

        ab = np.random.default_rng(0).normal(0, 20, (9, 5, 7, 2)).astype(np.float32)
        picked = pick(ab, range(9), 9)
        between = np.mean([squareform(pdist(ab[:, y, x])) for y in range(5) for x in range(7)], 0)
        np.testing.assert_allclose(picked.distances, sorted(between.sum(1) / 8), rtol=1e-5)
        assert picked.uncertainty.mean() == pytest.approx(between.sum() / 72, rel=1e-5)


@pytest.fixture(scope="module")
def lightness() -> np.ndarray:
    with Image.open(PHOTO) as image:
        return color.lightness(np.asarray(image.convert("RGB")).astype(np.float32) / 255)


class TestColorizer:
    @pytest.mark.parametrize("sampler", ["dpm_solver_pp_2m", "ddpm"])
    def test_a_seed_gives_the_same_colors_alone(
        self, colorizer: ChromaSampler, lightness: np.ndarray, sampler: str
    ) -> None:
        """Up to the last digits: a batch is added up in another order."""
        how = UNTUNED.override(steps=3, seed=5, sampler=sampler)
        drawn = colorizer.candidates(lightness, 3, how)
        assert set(drawn.seeds) <= set(range(5, 11))
        for ab, seed in zip(drawn.ab, drawn.seeds, strict=True):
            alone = colorizer.candidates(lightness, 1, how.override(seed=seed))
            assert alone.seeds == (seed,)
            np.testing.assert_allclose(alone.ab[0], ab, atol=0.01)
            whole = colorizer.colorize(lightness, how.override(seed=seed))
            np.testing.assert_allclose(colorizer.enlarge(ab, lightness), whole, atol=0.02)

    def test_the_guide_stands_for_the_photograph(
        self, colorizer: ChromaSampler, lightness: np.ndarray
    ) -> None:
        guide = colorizer.guide(lightness)
        assert colorizer.guide_size(*guide.shape) == guide.shape
        small = colorizer.candidates(guide, 1, QUICK)
        whole = colorizer.candidates(lightness, 1, QUICK)
        np.testing.assert_array_equal(small.ab, whole.ab)

    def test_progress(self, colorizer: ChromaSampler, lightness: np.ndarray) -> None:
        count = MAX_BATCH // 2 + 1  # two batches
        seen: list[tuple[int, int, int]] = []
        drawn = colorizer.candidates(
            lightness, count, QUICK,
            on_step=lambda i, n, ab: seen.append((i, n, len(ab))),
        )  # fmt: skip
        assert len(drawn.ab) == count
        assert seen == [(1, 4, MAX_BATCH), (2, 4, MAX_BATCH), (3, 4, 2), (4, 4, 2)]

    def test_estimates_come_near_the_end_and_an_error_ends_it(
        self, colorizer: ChromaSampler, lightness: np.ndarray
    ) -> None:
        estimates: list[np.ndarray] = []
        how = UNTUNED.override(steps=4)
        final = colorizer.colorize(lightness, how, on_step=lambda i, n, ab: estimates.append(ab))
        assert [e.ndim for e in estimates] == [3] * 4
        np.testing.assert_array_equal(colorizer.enlarge(estimates[-1], lightness), final)
        errors = [np.abs(e - estimates[-1]).mean() for e in estimates]
        assert errors == sorted(errors, reverse=True)

        class Left(Exception):
            pass

        def leave(i: int, n: int, ab: np.ndarray) -> None:
            if i == 2:
                raise Left

        with pytest.raises(Left):
            colorizer.colorize(lightness, how, on_step=leave)

    @pytest.mark.parametrize("count", [0, -1])
    def test_none(self, colorizer: ChromaSampler, lightness: np.ndarray, count: int) -> None:
        with pytest.raises(ValueError, match=f"count must be at least 1, got {count}"):
            colorizer.candidates(lightness, count, UNTUNED.override(steps=1))

    def test_the_largest_seed(self, colorizer: ChromaSampler, lightness: np.ndarray) -> None:
        drawn = colorizer.candidates(lightness, 2, UNTUNED.override(steps=1, seed=2**63 - 1))
        assert set(drawn.seeds) <= {2**63 - 1, 0, 1, 2}


class TestSheets:
    def test_contact_sheet(self, colorizer: ChromaSampler, lightness: np.ndarray) -> None:
        guide = colorizer.guide(lightness)
        drawn = colorizer.candidates(guide, 3, QUICK)
        sheet = contact_sheet.contact_sheet(drawn, guide)
        height, width = sheet.shape[:2]
        assert height > 2 * 250 and width > 2 * 320  # four pictures in two lines
        first, second = sheet[30:278, 8:328], sheet[30:278, 336:656]
        assert np.ptp(first.astype(int), axis=-1).max() == 0  # the photograph, without color
        assert np.ptp(second.astype(int), axis=-1).max() > 20

    @pytest.mark.parametrize("size", [(2, 16), (16, 2), (1, 1)])
    def test_of_any_shape(self, size: tuple[int, int]) -> None:
        h, w = size
        guide = np.full((2 * h, 2 * w), 50, np.float32)
        drawn = Candidates(
            np.zeros((2, h, w, 2), np.float32), (1, 2**63 - 1), (1, 2), np.zeros(size, np.float32)
        )
        assert contact_sheet.contact_sheet(drawn, guide).ndim == 3
        assert contact_sheet.uncertainty_map(drawn.uncertainty, 2 * h, 2 * w).shape[1] == 2 * w

    def test_uncertainty_map_is_read_by_its_scale(self) -> None:
        """A value's color is that of the scale where the scale says the value."""
        values = np.array([[0, 10, 20, 30, 39.9, 80]], np.float32)
        drawn = contact_sheet.uncertainty_map(values.repeat(6, 0), 600, 600)
        picture, bar = drawn[:600], drawn[616]
        inner = bar[16:584]
        for i, value in enumerate((0, 10, 20, 30, 39.9, 40)):
            at = round(value / 40 * (len(inner) - 1))
            found = picture[300, 100 * i + 50].astype(int)
            assert np.abs(found - inner[at]).max() <= 4
        at = np.linspace(0, 1, len(inner))
        expected = matplotlib.colormaps["inferno"](at)[:, :3] * 255
        assert np.abs(inner - expected).max() <= 6
        brightness = inner.astype(float) @ (0.2, 0.7, 0.1)
        assert (np.diff(brightness) >= -0.8).all() and brightness[-1] - brightness[0] > 200
