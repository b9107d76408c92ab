"""Whether a new model takes the champion's place: pure functions of what was measured.

Both are measured under one `Protocol`, on pictures that no training has seen, several times with
different noise. A model's FID is the mean over these draws; their standard deviation is its noise
band. With margin m a challenger is promoted when

    FID ≤ FID_champion (1 - m)   and   FID + band < FID_champion - band_champion,

and when it holds what every model must hold: finite colors, not grayed out, better than no colors.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from dataclasses import asdict, dataclass


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
class Measured:
    """What a model's colors of the protocol's pictures are like.

    `fid` has a value for each seed, none where the colors are not `finite`. Colorfulness is the
    mean over all draws; `fid_monochrome` is that of the pictures without colors.
    """

    fid: tuple[float, ...]
    fid_monochrome: float
    colorfulness: float
    colorfulness_real: float
    finite: bool

    @property
    def mean(self) -> float:
        """Mean FID over the seeds."""
        return statistics.fmean(self.fid) if self.fid else math.nan

    @property
    def band(self) -> float:
        """Standard deviation of FID over the seeds, √(Σ (x - x̄)² / (K - 1)); 0 for one seed."""
        return statistics.stdev(self.fid) if len(self.fid) > 1 else 0.0

    def to_json(self) -> str:
        """For a tag; `from_json` reads it."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Measured:
        """What `to_json` wrote.

        Raises
        ------
        ValueError
            For anything else.
        """
        try:
            values = json.loads(text)
            return Measured(**(values | {"fid": tuple(values["fid"])}))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not what was measured of a model: {error}") from error


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger is the new champion, and why, in sentences."""

    promoted: bool
    reasons: list[str]


def verdict(
    challenger: Measured, champion: Measured | None, margin: float, min_colorfulness: float
) -> Verdict:
    """Judge a challenger; without a champion, by what every model must hold alone.

    Parameters
    ----------
    margin
        Share by which FID must be lower than the champion's, 0 … 1.
    min_colorfulness
        Share of the true pictures' colorfulness under which a model grays out.

    Raises
    ------
    ValueError
        For a margin or share outside 0 … 1.
    """
    for name, value in (("margin", margin), ("min_colorfulness", min_colorfulness)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in 0 … 1, got {value}")
    numbers = (*challenger.fid, challenger.fid_monochrome, challenger.colorfulness)
    if not (challenger.finite and challenger.fid and all(math.isfinite(n) for n in numbers)):
        return Verdict(False, ["its colors are not finite"])
    against = []
    least = min_colorfulness * challenger.colorfulness_real
    if challenger.colorfulness < least:
        against.append(
            f"grayed out: colorfulness {challenger.colorfulness:.1f} is below {least:.1f}, "
            f"{min_colorfulness:.0%} of the true pictures'"
        )
    shown = f"FID {challenger.mean:.2f} ± {challenger.band:.2f}"
    if not challenger.mean + challenger.band < challenger.fid_monochrome:
        against.append(
            f"no better than no colors: {shown}, monochrome {challenger.fid_monochrome:.2f}"
        )
    if champion is None:
        return Verdict(not against, against or [f"there is no champion yet: {shown}"])
    compared = f"{shown}, the champion's {champion.mean:.2f} ± {champion.band:.2f}"
    if not challenger.mean <= champion.mean * (1 - margin):
        against.append(f"not better by {margin:.1%}: {compared}")
    elif not challenger.mean + challenger.band < champion.mean - champion.band:
        against.append(f"not better beyond the noise of sampling: {compared}")
    return Verdict(not against, against or [f"better: {compared}"])
