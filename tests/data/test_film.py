"""Film: what each emulsion sees, and that every picture stays within black and white."""

import numpy as np
import pytest

from colorized import color
from colorized.data import film


def patches() -> np.ndarray:
    """Linear light of red, green and blue patches of equal luminance."""
    lab = np.array([[[50, 60, 40], [50, -50, 45], [50, 0, -45]]], np.float32)
    linear = color.lab_to_linear(lab).clip(0, 1)
    return linear.repeat(16, 0).repeat(16, 1)


def levels(monkeypatch: pytest.MonkeyPatch, name: str) -> list[float]:
    """Mean L* of the three patches on many films of one emulsion."""
    monkeypatch.setattr(film, "EMULSIONS", {name: (film.EMULSIONS[name][0], 1.0)})
    shown = np.mean([film.expose(patches(), np.random.default_rng(i)) for i in range(60)], axis=0)
    monkeypatch.undo()
    return [float(shown[:, 16 * i : 16 * i + 16].mean()) for i in range(3)]


def test_emulsions_see_colors_of_equal_luminance_as_they_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    red, green, blue = levels(monkeypatch, "blue-sensitive")
    assert blue > max(red, green) + 30
    red, green, blue = levels(monkeypatch, "orthochromatic")
    assert red < min(green, blue) - 10
    assert np.ptp(levels(monkeypatch, "panchromatic")) < 20


def test_films_differ_repeat_and_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    light = rng.random((40, 56, 3)).astype(np.float32) ** 2
    shown = [film.expose(light, np.random.default_rng(i)) for i in range(40)]
    assert all(s.shape == (40, 56) and s.dtype == np.float32 for s in shown)
    assert all(s.min() >= 0 and s.max() <= 100 for s in shown)
    assert np.array_equal(shown[3], film.expose(light, np.random.default_rng(3)))
    assert np.std([s.mean() for s in shown]) > 3
    assert np.isfinite(film.expose(np.zeros((20, 20, 3), np.float32), rng)).all()
