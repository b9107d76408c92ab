"""What several test modules share: no telemetry, no store but a test's own, a few real crops."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

# Scripts that are tested.
sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("docs", "benchmarks"))
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ |= {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # also of a shell
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

from colorized import cli
from colorized.data import sources
from colorized.data.dataset import Shard
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import RELEASED, load_weights

# Shells start what goes to the background with Ctrl-C ignored, which our processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

PHOTOS = Path(__file__).resolve().parents[1] / "data" / "sample" / "photos"


@pytest.fixture(scope="session")
def shard() -> Shard:
    """Two crops of each of three embedded photographs, 32 pixels a side: blue, red, green."""
    settings = sources.CropSettings(
        32, dict.fromkeys(sources.SPLITS, 2), 0.5, 0.1, 0.1, seed=0, min_chroma=2, lookalike_bits=8
    )
    paths = [PHOTOS / f"{name}.jpg" for name in ("angelfish", "dahlia", "cat")]
    source = sources.photographs(paths, PHOTOS)
    crops = [source.cut(number, 2, settings) for number in range(len(paths))]
    return Shard(np.concatenate([c.L for c in crops]), np.concatenate([c.ab for c in crops]))


@pytest.fixture(scope="session")
def colorizer() -> ChromaSampler:
    """The released weights, loaded once."""
    return ChromaSampler(load_weights(RELEASED))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


class Result(NamedTuple):
    code: int
    out: list[str]
    err: list[str]


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["colorized", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        assert isinstance(exit.value.code, int)
        captured = capsys.readouterr()
        return Result(exit.value.code, captured.out.splitlines(), captured.err.splitlines())

    return run
