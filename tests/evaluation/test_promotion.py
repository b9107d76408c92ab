"""The gate, on numbers by hand."""

import math
from dataclasses import replace

import pytest

from colorized.evaluation.promotion import Measured, Protocol, verdict

PROTOCOL = Protocol("0" * 64, 100, 128, (0, 100), "ddim", 10, 1.5, 0.8, "1" * 64)
CHAMPION = Measured(
    fid=(79.0, 81.0), fid_monochrome=95.0, colorfulness=40.0, colorfulness_real=50.0, finite=True
)


def challenger(*fid: float, **others: float) -> Measured:
    return replace(CHAMPION, fid=fid, **others)


def test_mean_and_band() -> None:
    assert CHAMPION.mean == 80
    assert CHAMPION.band == pytest.approx(math.sqrt(2))  # (1² + 1²) / (2 - 1)
    assert challenger(70).band == 0
    assert math.isnan(challenger().mean)


def test_measured_goes_through_a_tag() -> None:
    assert Measured.from_json(CHAMPION.to_json()) == CHAMPION
    for text in ("", "[]", "{}", '{"fid": 3}', CHAMPION.to_json().replace("finite", "final")):
        with pytest.raises(ValueError, match="not what was measured"):
            Measured.from_json(text)


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
    ("fid", "margin", "promoted", "reason"),
    [
        ((71.0, 73.0), 0.1, True, "better: FID 72.00 ± 1.41, the champion's 80.00 ± 1.41"),
        ((72.0, 74.0), 0.1, False, "not better by 10.0%"),  # 73 > 80 × 0.9
        ((72.0, 74.0), 0.08, True, "better"),
        # 78 ± 1.41 reaches 79.41, the champion's band begins at 78.59.
        ((77.0, 79.0), 0.01, False, "not better beyond the noise of sampling"),
        ((78.0,), 0.01, True, "better"),  # without a band of its own it does not
        ((60.0, 84.0), 0.05, False, "not better beyond the noise"),  # 72 ± 17
        ((80.0, 80.0), 0.0, False, "not better beyond the noise"),
        ((90.0, 91.0), 0.0, False, "not better by 0.0%"),
    ],
)
def test_against_a_champion(
    fid: tuple[float, ...], margin: float, promoted: bool, reason: str
) -> None:
    found = verdict(challenger(*fid), CHAMPION, margin, 0.5)
    assert found.promoted is promoted
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith(reason)


@pytest.mark.parametrize("champion", [None, CHAMPION])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (challenger(finite=False), "not finite"),
        (challenger(math.nan, 20.0), "not finite"),
        (challenger(20.0, math.inf), "not finite"),
        (challenger(20.0, 20.0, colorfulness=math.nan), "not finite"),
        (challenger(20.0, 20.0, colorfulness=24.9), "grayed out: colorfulness 24.9 is below 25.0"),
        (challenger(94.0, 96.0), "no better than no colors"),
        (challenger(93.0, 95.0), "no better than no colors"),  # 94 ± 1.4 is not below 95
    ],
)
def test_what_every_model_must_hold(bad: Measured, champion: Measured | None, reason: str) -> None:
    found = verdict(bad, champion, 0.0, 0.5)
    assert not found.promoted
    assert reason in found.reasons[0]


def test_first_model_needs_no_champion() -> None:
    found = verdict(challenger(94.0, 94.5), None, 0.9, 0.5)
    assert found.promoted
    assert found.reasons == ["there is no champion yet: FID 94.25 ± 0.35"]


@pytest.mark.parametrize(("margin", "share"), [(-0.1, 0.5), (1.0, 0.5), (0.1, math.nan)])
def test_impossible_margins(margin: float, share: float) -> None:
    with pytest.raises(ValueError, match="must be in 0 … 1"):
        verdict(CHAMPION, None, margin, share)
