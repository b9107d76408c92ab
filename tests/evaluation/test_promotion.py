"""The gate, on features by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from colorized.evaluation.promotion import Measured, Protocol, Reference, verdict

PROTOCOL = Protocol("0" * 64, 100, 128, (0, 100), "ddim", 10, 1.5, 0.8, "1" * 64)
RNG = np.random.default_rng(0)
PHOTOGRAPHS = np.repeat([f"photograph {k}" for k in range(20)], 3)
TRUE = RNG.normal(size=(60, 8)).astype(np.float32)
REFERENCE = Reference(TRUE, TRUE + 4, PHOTOGRAPHS, 50.0)


def model(*shifts: float, first: float = 0.0, colorfulness: float = 40.0) -> Measured:
    """Of draws that are off by `shift`, which gives FID 8 shift²; and the first photograph more."""
    draws = np.array([TRUE + shift for shift in shifts])
    draws[:, :3] += first
    return Measured(draws.astype(np.float16), colorfulness)


CHAMPION = model(2.0, 2.0)


def test_measured_goes_through_a_file() -> None:
    again = Measured.from_bytes(CHAMPION.to_bytes())
    np.testing.assert_array_equal(again.features, CHAMPION.features)
    assert again.colorfulness == CHAMPION.colorfulness
    for data in (b"", b"words", CHAMPION.to_bytes()[:-100]):
        with pytest.raises(ValueError, match="not what was measured"):
            Measured.from_bytes(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_sha256", "2" * 64), ("pictures", 99), ("image_size", 64), ("seeds", (0, 100, 200)),
        ("sampler", "ddpm"), ("steps", 11), ("guidance", 1.0), ("temperature", 1.0),
        ("extractor_sha256", "3" * 64),
    ],
)  # fmt: skip
def test_hash_names_the_protocol(key: str, value: object) -> None:
    assert PROTOCOL.hash == replace(PROTOCOL).hash
    assert replace(PROTOCOL, **{key: value}).hash != PROTOCOL.hash  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("challenger", "margin", "promoted", "reason"),
    [
        # The champion's FID is 8 × 2² = 32.
        (model(1.0, 1.0), 0.1, True, "better: FID 8.00, the champion's 32.00, difference -24.00 ("),
        (model(1.0, 2.0), 0.1, True, "better: FID 20.00"),  # the mean of the draws counts
        (model(1.99, 1.99), 0.1, False, "not better by 10.0%"),
        (model(2.0, 2.0), 0.0, False, "not better beyond chance"),
        (model(3.0, 3.0), 0.0, False, "not better by 0.0%"),
        # Better on the whole, but for one photograph worse.
        (model(2.02, 2.02, first=-2.0), 0.01, False, "not better beyond chance"),
    ],
)
def test_against_a_champion(
    challenger: Measured, margin: float, promoted: bool, reason: str
) -> None:
    found = verdict(challenger, CHAMPION, REFERENCE, margin, 0.5)
    assert found.promoted is promoted, found
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith(reason)


@pytest.mark.parametrize("champion", [None, CHAMPION])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Measured(np.zeros((0, 0, 0), np.float16), 0.0), "not finite"),
        (Measured(np.full((1, 60, 8), math.nan, np.float16), 40.0), "not finite"),
        (model(1.0, colorfulness=math.nan), "not finite"),
        (model(1.0, colorfulness=24.9), "grayed out: colorfulness 24.9 is below 25.0"),
        (model(4.1), "no better than no colors"),
    ],
)
def test_what_every_model_must_hold(bad: Measured, champion: Measured | None, reason: str) -> None:
    found = verdict(bad, champion, REFERENCE, 0.0, 0.5)
    assert not found.promoted
    assert reason in found.reasons[0]


def test_first_model_needs_no_champion() -> None:
    found = verdict(model(3.9), None, REFERENCE, 0.9, 0.5)
    assert found.promoted
    assert found.reasons[0].startswith("there is no champion yet: FID 121.")


def test_one_photograph_does_not_decide() -> None:
    one = replace(REFERENCE, photographs=np.repeat("the only", 60))
    with pytest.raises(ValueError, match="at least 2 photographs"):
        verdict(model(1.0), CHAMPION, one, 0.0, 0.5)


@pytest.mark.parametrize(("margin", "share"), [(-0.1, 0.5), (1.0, 0.5), (0.1, math.nan)])
def test_impossible_margins(margin: float, share: float) -> None:
    with pytest.raises(ValueError, match="must be in 0 … 1"):
        verdict(CHAMPION, None, REFERENCE, margin, share)
