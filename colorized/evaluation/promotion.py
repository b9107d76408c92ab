"""Whether a new model replaces the champion: pure functions of measurements.

Both are measured under one `Protocol`, on validation pictures, several times with different noise.
A model's FID is the mean over these draws. The uncertainty of the difference of two models comes
from a bootstrap over photographs, the same for both (see `metrics.interval`). With margin m a
challenger is promoted when FID ≤ FID(champion) (1 - m) and the 95 % interval of the difference lies
below 0, and when it meets what every model must meet: finite colors, not grayed out, a lower paired
KID than that of no colors. The last is not FID, which with few pictures favors gray: a plausible
color that is not the true one counts against a model.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from colorized.evaluation import metrics

RESAMPLES = 200


@dataclass(frozen=True)
class Protocol:
    """All that a measured FID depends on besides the weights.

    `data_sha256` is of the pictures measured on, `seeds` begin the draws, one after another. Of
    the options for sampling, None is what a model's own weights say.
    """

    data_sha256: str
    pictures: int
    image_size: int
    seeds: tuple[int, ...]
    sampler: str | None
    steps: int | None
    guidance: float | None
    temperature: float | None
    extractor_sha256: str

    @property
    def hash(self) -> str:
        """16 hexadecimal digits: numbers of two models compare only where these are the same."""
        described = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Reference:
    """The pictures that models are measured on, N crops of fewer photographs.

    `true` and `gray` are the features (N, D) of their true colors and of no colors, `photographs`
    says which photograph each is a crop of, `colorfulness` is that of the true colors.
    """

    true: NDArray[np.float32]
    gray: NDArray[np.float32]
    photographs: NDArray[np.str_]
    colorfulness: float


@dataclass(frozen=True)
class Measured:
    """Measurements of a model's colors of the protocol's pictures.

    `features` (K, N, D), float16, are those of each draw, K is 0 where the colors are not finite.
    Colorfulness is the mean over all draws.
    """

    features: NDArray[np.float16]
    colorfulness: float

    @property
    def finite(self) -> bool:
        """Whether all colors are finite."""
        return len(self.features) > 0 and math.isfinite(self.colorfulness)

    def to_bytes(self) -> bytes:
        """A file that `from_bytes` reads."""
        file = io.BytesIO()
        np.savez_compressed(file, features=self.features, colorfulness=self.colorfulness)
        return file.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Measured:
        """What `to_bytes` wrote.

        Raises ValueError for anything else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                return Measured(found["features"], float(found["colorfulness"]))
        except (KeyError, OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"not what was measured of a model: {error}") from error


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger is the new champion, and why, in sentences; FIDs by their name."""

    promoted: bool
    reasons: list[str]
    fids: dict[str, float]


def verdict(
    challenger: Measured,
    champion: Measured | None,
    reference: Reference,
    margin: float,
    min_colorfulness: float,
    on_resample: Callable[[], object] = lambda: None,
) -> Verdict:
    """Judge a challenger; without a champion, by what every model must hold alone.

    Raises ValueError for a margin or share outside 0 … 1, or fewer than two photographs.

    Parameters
    ----------
    margin
        Share by which FID must be lower than the champion's, 0 … 1.
    min_colorfulness
        Share of the true pictures' colorfulness under which a model grays out.
    on_resample
        Called after each of the `RESAMPLES`.
    """
    for name, value in (("margin", margin), ("min_colorfulness", min_colorfulness)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in 0 … 1, got {value}")
    if not (challenger.finite and np.isfinite(challenger.features).all()):
        return Verdict(False, ["its colors are not finite"], {})
    gray = metrics.frechet_distance(reference.gray, reference.true)
    fids = {"challenger": _fid(challenger, reference), "monochrome": gray}
    against = []
    least = min_colorfulness * reference.colorfulness
    if challenger.colorfulness < least:
        against.append(
            f"grayed out: colorfulness {challenger.colorfulness:.1f} is below {least:.1f}, "
            f"{min_colorfulness:.0%} of the true pictures'"
        )
    shown = f"FID {fids['challenger']:.2f}"
    kids = [metrics.paired_kid(draw, reference.true) for draw in challenger.features]
    floor = metrics.paired_kid(reference.gray, reference.true)
    if not np.mean(kids) < floor:
        against.append(f"no better than no colors: KID {np.mean(kids):.4f}, monochrome {floor:.4f}")
    if champion is None:
        return Verdict(not against, against or [f"there is no champion yet: {shown}"], fids)
    fids["champion"] = _fid(champion, reference)

    def gap(weights: NDArray[np.float64]) -> float:
        on_resample()
        return _fid(challenger, reference, weights) - _fid(champion, reference, weights)

    rng = np.random.default_rng(0)
    low, high = metrics.interval(gap, list(reference.photographs), RESAMPLES, rng)
    compared = (
        f"{shown}, the champion's {fids['champion']:.2f}, difference "
        f"{fids['challenger'] - fids['champion']:+.2f} ({low:+.2f} … {high:+.2f})"
    )
    if not fids["challenger"] <= fids["champion"] * (1 - margin):
        against.append(f"not better by {margin:.1%}: {compared}")
    elif high >= 0:
        against.append(f"not better beyond chance, by a bootstrap over photographs: {compared}")
    return Verdict(not against, against or [f"better: {compared}"], fids)


def _fid(
    model: Measured, reference: Reference, weights: NDArray[np.float64] | None = None
) -> float:
    """The mean over a model's draws; `weights` say how often each picture counts."""
    draws = [metrics.frechet_distance(draw, reference.true, weights) for draw in model.features]
    return float(np.mean(draws))
