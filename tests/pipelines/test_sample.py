"""The sample stage alone: what it colors, and what it need not color again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow_server import save_params, small_project

from colorized.model.released import RELEASED

pytestmark = pytest.mark.slow


def sample(folder: Path) -> bytes:
    """Run the stage; the crops in colors of the released weights."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.sample"]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    return (folder / "data" / "samples" / "released.npy").read_bytes()


def test_released_weights_color_the_same_crops_once(tmp_path: Path) -> None:
    folder = small_project(tmp_path / "project")
    values = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    values["sample"] |= {"pictures": 3, "diversity_pictures": 1, "diversity_draws": 2}
    save_params(folder, values)
    shutil.copy(RELEASED, folder / "models" / "colorized.safetensors")
    colored = sample(folder)
    # The same weights give the same colors.
    assert (folder / "data" / "samples" / "model.npy").read_bytes() == colored
    (kept,) = (folder / "data" / "before").iterdir()
    marked = colored[:-1] + bytes([colored[-1] ^ 1])
    kept.write_bytes(marked)
    assert sample(folder) == marked
    values["sample"]["seed"] = 100
    save_params(folder, values)
    assert sample(folder) not in (marked, colored)
    assert len(list(kept.parent.iterdir())) == 1
