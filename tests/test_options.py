"""Options for sampling: checked once, and by default those of the weights file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from colorized.cli import app
from colorized.inference.colorizer import ChromaSampler
from colorized.model.header import CheckpointError, sampling_defaults
from colorized.model.weights import (
    RELEASED,
    ModelConfig,
    load_weights,
    save_weights,
)
from colorized.options import LIMITS, UNTUNED, SamplingOptions
from colorized.photo import provenance, read_xmp

CONFIG = ModelConfig((8, 16, 32), 16, 32, 1, "cosine", 100, (15.5, 18.25), 64)
TUNED = SamplingOptions(steps=3, sampler="ddim", guidance=2.0, temperature=0.5, saturation=1.5)
PHOTO = next((Path(__file__).parents[1] / "data" / "sample" / "photos").glob("*.jpg"))


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    config = replace(CONFIG, sampling=TUNED)
    save_weights(path, config.build().network.state_dict(), config, {"steps": 4}, packed=True)
    return path


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *[({name: high + 1}, f"{name} must be in ") for name, (_, high) in LIMITS.items()],
        *[({name: low - 1}, f"{name} must be in ") for name, (low, _) in LIMITS.items()],
        ({"guidance": float("nan")}, "guidance must be in 0 … 10, got nan"),
        ({"steps": 2.0}, "steps must be a whole number, got 2.0"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"temperature": "1"}, "temperature must be a number, got '1'"),
        ({"sampler": "euler"}, "sampler must be one of dpm_solver_pp_2m, .* got 'euler'"),
    ],
)
def test_impossible_options_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNTUNED.override(**given)


def test_none_keeps_what_was(tuned: Path) -> None:
    assert sampling_defaults(tuned).override(steps=None, seed=0, guidance=None) == TUNED


def test_more_than_few_steps_are_of_the_ordinary_sampler() -> None:
    few = SamplingOptions(2, "consistency", 1.4, temperature=0.9, seed=7, saturation=1.2)
    assert few.override(steps=1, guidance=1.0) == replace(few, steps=1, guidance=1.0)
    assert few.override(steps=3) == replace(UNTUNED, steps=3, seed=7)
    assert few.override(steps=3, guidance=2.0).guidance == 2
    assert few.override(steps=3, sampler="consistency") == replace(few, steps=3)


def test_weights_without_tuned_options(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_weights(path, CONFIG.build().network.state_dict(), CONFIG, {}, packed=True)
    assert load_weights(path).config.sampling == sampling_defaults(path) == UNTUNED


def test_impossible_options_in_a_file(tuned: Path, tmp_path: Path) -> None:
    data = tuned.read_bytes()
    tuned.write_bytes(data.replace(b'\\"sampler\\": \\"ddim\\"', b'\\"sampler\\": \\"euly\\"'))
    for read in (sampling_defaults, load_weights):
        with pytest.raises(CheckpointError, match=r"w\.safetensors: .* got 'euly'"):
            read(tuned)
    with pytest.raises(CheckpointError, match="no such weights file"):
        sampling_defaults(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(CheckpointError, match="not a safetensors file or a damaged one"):
        sampling_defaults(tmp_path / "text.safetensors")


def test_released_weights_are_tuned() -> None:
    assert sampling_defaults(RELEASED) == load_weights(RELEASED).config.sampling != UNTUNED


def test_the_command_colors_as_the_weights_say(tuned: Path, tmp_path: Path) -> None:
    assert ChromaSampler(load_weights(tuned)).defaults == TUNED
    command = [
        "colorize",
        str(PHOTO),
        "-o",
        str(tmp_path / "out"),
        "--weights",
        str(tuned),
        "--recolor",
    ]
    done = CliRunner().invoke(app, [*command, "--workers", "0", "--guidance", "1"])
    assert done.exit_code == 0, done.output
    made = provenance.parse(read_xmp(tmp_path / "out" / PHOTO.name))
    assert made is not None
    assert {name: getattr(made, name) for name in (*LIMITS, "sampler")} == {
        "steps": 3, "sampler": "ddim", "guidance": 1, "temperature": 0.5, "seed": 0,
        "saturation": 1.5,
    }  # fmt: skip
