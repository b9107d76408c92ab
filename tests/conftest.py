"""What several test modules share: no telemetry, no store but a test's own, a few real crops."""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ |= {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

from colorized.data import sources
from colorized.data.dataset import Shard

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
